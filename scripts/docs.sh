#!/bin/sh
# `make docs`: build the handbook into build/handbook, with every warning as an error.
set -eu
cd "$(dirname "$0")/.."
. scripts/phases.sh

phase "set-up in all" sh scripts/setup.sh docs
phase "handbook" .venv/bin/python -m sphinx -W --keep-going -q -d build/doctrees docs build/handbook
echo "open build/handbook/index.html"
