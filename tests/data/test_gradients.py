"""Gradient tables: FSL's frame, shells, and what is wrong with a table."""

from pathlib import Path

import numpy as np
import pytest

from napari_msp.data.contradictions import table_doubts
from napari_msp.data.gradient_files import read_b_values, read_gradients, write_gradients
from napari_msp.data.gradients import (
    GradientTable,
    chosen_shell,
    image_to_scanner_axes,
    scanner_to_image_axes,
)
from napari_msp.errors import UserError


def write_table(folder, b_values, vectors) -> tuple[Path, Path]:
    """Write the two text files as they are given; give their paths."""
    np.savetxt(folder / "t.bval", np.atleast_2d(b_values), fmt="%g")
    np.savetxt(folder / "t.bvec", np.atleast_2d(vectors), fmt="%.9f")
    return folder / "t.bval", folder / "t.bvec"


@pytest.mark.reference("MRtrix mrinfo")
def test_fsl_vectors_are_read_as_mrtrix_reads_them(tmp_path, scan, mrtrix, affine):
    path = scan(affine, directions=12).write(tmp_path)
    bval, bvec = tmp_path / "sub-01_dwi.bval", tmp_path / "sub-01_dwi.bvec"
    printed = mrtrix("mrinfo", path, "-fslgrad", bvec, bval, "-dwgrad")
    reference = np.array([line.split() for line in printed.splitlines()], dtype=float)

    table = read_gradients(bval, bvec, affine, 14)

    np.testing.assert_allclose(table.directions, reference[:, :3], atol=1e-6)
    np.testing.assert_allclose(table.b_values, reference[:, 3], rtol=1e-6)


@pytest.mark.reference("MRtrix mrconvert")
def test_our_fsl_files_are_read_by_mrtrix_as_we_meant_them(tmp_path, scan, mrtrix, affine):
    made = scan(affine, directions=12)
    path = made.write(tmp_path)
    table = GradientTable(made.b_values, made.directions)
    write_gradients(table, tmp_path / "our.bval", tmp_path / "our.bvec", affine)

    exported = tmp_path / "grad.b"
    files = (tmp_path / "our.bvec", tmp_path / "our.bval")
    mrtrix(
        *("mrconvert", path, tmp_path / "copy.mif", "-fslgrad", *files),
        *("-export_grad_mrtrix", exported),
    )
    reference = np.loadtxt(exported)

    np.testing.assert_allclose(reference[2:, :3], made.directions[2:], atol=1e-6)
    np.testing.assert_allclose(reference[:, 3], made.b_values, atol=1e-3)


def test_first_component_turns_only_with_a_positive_determinant():
    vector = np.array([[0.6, 0.8, 0.0]])
    right = np.diag([2.0, 2.0, 2.0, 1.0])
    left = np.diag([-2.0, 2.0, 2.0, 1.0])
    # Both images hold the same voxel-wise vector; scanner x is opposite to the file's x in both.
    np.testing.assert_allclose(image_to_scanner_axes(vector, right), [[-0.6, 0.8, 0.0]])
    np.testing.assert_allclose(image_to_scanner_axes(vector, left), [[-0.6, 0.8, 0.0]])
    depth = np.diag([2.0, 2.0, -2.0, 1.0])
    np.testing.assert_allclose(image_to_scanner_axes(vector, depth), [[0.6, 0.8, 0.0]])


def test_frames_undo_each_other(affine, spread_out):
    directions = spread_out(20)
    vectors = scanner_to_image_axes(directions, affine)
    np.testing.assert_allclose(image_to_scanner_axes(vectors, affine), directions, atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1)


def test_rows_and_columns_are_the_same_table(tmp_path, spread_out):
    vectors = spread_out(9)
    b_values = np.full(9, 1000)
    as_rows = read_gradients(*write_table(tmp_path, b_values, vectors.T), np.eye(4))
    as_columns = read_gradients(*write_table(tmp_path, b_values[:, None], vectors), np.eye(4))
    np.testing.assert_array_equal(as_rows.directions, as_columns.directions)
    np.testing.assert_array_equal(as_rows.b_values, as_columns.b_values)


def test_three_volumes_are_read_as_rows_as_fsl_does(tmp_path):
    vectors = np.array([[1, 0, 0], [0, 0.6, 0.8], [0, -0.8, 0.6]])
    files = write_table(tmp_path, [1000, 1000, 1000], vectors.T)
    np.testing.assert_allclose(
        read_gradients(*files, np.diag([-1.0, 1, 1, 1])).directions, vectors * [-1, 1, 1]
    )


def test_write_and_read_is_a_round_trip(tmp_path, affine, spread_out):
    directions = np.concatenate([np.zeros((1, 3)), spread_out(30)])
    b_values = np.array([0.0, *np.linspace(1195, 1205, 30).round(1)])
    files = tmp_path / "a.bval", tmp_path / "a.bvec"
    write_gradients(GradientTable(b_values, directions), *files, affine)
    again = read_gradients(*files, affine, 31)
    np.testing.assert_allclose(again.directions, directions, atol=1e-7)
    np.testing.assert_array_equal(again.b_values, b_values)


def test_b_values_may_be_broken_into_lines_anywhere(tmp_path):
    bval = tmp_path / "wrapped.bval"
    bval.write_text("0 1000 1000\n1000 1000\n")
    np.testing.assert_array_equal(read_b_values(bval, np.zeros((3, 5))), [0, *[1000] * 4])
    bval.write_text("0,0;1000,0;1000,0\n")
    with pytest.raises(UserError, match="decimal commas"):
        read_b_values(bval, np.zeros((3, 3)))


def test_vectors_are_brought_to_unit_length_and_those_of_b_0_to_zero(tmp_path):
    vectors = [[1.0, 0, 0], [0, 0.97, 0], [0, 0, 1.05], [0.5, 0, 0]]
    files = write_table(tmp_path, [0, 1000, 5, 5], vectors)
    table = read_gradients(*files, np.eye(4))
    np.testing.assert_allclose(table.directions, [[0, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]])
    assert table.b0_volumes.tolist() == [0, 2, 3]
    np.testing.assert_allclose(table.b_values, [0, 1000 * 0.97**2, 5, 5])


def in_part(spread_out, share, count=12):
    """One b=0 and 24 volumes at b = 2000, the first of them with shorter b-vectors."""
    vectors = np.concatenate([np.zeros((1, 3)), spread_out(24)])
    vectors[1 : 1 + count] *= share
    return np.array([0.0] + [2000.0] * 24), vectors


@pytest.mark.reference("MRtrix mrinfo")
@pytest.mark.parametrize(
    ("share", "count", "b0"),
    [(np.sqrt(0.5), 12, 0), (0.93, 12, 0), (0.95, 1, 0), (1.06, 24, 0), (0.6, 12, 2000)],
)
def test_lengths_that_code_b_values_scale_them_as_mrtrix_does(
    share, count, b0, tmp_path, scan, affine, mrtrix, spread_out
):
    path = scan(affine, directions=23).write(tmp_path)
    b_values, vectors = in_part(spread_out, share, count)
    b_values[0] = b0  # also where the whole table has one b-value, and b=0 no direction
    bval, bvec = write_table(tmp_path, b_values, vectors)
    printed = mrtrix("mrinfo", path, "-fslgrad", bvec, bval, "-dwgrad")
    reference = np.array([line.split() for line in printed.splitlines()], dtype=float)
    table = read_gradients(bval, bvec, affine, 25)
    np.testing.assert_allclose(table.b_values, reference[:, 3], rtol=1e-6)
    np.testing.assert_allclose(table.directions, reference[:, :3], atol=1e-6)
    assert table.scaled == pytest.approx((0 if b0 else min(share**2, 1), max(share**2, 1)))
    (said,) = table_doubts(table)
    assert "b-values were multiplied by their squared lengths" in said


@pytest.mark.parametrize(
    ("bval", "bvec", "said"),
    [
        ("0 1000 1000", "0,5 -0,3 0,8\n" * 3, "decimal commas"),
        ("0 1000 1000", "0,5\t-0,3\t0,8\n" * 3, "decimal commas"),
        ("0,5\n999,5\n1000\n", "", "decimal commas"),
        ("0 1000 1000", "0 1 0\n0 0 1\n0 0 0\n1", "row 4 has 1 numbers, the row before 3"),
        (
            "0 1000 1000",
            "0 nan 0\n0 nan 1\n0 nan 0",
            "volume 1 has b = 1000 but no known direction",
        ),
        (
            "0 0 0\n0 1 0\n1 0 0",
            "0 1 0\n0 0 1\n0 0 0",
            "are in its b-vectors, were the two files swapped",
        ),
    ],
)
def test_what_is_wrong_with_a_table_is_said_in_its_own_words(tmp_path, bval, bvec, said):
    for name, text in (("a.bval", bval), ("a.bvec", bvec)):
        (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=said):
        read_gradients(tmp_path / "a.bval", tmp_path / "a.bvec", np.eye(4), 3)


def test_tables_of_other_programs_have_commas_between_numbers(tmp_path):
    (tmp_path / "a.bval").write_text("0,1000,1000")
    (tmp_path / "a.bvec").write_text("0,1,0\n0,0,1\n0,0,0")
    table = read_gradients(tmp_path / "a.bval", tmp_path / "a.bvec", np.eye(4), 3)
    assert table.b_values.tolist() == [0, 1000, 1000]


def test_lengths_rounded_to_two_decimals_mean_nothing(spread_out):
    b_values, vectors = in_part(spread_out, 1.0)
    assert np.abs(np.linalg.norm(vectors.round(2)[1:], axis=1) - 1).max() > 0.002
    table = read_gradients(b_values, vectors.round(2), np.eye(4))
    np.testing.assert_array_equal(table.b_values, b_values)
    assert table.scaled is None
    assert not list(table_doubts(table))


@pytest.mark.parametrize(("share", "count"), [(0.5, 24), (0.5, 3), (1.4, 12)])
def test_lengths_that_may_be_a_slip_are_refused(share, count, spread_out):
    b_values, vectors = in_part(spread_out, share, count)
    with pytest.raises(UserError, match="if their lengths code b-values, give b·"):
        read_gradients(b_values, vectors, np.eye(4))


@pytest.mark.parametrize("b_value", [700, 3000])
@pytest.mark.parametrize(("low", "high"), [(0.93, 1.07), (0.98, 1.02)])
def test_lengths_on_both_sides_of_1_mean_nothing_at_any_b_value(spread_out, b_value, low, high):
    """As of vectors that an affine registration turned: two scans are read alike."""
    vectors = np.concatenate([np.zeros((1, 3)), spread_out(24)])
    vectors[1:] *= np.array([high] + [low] * 22 + [1.0])[:, None]
    b_values = np.array([0.0] + [b_value] * 24)
    table = read_gradients(b_values, vectors, np.eye(4))
    np.testing.assert_array_equal(table.b_values, b_values)
    assert table.scaled is None
    assert table.uneven == pytest.approx((low, high))


@pytest.mark.parametrize("b_value", [700.0, 1200.0, 3000.0])
def test_lengths_that_would_blur_a_shell_mean_nothing_at_any_b_value(spread_out, b_value):
    """As of one decimal."""
    b_values, vectors = in_part(spread_out, 1.0)
    b_values *= b_value / b_values.max()
    alike = vectors.copy()
    alike[1:] *= np.linspace(0.96, 0.985, 24)[:, None]
    assert read_gradients(b_values, alike, np.eye(4)).scaled == pytest.approx((0.96**2, 1))
    vectors[1:] *= np.linspace(0.91, 0.985, 24)[:, None]
    table = read_gradients(b_values, vectors, np.eye(4))
    np.testing.assert_array_equal(table.b_values, b_values)
    np.testing.assert_allclose(np.linalg.norm(table.directions[1:], axis=1), 1)
    assert table.scaled is None
    assert table.uneven == pytest.approx((0.91, 0.985))
    (said,) = table_doubts(table)
    assert "lengths of 0.91 to 0.985" in said
    assert not chosen_shell(table, None, "scan").chained


def test_lengths_that_blur_the_parts_of_a_b_value_are_named_as_the_reason(spread_out):
    """As of a grid in q-space: nobody may take them for unit vectors."""
    b_values, vectors = in_part(spread_out, 1.0)
    vectors[1:] *= np.sqrt(np.linspace(0.4, 1.0, 24))[:, None]
    table = read_gradients(b_values, vectors, np.eye(4))
    with pytest.raises(UserError, match="no shell; this comes from the lengths of its b-vectors"):
        chosen_shell(table, None, "scan")


def test_b_values_that_are_as_their_lengths_are_not_scaled_once_more(spread_out):
    b_values, vectors = in_part(spread_out, np.sqrt(0.5))
    b_values[1:13] = 1000
    with pytest.raises(UserError, match="unit length"):
        read_gradients(b_values, vectors, np.eye(4))


@pytest.mark.parametrize(
    ("rows", "field", "says"),
    [
        (np.full((1, 34), 1000.0), "bvec", r"has 1 row of 34 numbers; give the b-vectors"),
        (np.ones((3, 34)), "bval", r"has 3 rows of 34 numbers; give the b-values"),
        (np.ones((34, 3)), "bval", r"has 34 rows of 3 numbers; give the b-values"),
        (np.ones((34, 4)), "bval", r"t\.bval: has 34 b-values but the image has 33 volumes"),
    ],
)
def test_one_file_given_as_both_is_told_where_it_does_not_belong(tmp_path, rows, field, says):
    bval, _ = write_table(tmp_path, rows, [1])
    with pytest.raises(UserError, match=says) as caught:
        read_gradients(bval, bval, np.eye(4), 33)
    assert (caught.value.subject, caught.value.field) == (str(bval), field)


def test_near_b_values_are_one_shell_and_low_ones_b0(spread_out):
    b_values = np.array([0, 50, 1195, 1200, 2005, 1205, 1995, 5, 700.0])
    table = GradientTable(b_values, spread_out(9))
    np.testing.assert_array_equal(table.b0_volumes, [0, 1, 7])
    assert [shell.b_value for shell in table.shells] == [700, 1200, 2000]
    assert [shell.volumes.tolist() for shell in table.shells] == [[8], [2, 3, 5], [4, 6]]


@pytest.mark.parametrize(
    ("b_values", "vectors", "says"),
    [
        ([0, 1000], np.eye(3)[:2].T, "2 b-values but the image has 3 volumes"),
        ([0, 1000, 1000], np.ones((3, 2)), "3 rows of 2 numbers"),
        ([0, 1000, 1000], np.eye(3) * 0.5, "volume 1 has b = 1000 but a direction of length 0.5"),
        ([0, 1000, 1000], np.eye(3) * np.nan, "volume 1 has b = 1000 but no known direction"),
        ([0, 1000, 1000], np.diag([1.0, 0, 1]), "shifted by one volume forward"),
        ([0, 1000, 1000], np.diag([1.0, 1, 0]), "shifted by one volume back"),
        ([0, 1000, np.nan], np.eye(3), "finite and not negative"),
        ([0, 1000, -1000], np.eye(3), "finite and not negative"),
    ],
)
def test_a_wrong_table_is_refused(tmp_path, b_values, vectors, says):
    with pytest.raises(UserError, match=says):
        read_gradients(*write_table(tmp_path, b_values, vectors), np.eye(4), 3)


@pytest.mark.parametrize("missing", ["t.bval", "t.bvec"])
def test_a_missing_file_is_named(tmp_path, missing):
    files = write_table(tmp_path, [0, 1000], np.eye(3)[:2].T)
    (tmp_path / missing).unlink()
    with pytest.raises(UserError, match=f"{missing}: cannot be read"):
        read_gradients(*files, np.eye(4))


@pytest.mark.parametrize("text", ["zero 1000\n", "0 1000\n1000\n", ""])
def test_a_file_that_is_no_table_is_refused(tmp_path, text):
    files = write_table(tmp_path, [0, 1000], np.eye(3)[:2].T)
    files[0].write_text(text)
    with pytest.raises(UserError, match=r"t\.bval"):
        read_gradients(*files, np.eye(4), 2)


@pytest.mark.parametrize(
    ("b_values", "refused"),
    [
        ([0, *[1.0] * 6], r"looks like ms/µm² .*multiply them by 1000"),
        ([0.005, *[0.7, 1.0, 2.855] * 4], r"looks like ms/µm² .*multiply them by 1000"),
        ([0, *[1e9] * 6], r"looks like s/m² .*divide them by 1,000,000"),
        ([5.0] * 6, ""),  # what a scanner calls b=0
        ([0.0] * 8, ""),
        ([0, 1, 5, 5, 5], ""),
        ([0, *[1000.0] * 6], ""),
        ([0, *[80_000.0] * 6], ""),  # of a fixed brain
    ],
)
def test_b_values_in_other_units_are_refused(b_values, refused):
    vectors = np.tile([[1.0], [0], [0]], len(b_values))
    if refused:
        with pytest.raises(UserError, match=refused):
            read_gradients(np.array(b_values), vectors, np.eye(4))
    else:
        read_gradients(np.array(b_values), vectors, np.eye(4))
