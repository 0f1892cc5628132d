"""The phantom's parts against equations worked out by hand."""

import numpy as np
import pytest
from dipy.core.geometry import cart2sphere
from dipy.reconst.shm import real_sh_tournier

from napari_msp.data.phantom.bundles import BUNDLES, streamlines_of
from napari_msp.data.phantom.head import (
    Fibres,
    ScannerGrid,
    SimulatedHead,
    along_axes,
    point_spread,
    tissue_at,
)
from napari_msp.data.phantom.platforms import (
    ISOCENTRE,
    PLATFORMS,
    GradientField,
    gradient_table,
    spread_directions,
)
from napari_msp.data.phantom.scan import SignalModel
from napari_msp.data.phantom.subjects import Tissue, draw_pose, draw_subject


def one_voxel(
    grey=0.0, white=0.0, fluid=0.0, coherence=1.0, direction=(0.0, 0.0, 1.0)
) -> SimulatedHead:
    axis = np.arange(2.0)
    fibres = Fibres(np.array([0]), np.ones(1), np.array([direction]).T, np.full(1, coherence))
    return SimulatedHead(
        grid=ScannerGrid((axis, axis, axis)),
        inside=np.array([0]),
        points=np.zeros((3, 1)),
        grey=np.array([grey]),
        white=np.array([white]),
        fluid=np.array([fluid]),
        fibres=(fibres,),
        radial=np.array([[1.0, 0.0, 0.0]]).T,
    )


def test_single_fibre_by_hand():
    tissue = Tissue(axial_diffusivity=2e-3, intra_fraction=0.6, t2_intra=80.0, t2_extra=50.0)
    model = SignalModel(one_voxel(white=1.0), tissue, echo=100.0, repetition=1e9)
    intra = 0.7 * 0.6 * np.exp(-100 / 80)
    extra = 0.7 * 0.4 * np.exp(-100 / 50)
    assert model.without_weighting()[0] == pytest.approx(intra + extra, rel=1e-6)
    for degrees in (0, 30, 54.7356, 90):
        angle = np.deg2rad(degrees)
        felt = np.sqrt(1000) * np.array([[np.sin(angle), 0, np.cos(angle)]]).T
        cosine2 = np.cos(angle) ** 2
        stick = np.exp(-1000 * 2e-3 * cosine2)
        zeppelin = np.exp(-1000 * (2e-3 * cosine2 + 0.8e-3 * (1 - cosine2)))
        expected = intra * stick + extra * zeppelin
        assert model.weighted(felt)[0] == pytest.approx(expected, rel=1e-5)


def test_dispersed_fibres_have_the_mean_tensor():
    """To first order in b, a fan of sticks decays by the mean squared cosine of its fibres."""
    rng = np.random.default_rng(0)
    fan = rng.normal(0, (0.3, 0.3, 1.0), (20000, 3))
    fan[:, 2] = 1
    fan /= np.linalg.norm(fan, axis=1, keepdims=True)
    tissue = Tissue(intra_fraction=1.0)
    head = one_voxel(white=1.0, coherence=np.mean(fan[:, 2] ** 2))
    model = SignalModel(head, tissue, 0.0, 1e9)
    b = 20.0
    for g in np.eye(3):
        sticks = np.exp(-b * tissue.axial_diffusivity * (fan @ g) ** 2).mean()
        decay = model.weighted(np.sqrt(b) * g[:, None])[0] / model.without_weighting()[0]
        assert 1 - decay == pytest.approx(1 - sticks, rel=0.03)


def test_fluid_and_grey_matter_by_hand():
    tissue = Tissue(grey_diffusivity=0.8e-3, t2_grey=100.0, t2_fluid=2000.0)
    felt = np.sqrt(1200) * np.array([[0.0, 1.0, 0.0]]).T
    fluid = SignalModel(one_voxel(fluid=0.5), tissue, 90.0, 7200.0)
    expected = 0.5 * (1 - np.exp(-7200 / 4300)) * np.exp(-90 / 2000) * np.exp(-1200 * 3e-3)
    assert fluid.weighted(felt)[0] == pytest.approx(expected, rel=1e-5)
    grey = SignalModel(one_voxel(grey=1.0), tissue, 90.0, 1e9)
    mean = np.mean([np.log(grey.weighted(np.sqrt(1200) * g[:, None])[0]) for g in np.eye(3)])
    assert mean == pytest.approx(np.log(0.82) - 90 / 100 - 1200 * 0.8e-3, abs=1e-5)


def test_point_spread_has_the_stated_width():
    fine = np.arange(-30, 30.01, 0.1)
    matrix = point_spread(fine, np.array([0.0, 3.7]), width=2.4, blur=1.3)
    np.testing.assert_allclose(matrix.sum(axis=1), 1, rtol=1e-5)
    for row, centre in zip(matrix, (0.0, 3.7), strict=True):
        assert row @ fine == pytest.approx(centre, abs=1e-3)
        # A Gaussian of variance 1.3² convolved with a box of variance 2.4²/12.
        assert row @ (fine - centre) ** 2 == pytest.approx(1.3**2 + 2.4**2 / 12, rel=1e-2)


def test_matrices_act_on_their_own_axis():
    rng = np.random.default_rng(1)
    volume = rng.standard_normal((4, 5, 6))
    a, b, c = rng.standard_normal((3, 4)), rng.standard_normal((2, 5)), rng.standard_normal((7, 6))
    expected = np.einsum("xi,yj,zk,ijk->xyz", a, b, c, volume)
    np.testing.assert_allclose(along_axes(volume, (a, b, c)), expected, rtol=1e-10)


def test_gradient_field_is_the_derivative_of_the_coils_fields():
    field = GradientField(transverse=0.04, longitudinal=-0.03)

    def coils(p):
        x, y, z = (p - ISOCENTRE) / 100
        transverse = 4 * z**2 - x**2 - y**2
        longitudinal = 2 * z**2 - 3 * x**2 - 3 * y**2
        return 100 * np.array(
            [x + 0.04 * x * transverse, y + 0.04 * y * transverse, z - 0.03 * z * longitudinal]
        )

    place = np.array([40.0, -70.0, 35.0])
    felt = field.tensor(place[:, None])[..., 0]
    for axis, step in enumerate(np.eye(3) * 1e-3):
        slope = (coils(place + step) - coils(place - step)) / 2e-3
        np.testing.assert_allclose(felt[axis], slope, atol=1e-7)
    np.testing.assert_allclose(field.tensor(ISOCENTRE[:, None])[..., 0], np.eye(3))


@pytest.mark.parametrize(("count", "least"), [(30, 23.0), (60, 16.0)])
def test_directions_are_well_spread(count, least):
    directions = spread_directions(count, 11)
    np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 1)
    cosines = np.abs(directions @ directions.T) - np.eye(count)
    assert np.rad2deg(np.arccos(cosines.max())) > least
    _, theta, phi = cart2sphere(*directions.T)
    assert np.linalg.cond(real_sh_tournier(6, theta, phi, legacy=False)[0]) < 6


def test_every_scanner_has_its_own_directions():
    tables = [platform.table().directions for platform in PLATFORMS[:3]]
    for first, second in ((0, 1), (0, 2), (1, 2)):
        assert np.abs(tables[first] - tables[second]).max() > 0.5


def test_b0_volumes_are_spread_over_the_scan():
    table = gradient_table(30, 11, 1200.0, 4)
    assert len(table) == 34
    assert table.b0_volumes[0] == 0
    assert len(table.b0_volumes) == 4
    assert np.diff(table.b0_volumes).max() < 10
    assert [shell.b_value for shell in table.shells] == [1200.0]


@pytest.mark.parametrize("index", range(6))
def test_deformation_is_inverted_and_folds_nowhere(index):
    subject = draw_subject(0, index)
    rng = np.random.default_rng(index)
    points = rng.uniform((-65, -100, -50), (65, 65, 75), (2000, 3)).T
    back = subject.to_template(subject.from_template(points))
    assert np.abs(back - points).max() < 0.05
    moved = subject.to_template(points) - points
    assert 1 < np.sqrt(np.mean(moved**2)) < 8
    step = 0.01
    jacobian = np.stack(
        [
            (subject.to_template(points + step * e[:, None]) - subject.to_template(points)) / step
            for e in np.eye(3)
        ]
    )
    assert np.linalg.det(jacobian.transpose(2, 1, 0)).min() > 0.2


def test_subjects_and_seeds_differ():
    assert draw_subject(0, 0).tissue == draw_subject(0, 0).tissue
    assert draw_subject(0, 0).tissue != draw_subject(0, 1).tissue
    assert draw_subject(0, 0).tissue != draw_subject(1, 0).tissue


def test_pose_is_rigid_and_undone():
    pose = draw_pose(2.0, np.random.default_rng(0))
    points = np.random.default_rng(1).normal(0, 40, (3, 50))
    there = pose.from_head(points)
    np.testing.assert_allclose(pose.to_head(there), points, atol=1e-9)
    apart = np.linalg.norm(there[:, 1:] - there[:, :1], axis=0)
    np.testing.assert_allclose(apart, np.linalg.norm(points[:, 1:] - points[:, :1], axis=0))


def test_template_knows_its_tissues():
    places = {"ventricle": (8, 8, 18), "splenium": (0, -38, 14), "putamen": (26, 4, 2)}
    tissue = tissue_at(np.array([*places.values(), (0, 0, 140)], dtype=float).T)
    assert tissue[2, 0] > 0.8
    assert tissue[1, 1] > 0.8
    assert tissue[0, 2] > 0.6
    np.testing.assert_allclose(tissue.sum(axis=0), [1, 1, 1, 0], atol=0.03)
    left = tissue_at(np.array([[-26.0, 4, 2]]).T)
    np.testing.assert_allclose(left[:, 0], tissue[:, 2])


def test_bundles_lie_in_white_matter():
    """The core of every named bundle runs through the template's white matter."""
    for number, bundle in enumerate(BUNDLES):
        points = streamlines_of(number).middle
        white = tissue_at(points.astype(float))[1]
        # The template's maps are too coarse for the fornix, which runs between fluid and fluid.
        assert np.median(white) > (0.1 if bundle.name == "fornix" else 0.45), bundle.name
        # Both hemispheres get their share.
        assert abs(np.mean(points[0] > 0) - 0.5) < 0.05, bundle.name
