# shellcheck shell=sh
# Sourced by the other scripts: runs a command and prints the seconds that it took.

# phase NAME COMMAND [ARGUMENT ...]
#
# `set -e` does not hold inside of a function that is run so, as its status is asked for: its steps
# are joined by &&.
phase() {
    phase_name=$1
    shift
    phase_start=$(date +%s)
    phase_status=0
    "$@" || phase_status=$?
    printf '%4d s  %s%s\n' "$(($(date +%s) - phase_start))" "$phase_name" \
        "$([ "$phase_status" -eq 0 ] || echo ": FAILED")"
    return "$phase_status"
}
