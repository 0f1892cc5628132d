"""Heads made different: what changes is what was asked for, and nothing else."""

import numpy as np
import pytest
from dipy.core.gradients import gradient_table
from dipy.reconst.dti import TensorModel
from one_scan import scan_on

from napari_msp.data.lattice import Lattice
from napari_msp.data.phantom.bundles import BUNDLES
from napari_msp.data.phantom.changes import (
    Ageing,
    Atrophy,
    Lesion,
    WeakerBundle,
    bundle_share,
    bundles_after,
    coherence_after,
    fibre_populations,
    head_after,
    lesion_mask,
    subject_after,
)
from napari_msp.data.phantom.head import ScannerGrid, SimulatedHead
from napari_msp.data.phantom.platforms import PLATFORMS, lattice_for
from napari_msp.data.phantom.scan import SignalModel, stick_and_zeppelin
from napari_msp.data.phantom.simulate import phantom_digest
from napari_msp.data.phantom.subjects import Tissue, aligned, draw_subject
from napari_msp.errors import UserError

TRACT = "corticospinal tract"
LESION = Lesion((26.0, -14.0, 26.0), radius=7.0)


@pytest.fixture(scope="module")
def scan():
    return scan_on("prisma_st")


@pytest.fixture(scope="module")
def tensor_before(scan):
    return tensor(scan)


def tensor(scan):
    table = gradient_table(scan.table.b_values, bvecs=scan.table.directions)
    return TensorModel(table).fit(scan.noise_free, mask=scan.mask)


def test_the_phantom_is_the_one_that_was_frozen():
    """Whoever changes it on purpose writes the new digest here and makes all results anew."""
    assert phantom_digest() == "51b1c8625dfe"


@pytest.mark.parametrize(("coherence", "factor"), [(0.92, 0.95), (0.88, 0.5), (0.75, 1.0)])
def test_dispersion_lowers_fa_of_the_mean_tensor(coherence, factor):
    tissue = Tissue(intra_fraction=0.6)

    def fa(at):
        axial, radial, axial_out, radial_out = stick_and_zeppelin(tissue, np.array(at))
        long, short = 0.6 * axial + 0.4 * axial_out, 0.6 * radial + 0.4 * radial_out
        return np.abs(long - short) / np.sqrt(long**2 + 2 * short**2)

    assert fa(coherence_after(coherence, factor, tissue)) == pytest.approx(factor * fa(coherence))


@pytest.mark.reference("dipy")
def test_weaker_bundle_loses_what_was_asked_for_and_the_others_nothing(scan, tensor_before):
    weaker = scan_on("prisma_st", changes=[WeakerBundle(TRACT, 0.95)])
    before, after = tensor_before, tensor(weaker)
    share = bundle_share(TRACT, scan.subject, scan.lattice, "tiny")
    core = scan.mask & (share > 0.4)
    assert core.sum() > 200
    assert after.fa[core].mean() / before.fa[core].mean() == pytest.approx(0.95, abs=0.006)
    assert after.md[core].mean() == pytest.approx(before.md[core].mean(), rel=0.01)
    # Nothing else changes, but for the voxels' neighbours, which a point spread reaches.
    far = share < 0.001
    assert np.abs(after.fa - before.fa)[far].mean() < 1e-4
    b0 = scan.table.b0_volumes
    np.testing.assert_array_equal(weaker.noise_free[..., b0], scan.noise_free[..., b0])
    # Twins carry the same noise.
    assert weaker.sigma == scan.sigma
    untouched = (weaker.noise_free == scan.noise_free).all(axis=-1)
    np.testing.assert_array_equal(weaker.dwi[untouched], scan.dwi[untouched])


def test_known_fibres_are_those_that_the_signal_shows(scan):
    """In voxels of little but one bundle, its direction is the tensor's."""
    fit = tensor(scan)
    share = bundle_share(TRACT, scan.subject, scan.lattice, "tiny")
    voxels = np.argwhere(scan.mask & (share > 0.65))
    assert len(voxels) > 20
    at = tuple(voxels.T)
    fractions, directions = fibre_populations(scan.subject, aligned(), "tiny", scan.lattice, voxels)
    number = [bundle.name for bundle in BUNDLES].index(TRACT)
    assert (fractions.argmax(axis=1) == number).all()
    assert fractions.sum(axis=1).max() <= 1 + 1e-5
    # One takes the voxel's middle, the other the mean over it.
    np.testing.assert_allclose(fractions[:, number], share[at], atol=0.1)
    cosine = np.abs(np.einsum("vi,vi->v", directions[:, number], fit.evecs[at][..., 0]))
    assert np.degrees(np.arccos(np.median(cosine))) < 5


def test_share_lies_in_scanner_space_whatever_the_lattice(scan):
    standard = lattice_for("tiny", scan.platform)
    flipped = standard.affine @ np.diag([-1.0, 1, 1, 1])
    flipped[0, 3] += 2.4 * (standard.shape[0] - 1)
    here, back, fine = (
        bundle_share(TRACT, scan.subject, lattice, "tiny")
        for lattice in (standard, Lattice(standard.shape, flipped), standard.refined(2))
    )
    np.testing.assert_allclose(back[::-1], here, atol=1e-5)
    np.testing.assert_allclose(fine[::2, ::2, ::2], here, atol=1e-5)
    assert 0.6 < here.max() <= 1


def test_years_weaken_every_bundle_and_widen_what_holds_fluid():
    tissue, subject = Tissue(), draw_subject(0, 0)
    for before, after in zip(BUNDLES, bundles_after([Ageing(25)], tissue), strict=True):
        assert after.coherence == coherence_after(before.coherence, 0.95, tissue)
    older = subject_after([Ageing(25)], subject)
    assert older.ventricle_growth == pytest.approx(subject.ventricle_growth + 0.1)
    assert older.csf_gain == pytest.approx(subject.csf_gain * np.exp(0.15))
    wider = subject_after([Atrophy(0.3, 1.5)], subject)
    assert wider.ventricle_growth == pytest.approx(subject.ventricle_growth + 0.3)
    assert wider.csf_gain == pytest.approx(subject.csf_gain * 1.5)
    assert subject_after([WeakerBundle(TRACT, 0.9), LESION], subject) is subject


def test_lesion_is_isotropic_bright_and_where_it_was_put(scan, tensor_before):
    ill = scan_on("prisma_st", changes=[LESION])
    inside = lesion_mask(LESION, scan.subject, scan.lattice)
    volume = inside.sum() * 2.4**3
    assert volume == pytest.approx(4 / 3 * np.pi * 7**3, rel=0.25)
    before, after = tensor_before, tensor(ill)
    changed = np.abs(ill.noise_free - scan.noise_free).max(axis=-1) > 20
    assert (changed & inside).sum() > 0.95 * inside.sum()
    away = scan.mask & ~lesion_mask(Lesion(LESION.centre, 13.0), scan.subject, scan.lattice)
    assert not changed[away].any()
    assert after.fa[inside].mean() < 0.5 * before.fa[inside].mean()
    assert after.md[inside].mean() > 1.3 * before.md[inside].mean()
    assert ill.noise_free[inside, 0].mean() > 1.5 * scan.noise_free[inside, 0].mean()


def test_a_second_lesion_takes_its_share_of_the_first():
    point = np.zeros((3, 1))
    whole = np.ones(1)
    grid = ScannerGrid((np.arange(2.0),) * 3)
    healthy = SimulatedHead(grid, np.array([0]), point, 0 * whole, whole, 0 * whole, (), point)
    two = (Lesion((0, 0, 0), share=0.5), Lesion((0, 0, 0), share=0.5, diffusivity=0.45e-3))
    ill = head_after(two, healthy, draw_subject(0, 0), aligned())
    first, second = ill.diseased
    whole_share = two[0].share_at(draw_subject(0, 0).to_template(point))[0]
    assert second.fraction[0] == pytest.approx(whole_share, rel=1e-5)
    assert first.fraction[0] == pytest.approx(whole_share * (1 - whole_share), rel=1e-5)
    assert ill.brain[0] == pytest.approx(1, rel=1e-6)
    signal = SignalModel(ill, Tissue(), 0.0, 1e9)
    felt = np.sqrt(1000) * np.array([[0.0, 0.6, 0.8]]).T
    expected = 0.9 * (first.fraction * np.exp(-1.4) + second.fraction * np.exp(-0.45))
    np.testing.assert_allclose(signal.weighted(felt), expected, rtol=1e-5)


def test_the_mirror_of_a_lesion_is_in_the_other_hemisphere():
    subject, lattice = draw_subject(0, 1), lattice_for("small", PLATFORMS[0])
    sizes, middles = [], []
    for lesion in (LESION, LESION.mirrored):
        inside = np.argwhere(lesion_mask(lesion, subject, lattice))
        sizes.append(len(inside))
        middles.append(lattice.affine[:3] @ np.append(inside.mean(axis=0), 1))
    # Heads are not symmetric, only the template is.
    assert sizes[0] == pytest.approx(sizes[1], rel=0.3)
    back = subject.to_template(np.array(middles).T)
    np.testing.assert_allclose(back[:, 0], LESION.centre, atol=1)
    np.testing.assert_allclose(back[:, 1], LESION.mirrored.centre, atol=1)


def test_a_second_scan_has_other_noise_and_the_same_head(scan):
    again = scan_on("prisma_st", run=2)
    np.testing.assert_array_equal(again.noise_free, scan.noise_free)
    difference = (again.dwi - scan.dwi)[scan.noise_free > 8 * scan.sigma]
    assert difference.std() == pytest.approx(np.sqrt(2) * scan.sigma, rel=0.03)


def test_what_cannot_be_is_refused():
    with pytest.raises(UserError, match="corticospinal tract"):
        WeakerBundle("corticospinal", 0.95)
    with pytest.raises(UserError, match="from 0 to 1"):
        WeakerBundle(TRACT, 1.2)
