#!/bin/sh
# Install the system packages for a purpose, or name them where that is not allowed.
#
#   scripts/system_packages.sh venv      what `python3 -m venv` needs
#   scripts/system_packages.sh display   what Qt needs to open a napari window
#   scripts/system_packages.sh screen    that, and Xvfb: a screen for the tests of the window
#   scripts/system_packages.sh mrtrix    MRtrix3, the tests' independent reference
#   scripts/system_packages.sh browser   Chromium, in which slow tests open reports
#
# Running without a display needs none: the wheels of NumPy, SciPy, torch and DIPY bring their own
# libraries, apart from libc, libstdc++ and zlib, which every Debian has.
# The status is 0 when everything is there in the end.
set -eu

purpose=$1
case $purpose in
    venv) wanted="python3-venv" ;;
    display | screen)
        wanted="libdbus-1-3 libegl1 libfontconfig1 libgl1 libgl1-mesa-dri libopengl0
            libxcb-cursor0 libxcb-icccm4 libxcb-image0 libxcb-keysyms1 libxcb-randr0
            libxcb-render-util0 libxcb-shape0 libxcb-xinerama0 libxcb-xkb1 libxkbcommon-x11-0"
        if [ "$purpose" = screen ]; then wanted="$wanted xvfb xauth fonts-dejavu-core"; fi
        ;;
    mrtrix)
        wanted="mrtrix3"
        if command -v amp2sh >/dev/null 2>&1; then exit 0; fi # by apt or by other means
        ;;
    browser)
        wanted="chromium"
        # As tests/review/browser.py looks for it.
        for name in chromium chromium-browser google-chrome chrome; do
            if command -v "$name" >/dev/null 2>&1; then exit 0; fi
        done
        ;;
    *)
        echo "$0: unknown purpose $purpose" >&2
        exit 2
        ;;
esac

if ! command -v dpkg-query >/dev/null 2>&1; then
    case $purpose in
        mrtrix) lacks="MRtrix3 (https://www.mrtrix.org/download)" ;;
        browser) lacks="Chromium or Chrome" ;;
        screen)
            if [ "$(uname -s)" != Linux ] || command -v xvfb-run >/dev/null 2>&1; then exit 0; fi
            lacks="xvfb-run, without which tests of the window open on your own screen"
            ;;
        *) exit 0 ;; # other systems bring these with Python and with their desktop
    esac
    echo "missing: $lacks" >&2
    exit 1
fi

missing=""
for package in $wanted; do
    state=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$state" = installed ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null 2>&1; then
    echo "missing system packages; install them with: sudo apt-get install$missing" >&2
    exit 1
fi

log=$(mktemp)
trap 'rm -f "$log"' EXIT
export DEBIAN_FRONTEND=noninteractive
# $missing is a list: it has to be split into words.
# shellcheck disable=SC2086
if ! { apt-get -q update && apt-get -q -y --no-install-recommends install $missing; } \
    >"$log" 2>&1 </dev/null; then
    tail -n 20 "$log" >&2
    echo "apt-get could not install:$missing" >&2
    exit 1
fi
