#!/bin/sh
# One part of what scripts/check.sh runs, which sets up what it needs; shown when it has ended.
#
#   scripts/check_part.sh static|window|learning|work|others
set -u
cd "$(dirname "$0")/.."
. scripts/phases.sh

part=$1

check() { # check NAME COMMAND [ARGUMENT ...]
    check_name=$1
    phase "$@" || echo "$check_name" >>".venv/checks/$part.failed"
}

quick_tests() {
    check "pytest-$part" .venv/bin/python -m pytest -m "not slow" -o "cache_dir=.venv/cache-$part" "$@"
}

run_part() {
    export QT_QPA_PLATFORM=offscreen
    case $part in
        static)
            check ruff-check .venv/bin/ruff check .
            check ruff-format .venv/bin/ruff format --check .
            check numpydoc .venv/bin/python -W ignore -m numpydoc lint $(find src -name '*.py')
            check mypy .venv/bin/mypy ;;
        window)
            unset QT_QPA_PLATFORM
            check pytest-window sh scripts/with_screen.sh .venv/bin/python -m pytest \
                -m "not slow" -o cache_dir=.venv/cache-window tests/viewer ;;
        learning) quick_tests tests/learning ;;
        work) quick_tests $work ;;
        others) quick_tests $(printf -- '--ignore %s ' tests/viewer tests/learning $work) ;;
    esac
}

work="tests/evaluation tests/commands tests/phantom tests/cohort"
run_part >".venv/checks/$part.log" 2>&1
cat ".venv/checks/$part.log"
[ ! -e ".venv/checks/$part.failed" ]
