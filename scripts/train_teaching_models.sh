#!/bin/sh
# Make the packaged models anew: about three quarters of an hour on two CPU cores.
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
# Branches that make the whole image, as in the paper, need longer than ones that correct the first
# stage. After this long they are ahead (benchmarks/table1.md).
$msp train "$heads" $models/msp-teaching.safetensors --model msp --width 0.28 --start-from nothing \
    --first-stages own --singles-first yes \
    --first-stage connectom_sa=shresnet --branch-start nothing --epochs 10 --unison-epochs 25 \
    --held-out sub-07 --seed 1 --label "$label" --force &
$msp train "$heads" $models/diqt-teaching.safetensors --model diqt --width 0.28 --start-from nothing \
    --epochs 24 --held-out sub-07 --seed 1 --label "$label" --force &
wait
for model in msp diqt; do
    $msp calibrate $models/$model-teaching.safetensors "$heads" \
        --out $models/$model-teaching.safetensors --force
done
