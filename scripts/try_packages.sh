#!/bin/sh
# Build the wheel and the sdist into dist/, install each in an environment of its own, and try what a
# person would: the version, help, a scan simulated, harmonized by the packaged model, a help page.
#
#   scripts/try_packages.sh [PYTHON]
set -eu
cd "$(dirname "$0")/.."
. scripts/phases.sh

python=${1:-python3}
trial=$(mktemp -d)
trap 'rm -rf "$trial"' EXIT
constraints=$PWD/constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore

build() {
    rm -rf dist &&
        "$python" -m venv "$trial/build" &&
        "$trial/build/bin/pip" install -qq build &&
        "$trial/build/bin/python" -m build -q --outdir dist .
}

try_package() { # try_package FILE
    rm -rf "$trial/venv" "$trial/work" &&
        "$python" -m venv "$trial/venv" &&
        "$trial/venv/bin/pip" install -qq -c "$constraints" "$1" &&
        mkdir "$trial/work" &&
        (cd "$trial/work" && use "$trial/venv/bin") # away from the checkout
}

use() { # use FOLDER_OF_PROGRAMS
    "$1/napari-msp" --version &&
        "$1/napari-msp" simulate heads --subjects 1 --size tiny -q &&
        "$1/napari-msp" harmonize heads/sub-01/ses-ge/dwi/sub-01_ses-ge_acq-st_dwi.nii.gz \
            --model msp-teaching --target prisma_st --out out -q &&
        "$1/python" - <<'TRY'
from importlib.resources import files

for part in ("napari.yaml", "py.typed", "__init__.pyi", "help/harmonize.md"):
    assert files("napari_msp").joinpath(part).is_file(), part
TRY
}

phase "build" build
for package in dist/*.whl dist/*.tar.gz; do
    phase "try $package" try_package "$PWD/$package"
done
