#!/bin/sh
# `make test`: set up what testing needs, then every check; one that fails does not hide the next.
#
# Parts run side by side, each with one thread of torch: one more than there are cores, as the tests
# in a window wait now and then. One that ends makes room for the next.
set -eu
cd "$(dirname "$0")/.."
. scripts/phases.sh

phase "set-up in all" sh scripts/setup.sh test

# Processes that tests start read what the first has compiled.
unset PYTHONDONTWRITEBYTECODE
export OMP_NUM_THREADS=1
# Pages of freed arrays are kept for the next: the GNU C library gives back those of each large one.
export MALLOC_MMAP_THRESHOLD_=1073741824 MALLOC_TRIM_THRESHOLD_=1073741824 MALLOC_TOP_PAD_=67108864
rm -rf .venv/checks
mkdir .venv/checks
cores=$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
# Long ones first, and short ones last: none ends alone by much.
if printf '%s\n' others windows-1 windows-2 learning evaluation commands static |
    phase "all checks" xargs -n 1 -P "$((cores + 1))" sh scripts/check_part.sh; then
    echo "all checks passed"
else
    echo "FAILED: $(cat .venv/checks/*.failed 2>/dev/null | tr '\n' ' ')" >&2
    exit 1
fi
