#!/bin/sh
# `make test`: set up what testing needs, then every check; one that fails does not hide the next.
#
# Two parts run at a time, each with one thread of torch; a core that is free takes the next one.
set -eu
cd "$(dirname "$0")/.."
. scripts/phases.sh

phase "set-up in all" sh scripts/setup.sh test

# Processes that tests start read what the first has compiled.
unset PYTHONDONTWRITEBYTECODE
export OMP_NUM_THREADS=1
rm -rf .venv/checks
mkdir .venv/checks
# The longest first.
if printf '%s\n' window work others learning static |
    phase "all checks" xargs -n 1 -P 2 sh scripts/check_part.sh; then
    echo "all checks passed"
else
    echo "FAILED:" $(cat .venv/checks/*.failed) >&2
    exit 1
fi
