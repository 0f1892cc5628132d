#!/bin/sh
# Run all tests, slow ones too, and say how much of the source's lines and branches they reach: three
# times as long as `make test`, which comes first and sets up what is needed.
set -eu
cd "$(dirname "$0")/.."
coverage=.venv/bin/coverage

export OMP_NUM_THREADS=1
$coverage erase
QT_QPA_PLATFORM=offscreen $coverage run -m pytest -q --ignore tests/viewer
sh scripts/with_screen.sh $coverage run -m pytest -q tests/viewer
$coverage combine -q
$coverage report
