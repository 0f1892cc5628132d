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
# The tests in a window run beside the others, each with one thread of torch: together they take
# little more than the longer one, on two cores.
export OMP_NUM_THREADS=1
log=.venv/window-tests.log
phase "pytest, in a window" sh scripts/with_screen.sh \
    .venv/bin/python -m pytest -m "not slow" tests/viewer -o cache_dir=.venv/window-cache >"$log" 2>&1 &
window=$!
phase "pytest" env QT_QPA_PLATFORM=offscreen .venv/bin/python -m pytest -m "not slow" --ignore tests/viewer ||
    failed="$failed pytest"
wait "$window" || failed="$failed pytest-window"
cat "$log"

if [ -n "$failed" ]; then
    echo "FAILED:$failed" >&2
    exit 1
fi
echo "all checks passed"
