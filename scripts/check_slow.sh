#!/bin/sh
# `make test-slow`: the tests that `make test` leaves out, because they are slow by nature.
set -eu
cd "$(dirname "$0")/.."
. scripts/phases.sh

phase "set-up in all" sh scripts/setup.sh test
phase "set-up of the handbook" sh scripts/setup.sh docs
phase "system packages (browser)" sh scripts/system_packages.sh browser ||
    echo "going on without Chromium: reports are not opened" >&2
export OMP_NUM_THREADS=1
phase "pytest, slow" sh scripts/with_screen.sh .venv/bin/python -m pytest -m slow
