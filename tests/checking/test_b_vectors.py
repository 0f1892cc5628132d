"""Gradient tables that do not fit their image: which fault is told, of whom, and what is right."""

import subprocess
from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from napari_msp.checking.b_vectors import check_turns, doubts_of, examine_table
from napari_msp.checking.comparisons import compare_with_input
from napari_msp.checking.dataset import check
from napari_msp.checking.gradients import judge_order
from napari_msp.checking.scan import check_scan
from napari_msp.checking.summary import ScanSummary
from napari_msp.checking.turns import (
    AXIS_ORDERS,
    NO_TURN,
    TurnEvidence,
    angle,
    as_said,
    describe,
    nearest_order,
    snap_to_axes,
)
from napari_msp.cli import main
from napari_msp.data.acquisition import load_acquisition
from napari_msp.data.dataset import open_dataset
from napari_msp.data.gradients import image_to_scanner_axes, scanner_to_image_axes
from napari_msp.data.phantom.platforms import PLATFORMS
from napari_msp.data.phantom.scan import simulate_subject
from napari_msp.data.phantom.simulate import write_scan

OF_FILE = "(x, y, z) of the .bvec file should read"

FAULTS = [as_said(order) for order in AXIS_ORDERS[1:]]

TURN_ACCURACY = 1.0
"""Degrees to which a comparison of two tiny scans finds a turn (measured: 0.2 to 0.7)."""


@pytest.fixture(scope="module")
def subject(tmp_path_factory):
    """One tiny simulated head on three platforms, as a dataset."""
    root = tmp_path_factory.mktemp("subject")
    (root / "dataset_description.json").write_text("{}")
    platforms = [each for each in PLATFORMS if each.scale == 1]
    for scan in simulate_subject(0, tuple(platforms), "tiny", 0):
        write_scan(root, scan, noise_free=False)
    return root


@pytest.fixture(scope="module")
def checked(subject):
    """What is kept of each scan, the input first, all compared with it."""
    dataset = open_dataset(subject)
    scans = [
        check_scan(
            dataset.scans["sub-01", platform], subject, "sub-01", platform, with_images=True
        )[1]
        for platform in ("ge_st", "prisma_st", "connectom_st")
    ]
    source, *targets = (scan for scan in scans if scan is not None)
    compared = [
        replace(target, comparison=compare_with_input(source, target)[1]) for target in targets
    ]
    return [source, *compared]


FOUND_ALONE = 40
"""Degrees from which turns are told from one whole head alone, about every axis."""

ALONE_ACCURACY = 12.0
"""Degrees to which they are then told."""


def with_fault(scan, fault):
    """The scan with b-vectors that a fault has turned in the axes of their file.

    A fault turns every tensor, which is what images and evidence are made of.
    """
    table = scan.table
    frame = table.to_scanner @ fault @ table.to_scanner.T
    xx, yy, zz, xy, xz, yz = np.moveaxis(scan.images.tensors, -1, 0)
    tensors = np.moveaxis(np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]]), (0, 1), (-2, -1))
    tensors = frame @ tensors @ frame.T
    i, j = np.array([0, 1, 2, 0, 0, 1]), np.array([0, 1, 2, 1, 2, 2])
    return replace(
        scan, images=replace(scan.images, tensors=tensors[..., i, j]), table=turned(table, fault)
    )


def turned(table, fault):
    """A table, and what its fibres say, with b-vectors turned by a fault."""
    blocks = table.coherence.blocks.reshape(-1, 3, 3, 3, 3)
    # Σ Q_ij Q_kl b_ijkl with Q F in the place of Q: what Q did, Q F⁻¹ does now.
    evidence = np.einsum("bijkl,mj,nl->bimkn", blocks, fault, fault).reshape(-1, 81)
    coherence = TurnEvidence(evidence, table.coherence.weights)
    return replace(table, vectors=table.vectors @ fault.T, coherence=coherence)


def rotation(degrees, axis):
    vector = np.radians(degrees) * np.array(axis, dtype=float) / np.linalg.norm(axis)
    return Rotation.from_rotvec(vector).as_matrix()


def turn_between(vectors, others):
    """Largest angle in degrees between the directions of two tables, which have no sign."""
    cosines = np.abs((vectors * others).sum(axis=1))[np.linalg.norm(others, axis=1) > 0.5]
    return np.degrees(np.arccos(np.clip(cosines, 0, 1))).max()


def vectors_of(scan):
    return scan.table.vectors


# --- Turns -----------------------------------------------------------------------------------


def test_the_24_axis_orders_are_all_that_differ_by_more_than_a_sign():
    assert len(AXIS_ORDERS) == 24
    np.testing.assert_array_equal(AXIS_ORDERS[0], NO_TURN)
    assert {round(angle(order)) for order in AXIS_ORDERS} == {0, 90, 120, 180}
    distinct = {tuple(np.outer(o @ [1, 2, 3], o @ [1, 2, 3]).ravel()) for o in AXIS_ORDERS}
    assert len(distinct) == 24  # fibres along (1, 2, 3) tell them apart


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (np.diag([-1.0, 1, 1]), f"x is mirrored: {OF_FILE} (-x, y, z)"),
        (np.diag([1.0, -1, 1]), f"y is mirrored: {OF_FILE} (x, -y, z)"),
        (
            np.eye(3)[[1, 0, 2]],
            "x and y are swapped: (x, y, z) of the .bvec file should read (y, x, z)",
        ),
        (
            np.diag([1.0, 1, -1]) @ np.eye(3)[[2, 1, 0]],
            "x and z are swapped and one is mirrored: (x, y, z) of the .bvec file should read "
            "(z, y, -x)",
        ),
        (
            np.eye(3)[[1, 2, 0]],
            "axes are cycled: (x, y, z) of the .bvec file should read (y, z, x)",
        ),
        (rotation(25, [0, 0, 1]), "turned by 25° about the foot-head axis"),
        (rotation(-7, [0.6, 0.8, 0]), "turned by 7° about the axis (0.60, 0.80, 0.00) of right"),
    ],
)
def test_a_turn_in_words(fault, said):
    proper = fault * np.linalg.det(fault)
    assert describe(proper, np.eye(3)).startswith(said)


def test_the_words_say_how_to_read_the_file():
    """(x, y, z) read as is written makes right what is wrong, but for a sign of all."""
    given = np.array([0.2, 0.5, 0.7])
    for order in AXIS_ORDERS[1:]:
        read = describe(order, np.eye(3)).rpartition("(")[2].rstrip(")").split(", ")
        values = dict(zip("xyz", given, strict=True))
        right = np.array([values[each[-1]] * (-1 if each[0] == "-" else 1) for each in read])
        assert np.allclose(right, order @ given) or np.allclose(right, -order @ given)


def test_a_turn_near_an_order_is_that_order():
    order = AXIS_ORDERS[5]
    near = rotation(2, [1, 1, 0]) @ order
    np.testing.assert_array_equal(snap_to_axes(near, 3.0), order)
    assert snap_to_axes(near, 1.0) is near
    np.testing.assert_array_equal(nearest_order(rotation(20, [1, 1, 0]) @ order), order)


# --- Axes ------------------------------------------------------------------------------------


def test_right_tables_are_not_called_wrong(checked):
    findings, corrections = check_turns(checked, checked[0])
    assert findings == []
    assert corrections == []


@pytest.mark.parametrize("number", range(len(FAULTS)))
def test_every_axis_order_is_told_and_put_right(checked, number):
    source, target, other = checked
    wrong = with_fault(target, FAULTS[number])
    findings, corrections = check_turns([source, wrong, other], source)
    assert [(f.severity, f.where, f.flag) for f in findings] == [
        ("error", "sub-01 prisma_st", "b-vectors' axes")
    ]
    [correction] = corrections
    assert correction.where == target.where
    np.testing.assert_allclose(correction.vectors, vectors_of(target), atol=1e-12)


@pytest.mark.parametrize("number", range(0, len(FAULTS), 4))
def test_the_input_is_told_when_all_others_agree(checked, number):
    source, *others = checked
    wrong = with_fault(source, FAULTS[number])
    findings, [correction] = check_turns([wrong, *others], wrong)
    assert [f.where for f in findings] == ["sub-01 ge_st"]
    np.testing.assert_allclose(correction.vectors, vectors_of(source), atol=1e-12)


@pytest.mark.parametrize("degrees", [5, 10, 15, 25, 40])
@pytest.mark.parametrize("axis", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, -1, 1)])
def test_turns_are_measured(checked, degrees, axis):
    source, target, other = checked
    wrong = with_fault(target, rotation(degrees, axis))
    [finding], [correction] = check_turns([source, wrong, other], source)
    assert (finding.where, finding.flag) == ("sub-01 prisma_st", "b-vectors turned")
    assert turn_between(correction.vectors, vectors_of(target)) < TURN_ACCURACY


def test_of_two_scans_that_disagree_one_is_wrong_and_nothing_is_corrected(checked):
    """Fibres of a tiny head do not say which, for most faults; then nobody is accused."""
    source, target, _ = checked
    wrong = with_fault(target, rotation(20, [0, 0, 1]))
    [finding], corrections = check_turns([source, wrong], source)
    assert finding.flag == "b-vectors disagree"
    assert "one of the two tables is wrong" in finding.message()
    assert "turned by 20° about the foot-head axis" in finding.message()
    assert corrections == []


# --- Rows ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def acquisition(subject):
    found = open_dataset(subject).acquisition("sub-01", "prisma_st")
    _ = found.voxels, found.mask
    return found


def table_of(acquisition):
    table = acquisition.gradients
    return table.b_values, scanner_to_image_axes(table.directions, acquisition.affine)


def judged(acquisition, b_values, vectors):
    return judge_order(acquisition.voxels, acquisition.mask, b_values, vectors)


def test_the_right_order_is_not_called_wrong(acquisition):
    verdict = judged(acquisition, *table_of(acquisition))
    assert verdict.better is None
    assert verdict.follows


@pytest.mark.parametrize("by", [-3, -2, -1, 1, 2, 3])
@pytest.mark.parametrize("kind", ["table", "directions", "b-vectors"])
def test_shifts_are_told_and_put_right(acquisition, kind, by):
    b_values, vectors = table_of(acquisition)
    rows = np.arange(len(b_values))
    weighted = b_values > 50
    wrong_b, wrong = b_values.copy(), vectors.copy()
    if kind == "table":
        wrong_b, wrong = np.roll(b_values, by), np.roll(vectors, by, axis=0)
    elif kind == "directions":
        wrong[weighted] = np.roll(vectors[weighted], by, axis=0)
    else:
        vectors = vectors.copy()
        vectors[~weighted] = [0.0, 0.6, 0.8]  # as some tools write for b = 0
        wrong = np.roll(vectors, by, axis=0)
    verdict = judged(acquisition, wrong_b, wrong)
    order = verdict.better
    assert order is not None
    count = "one volume" if abs(by) == 1 else f"{abs(by)} volumes"
    assert order.name.startswith(f"the {kind} {'is' if kind == 'table' else 'are'} shifted by")
    assert f"{count} {'forward' if by > 0 else 'back'}" in order.name
    np.testing.assert_array_equal(wrong_b[order.b_rows], b_values)
    np.testing.assert_allclose(wrong[order.vector_rows][weighted], vectors[weighted])
    assert len(rows) == len(order.b_rows)


@pytest.mark.parametrize("kind", ["table", "directions"])
def test_reverse_orders_are_told_and_put_right(acquisition, kind):
    b_values, vectors = table_of(acquisition)
    weighted = b_values > 50
    wrong_b, wrong = b_values.copy(), vectors.copy()
    if kind == "table":
        wrong_b, wrong = b_values[::-1], vectors[::-1]
    else:
        wrong[weighted] = vectors[weighted][::-1]
    order = judged(acquisition, wrong_b, wrong).better
    assert "reverse order" in order.name
    np.testing.assert_allclose(wrong[order.vector_rows], vectors)


def test_a_table_that_belongs_to_another_scan_is_told(acquisition):
    b_values, vectors = table_of(acquisition)
    weighted = np.flatnonzero(b_values > 50)
    for seed in range(5):
        other = vectors.copy()
        other[weighted] = vectors[np.random.default_rng(seed).permutation(weighted)]
        verdict = judged(acquisition, b_values, other)
        assert verdict.better is None
        assert not verdict.follows
    wrong = replace(
        acquisition,
        given_gradients=replace(
            acquisition.gradients, directions=image_to_scanner_axes(other, acquisition.affine)
        ),
    )
    [finding], _ = examine_table("scan", wrong)
    assert (finding.severity, finding.flag) == ("warning", "b-vectors unlike signal")


# --- A real scan -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def slab(slab_path):
    found = load_acquisition(slab_path, mask=slab_path.with_name("sub-01_mask.nii.gz"))
    _ = found.voxels, found.mask
    return found


@pytest.fixture(scope="module")
def slab_table(slab):
    findings, table = examine_table("slab", slab)
    assert findings == []
    return table


def scan_alone(table, acquisition):
    lattice, gradients = acquisition.lattice, acquisition.gradients
    return ScanSummary("", "", "slab", lattice, gradients, table=table)


def test_nothing_is_wrong_with_the_real_slab(slab):
    assert doubts_of(slab) == []


def test_every_axis_order_is_told_from_the_real_slab_alone(slab, slab_table):
    for fault in FAULTS:
        [finding], [correction] = check_turns([scan_alone(turned(slab_table, fault), slab)], None)
        assert finding.flag == "b-vectors' axes"
        np.testing.assert_allclose(correction.vectors, slab_table.vectors, atol=1e-12)


@pytest.mark.parametrize("degrees", [5, 10, 15, 20, 25, 30, 35, 40])
def test_turns_of_the_real_slab_are_told_rightly_or_not_at_all(slab, slab_table, degrees):
    for axis in [*np.eye(3), *-np.eye(3), (1, 1, 1), (1, -1, 0)]:
        findings, corrections = check_turns(
            [scan_alone(turned(slab_table, rotation(degrees, axis)), slab)], None
        )
        assert [finding.flag for finding in findings] in ([], ["b-vectors turned"])
        for correction in corrections:
            assert turn_between(correction.vectors, slab_table.vectors) < ALONE_ACCURACY
        if degrees >= FOUND_ALONE:
            assert findings


@pytest.mark.parametrize("by", [-3, -2, -1, 1, 2, 3])
@pytest.mark.parametrize("kind", ["table", "directions"])
def test_shifts_of_the_real_slab_are_put_right(slab, kind, by):
    b_values, vectors = table_of(slab)
    weighted = b_values > 50
    wrong_b, wrong = b_values.copy(), vectors.copy()
    if kind == "table":
        wrong_b, wrong = np.roll(b_values, by), np.roll(vectors, by, axis=0)
    else:
        wrong[weighted] = np.roll(vectors[weighted], by, axis=0)
    order = judged(slab, wrong_b, wrong).better
    np.testing.assert_array_equal(wrong_b[order.b_rows], b_values)
    np.testing.assert_allclose(wrong[order.vector_rows], vectors)


@pytest.mark.slow
@pytest.mark.reference("MRtrix dwigradcheck")
@pytest.mark.parametrize("number", [0, 6, 15])
def test_dwigradcheck_says_the_same_of_the_real_slab(slab, slab_path, slab_table, tmp_path, number):
    """It tries flips and permutations of the file's axes, and ranks them by tracks' lengths."""
    fault = FAULTS[number]
    bvec = tmp_path / "wrong.bvec"
    np.savetxt(bvec, (slab_table.vectors @ fault.T).T)
    files = [str(bvec), str(slab_path.with_name("sub-01_dwi.bval"))]
    right = tmp_path / "right"
    subprocess.run(
        ["dwigradcheck", slab_path, "-fslgrad", *files, "-mask",
         slab_path.with_name("sub-01_mask.nii.gz"), "-number", "1500", "-nthreads", "1",
         "-export_grad_fsl", f"{right}.bvec", f"{right}.bval", "-quiet"],
        check=True, capture_output=True, cwd=tmp_path,
    )  # fmt: skip
    theirs = np.loadtxt(f"{right}.bvec").T
    _, [ours] = check_turns([scan_alone(turned(slab_table, fault), slab)], None)
    assert turn_between(theirs, ours.vectors) < 1e-3


# --- Whole heads -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A whole simulated head on two platforms, compared."""
    root = tmp_path_factory.mktemp("whole")
    for simulated in simulate_subject(0, PLATFORMS[:2], "full", 0):
        write_scan(root, simulated, noise_free=False)
    dataset = open_dataset(root)
    kept = []
    for (name, platform), path in sorted(dataset.scans.items()):
        findings, scan = check_scan(path, root, name, platform, with_images=True)
        assert not any("b-vectors" in finding.flag for finding in findings)
        assert scan is not None
        kept.append(scan)
    source, target = kept
    return [source, replace(target, comparison=compare_with_input(source, target)[1])]


@pytest.mark.slow
def test_right_tables_of_a_whole_head(whole):
    assert check_turns(whole, whole[0]) == ([], [])
    for scan in whole:
        assert check_turns([scan], None) == ([], [])


@pytest.mark.slow
@pytest.mark.parametrize("which", [0, 1])
def test_axis_orders_of_a_whole_head(whole, which):
    """Of two scans, their own fibres say whose table is wrong."""
    for fault in FAULTS[which::4]:
        scans = list(whole)
        scans[which] = with_fault(whole[which], fault)
        [finding], [correction] = check_turns(scans, scans[0])
        assert finding.where == whole[which].name
        np.testing.assert_allclose(correction.vectors, vectors_of(whole[which]), atol=1e-12)
        [finding], [correction] = check_turns([scans[which]], None)
        np.testing.assert_allclose(correction.vectors, vectors_of(whole[which]), atol=1e-12)


@pytest.mark.slow
def test_all_tables_of_a_whole_head_wrong_alike(whole):
    for fault in FAULTS[::8]:
        scans = [with_fault(scan, fault) for scan in whole]
        findings, corrections = check_turns(scans, scans[0])
        assert len(findings) == 2
        for correction, scan in zip(corrections, whole, strict=True):
            np.testing.assert_allclose(correction.vectors, vectors_of(scan), atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("degrees", [5, 15, 25, 40])
def test_turns_of_a_whole_head(whole, degrees):
    source, target = whole
    for axis in [(1, 0, 0), (0, -1, 0), (0, 0, 1), (1, 1, 1)]:
        wrong = with_fault(target, rotation(degrees, axis))
        [finding], corrections = check_turns([source, wrong], source)
        assert finding.where == target.name
        assert finding.flag in ("b-vectors turned", "b-vectors disagree")
        for correction in corrections:  # by the other scan
            assert turn_between(correction.vectors, vectors_of(target)) < TURN_ACCURACY
        findings, corrections = check_turns([wrong], None)
        assert [finding.flag for finding in findings] in ([], ["b-vectors turned"])
        for correction in corrections:
            assert turn_between(correction.vectors, vectors_of(target)) < ALONE_ACCURACY
        if degrees >= FOUND_ALONE:
            assert findings


# --- Files -----------------------------------------------------------------------------------


def copy_with(subject, tmp_path, change):
    """The subject with the gradient files of prisma_st changed; path of its .bvec file."""
    root = tmp_path / "heads"
    for file in subject.rglob("*"):
        if file.is_file():
            (root / file.relative_to(subject)).parent.mkdir(parents=True, exist_ok=True)
            (root / file.relative_to(subject)).write_bytes(file.read_bytes())
    [bvec] = root.glob("sub-01/ses-prisma/dwi/*.bvec")
    b_values, vectors = change(np.loadtxt(bvec.with_suffix(".bval")), np.loadtxt(bvec))
    np.savetxt(bvec.with_suffix(".bval"), b_values[None])
    np.savetxt(bvec, vectors)
    return root, bvec


def test_the_command_writes_corrected_tables_and_leaves_the_given_ones(subject, tmp_path, capsys):
    def shift_and_swap(b_values, vectors):
        return np.roll(b_values, 1), np.roll(vectors, 1, axis=1)[[1, 0, 2]]

    root, bvec = copy_with(subject, tmp_path, shift_and_swap)
    before = bvec.read_bytes()
    out = tmp_path / "corrected"
    arguments = ["check", str(root), "--input", "ge_st", "--write-corrected", str(out)]
    assert main(arguments) == 1
    told = capsys.readouterr().out
    assert "the table is shifted by one volume forward" in told
    assert "x and y are swapped: (x, y, z) of the .bvec file should read (y, x, z)" in told
    assert f"its corrected table is written to {out}" in told
    assert "--write-corrected" not in told
    assert told.splitlines()[-1] == str(out)
    assert bvec.read_bytes() == before
    written = out / bvec.relative_to(root)
    [right] = subject.glob("sub-01/ses-prisma/dwi/*.bvec")
    np.testing.assert_allclose(np.loadtxt(written), np.loadtxt(right), atol=1e-6)
    np.testing.assert_array_equal(
        np.loadtxt(written.with_suffix(".bval")), np.loadtxt(right.with_suffix(".bval"))
    )
    assert "shifted by one volume forward and x and y are swapped" in (out / "README").read_text()
    image = next(root.glob("sub-01/ses-prisma/dwi/*.nii.gz"))
    load_acquisition(image, bval=written.with_suffix(".bval"), bvec=written)
    assert sorted(each.name for each in (out / "sub-01").iterdir()) == ["ses-prisma"]
    assert main(arguments) == 2  # it is not written over
    assert "corrected" in capsys.readouterr().err


def test_nothing_is_written_where_nothing_is_wrong(subject, tmp_path):
    checked = check(subject, input="ge_st", corrected=tmp_path / "corrected")
    assert checked.corrections == []
    assert list(tmp_path.iterdir()) == []
