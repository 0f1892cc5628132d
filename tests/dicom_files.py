"""Writes DICOM files as a scanner exports them."""

from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    UID,
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    generate_uid,
)

SHAPE, VOXEL = (10, 8, 6), (2.0, 2.0, 2.5)
B_VALUES = np.array([0, 0, *[1200] * 8, *[3000] * 4], dtype=float)


def unit_vectors(count: int, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(count, 3))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


DIRECTIONS = unit_vectors(len(B_VALUES))
"""In DICOM's patient axes (left, posterior, superior)."""


def write_series(
    folder: Path,
    number: int,
    description: str,
    values: np.ndarray,
    b_values: np.ndarray | None = None,
    *,
    kind: tuple[str, ...] = ("ORIGINAL", "PRIMARY", "M", "ND"),
    suffix: str = "",
    lost: tuple[int, ...] = (),
) -> None:
    """Write (X, Y, Z, N) whole numbers as one file a slice; x runs to the left, y to the back.

    Slices that are `lost` are not written, of no volume.
    """
    folder.mkdir(parents=True, exist_ok=True)
    series, study, frame = generate_uid(), generate_uid(), generate_uid()
    for volume in range(values.shape[3]):
        for z in sorted({*range(values.shape[2])} - {*lost}):
            instance = volume * values.shape[2] + z + 1
            ds = _begun(MRImageStorage, study, series, values)
            ds.FrameOfReferenceUID = frame
            ds.Manufacturer, ds.ManufacturerModelName = "Philips", "Test"
            ds.PatientName, ds.PatientID, ds.PatientPosition = "Doe^Jane", "secret", "HFS"
            ds.StudyDate, ds.StudyTime = "20200131", "101010"
            ds.AcquisitionTime = f"10{volume // 60:02d}{volume % 60:02d}"
            ds.SeriesNumber, ds.SeriesDescription, ds.ProtocolName = number, description, "dti"
            ds.InstanceNumber, ds.AcquisitionNumber = instance, volume + 1
            ds.ImageType = list(kind)
            ds.EchoTime, ds.RepetitionTime, ds.MagneticFieldStrength = 89.0, 1000.0, 3.0
            ds.ScanningSequence, ds.SequenceVariant, ds.MRAcquisitionType = "EP", "NONE", "2D"
            philips = ds.private_block(0x2001, "Philips Imaging DD 001", create=True)
            philips.add_new(0x18, "SL", values.shape[2])  # slices of a volume
            ds.SliceThickness = ds.SpacingBetweenSlices = VOXEL[2]
            ds.PixelSpacing = [VOXEL[1], VOXEL[0]]
            ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
            ds.ImagePositionPatient = [-9.0, -7.0, -5 + z * VOXEL[2]]
            ds.PixelData = np.ascontiguousarray(values[:, :, z, volume].T.astype("<u2")).tobytes()
            if b_values is not None:
                ds.DiffusionBValue = float(b_values[volume])
                if b_values[volume] > 0:
                    ds.DiffusionGradientOrientation = [float(x) for x in DIRECTIONS[volume]]
            name = f"IM{number:02d}{instance:04d}{suffix}"
            pydicom.dcmwrite(folder / name, ds, enforce_file_format=True)


def write_enhanced(
    folder: Path, number: int, values: np.ndarray, b_values: np.ndarray, lost: tuple[int, ...] = ()
) -> None:
    """Write (X, Y, Z, N) whole numbers as one multi-frame file a volume, as Siemens XA does."""
    folder.mkdir(parents=True, exist_ok=True)
    series, study = generate_uid(), generate_uid()
    kept = sorted({*range(values.shape[2])} - {*lost})
    for volume, b_value in enumerate(b_values):
        ds = _begun(EnhancedMRImageStorage, study, series, values)
        ds.Manufacturer, ds.SoftwareVersions = "Siemens", "syngo MR XA30"
        ds.SeriesNumber, ds.SeriesDescription = number, "DTI"
        ds.InstanceNumber = ds.AcquisitionNumber = volume + 1
        ds.ImageType = ["ORIGINAL", "PRIMARY", "DIFFUSION", "NONE"]
        ds.NumberOfFrames = len(kept)
        frames = np.moveaxis(values[:, :, kept, volume], (0, 1), (2, 1))
        ds.PixelData = np.ascontiguousarray(frames.astype("<u2")).tobytes()
        measures = _group(SliceThickness=VOXEL[2], PixelSpacing=[VOXEL[1], VOXEL[0]])
        shared = _group(PixelMeasuresSequence=measures, MREchoSequence=_group(EffectiveEchoTime=89))
        ds.SharedFunctionalGroupsSequence = shared
        direction = _group(DiffusionGradientOrientation=[float(x) for x in DIRECTIONS[volume]])
        diffusion = {"DiffusionBValue": float(b_value), "DiffusionDirectionality": "NONE"}
        if b_value > 0:
            diffusion |= {"DiffusionDirectionality": "DIRECTIONAL"}
            diffusion |= {"DiffusionGradientDirectionSequence": direction}
        ds.PerFrameFunctionalGroupsSequence = [
            _group(
                FrameContentSequence=_group(
                    StackID="1", InStackPositionNumber=z + 1, DimensionIndexValues=[1, z + 1]
                ),
                PlanePositionSequence=_group(ImagePositionPatient=[-9.0, -7.0, -5 + z * VOXEL[2]]),
                PlaneOrientationSequence=_group(ImageOrientationPatient=[1, 0, 0, 0, 1, 0]),
                MRDiffusionSequence=_group(**diffusion),
            )[0]
            for z in kept
        ]
        pydicom.dcmwrite(folder / f"V{volume:03d}.dcm", ds, enforce_file_format=True)


def _begun(kind: UID, study: UID, series: UID, values: np.ndarray) -> Dataset:
    """Make what every MR image has: its identity, and planes of 16-bit whole numbers."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = kind
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds = Dataset()
    ds.file_meta = meta
    ds.SOPClassUID, ds.SOPInstanceUID = kind, meta.MediaStorageSOPInstanceUID
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.Modality = study, series, "MR"
    ds.Columns, ds.Rows = values.shape[:2]
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit, ds.PixelRepresentation = 15, 0
    return ds


def _group(**values: object) -> list[Dataset]:
    """Make a sequence of one item."""
    item = Dataset()
    for name, value in values.items():
        setattr(item, name, value)
    return [item]


def voxels(volumes: int = len(B_VALUES), seed: int = 0) -> np.ndarray:
    """Make whole numbers: those of the DWI as bright as their b-value lets them be."""
    values = np.random.default_rng(seed).integers(300, 900, size=(*SHAPE, 1))
    values = values + np.random.default_rng(seed + 1).integers(0, 100, size=(*SHAPE, volumes))
    weights = np.exp(-B_VALUES / 1500) if volumes == len(B_VALUES) else np.ones(volumes)
    return np.asarray(values * weights).astype(int)


def write_session(folder: Path, *, more: bool = True) -> Path:
    """Write what a scanner exports: the DWI, and `more` that is none."""
    write_series(folder / "a" / "b", 5, "DTI b1200/3000", voxels(), B_VALUES)
    if more:
        write_series(folder / "a", 1, "localizer", voxels(1))
        write_series(folder, 6, "DTI PA", voxels(2), np.zeros(2), suffix=".dcm")
        derived = ("DERIVED", "PRIMARY", "DIFFUSION", "ADC", "ND")
        write_series(folder, 7, "DTI ADC", voxels(1), kind=derived)
    return folder
