"""Several images in regions: one scale for histograms, truth's voxels, and the command."""

import csv
import io
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from napari_msp.cli import main
from napari_msp.data.acquisition import load_acquisition
from napari_msp.errors import UserError
from napari_msp.evaluation.region_numbers import (
    MEASURED,
    Measurable,
    measure_regions,
    region_numbers,
)
from napari_msp.evaluation.regions import Regions
from napari_msp.scan_sources import load_scan
from napari_msp.signal.fitting import fit_sh
from napari_msp.signal.maps import fractional_anisotropy
from napari_msp.signal.sh_image import SHImage
from napari_msp.signal.spherical_harmonics import fitting_matrix, spread_directions

SHAPE = (4, 4, 4)
LABELS = np.zeros(SHAPE, np.int32)
LABELS[:2], LABELS[2, :2] = 1, 2


def head(level, affine=None):
    """An SH image of water that moves alike everywhere, with a known mean diffusivity."""
    directions = spread_directions(30)
    signal = np.exp(-1000 * level * 1e-3 * np.ones(30))
    series = fitting_matrix(directions, 6, 0.0) @ signal
    affine = np.diag([2.0, 2, 2, 1]) if affine is None else affine
    values = np.tile(series, (*SHAPE, 1)).astype(np.float32)
    return SHImage(values, affine, np.ones(SHAPE, bool), 1000.0)


def rows(text):
    return list(csv.DictReader(io.StringIO(text)))


@pytest.fixture
def labels(tmp_path):
    path = tmp_path / "atlas.nii.gz"
    nib.save(nib.Nifti1Image(LABELS, np.diag([2.0, 2, 2, 1])), path)
    path.with_name("atlas.tsv").write_text("index\tname\n1\tcallosum\n2\tcingulum\n")
    return path


def test_diffusivity_and_its_error_by_region(labels):
    numbers = measure_regions({"made": head(0.8)}, labels, head(1.0), ("md",))
    truth, made = (numbers.tables[name, "mean diffusivity"].rows for name in ("truth", "made"))
    assert [each.name for each in made] == ["callosum", "cingulum"]
    assert [each.volume for each in made] == [32 * 8.0, 8 * 8.0]
    for each in made:
        assert each.mean == pytest.approx(0.8e-3, rel=1e-3)
        assert each.error == pytest.approx(0.2e-3, rel=1e-2)
        assert each.bias == pytest.approx(-0.2e-3, rel=1e-2)
    assert truth[0].mean == pytest.approx(1e-3, rel=1e-3)
    assert truth[0].error is None
    # Histograms of both have the same bins: one is at their first, one at their last.
    assert made[0].histogram[0] == truth[0].histogram[-1] == 32
    written = rows(numbers.csv())
    assert written[0]["unit"] == "mm²/s"
    assert {each["image"] for each in written} == {"truth", "made"}
    bins = [each for each in rows(numbers.histograms_csv()) if each["image"] == "made"]
    assert sum(int(each["voxels"]) for each in bins) == 40


def test_stored_order_of_an_image_does_not_matter(labels):
    flipped = np.diag([-2.0, 2, 2, 1])
    flipped[0, 3] = 6.0
    values = np.random.default_rng(0).random(SHAPE).astype(np.float32)
    one, other = (replace(head(1.0), coefficients=head(1.0).coefficients * values[..., None],
                          affine=np.diag([2.0, 2, 2, 1])), None)  # fmt: skip
    other = replace(one, coefficients=one.coefficients[::-1], affine=flipped)
    numbers = measure_regions({"one": one, "other": other}, labels, maps=("sh_average",))
    first, second = (numbers.tables[name, "SH average"].rows for name in ("one", "other"))
    assert first == second


@pytest.fixture
def dwi(tmp_path):
    """A noisy scan of anisotropic tissue, in a file."""
    directions = spread_directions(30)
    signal = np.exp(-1.0 * (0.4 + 1.2 * directions[:, 0] ** 2)) * np.ones((*SHAPE, 1))
    noise = np.random.default_rng(0).normal(0, 0.03, (*SHAPE, 31))
    voxels = 1000 * (np.concatenate([np.ones((*SHAPE, 1)), signal], axis=-1) + noise)
    path = plain(tmp_path / "dwi.nii.gz", voxels)
    np.savetxt(tmp_path / "dwi.bval", [[0, *[1000] * 30]], fmt="%d")
    np.savetxt(tmp_path / "dwi.bvec", np.vstack([np.zeros(3), directions * [-1, 1, 1]]).T)
    plain(tmp_path / "dwi_mask.nii.gz", np.ones((*SHAPE, 1)))
    return path


def test_a_scan_alone_has_the_tensors_of_its_signal(dwi, labels):
    own = fractional_anisotropy(load_acquisition(dwi))
    numbers = measure_regions([dwi], labels)
    assert numbers.tables["dwi", "FA"].rows[0].mean == pytest.approx(own[LABELS == 1].mean())
    assert {each["through"] for each in rows(numbers.csv())} == {"signal", ""}
    assert not numbers.notes


def test_what_is_compared_goes_through_the_sh_series_and_says_so(dwi, labels):
    image = fit_sh(load_acquisition(dwi))
    series = fractional_anisotropy(image)[LABELS == 1].mean()
    compared = measure_regions({"made": image}, labels, dwi, ("fa",))
    assert {each["through"] for each in rows(compared.csv())} == {"SH series"}
    for name in ("truth", "made"):
        assert compared.tables[name, "FA"].rows[0].mean == pytest.approx(series)
    assert compared.tables["made", "FA"].rows[0].error == 0
    # Side by side and not compared, each is its own, and that they are not alike is told.
    listed = measure_regions({"made": image, "scan": dwi}, labels, maps=("fa",))
    signal = listed.tables["scan", "FA"].rows[0].mean
    assert signal is not None
    assert signal > series + 0.01
    assert [note.partition(",")[0] for note in listed.notes] == [
        "tensors of made come through the SH series"
    ]


def test_what_one_mask_takes_from_the_numbers_of_all_is_told(tmp_path, labels):
    mask = LABELS != 2
    mask[2, 0] = True  # 4 of the cingulum's 8 voxels
    holed = replace(head(0.8), coefficients=head(0.8).coefficients * mask[..., None], mask=mask)
    numbers = measure_regions({"whole": head(0.9), "holed": holed}, labels, head(1.0), ("md",))
    told = ["holed has no values in 4 of 8 voxels of cingulum: they count for no image"]
    assert numbers.notes == told
    for name in ("truth", "whole", "holed"):
        voxels = [row.voxels for row in numbers.tables[name, "mean diffusivity"].rows]
        assert voxels == [32, 4]
    paths = [plain(tmp_path / f"{name}.nii.gz", LABELS + 1.0) for name in ("holed", "true")]
    beside = np.diag([2.0, 2, 2, 1])
    beside[0, 3] = 4  # its first two slices are the callosum's last and the cingulum's
    cut = plain(tmp_path / "cut.nii.gz", LABELS[2:] + 1.0, beside)
    said = [
        each for each in measure_regions([paths[0], cut], labels, paths[1]).notes if "no v" in each
    ]
    assert said == ["cut has no values in 32 of 32 voxels of callosum: they count for no image"]
    # Not compared, each is measured in its own brain.
    assert not measure_regions({"whole": head(0.9), "holed": holed}, labels, maps=("md",)).notes


def test_of_several_shells_the_lowest_is_measured_that_all_have(tmp_path, labels):
    shells = [replace(head(level), b_value=b) for level, b in ((1.0, 1000.0), (1.1, 2000.0))]
    for each in shells:
        each.save(tmp_path / f"sub-01_b{each.b_value:.0f}_dwimap.nii.gz")
    truth = load_scan(sorted(tmp_path.glob("*_dwimap.nii.gz")))
    made = replace(shells[1], coefficients=head(0.9).coefficients)
    numbers = measure_regions({"made": made}, labels, truth, ("direction_average",))
    title = MEASURED["direction_average"].title
    true, found = (numbers.tables[name, title].rows[0].mean for name in ("truth", "made"))
    assert (true, found) == pytest.approx((np.exp(-1.1), np.exp(-0.9)), rel=1e-4)
    # Without a truth, too: else images would be measured at one b-value each.
    alone = measure_regions({"made": made, "all": truth}, labels, maps=("direction_average",))
    assert alone.notes == ["measured at b = 2000 s/mm², the lowest that all have"]
    assert alone.tables["all", title].rows[0].mean == true
    near = replace(made, b_value=2060.0)
    for given, true_scan in (({"near": near}, truth), ({"all": truth, "near": near}, None)):
        said = measure_regions(given, labels, true_scan, ("fa",)).notes[-1]
        assert "near has b = 2060 s/mm²" in said
        assert said.endswith("2000: this alone changes S/S0 by about 5 % in tissue")
    odd = replace(made, b_value=3000.0)
    (said,) = measure_regions({"odd": odd, "all": truth}, labels, maps=("fa",)).notes
    assert said.endswith("their numbers do not compare: odd b = 3000 and all b = 1000")
    with pytest.raises(UserError, match=r"b = 1000, 2000; .* 3000: no shell is in all"):
        measure_regions({"made": odd}, labels, truth)


def test_a_map_of_one_volume_is_a_map(tmp_path, labels):
    image = plain(tmp_path / "fa.nii.gz", LABELS[..., None] / 4)
    assert measure_regions([image], labels).tables["fa", "value"].rows[0].mean == 0.25


def test_what_lies_outside_is_told_and_no_value_is_left_out_in_silence():
    regions = Regions(LABELS, {1: "a", 2: "b", 3: "c"}, np.eye(4), {1: 0.5, 2: 1.0, 3: 0.0})
    values = LABELS.astype(np.float32)
    numbers = region_numbers([Measurable("x", "m", "", values, np.ones(SHAPE, bool), regions)])
    assert numbers.notes == [
        "a is cut off: 50 % of it lies in the image",
        "c has no voxel in the image",
    ]
    assert numbers.tables["x", "m"].rows[2].mean is None


def test_regions_outside_the_brain_have_no_numbers():
    regions = Regions(LABELS, {1: "a", 2: "b"}, np.eye(4))
    values = np.ones(SHAPE, np.float32)
    nowhere = np.zeros(SHAPE, bool)
    numbers = region_numbers([Measurable("x", "m", "", values, nowhere, regions, values)])
    for row in numbers.tables["x", "m"].rows:
        assert (row.voxels, row.volume, row.mean, row.error) == (0, 0.0, None, None)
        assert sum(row.histogram) == 0


@pytest.mark.parametrize("map_", ["colour_fa", "nothing"])
def test_maps_of_several_numbers_are_refused(labels, map_):
    with pytest.raises(UserError, match="is no map of one number a voxel"):
        measure_regions({"x": head(1.0)}, labels, maps=(map_,))


def test_the_command_measures_plain_maps(tmp_path, labels, capsys):
    affine = np.diag([2.0, 2, 2, 1])
    for name, level in (("fa", 1.0), ("true", 3.0)):
        values = (LABELS + level).astype(np.float32)
        nib.save(nib.Nifti1Image(values, affine), tmp_path / f"{name}.nii.gz")
    fa, out = tmp_path / "fa.nii.gz", tmp_path / "r.csv"
    given = ["regions", str(fa), "--labels", str(labels), "--truth", str(tmp_path / "true.nii.gz")]
    assert main([*given, "--out", str(out)]) == 0
    assert capsys.readouterr().out.split() == [str(out), str(tmp_path / "r_histograms.csv")]
    _, _, one, two = rows(out.read_text(encoding="utf-8"))
    assert (one["image"], one["region"], float(one["mean"]), float(one["bias"])) == (
        "fa", "callosum", 2.0, -2.0,
    )  # fmt: skip
    assert float(two["mean"]) == 3.0
    assert main(given) == 0
    assert rows(capsys.readouterr().out)[3] == two
    assert main([*given, "--out", "r.txt"]) == 2
    assert capsys.readouterr().err.startswith("napari-msp: r.txt: ")


def plain(path, values, affine=None):
    affine = np.diag([2.0, 2, 2, 1]) if affine is None else affine
    path.parent.mkdir(exist_ok=True)
    nib.save(nib.Nifti1Image(np.asarray(values, np.float32), affine), path)
    return path


def test_no_image_takes_the_place_of_truth_or_of_another(tmp_path, labels, capsys):
    image = plain(tmp_path / "made" / "truth.nii.gz", LABELS + 1)
    true = plain(tmp_path / "gold.nii.gz", LABELS + 3)
    given = ["--labels", str(labels), "--truth", str(true)]
    assert main(["regions", str(image), *given]) == 2
    assert f"{image}: is called truth" in capsys.readouterr().err
    with pytest.raises(UserError, match="is the name of two images") as error:
        measure_regions([true, image, str(true)], labels)
    assert error.value.field == "images"
    # Where nothing is compared, that is a name as any other.
    numbers = measure_regions([image, true], labels)
    assert [each.error for each in numbers.tables["gold", "value"].rows] == [None, None]


def test_maps_are_measured_where_all_have_a_number(tmp_path, labels):
    values = np.arange(1.0, 65).reshape(SHAPE)
    true = plain(tmp_path / "true.nii.gz", values)
    holed = np.where(values == 3, np.nan, values + 1)
    one = plain(tmp_path / "holed.nii.gz", np.where(values == 4, np.inf, holed))
    # The second half of region 1, and what lies behind.
    behind = np.diag([2.0, 2, 2, 1])
    behind[0, 3] = 2.0
    two = plain(tmp_path / "half.nii.gz", values[1:] + 2, behind)

    numbers = measure_regions([one, two], labels, true)
    found = {name: numbers.tables[name, "value"].rows for name in ("truth", "holed", "half")}
    assert [row[0].voxels for row in found.values()] == [16, 16, 16]
    assert [row[0].mean or 0.0 for row in found.values()] == pytest.approx([24.5, 25.5, 26.5])
    assert found["half"][0].bias == pytest.approx(2)

    alone = measure_regions([one], labels, true)
    for name, bias in (("truth", 0), ("holed", 1)):
        row = alone.tables[name, "value"].rows[0]
        assert row.voxels == 30
        assert row.mean == pytest.approx((sum(range(1, 33)) - 7) / 30 + bias)


def zeros_around(inside):
    """(6, 6, 6) with 64 voxels of a head in zeros, and regions: one of all, one in the head."""
    values = np.zeros((6, 6, 6))
    values[1:5, 1:5, 1:5] = np.reshape(inside, (4, 4, 4))
    everywhere, within = (np.ones(values.shape, np.int32), np.zeros(values.shape, np.int32))
    within[2:4, 2:4, 2:4] = 1
    affine = np.diag([2.0, 2, 2, 1])
    return values, *(Regions(each, {1: "all"}, affine) for each in (everywhere, within))


FA = np.linspace(0.2, 0.8, 64)


@pytest.mark.parametrize("name", ["fa", "dti_FA", "sub-01_model-tensor_param-md_dwimap"])
def test_zeros_around_a_head_are_no_numbers(tmp_path, name):
    """As this package, FSL, MRtrix3 and DIPY write them; a zero inside is one."""
    values, everywhere, within = zeros_around(FA)
    values[2, 2, 2] = 0
    fa = plain(tmp_path / f"{name}.nii.gz", values)
    numbers = measure_regions([fa], everywhere)
    (row,) = numbers.tables[name, "value"].rows
    assert row.voxels == 64
    assert row.mean == pytest.approx(values.sum() / 64)
    assert numbers.notes == [
        f"{name}: 152 of 216 labelled voxels (70.4 %) are exactly 0 up to the image's edge, "
        "as outside a brain mask, and are not counted"
    ]
    assert measure_regions([fa], within).notes == []


@pytest.mark.parametrize(
    ("name", "inside", "masked", "told"),
    [
        ("lesion", np.arange(64) < 8, False, False),  # two values
        ("fa", np.arange(64) < 8, False, False),
        ("count", np.arange(64) % 4, False, True),
        ("lesion", np.maximum(FA - 0.6, 0), True, False),  # 0 within the brain, too
        ("lesion", np.maximum(FA - 0.6, 0), False, True),
        ("sub-01_param-load_dwimap", np.maximum(FA - 0.6, 0), False, True),
        ("fa_lesion", FA, False, True),
        ("lesion_average", FA, False, True),
    ],
)
def test_a_load_keeps_its_zeros(tmp_path, name, inside, masked, told):
    values, everywhere, _ = zeros_around(inside)
    if masked:
        plain(tmp_path / "brain_mask.nii.gz", zeros_around(np.ones(64))[0])
    numbers = measure_regions([plain(tmp_path / f"{name}.nii.gz", values)], everywhere)
    (row,) = numbers.tables[name, "value"].rows
    assert row.voxels == 216
    assert row.mean == pytest.approx(values.mean())
    assert [
        " and are counted: if nothing was measured there" in each for each in numbers.notes
    ] == ([True] if told else [])


def test_a_brain_mask_beside_a_map_says_what_its_zeros_are(tmp_path):
    values, everywhere, _ = zeros_around(FA)
    plain(tmp_path / "sub-01_desc-brain_mask.nii.gz", values > 0)
    name = "sub-01_param-neurites_dwimap"
    numbers = measure_regions([plain(tmp_path / f"{name}.nii.gz", values)], everywhere)
    assert numbers.tables[name, "value"].rows[0].mean == pytest.approx(FA.mean())
    assert "as outside a brain mask" in numbers.notes[0]


def test_maps_that_share_no_voxel_are_refused(tmp_path, labels):
    far = np.diag([2.0, 2, 2, 1])
    far[:3, 3] = 100
    true, image = plain(tmp_path / "a.nii.gz", LABELS), plain(tmp_path / "b.nii.gz", LABELS, far)
    with pytest.raises(UserError, match="no voxel in common"):
        measure_regions([image], labels, true)
