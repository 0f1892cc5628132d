"""BIDS names, descriptions, and provenance that travels in sidecars."""

import json
from pathlib import Path
from typing import Any

import pytest

from napari_msp.bids import (
    BIDS_VERSION,
    DESCRIPTION,
    dataset_description,
    dataset_root,
    marked_input,
    nifti_stem,
    study_root,
)
from napari_msp.data.dataset import input_platform, open_dataset
from napari_msp.errors import Choose, Doubt, UserError
from napari_msp.files import write_json
from napari_msp.image_files import COEFFICIENTS, ImageFile, map_beside, stem_of
from napari_msp.provenance import Provenance

SCAN = "sub-01_dwi.nii.gz"

MADE = Provenance(
    target="prisma_st",
    input="ge_st",
    stage="first",
    title="MSP",
    kind="msp",
    label="for teaching",
    model_file="m.safetensors",
    model_sha256="0" * 64,
    alpha=0.7,
    sources=(SCAN,),
    person={"Label": "sub-01", "Dataset": "", "Scans": ["abc"]},
    gradients="target",
    approximations=("interpolated",),
    warnings=(Doubt("is odd", f"in/{SCAN}"), Doubt("is late", "other.nii")),
    training_subjects=("sub-02",),
    versions={"torch": "2"},
)


def test_provenance_is_read_back_from_a_sidecar() -> None:
    sidecar = json.loads(json.dumps(MADE.to_sidecar()))
    assert Provenance.from_sidecar(sidecar) == MADE
    assert MADE.name == "MSP prisma_st first stage"
    assert MADE.said == ("is odd", "other.nii: is late")


def test_warnings_of_earlier_sidecars_are_texts() -> None:
    made = Provenance.from_sidecar(
        MADE.to_sidecar() | {"Warnings": [f"/in/{SCAN}: is odd", "is late", 3, {}]}
    )
    assert made is not None
    assert made.warnings == (Doubt("is odd", f"/in/{SCAN}"), Doubt("is late"))
    assert made.said == ("is odd", "is late")


def test_nothing_is_read_out_of_a_sentence() -> None:
    """The description is for people; without the fields there is no provenance."""
    sidecar = MADE.to_sidecar()
    for field in ("Target", "Input"):
        assert Provenance.from_sidecar({k: v for k, v in sidecar.items() if k != field}) is None
    changed = Provenance.from_sidecar(sidecar | {"Description": "b as predicted from a"})
    assert changed is not None
    assert (changed.target, changed.input) == ("prisma_st", "ge_st")


@pytest.mark.parametrize("odd", [None, 3, [], {"a": 1}, "text", [1, 2], {"Kind": 3}])
def test_a_field_of_a_wrong_type_counts_as_missing(odd: Any) -> None:
    for field in MADE.to_sidecar():
        if field not in ("Target", "Input"):
            found = Provenance.from_sidecar(MADE.to_sidecar() | {field: odd})
            assert found is not None
            assert found.target == "prisma_st"


def test_one_version_of_the_standard_everywhere() -> None:
    import napari_msp

    sources = Path(napari_msp.__file__).parent.rglob("*.py")
    holders = [path.name for path in sources if f'"{BIDS_VERSION}"' in path.read_text("utf-8")]
    assert holders == ["bids.py"]
    assert dataset_description("x", derivative=True)["BIDSVersion"] == BIDS_VERSION


@pytest.mark.parametrize("name", ["a.mgz", "a.nii.bz2", "nii.gz", "a"])
def test_other_files_are_refused(name: str) -> None:
    with pytest.raises(UserError, match="is no image that can be read") as error:
        nifti_stem(name)
    assert error.value.subject == name


def test_roots() -> None:
    scan = Path("/study/derivatives/prep/sub-01/dwi/sub-01_dwi.nii.gz")
    assert dataset_root(scan) == Path("/study/derivatives/prep")
    assert study_root(scan) == Path("/study")
    assert study_root("/study/sub-01/dwi/sub-01_dwi.nii.gz") == Path("/study")
    assert study_root("/study/sub-01_dwi.nii.gz") is None


@pytest.mark.parametrize(
    ("name", "stem", "meant"),
    [
        ("sub-01_desc-saMsp_dwi.nii.gz", "sub-01_desc-saMsp", ImageFile("sub-01_desc-saMsp")),
        (
            "sub-01_desc-saMspFirstStageB3000_model-sh_param-coefficients_dwimap.json",
            "sub-01_desc-saMspFirstStage",
            ImageFile("sub-01_desc-saMsp", COEFFICIENTS, 3000, first_stage=True, suffix=".json"),
        ),
        (
            "sub-01_acq-xB1000_desc-b1200_model-tensor_param-fa_dwimap.nii.gz",
            "sub-01_acq-xB1000",
            ImageFile("sub-01_acq-xB1000", "fa", 1200, model="tensor"),
        ),
        (
            "sub-01_desc-saMspB700Scan_dwiref.nii.gz",
            "sub-01_desc-saMspScan",
            ImageFile("sub-01_desc-saMsp", "dwiref", 700, beside="Scan"),
        ),
        (
            "sub-01_desc-preproc_dir-APB1000_model-sh_param-coefficients_dwimap.nii.gz",
            "sub-01_desc-preproc_dir-AP",
            ImageFile("sub-01_desc-preproc_dir-AP", COEFFICIENTS, 1000),
        ),
        (
            "sub-01_desc-brain_mask.nii.gz",
            "sub-01_desc-brain",
            ImageFile("sub-01_desc-brain", "mask"),
        ),
        ("sub-01_T1w.nii.gz", "sub-01_T1w", None),
    ],
)
def test_names_of_image_files_are_read_as_they_are_written(name, stem, meant) -> None:
    assert ImageFile.parse(f"out/{name}") == meant
    assert meant is None or str(meant) == name
    assert stem_of(Path("out", name)) == stem


def test_maps_beside_an_sh_image_or_a_dwi(tmp_path: Path) -> None:
    image = Path("out/sub-01_desc-x_model-sh_param-coefficients_dwimap.nii.gz")
    assert map_beside(image, "disagreement") == Path(
        "out/sub-01_desc-x_model-sh_param-disagreement_dwimap.nii.gz"
    )
    assert map_beside(Path("out/sub-01_mask.nii.gz"), "disagreement") is None
    dwi, stem = tmp_path / "sub-01_desc-x_dwi.nii.gz", "sub-01_desc-x{}_model-sh_param-disagreement"
    several = tmp_path / f"{stem.format('B1200')}_dwimap.nii.gz"
    assert map_beside(dwi, "disagreement", 1200) == several
    one = tmp_path / f"{stem.format('')}_dwimap.nii.gz"
    one.touch()
    assert map_beside(dwi, "disagreement", 1200) == one


class TestInputPlatform:
    """It is given, marked, or left over; never guessed by name."""

    PLATFORMS = ("connectom_sa", "ge_st", "prisma_st")

    @pytest.fixture
    def dataset(self, heads: Path, tmp_path: Path) -> Path:
        """The small heads, without what their description marks."""
        root = tmp_path / "heads"
        root.mkdir()
        for each in heads.iterdir():
            if each.name != DESCRIPTION:
                (root / each.name).symlink_to(each)
        return root

    def test_given(self, dataset: Path) -> None:
        assert input_platform(open_dataset(dataset), "prisma_st") == "prisma_st"

    def test_an_unknown_one_is_refused_with_a_list(self, dataset: Path) -> None:
        with pytest.raises(UserError, match="has no scan on trio_st") as error:
            input_platform(open_dataset(dataset), "trio_st")
        assert (error.value.field, error.value.remedy) == ("input", Choose("input", self.PLATFORMS))

    def test_marked(self, dataset: Path) -> None:
        about = dataset_description("x", derivative=False, input_platform="connectom_sa")
        write_json(dataset / DESCRIPTION, about)
        assert marked_input(dataset) == "connectom_sa"
        assert input_platform(open_dataset(dataset)) == "connectom_sa"

    def test_a_mark_that_is_a_target_does_not_count(self, dataset: Path) -> None:
        about = dataset_description("x", derivative=False, input_platform="ge_st")
        write_json(dataset / DESCRIPTION, about)
        with pytest.raises(UserError):
            input_platform(open_dataset(dataset), targets=["ge_st"])

    def test_left_over(self, dataset: Path) -> None:
        found = input_platform(open_dataset(dataset), targets=["ge_st", "connectom_sa"])
        assert found == "prisma_st"

    def test_nothing_decides(self, dataset: Path) -> None:
        with pytest.raises(UserError, match="does not state which platform") as error:
            input_platform(open_dataset(dataset))
        assert error.value.remedy == Choose("input", self.PLATFORMS)

    @pytest.mark.parametrize("mark", [None, 3, {"InputPlatform": 3}, {"InputPlatform": "gone_st"}])
    def test_an_odd_mark_is_none(self, dataset: Path, mark: Any) -> None:
        write_json(dataset / DESCRIPTION, {"Name": "x", "NapariMSP": mark})
        with pytest.raises(UserError, match="does not state which platform"):
            input_platform(open_dataset(dataset))
