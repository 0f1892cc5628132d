#!/bin/sh
# One part of what scripts/check.sh runs, which sets up what it needs; shown when it has ended.
#
#   scripts/check_part.sh static|windows-1|windows-2|learning|evaluation|commands|others
set -u
cd "$(dirname "$0")/.." || exit
. scripts/phases.sh

part=$1

check() { # check NAME COMMAND [ARGUMENT ...]
    check_name=$1
    phase "$@" || echo "$check_name" >>".venv/checks/$part.failed"
}

tests() { # tests PATH_OR_OPTION ...
    # shellcheck disable=SC2086 # a command and its argument, or nothing
    check "pytest, $part" $screen .venv/bin/python -m pytest -m "not slow" --durations 10 \
        -o "cache_dir=.venv/cache-$part" "$@"
}

# Lists of paths have to be split into words.
# shellcheck disable=SC2046,SC2086
run_part() {
    case $part in
        static)
            check "ruff check" .venv/bin/ruff check .
            check "ruff format" .venv/bin/ruff format --check .
            check numpydoc .venv/bin/python -W ignore scripts/lint_docstrings.py $(find src -name '*.py')
            check mypy .venv/bin/mypy ;;
        windows-1) tests $first_windows ;;
        windows-2) tests tests/viewer $(printf -- '--ignore %s ' $first_windows) ;;
        learning) tests tests/learning ;;
        evaluation) tests tests/evaluation ;;
        commands) tests $commands ;;
        others) tests $(printf -- '--ignore %s ' \
            tests/viewer tests/learning tests/evaluation $commands) ;;
    esac
}

first_windows=$(echo tests/viewer/test_[a-h]*.py)
commands="tests/commands tests/phantom tests/cohort"
screen=""
case $part in
    windows-*)
        unset QT_QPA_PLATFORM
        export SCREEN_NUMBER="${part#windows-}50"
        screen="sh scripts/with_screen.sh" ;;
    *) export QT_QPA_PLATFORM=offscreen ;;
esac
run_part >".venv/checks/$part.log" 2>&1
cat ".venv/checks/$part.log"
[ ! -e ".venv/checks/$part.failed" ]
