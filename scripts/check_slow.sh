#!/bin/sh
# `make test-slow`: the tests that `make test` leaves out, because they are slow by nature.
#
#   scripts/check_slow.sh [TEST_FILE ...]
#
# File by file: one that fails, or waits for ever, does not hide the next.
set -eu
cd "$(dirname "$0")/.."
. scripts/phases.sh

phase "set-up in all" sh scripts/setup.sh test
phase "set-up of the handbook" sh scripts/setup.sh docs
phase "system packages (browser)" sh scripts/system_packages.sh browser ||
    echo "going on without Chromium: reports are not opened" >&2

slow_tests_of() {
    sh scripts/with_screen.sh .venv/bin/python -m pytest -q -m slow "$1" >"$log" 2>&1
}

export OMP_NUM_THREADS=1
mkdir -p .venv/checks
failed=""
# shellcheck disable=SC2046 # a list of paths
[ "$#" -gt 0 ] || set -- $(grep -rl "mark\.slow" tests | sort)
for file in "$@"; do
    log=.venv/checks/slow-$(basename "$file" .py).log
    if phase "$file" slow_tests_of "$file"; then
        tail -n 1 "$log"
    else
        failed="$failed $file"
        cat "$log"
    fi
done
[ -z "$failed" ] || { echo "FAILED:$failed" >&2; exit 1; }
echo "all slow tests passed"
