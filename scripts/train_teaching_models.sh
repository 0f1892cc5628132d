#!/bin/sh
# Make the packaged models anew: about forty minutes on two CPU cores.
#
#   scripts/train_teaching_models.sh [FOLDER]
#
# FOLDER (default /tmp/teaching-heads) keeps the data: seven simulated heads of seed 1, the last one
# held out. The demo's head is of another seed.
set -eu
cd "$(dirname "$0")/.."

heads=${1:-/tmp/teaching-heads}
models=src/napari_msp/models
label="For teaching only: reduced width, trained on simulated heads. Not for studies."
msp=.venv/bin/napari-msp

[ -d "$heads" ] || $msp simulate "$heads" --subjects 7 --size small --seed 1

# One thread each, side by side: faster than one after the other with two.
export OMP_NUM_THREADS=1
# What `train` does unless told otherwise: one set of first stages for all targets, from the packaged
# base, in unison from the first step, 3,000 steps. The DIQT has no base, and starts from nothing.
$msp train "$heads" $models/msp-teaching.safetensors --model msp --width 0.28 --start-from base \
    --steps 3000 --unison-steps 3000 --held-out sub-07 --seed 1 --label "$label" --force &
msp_training=$!
$msp train "$heads" $models/diqt-teaching.safetensors --model diqt --width 0.28 --start-from nothing \
    --epochs 24 --held-out sub-07 --seed 1 --label "$label" --force &
diqt_training=$!
# One by one: a plain `wait` forgets a failure, and older models would be calibrated.
wait "$msp_training"
wait "$diqt_training"
for model in msp diqt; do
    $msp calibrate $models/$model-teaching.safetensors "$heads" \
        --out $models/$model-teaching.safetensors --force
done
