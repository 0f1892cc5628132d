#!/bin/sh
# Run a command with a screen: a virtual one of fixed size where there is Xvfb, else the user's.
#
#   scripts/with_screen.sh COMMAND [ARGUMENT ...]
#
# SCREEN_NUMBER is the first number that is tried: those who start at the same time need different ones.
set -eu
if command -v xvfb-run >/dev/null 2>&1; then
    exec xvfb-run -n "${SCREEN_NUMBER:-99}" -a -s "-screen 0 1920x1200x24" "$@"
fi
exec "$@"
