"""The four platforms: scanner and protocol."""

from dataclasses import dataclass

from napari_msp.data.gradients import GradientTable
from napari_msp.data.phantom.gradient_field import GradientField
from napari_msp.data.phantom.schemes import gradient_table

B_VALUE = 1200.0
"""Nominal b-value of every platform in s/mm² (Tax 2019)."""


@dataclass(frozen=True)
class Platform:
    """A scanner and its protocol.

    Attributes
    ----------
    name
        `<session>_<acquisition>`.
    manufacturer, model
        Of the scanner that is imitated.
    scale
        Voxels for each 2.4 mm along an axis: 1, or 2 for 1.2 mm voxels.
    directions, b0_volumes
        Numbers of volumes.
    scheme
        Seed of the set of directions; every scanner has its own.
    echo_time, repetition_time
        In ms.
    blur
        Standard deviation of the point spread along x, y, z in mm, beside the voxel's own box.
        Phase encoding runs along y, where T2* decay during the echo-planar readout blurs most.
    b_scale
        True b-value over nominal b-value at the isocentre.
    gradient_field
        Gradient non-linearity that the gradient table does not know of.
    snr
        Mean white-matter b=0 signal over the noise of one channel.
    gain
        Image units for each unit of proton density.
    orientation
        Order in which voxels are stored, as nibabel's axis codes.
    """

    name: str
    manufacturer: str
    model: str
    scale: int
    directions: int
    b0_volumes: int
    scheme: int
    echo_time: float
    repetition_time: float
    blur: tuple[float, float, float]
    b_scale: float
    gradient_field: GradientField
    snr: float
    gain: float
    orientation: str

    @property
    def session(self) -> str:
        """BIDS session label."""
        return self.name.split("_")[0]

    @property
    def acquisition(self) -> str:
        """BIDS acquisition label."""
        return self.name.split("_")[1]

    @property
    def number(self) -> int:
        """Position among `PLATFORMS`; part of the random seeds."""
        return [platform.name for platform in PLATFORMS].index(self.name)

    def table(self) -> GradientTable:
        """Nominal gradient table, directions in scanner axes."""
        return gradient_table(self.directions, self.scheme, B_VALUE, self.b0_volumes)


# Voxel size, directions, echo and repetition times: Tax et al. 2019 (cross-scanner benchmark) as
# used by Blumberg et al. 2019. Blur, b-scale, gradient coefficients, SNR and gain are our choice:
# the blur between 0.2 and 0.7 voxels of echo-planar readouts, b-scales within the few per cent of
# phantom studies of gradient calibration, gradient errors within those of Bammer 2003 (largest for
# the 300 mT/m coil, Setsompop 2013), the oldest scanner the noisiest.
PLATFORMS: tuple[Platform, ...] = (
    Platform(
        name="ge_st",
        manufacturer="GE",
        model="Signa Excite HDx 3T",
        scale=1,
        directions=30,
        b0_volumes=4,
        scheme=11,
        echo_time=89.0,
        repetition_time=7200.0,
        blur=(1.2, 1.8, 0.9),
        b_scale=0.92,
        gradient_field=GradientField(transverse=0.020, longitudinal=-0.015),
        snr=18.0,
        gain=3000.0,
        orientation="LAS",
    ),
    Platform(
        name="prisma_st",
        manufacturer="Siemens",
        model="Prisma 3T",
        scale=1,
        directions=30,
        b0_volumes=4,
        scheme=22,
        echo_time=89.0,
        repetition_time=7200.0,
        blur=(0.5, 0.8, 0.4),
        b_scale=1.0,
        gradient_field=GradientField(transverse=-0.012, longitudinal=0.010),
        snr=26.0,
        gain=1500.0,
        orientation="RAS",
    ),
    Platform(
        name="connectom_st",
        manufacturer="Siemens",
        model="Connectom 3T",
        scale=1,
        directions=30,
        b0_volumes=4,
        scheme=33,
        echo_time=89.0,
        repetition_time=7200.0,
        blur=(0.4, 0.6, 0.3),
        b_scale=1.03,
        gradient_field=GradientField(transverse=-0.035, longitudinal=0.020),
        snr=30.0,
        gain=2000.0,
        orientation="RAS",
    ),
    Platform(
        name="connectom_sa",
        manufacturer="Siemens",
        model="Connectom 3T",
        scale=2,
        directions=60,
        b0_volumes=6,
        scheme=44,
        echo_time=68.0,
        repetition_time=5400.0,
        blur=(0.4, 0.6, 0.3),
        b_scale=1.03,
        gradient_field=GradientField(transverse=-0.035, longitudinal=0.020),
        snr=14.0,
        gain=2000.0,
        orientation="RAS",
    ),
)


def platform_named(name: str) -> Platform:
    """Look a platform up.

    Raises
    ------
    KeyError
        When there is none of that name.

    Examples
    --------
    >>> platform_named("connectom_sa").scale
    2
    """
    return {platform.name: platform for platform in PLATFORMS}[name]
