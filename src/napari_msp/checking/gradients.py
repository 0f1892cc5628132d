"""Shells, schemes and b-values."""

from collections.abc import Iterator, Sequence

import numpy as np

from napari_msp.checking.findings import Finding
from napari_msp.checking.summary import ScanSummary
from napari_msp.data.acquisition import B_VALUE_TOLERANCE
from napari_msp.data.gradients import GradientTable, Shell
from napari_msp.signal.fitting import CONDITION_LIMIT, condition_number, supported_order
from napari_msp.signal.spherical_harmonics import ORDER, coefficient_count


def check_scheme(where: str, gradients: GradientTable) -> Iterator[Finding]:
    """Tell whether the signal can be normalised and its harmonics fitted."""
    if not gradients.shells:
        yield Finding("error", where, "holds no diffusion-weighted volume; give a DWI", "no DWI")
    if len(gradients.b0_volumes) == 0:
        message = "no volume has b=0; the signal cannot be normalised without one, add it"
        yield Finding("error", where, message)
    needed = coefficient_count(ORDER)
    # A shell that cannot be fitted matters less where another one can.
    enough = any(len(shell.volumes) >= needed for shell in gradients.shells)
    for shell in gradients.shells:
        directions = gradients.directions[shell.volumes]
        if len(directions) < needed:
            yield Finding(
                "warning" if enough else "error",
                where,
                f"b = {shell.b_value:.0f} has {len(directions)} directions, SH order {ORDER} needs "
                f"{needed}; {'take another shell' if enough else 'leave the scan out'}",
                flag="directions",
            )
            continue
        condition = condition_number(directions, ORDER)
        if condition > CONDITION_LIMIT:
            yield Finding(
                "warning",
                where,
                f"the scheme of b = {shell.b_value:.0f} is ill-conditioned at SH order {ORDER} "
                f"(condition number {condition:.0f}, it supports order "
                f"{supported_order(directions)}): higher terms come from the regularisation; "
                "distrust them",
                flag="conditioning",
            )


def check_b_values(scans: Sequence[ScanSummary], input_platform: str) -> Iterator[Finding]:
    """Compare every scan with the b-value that the input platform has."""
    common = common_b_value(scans, input_platform)
    if common is None:
        return
    for scan in scans:
        if not scan.gradients.shells:
            continue  # told of already, as a scan that is no DWI
        values = [shell.b_value for shell in scan.gradients.shells]
        told = ", ".join(f"{value:.0f}" for value in values)
        near = any(abs(value - common) <= B_VALUE_TOLERANCE * common for value in values)
        if not near:
            yield Finding(
                "error",
                scan.where,
                f"has b = {told} s/mm² where the input platform has {common:.0f}: training refuses "
                "that; leave the scan out, or take the shell that the others have",
                flag="b-value",
            )
        elif len(values) > 1 and scan.platform == input_platform:
            yield Finding(
                "warning",
                scan.where,
                f"has several shells (b = {told} s/mm²): training takes one; name it with "
                f"--shell {common:.0f}",
                flag="shells",
            )


def common_b_value(scans: Sequence[ScanSummary], input_platform: str) -> float | None:
    """Give the median b-value of the input's scans with one shell, else of all such scans."""
    single = [scan for scan in scans if len(scan.gradients.shells) == 1]
    of_input = [scan for scan in single if scan.platform == input_platform]
    values = [scan.gradients.shells[0].b_value for scan in of_input or single]
    return float(np.median(values)) if values else None


def nearest_shell(gradients: GradientTable, b_value: float | None) -> Shell | None:
    """Give the shell nearest to a b-value, the lowest one for None; None without any shell."""
    if b_value is None:
        return next(iter(gradients.shells), None)
    return min(gradients.shells, key=lambda shell: abs(shell.b_value - b_value), default=None)
