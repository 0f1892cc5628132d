"""Compartment signal: what each tissue contributes to an image.

White matter is, for each fibre population, a stick (intra-axonal) and a zeppelin (extra-axonal);
grey matter a nearly isotropic zeppelin along the cortex's radius; CSF free water; diseased tissue
isotropic. Every compartment has its own proton density, T1 and T2.
"""

import numpy as np

from napari_msp.arrays import FloatArray
from napari_msp.data.phantom.head import Head
from napari_msp.data.phantom.subjects import Tissue

DENSITY_WHITE, DENSITY_GREY, DENSITY_FLUID = 0.70, 0.82, 1.0
"""Proton density relative to water (Mezer 2013)."""

DENSITY_DISEASED, T1_DISEASED = 0.9, 1700.0
"""Proton density relative to water and T1 in ms: as swollen grey matter's (our choice)."""

T1_WHITE, T1_GREY, T1_FLUID = 1080.0, 1820.0, 4300.0
"""T1 in ms at 3 T (Stanisz 2005; CSF: Lu 2005)."""

FLUID_DIFFUSIVITY = 3.0e-3
"""Free water at body temperature in mm²/s (Pierpaoli 1996)."""

GREY_ANISOTROPY = 0.12
"""Excess of radial over mean diffusivity in cortex, relative (McNab 2013: weakly radial)."""


def stick_and_zeppelin(
    tissue: Tissue, coherence: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Give axial and radial diffusivities of both compartments after orientation dispersion.

    A dispersed compartment is replaced by its mean diffusion tensor, which is exact to first
    order in b (our choice; it saves an integral over orientations for each voxel).

    Returns
    -------
    Intra-axonal axial and radial, extra-axonal axial and radial diffusivity in mm²/s, each with
    the shape of `coherence`.
    """
    along = tissue.axial_diffusivity
    across = (1 - tissue.intra_fraction) * along  # tortuosity (Szafer 1995)
    beside = (1 - coherence) / 2
    return (
        along * coherence,
        along * beside,
        across + (along - across) * coherence,
        across + (along - across) * beside,
    )


def zeppelin(
    b_squared: FloatArray, b_along: FloatArray, axial: FloatArray, radial: FloatArray
) -> FloatArray:
    """Signal of an axially symmetric tensor.

    Parameters
    ----------
    b_squared
        b-value felt, in s/mm².
    b_along
        b-value times the squared cosine to the tensor's axis.
    axial, radial
        Diffusivities in mm²/s.
    """
    signal: FloatArray = np.exp(-b_squared * radial - b_along * (axial - radial))
    return signal


def weighting(density: float, t1: float, t2: float, echo: float, repetition: float) -> float:
    """Signal of a spin echo without diffusion weighting; times in ms."""
    return density * float((1 - np.exp(-repetition / t1)) * np.exp(-echo / t2))


class SignalModel:
    """The signal of one head under one echo and repetition time.

    Parameters
    ----------
    head
        Tissue fractions and fibre populations.
    tissue
        Diffusivities and T2.
    echo, repetition
        Times in ms.
    """

    def __init__(self, head: Head, tissue: Tissue, echo: float, repetition: float) -> None:
        self.head = head
        times = (echo, repetition)
        f = tissue.intra_fraction
        self._intra = f * weighting(DENSITY_WHITE, T1_WHITE, tissue.t2_intra, *times)
        self._extra = (1 - f) * weighting(DENSITY_WHITE, T1_WHITE, tissue.t2_extra, *times)
        self._grey = weighting(DENSITY_GREY, T1_GREY, tissue.t2_grey, *times) * head.grey
        self._fluid = weighting(DENSITY_FLUID, T1_FLUID, tissue.t2_fluid, *times) * head.fluid
        self._diseased = [
            (
                weighting(DENSITY_DISEASED, T1_DISEASED, each.t2, *times) * each.fraction,
                np.float32(each.diffusivity),
            )
            for each in head.diseased
        ]
        self._grey_axial = np.asarray(tissue.grey_diffusivity * (1 + GREY_ANISOTROPY), np.float32)
        self._grey_radial = np.asarray(
            tissue.grey_diffusivity * (1 - GREY_ANISOTROPY / 2), np.float32
        )
        self._populations = [
            (
                fibres,
                head.white[fibres.index] * fibres.weight,
                [np.asarray(d, np.float32) for d in stick_and_zeppelin(tissue, fibres.coherence)],
            )
            for fibres in head.fibres
        ]

    def without_weighting(self) -> FloatArray:
        """(N,) signal at b = 0."""
        signal: FloatArray = (
            (self._intra + self._extra) * self.head.white + self._grey + self._fluid
        )
        for diseased, _ in self._diseased:
            signal += diseased
        return signal

    def weighted(self, felt: FloatArray) -> FloatArray:
        """Signal under a diffusion gradient.

        Parameters
        ----------
        felt
            (3, N) direction times the square root of the b-value that each voxel feels.

        Returns
        -------
        (N,) float32.
        """
        b = np.einsum("in,in->n", felt, felt)
        signal: FloatArray = self._fluid * np.exp(-b * np.float32(FLUID_DIFFUSIVITY))
        b_radial = np.square(np.einsum("in,in->n", felt, self.head.radial))
        signal += self._grey * zeppelin(b, b_radial, self._grey_axial, self._grey_radial)
        for diseased, diffusivity in self._diseased:
            signal += diseased * np.exp(-b * diffusivity)
        for fibres, share, (stick_a, stick_r, zeppelin_a, zeppelin_r) in self._populations:
            here = fibres.index
            b_here = b[here]
            along = np.square(np.einsum("in,in->n", felt[:, here], fibres.direction))
            signal[here] += share * (
                np.float32(self._intra) * zeppelin(b_here, along, stick_a, stick_r)
                + np.float32(self._extra) * zeppelin(b_here, along, zeppelin_a, zeppelin_r)
            )
        return signal
