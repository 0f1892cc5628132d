#!/bin/sh
# `make demo`: set up what running needs, then the main job on simulated heads.
set -eu
cd "$(dirname "$0")/.."
. scripts/phases.sh

phase "set-up in all" sh scripts/setup.sh run
phase "demo" .venv/bin/napari-msp demo
