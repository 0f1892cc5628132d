#!/bin/sh
# `make test`: set up what testing needs, then every check; one that fails does not hide the next.
set -eu
cd "$(dirname "$0")/.."
. scripts/phases.sh

phase "set-up in all" sh scripts/setup.sh test

failed=""
phase "ruff check" .venv/bin/ruff check . || failed="$failed ruff-check"
phase "ruff format" .venv/bin/ruff format --check . || failed="$failed ruff-format"
phase "numpydoc" .venv/bin/python -W ignore -m numpydoc lint $(find src -name '*.py') ||
    failed="$failed numpydoc"
phase "mypy" .venv/bin/mypy || failed="$failed mypy"
# Two halves beside each other, each with one thread of torch: together they take little more than
# the longer one, on two cores. The second is the tests in a window, then those of learning.
export OMP_NUM_THREADS=1
quick=".venv/bin/python -m pytest -m"
second_half() {
    bad=0
    phase "pytest, in a window" \
        sh scripts/with_screen.sh $quick "not slow" tests/viewer -o cache_dir=.venv/cache-window || bad=1
    export QT_QPA_PLATFORM=offscreen
    phase "pytest, learning" $quick "not slow" tests/learning -o cache_dir=.venv/cache-learning || bad=1
    return "$bad"
}
log=.venv/second-half.log
second_half >"$log" 2>&1 &
other=$!
phase "pytest, all others" env QT_QPA_PLATFORM=offscreen \
    $quick "not slow" --ignore tests/viewer --ignore tests/learning || failed="$failed pytest"
wait "$other" || failed="$failed pytest-second-half"
cat "$log"

if [ -n "$failed" ]; then
    echo "FAILED:$failed" >&2
    exit 1
fi
echo "all checks passed"
