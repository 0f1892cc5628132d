"""Regions: label images and their names, nearest voxels, and numbers by hand."""

import contextlib
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from napari_msp.data.lattice import Lattice
from napari_msp.errors import UserError
from napari_msp.evaluation.measures.pair import TissueMasks
from napari_msp.evaluation.region_numbers import RegionNumbers, region_table
from napari_msp.evaluation.regions import (
    NamesDoubtful,
    Regions,
    read_names,
    read_regions,
    tissue_regions,
)


def labelled(*values, shape=(2, 2, 2), spacing=2.0):
    labels = np.array(values, dtype=np.int32).reshape(shape)
    there = np.unique(labels[labels > 0])
    affine = np.diag([spacing] * 3 + [1.0])
    return Regions(labels, {int(each): f"label {each}" for each in there}, affine)


def write(path, labels, affine=None):
    nib.save(nib.Nifti1Image(labels, np.eye(4) if affine is None else affine), path)
    return path


def test_numbers_of_a_region_by_hand():
    regions = replace(labelled(1, 1, 1, 2, 2, 0, 0, 0), names={1: "one", 2: "two", 3: "not there"})
    values = np.array([1.0, 2, 6, 10, 20, 99, 99, 99]).reshape(2, 2, 2)
    truth = np.array([0.0, 4, 6, 10, 16, 0, 0, 0]).reshape(2, 2, 2)
    one, two, none = region_table(values, regions, truth=truth, bins=2).rows
    assert (one.voxels, one.volume, one.mean) == (3, 24.0, 3.0)
    assert one.sd == pytest.approx(np.sqrt(7))  # (4 + 1 + 9) / 2
    assert one.error == pytest.approx(1.0)  # (1 + 2 + 0) / 3
    assert one.rms_error == pytest.approx(np.sqrt(5 / 3))
    assert one.bias == pytest.approx(-1 / 3)
    assert one.histogram == (3, 0)  # bins of 1 to 10.5 to 20
    assert two.histogram == (1, 1)
    assert (two.mean, two.bias) == (15.0, 2.0)
    assert (none.voxels, none.mean, none.sd, none.error) == (0, None, None, None)


def test_masks_missing_values_and_channels():
    regions = labelled(1, 1, 1, 1, 2, 0, 0, 0)
    values = np.zeros((2, 2, 2, 3))
    values[0, 0, 0] = (3, 6, 9)
    values[0, 0, 1] = np.nan
    mask = np.ones((2, 2, 2), dtype=bool)
    mask[0, 1, 1] = False
    one, two = region_table(values, regions, mask, truth=np.zeros_like(values)).rows
    assert (one.voxels, one.mean) == (2, 3.0)  # channels' mean of 6, and 0
    assert one.rms_error == pytest.approx(np.sqrt((9 + 36 + 81) / 6))
    assert (two.voxels, two.sd) == (1, None)


def test_the_nearest_label_is_taken():
    regions = labelled(1, 2, 0, 0, 0, 0, 0, 0)  # 2 mm, centres at z = 0 and 2
    fine = Lattice((1, 1, 5), np.diag([1.0, 1, 0.8, 1]))
    found = regions.on(fine)
    assert found.labels.ravel().tolist() == [1, 1, 2, 2, 0]  # z = 0, .8, 1.6, 2.4, 3.2
    mirrored = np.diag([-2.0, 2, 2, 1])
    mirrored[0, 3] = 2
    flipped = Lattice((2, 2, 2), mirrored)
    assert regions.on(flipped).labels.ravel().tolist() == [0, 0, 0, 0, 1, 2, 0, 0]


def test_a_region_that_is_cut_off_is_told_of():
    regions = labelled(*[1] * 4, *[2] * 4, shape=(8, 1, 1))
    found = regions.on(Lattice((6, 1, 1), np.diag([2.0, 2, 2, 1])))
    assert found.kept == {1: 1.0, 2: 0.5}
    assert found.notes == ["label 2 is cut off: 50 % of it lies in the image"]
    elsewhere = np.diag([2.0, 2, 2, 1])
    elsewhere[:3, 3] = 500
    regions = replace(regions, path=Path("atlas.nii"))
    with pytest.raises(UserError, match="no labelled voxel lies in the image") as caught:
        regions.on(Lattice((8, 1, 1), elsewhere))
    assert caught.value.subject == "atlas.nii"


def test_tissue_stands_in():
    white, grey, fluid = (np.arange(8).reshape(2, 2, 2) % 4 == number for number in range(3))
    regions = tissue_regions(TissueMasks(white, grey, fluid), np.eye(4))
    assert regions.labels.ravel().tolist() == [1, 2, 3, 0, 1, 2, 3, 0]
    assert list(regions.names.values()) == ["white matter", "grey matter", "fluid"]


TABLES = {
    ".tsv": "index\tname\tcolor\n4\tleft tract\t#ff0000\n7\tright tract\t#00ff00\n",
    ".txt": '# ITK-SNAP\n  4  255 0 0   1 1 1  "left tract"\n  7 0 255 0 0.5 1 1 "right tract"\n',
    ".lut": "#No. Label R G B A\n0 Unknown 0 0 0\n4  left tract  255 0 0 0\n7 right tract 1 2 3\n",
}


@pytest.mark.parametrize("ending", TABLES)
def test_names_beside_a_label_image(tmp_path, ending):
    path = write(tmp_path / "atlas.nii.gz", np.array([[[0, 4, 7, 9]]], dtype=np.int16))
    (tmp_path / f"atlas{ending}").write_text(TABLES[ending])
    assert dict(read_regions(path)) == {4: "left tract", 7: "right tract", 9: "label 9"}


@pytest.mark.parametrize(
    "content",
    [
        "4\tBrodmann 4\n7\tBA 1 2 3\n",
        "0 Unknown 0 0 0 0\n4 Brodmann 4 1.0 0.5 0 1\n7 BA 1 2 3 0.1 0.2 0.3 1\n",
        "4\tBrodmann 4\t2001\n7\tBA 1 2 3\t2002\n",
        "4 Brodmann 4 2001\n7 BA 1 2 3 2002\n",
        "4 Brodmann 4 255 0 0 0\n7\tBA 1 2 3 0 9 0 0\n",
        "4\tBrodmann 4\t255\t0\t0\t0\n7\tBA 1 2 3\t0 9 0 0\n",
        '4 255 0 0 1 1 1 "Brodmann 4"\n7 0 9 0 1 1 1 "BA 1 2 3"\n',
        "index\tname\n4.0\tBrodmann 4\n7.0\tBA 1 2 3\n",
        "\ufeffindex\tname\n4\tBrodmann 4\n7\tBA 1 2 3\n",
        '"Name","Index"\r\n"Brodmann 4",4\r\nBA 1 2 3,7\r\n',
        "colour;name;index\nred;Brodmann 4;4\n;BA 1 2 3;7\n",
    ],
)
def test_numbers_in_names_are_kept(tmp_path, content):
    table = tmp_path / "names.txt"
    for encoding in ("utf-8", "utf-16"):
        table.write_text(content.lstrip("\ufeff" if encoding == "utf-16" else ""), encoding)
        named = {index: name for index, name in read_names(table).items() if index}
        assert named == {4: "Brodmann 4", 7: "BA 1 2 3"}


@pytest.mark.parametrize(
    ("content", "names", "said"),
    [
        ("1 Precentral_L 2001\n2 Precentral_R 2002\n", ["Precentral_L", "Precentral_R"], None),
        ("1\tBrodmann 4\n2\tregion 6\n", ["Brodmann 4", "region 6"], None),
        ("1 Brodmann 4\n2 Brodmann 6\n", ["Brodmann 4", "Brodmann 6"], None),
        ("1 area 4\n2 region 6\n", ["area 4", "region 6"], "all lines end in a number, as 'area"),
        ("1 Area 4 left 1 2 3 0\n2 Area 4 right 9 2 3 0\n", ["Area 4 left", "Area 4 right"], None),
        ("1 Brodmann 4\n2 BA 1 2 3\n", ["Brodmann 4", "BA 1 2 3"], "left in the names"),
        ("1 left 9 0 0 0\n2 right 0 9 0 0\n3 cord\n", ["left", "right", "cord"], "for colours"),
        ("1 BA 4 9 0 0\n2 cord 0 9 0\n", ["BA 4", "cord"], "taken to have 3 numbers"),
        ("1 BA 1 2 3\n2 BA 4 5 6\n", ["BA", "BA"], "some names are equal"),
    ],
)
def test_what_stands_behind_names_is_cut_or_told_of(tmp_path, content, names, said):
    table = tmp_path / "names.txt"
    table.write_text(content)
    expected = pytest.warns(NamesDoubtful, match=said) if said else contextlib.nullcontext()
    with expected:
        assert list(read_names(table).values()) == names


def test_accents_of_spreadsheets_are_read(tmp_path):
    table = tmp_path / "names.csv"
    table.write_bytes("index;name\n1;Hörrinde\n".encode("latin-1"))
    assert read_names(table) == {1: "Hörrinde"}


def test_labels_of_one_name_are_told_apart(tmp_path):
    path = write(tmp_path / "labels.nii", np.array([[[1, 2, 3]]], dtype=np.int16))
    (tmp_path / "labels.tsv").write_text("index\tname\n1\ttract\n2\tcord\n3\ttract\n")
    assert read_regions(path).names == {1: "tract (1)", 2: "cord", 3: "tract (3)"}


def test_names_that_bids_inherits(tmp_path):
    (tmp_path / "sub-01/dwi").mkdir(parents=True)
    (tmp_path / "desc-tracts_dseg.tsv").write_text(TABLES[".tsv"])
    labels = np.array([[[0, 4]]], dtype=np.float32)
    path = write(tmp_path / "sub-01/dwi/sub-01_desc-tracts_dseg.nii", labels)
    assert dict(read_regions(path)) == {4: "left tract"}


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (np.full((2, 2, 2), 0.5, dtype=np.float32), "not whole numbers"),
        (np.full((2, 2, 2), np.nan, dtype=np.float32), "not whole numbers"),
        (np.full((2, 2, 2), -1, dtype=np.int16), "labels are positive"),
        (np.zeros((2, 2, 2), dtype=np.int16), "every voxel is 0"),
        (np.ones((2, 2, 2, 3), dtype=np.int16), "labels have three"),
    ],
)
def test_what_is_no_label_image_is_refused(tmp_path, labels, said):
    with pytest.raises(UserError, match=said):
        read_regions(write(tmp_path / "labels.nii", labels))
    (tmp_path / "none.txt").write_text("nothing\n")
    with pytest.raises(UserError, match="names no label"):
        read_names(tmp_path / "none.txt")


def test_tables_of_several_maps_are_one():
    regions = labelled(1, 0, 0, 0, 0, 0, 0, 0)
    table = region_table(np.full((2, 2, 2), 0.5), regions)
    tables = {("scan", "FA"): table, ("scan", "mean diffusivity"): table}
    numbers = RegionNumbers(
        tables, {"FA": "", "mean diffusivity": "mm²/s"}, [], {("scan", "FA"): "signal"}
    )
    assert numbers.csv().splitlines() == [
        "image,quantity,unit,through,label,region,voxels,volume_mm3,mean,sd,error,rms_error,bias",
        "scan,fa,,signal,1,label 1,1,8.0,0.5,,,,",
        "scan,md,mm²/s,,1,label 1,1,8.0,0.5,,,,",
    ]
