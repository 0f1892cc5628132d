#!/bin/sh
# `make bench`: set up what comparing with peers needs, then measure; see benchmarks/bench.
#
#   scripts/bench.sh [--quick] [--only NAME ...] [--keep] [--threads N]
set -eu
cd "$(dirname "$0")/.."
. scripts/phases.sh

phase "set-up in all" sh scripts/setup.sh bench
phase "bench" env PYTHONPATH=benchmarks .venv/bin/python -m bench "$@"
