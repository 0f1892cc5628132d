#!/bin/sh
# Make .venv with the package (editable) and what a purpose needs; quick when nothing changed.
#
#   scripts/setup.sh run    what running needs, napari only where there is a display
#   scripts/setup.sh test   that, napari with a virtual screen, MRtrix3 and the test peers
#   scripts/setup.sh docs   what running needs, and Sphinx for the handbook
#   scripts/setup.sh bench  what running needs, MRtrix3 and the packages that are compared with
#
# PYTHON names another interpreter than python3.
set -eu
cd "$(dirname "$0")/.."
. scripts/phases.sh

export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore
# Modules are compiled as they are first imported; most of them never are.
export PIP_COMPILE=0

has_display() {
    [ -n "${DISPLAY:-}" ] || [ -n "${WAYLAND_DISPLAY:-}" ] || [ "$(uname -s)" = Darwin ]
}

find_python() {
    for python in "${PYTHON:-python3}" python3.13 python3.12 python3.11; do
        if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            return
        fi
        if [ -n "${PYTHON:-}" ]; then break; fi # that one, and no other
    done
    python=${PYTHON:-python3}
    echo "Python 3.11 or newer is needed; $python is: $("$python" --version 2>&1 || true)" >&2
    echo "Install one, or name it: make PYTHON=/path/to/python3.12 ..." >&2
    exit 1
}

make_environment() {
    find_python
    echo "Python: $(command -v "$python"), $("$python" --version 2>&1)"
    rm -rf .venv
    # Debian keeps venv's copy of pip in a package of its own.
    "$python" -c 'import ensurepip' 2>/dev/null || sh scripts/system_packages.sh venv || true
    "$python" -m venv --without-pip .venv
}

give_pip() { # which an environment of your own may lack, or one that was made only in part
    .venv/bin/python -c 'import pip' 2>/dev/null ||
        .venv/bin/python -m ensurepip >/dev/null 2>&1 ||
        { find_python && "$python" -m pip --python .venv/bin/python install -qq -c constraints.txt pip; }
}

give_torch() { # PyPI's brings gigabytes for CUDA, of no use without its driver
    if [ "$(uname -s)" != Linux ] || command -v nvidia-smi >/dev/null 2>&1 ||
        .venv/bin/python -c 'from importlib.metadata import version; version("torch")' 2>/dev/null; then
        return
    fi
    .venv/bin/python -m pip install -qq --no-deps --retries 1 --timeout 15 -c constraints.txt torch \
        --index-url https://download.pytorch.org/whl/cpu 2>/dev/null ||
        echo "going on with PyPI's torch, which is large"
}

install_package() { # install_package REQUIREMENT
    give_pip &&
        .venv/bin/python -m pip install -qq -c constraints.txt pip setuptools &&
        give_torch &&
        .venv/bin/python -m pip install -qq -c constraints.txt --no-build-isolation -e "$1"
}

purpose=$1
extras=base
case $purpose in test | bench | docs) extras="base $purpose" ;; esac
if [ "$purpose" = run ] && has_display; then extras="base all"; fi

# An environment that was moved, or whose Python has gone, is made anew; one of your own is used.
made_in=$(cat .venv/made-in 2>/dev/null || echo "$PWD")
if [ "$made_in" != "$PWD" ] || ! .venv/bin/python -c '' 2>/dev/null; then
    phase "Python environment" make_environment
fi
echo "$PWD" >.venv/made-in

case $extras in
    *test* | *bench*)
        phase "system packages (MRtrix3)" sh scripts/system_packages.sh mrtrix ||
            echo "going on without MRtrix3: comparisons with it cannot run" >&2 ;;
esac
case $extras in
    *test*)
        phase "system packages (screen)" sh scripts/system_packages.sh screen ||
            echo "going on: tests of the window fail until they are there" >&2 ;;
    *all*) phase "system packages (display)" sh scripts/system_packages.sh display ||
        echo "going on: napari may fail to open until they are there" >&2 ;;
esac

key=$(cat pyproject.toml constraints.txt scripts/setup.sh | cksum)
missing=
for extra in $extras; do
    if [ "$(cat ".venv/installed-$extra" 2>/dev/null)" != "$key" ]; then missing="$missing $extra"; fi
done
if [ -n "$missing" ]; then
    named=$(echo "$missing" | sed 's/ base//; s/^ //; s/ /,/g')
    phase "Python packages (${missing# })" install_package ".${named:+[$named]}"
    for extra in $missing; do echo "$key" >".venv/installed-$extra"; done
fi
