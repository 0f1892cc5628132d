"""Three signal models: fanning sticks in a ball, tensors with kurtosis, tensors of many sizes.

b-values in s/mm², diffusivities in mm²/s, times in ms. Each model is of one person: `drawn` gives
the person's own numbers. The three say different things of the same tissue, on purpose.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np

from far.anatomy import Anatomy
from napari_msp.arrays import FloatArray

FREE = 3.05e-3
"""Diffusivity of free water at body temperature."""


class SignalModel(Protocol):
    """The signal of tissue."""

    def tissue(self, echo: float) -> tuple[float, float, float]:
        """Give what grey matter, white matter and fluid give without weighting."""
        ...

    def grey(self, b: FloatArray) -> FloatArray:
        """Give what is left of grey matter's signal."""
        ...

    def isotropic(self, b: FloatArray) -> FloatArray:
        """Give what is left of white matter without direction."""
        ...

    def fibres(self, b: FloatArray, cosine2: FloatArray) -> FloatArray:
        """Give what is left of fibres, by the squared cosine between them and the gradient."""
        ...


@dataclass(frozen=True)
class Sticks:
    """Sticks that fan out, in a ball; the ball's water relaxes faster."""

    along: float
    beside: float
    inside: float
    fan: float
    t2: tuple[float, float, float]

    @classmethod
    def drawn(cls, random: np.random.Generator) -> "Sticks":
        """Draw a person's."""
        return cls(
            along=random.normal(2.1e-3, 0.06e-3),
            beside=random.normal(1.0e-3, 0.04e-3),
            inside=random.normal(0.58, 0.02),
            fan=random.normal(0.10, 0.01),
            t2=(random.normal(95, 3), random.normal(74, 3), 1500.0),
        )

    def tissue(self, echo: float) -> tuple[float, float, float]:
        """Give what grey matter, white matter and fluid give without weighting."""
        grey, white, fluid = (np.exp(-echo / each) for each in self.t2)
        return 0.84 * grey, 0.68 * white, 1.0 * fluid

    def grey(self, b: FloatArray) -> FloatArray:
        """Give what is left of grey matter's signal: a ball, and 6 % that stay."""
        left: FloatArray = 0.94 * np.exp(-b * 0.88e-3) + 0.06
        return left

    def isotropic(self, b: FloatArray) -> FloatArray:
        """Give what is left of white matter without direction."""
        left: FloatArray = self.inside * np.exp(-b * self.along / 3.4) + (1 - self.inside) * np.exp(
            -b * self.beside
        )
        return left

    def fibres(self, b: FloatArray, cosine2: FloatArray) -> FloatArray:
        """Give what is left of fibres: three sets of sticks between straight and spread."""
        left = (1 - self.inside) * np.exp(-b * self.beside)
        for share, fan in ((0.5, 0.2 * self.fan), (0.3, self.fan), (0.2, 3.0 * self.fan)):
            spread = (1 - 3 * fan) * cosine2 + fan
            left = left + share * self.inside * np.exp(-b * self.along * spread)
        return np.asarray(left)


@dataclass(frozen=True)
class Tensors(ABC):
    """Axially symmetric tensors; what is left of them by an exponent is each kind's own."""

    axial: float
    radial: float

    grey_matter: ClassVar[float]
    """Diffusivity of grey matter."""

    def grey(self, b: FloatArray) -> FloatArray:
        """Give what is left of grey matter's signal."""
        return self.left(b * self.grey_matter)

    def isotropic(self, b: FloatArray) -> FloatArray:
        """Give what is left of white matter without direction."""
        return self.left(b * (self.axial + 2 * self.radial) / 3)

    def fibres(self, b: FloatArray, cosine2: FloatArray) -> FloatArray:
        """Give what is left of fibres."""
        return self.left(b * (self.radial + (self.axial - self.radial) * cosine2))

    @abstractmethod
    def left(self, exponent: FloatArray) -> FloatArray:
        """Give what is left by b times diffusivity."""


@dataclass(frozen=True)
class Kurtosis(Tensors):
    """Tensors whose logarithm bends with b, up to where it would turn back."""

    grey_matter: ClassVar[float] = 0.82e-3

    bend: float
    t2: tuple[float, float, float]

    @classmethod
    def drawn(cls, random: np.random.Generator) -> "Kurtosis":
        """Draw a person's."""
        return cls(
            axial=random.normal(1.75e-3, 0.05e-3),
            radial=random.normal(0.36e-3, 0.02e-3),
            bend=random.normal(0.75, 0.04),
            t2=(random.normal(88, 3), random.normal(70, 2), 1800.0),
        )

    def tissue(self, echo: float) -> tuple[float, float, float]:
        """Give what grey matter, white matter and fluid give without weighting."""
        grey, white, fluid = (np.exp(-echo / each) for each in self.t2)
        return 0.80 * grey, 0.71 * white, 0.98 * fluid

    def left(self, exponent: FloatArray) -> FloatArray:
        """Give what is left by b times diffusivity."""
        exponent = np.minimum(exponent, 2.4 / self.bend)
        left: FloatArray = np.exp(-exponent + self.bend * exponent**2 / 6)
        return left


@dataclass(frozen=True)
class Gamma(Tensors):
    """Tensors whose diffusivity is gamma-distributed in a voxel (a closed form for any b)."""

    grey_matter: ClassVar[float] = 0.80e-3

    spread: float
    t2: tuple[float, float, float]

    @classmethod
    def drawn(cls, random: np.random.Generator) -> "Gamma":
        """Draw a person's."""
        return cls(
            axial=random.normal(2.0e-3, 0.06e-3),
            radial=random.normal(0.45e-3, 0.02e-3),
            spread=random.normal(0.40, 0.03),
            t2=(random.normal(102, 3), random.normal(80, 3), 1200.0),
        )

    def tissue(self, echo: float) -> tuple[float, float, float]:
        """Give what grey matter, white matter and fluid give without weighting."""
        grey, white, fluid = (np.exp(-echo / each) for each in self.t2)
        return 0.86 * grey, 0.72 * white, 1.0 * fluid

    def left(self, exponent: FloatArray) -> FloatArray:
        """Give what is left by b times diffusivity."""
        left: FloatArray = (1 + self.spread * exponent) ** (-1 / self.spread)
        return left


MODELS: dict[str, type[Sticks] | type[Kurtosis] | type[Gamma]] = {
    "sticks": Sticks,
    "kurtosis": Kurtosis,
    "gamma": Gamma,
}
"""Every model by name."""


class Tissue:
    """A head's signal at one echo time.

    Parameters
    ----------
    anatomy
        What lies where.
    model
        What it does.
    echo
        In ms.

    Attributes
    ----------
    inside
        (N,) flat indices of voxels that have any tissue.
    """

    def __init__(self, anatomy: Anatomy, model: SignalModel, echo: float) -> None:
        self.shape = anatomy.grey.shape
        self.inside = np.flatnonzero(anatomy.brain > 0.005)
        grey, white, fluid = model.tissue(echo)
        self._model = model
        self._grey = np.float32(grey) * self._flat(anatomy.grey)
        self._fluid = np.float32(fluid) * self._flat(anatomy.fluid)
        whole = np.float32(white) * self._flat(anatomy.white)
        self._bundles = []
        loose = whole.copy()
        for weight, direction in anatomy.bundles:
            share = whole * self._flat(weight)
            here = np.flatnonzero(share > 0.01)
            loose[here] -= share[here]
            vectors = direction.reshape(3, -1)[:, self.inside[here]]
            self._bundles.append((here, share[here], vectors))
        self._loose = loose
        self._unweighted = self._grey + self._fluid + whole

    def _flat(self, values: FloatArray) -> FloatArray:
        flat: FloatArray = values.reshape(-1)[self.inside]
        return flat

    def unweighted(self) -> FloatArray:
        """(X, Y, Z) at b = 0."""
        return self._volume(self._unweighted)

    def weighted(self, felt: FloatArray) -> FloatArray:
        """Give the signal under a gradient.

        Parameters
        ----------
        felt
            (3, N) direction times the root of the b-value that each voxel `inside` feels.
        """
        b = np.einsum("in,in->n", felt, felt)
        signal = self._fluid * np.exp(-b * np.float32(FREE))
        signal += self._grey * self._model.grey(b) + self._loose * self._model.isotropic(b)
        for here, share, direction in self._bundles:
            there = felt[:, here]
            b_here = b[here]
            cosine2 = np.einsum("in,in->n", there, direction) ** 2 / np.maximum(b_here, 1e-6)
            signal[here] += share * self._model.fibres(b_here, cosine2)
        return self._volume(signal)

    def _volume(self, values: FloatArray) -> FloatArray:
        volume = np.zeros(self.shape, np.float32)
        volume.reshape(-1)[self.inside] = values
        return volume
