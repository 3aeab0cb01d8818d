"""Segmentations with sharp borders and walls: places, widths, thin structures, gradients."""

import numpy as np
import pytest
import torch
from diffus.errors import InputError
from diffus.medium import AcousticMedium, tissue_table
from diffus.medium.mixture import SHEET_RANGE_MM, STEP_MM
from diffus.medium.pairs import pack_labels
from diffus.medium.sheets import decibels
from diffus.medium.walls import CAPSULE_DB, WALL_DB

SLANTED = np.array([0.28, 0.81, 0.52]) / np.linalg.norm([0.28, 0.81, 0.52])
LIVER, BLOOD, BONE, AIR = 1, 2, 3, 4
TABLE = {LIVER: "liver", BLOOD: "blood", BONE: "bone", AIR: "air"}


def scaled(spacing):
    """ijk_to_ras of a grid whose middle is the origin, for voxels of (i, j, k) mm and 40 mm an axis."""
    size = [int(40 / mm) for mm in spacing]
    matrix = np.diag([*spacing, 1.0])
    matrix[:3, 3] = [-(n - 1) / 2 * mm for n, mm in zip(size, spacing)]
    return matrix, size[::-1]


def half_spaces(spacing, normal=SLANTED, offset=0.0, labels=(LIVER, BLOOD)):
    """Two tissues on either side of a plane, the second where x . normal > offset."""
    matrix, shape = scaled(spacing)
    k, j, i = np.indices(shape)
    points = np.stack([i, j, k], -1) @ matrix[:3, :3].T + matrix[:3, 3]
    return np.where(points @ normal > offset, labels[1], labels[0]), matrix


def near_plane(normal, offset, distances, seed=0):
    """Points at given distances from a plane, within 9 mm of its middle."""
    rng = np.random.default_rng(seed)
    inside = rng.uniform(-9, 9, (len(distances), 3))
    inside -= np.outer(inside @ normal, normal)
    return torch.from_numpy(inside + np.outer(offset + distances, normal)).float()


@pytest.mark.parametrize("spacing", [(0.7, 0.7, 0.7), (1.0, 1.0, 1.0), (3.0, 3.0, 3.0), (0.8, 0.8, 3.0)])
@pytest.mark.parametrize("offset", [-0.9, 0.0, 0.4])
def test_a_slanted_border_is_where_it_is(spacing, offset):
    """Labels lose the partial volume, so that a tenth of a voxel is what can be known."""
    labels, matrix = half_spaces(spacing, offset=offset)
    medium = AcousticMedium.from_labels(labels, TABLE, matrix)
    true = np.random.default_rng(1).uniform(-1, 1, 4000)
    scatter = medium.sample(near_plane(SLANTED, offset, true))[3].numpy()
    is_blood = scatter < 0.5 * tissue_table()["liver"].scattering
    # The border's place is the mean of where the tissue changes: as many on either side as true.
    assert np.mean(is_blood) - np.mean(true > 0) == pytest.approx(0, abs=0.04 * max(spacing))
    assert np.quantile(np.abs(true[is_blood != (true > 0)]), 0.9) < 0.3 * max(spacing)


@pytest.mark.parametrize("samples", [96, 400, 3200])
def test_borders_are_steps_at_any_sampling(samples):
    labels, matrix = half_spaces((3.0, 3.0, 3.0), labels=(AIR, BONE))
    medium = AcousticMedium.from_labels(labels, TABLE, matrix)
    along = torch.linspace(-15, 15, samples)
    ray = along[:, None] * torch.from_numpy(SLANTED).float()
    impedance = medium.sample(ray)[0]
    air, bone = (tissue_table()[name].impedance_mrayl for name in ("air", "bone"))
    pure = (impedance < air + 0.1 * (bone - air)) | (impedance > bone - 0.1 * (bone - air))
    assert (~pure).sum() * 30 / samples <= 1.3 * STEP_MM + 30 / samples
    assert (impedance.diff() >= -1e-4).all()
    crossing = along[int((impedance < bone / 2).sum()) - 1]
    assert abs(crossing) < 0.75 + 30 / samples


def test_fractions_of_bone_and_air_are_no_other_tissue():
    """Mixed maps had soft tissue's values between bone and air, several millimetres wide."""
    labels, matrix = half_spaces((3.0, 3.0, 3.0), labels=(AIR, BONE))
    points = near_plane(SLANTED, 0.0, np.random.default_rng(0).uniform(-6, 6, 3000))
    impedance = AcousticMedium.from_labels(labels, TABLE, matrix).sample(points)[0]
    like_tissue = ((impedance > 0.5) & (impedance < 6)).double().mean().item()
    assert like_tissue < 0.05


@pytest.mark.parametrize("spacing", [(0.7, 0.7, 0.7), (1.0, 1.0, 1.0), (3.0, 3.0, 3.0), (0.8, 0.8, 3.0)])
def test_walls_know_their_distance(spacing):
    labels, matrix = half_spaces(spacing)
    medium = AcousticMedium.from_labels(labels, TABLE, matrix)
    for distance in (0.5, 1.0):
        points = near_plane(SLANTED, 0.0, np.full(500, distance))
        found, level = medium.sample(points)[4:]
        assert found.median().item() == pytest.approx(distance, abs=0.25)
        assert level.median().item() == pytest.approx(decibels(WALL_DB))
    far, level = medium.sample(near_plane(SLANTED, 0.0, np.full(50, 11.0)))[4:]
    assert far.min() == SHEET_RANGE_MM
    assert level.max() == 0


def test_bone_and_gas_have_no_wall_and_two_organs_have():
    table = {1: "bone", 2: "air", 3: "liver", 4: "kidney"}
    for pair, wall in (((1, 2), 0), ((1, 3), 0), ((2, 3), 0), ((3, 4), decibels(CAPSULE_DB))):
        labels, matrix = half_spaces((1.0, 1.0, 1.0), labels=pair)
        level = AcousticMedium.from_labels(labels, table, matrix).sample(near_plane(SLANTED, 0.0, np.zeros(50)))[5]
        assert level.median().item() == pytest.approx(wall)


def test_a_vessel_two_voxels_wide_stays_in_the_liver():
    matrix, shape = scaled((3.0, 3.0, 3.0))
    labels = np.full(shape, LIVER)
    labels[:, 5:7, 5:7] = BLOOD
    medium = AcousticMedium.from_labels(labels, TABLE, matrix)
    middle = torch.tensor([matrix[0, 3] + 5.5 * 3, matrix[1, 3] + 5.5 * 3, 0.0]).float()
    across = middle + torch.linspace(-9, 9, 181)[:, None] * torch.tensor([1.0, 0.0, 0.0])
    dark = medium.sample(across)[3] < 0.5
    assert 3.0 < dark.sum().item() * 0.1 < 7.0


def test_memory_does_not_grow_with_the_number_of_tissues():
    labels = np.random.default_rng(0).integers(0, 40, (9, 10, 11))
    packed = pack_labels(labels, (1.0, 1.0, 1.0), 40).packed
    assert packed.dtype == torch.int32
    assert packed.shape == (11, 12, 13)
    with pytest.raises(InputError, match="more than 254 tissues"):
        pack_labels(np.full((2, 2, 2), 255), (1.0, 1.0, 1.0), 0)


def test_gradients_to_points_and_tissues():
    labels, matrix = half_spaces((3.0, 3.0, 3.0))
    medium = AcousticMedium.from_labels(labels, TABLE, matrix).to(torch.float64)
    points = near_plane(SLANTED, 0.0, np.random.default_rng(0).uniform(-0.2, 0.2, 20)).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: medium.sample(x)[:4], points, atol=1e-5)
    (slope,) = torch.autograd.grad(medium.sample(points)[3].sum(), points)
    assert (slope @ torch.from_numpy(SLANTED) < 0).all()
    table = torch.rand(2, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: medium.mixture(points.detach()).mixed(t), table)


def test_a_mixture_with_the_mediums_own_tissues_is_the_medium():
    labels, matrix = half_spaces((1.0, 1.0, 1.0))
    under = AcousticMedium(torch.rand(4, *labels.shape), matrix, sheets=torch.rand(4, *labels.shape))
    labels[:10] = 0
    points = torch.rand(2, 500, 3) * 44 - 22
    for medium in (
        AcousticMedium.from_labels(labels, TABLE, matrix),
        AcousticMedium.from_labels(labels, TABLE, matrix, elsewhere=under),
    ):
        own = torch.tensor([tissue_table()[name].properties for name in ("liver", "blood")])
        torch.testing.assert_close(medium.mixture(points).mixed(own), medium.sample(points), atol=1e-5, rtol=0)


def test_outside_is_gel_and_what_is_not_labelled_is_the_medium_under():
    labels, matrix = half_spaces((1.0, 1.0, 1.0), labels=(0, LIVER))
    under = AcousticMedium(torch.full((4, *labels.shape), 0.7), matrix)
    medium = AcousticMedium.from_labels(labels, TABLE, matrix, elsewhere=under)
    points = torch.tensor([[0.0, 0.0, 0.0], [90.0, 0.0, 0.0]]) + 5 * torch.from_numpy(-SLANTED).float()
    assert medium.sample(points)[:4, 0].tolist() == pytest.approx([0.7] * 4)
    assert medium.sample(points)[:4, 1].tolist() == pytest.approx(medium.background.tolist())


def test_enhanced_blood_under_labels_leaves_no_bright_rim():
    """Beside blood with contrast agent a CT's own numbers would be those of bone."""
    labels, matrix = half_spaces((1.5, 1.5, 1.5), labels=(0, BLOOD))
    hu = np.where(labels == BLOOD, 600.0, 50.0)
    hu[0, 0, 0] = -100.0
    medium = AcousticMedium.from_labels(
        labels, TABLE, matrix, elsewhere=AcousticMedium.from_ct(hu, matrix, outside="air")
    )
    values = medium.sample(near_plane(SLANTED, 0.0, np.random.default_rng(0).uniform(-4, 4, 2000)))
    assert values[1].max() < 0.7
    assert values[3].max() < 1.05


def test_slanted_walls_of_coarse_labels_show_no_stairs():
    normal = np.array([0.3, 0.2, 1.0]) / np.linalg.norm([0.3, 0.2, 1.0])
    labels, matrix = half_spaces((3.0, 3.0, 3.0), normal=normal)
    depth = torch.linspace(-6, 6, 481)
    rays = near_plane(normal, 0.0, np.zeros(300))[:, None] + depth[:, None] * torch.from_numpy(normal).float()
    smooth, stairs = (
        (
            (AcousticMedium.from_labels(labels, TABLE, matrix, antialias=a).sample(rays)[3] > 0.5).double().sum(1) / 40
        ).std()
        for a in (True, False)
    )
    assert stairs > 0.75
    assert smooth < 0.4 * stairs


@pytest.mark.parametrize(("liver_hu", "blood_hu", "seen"), [(110, 175, True), (62, 38, True), (47, 43, False)])
def test_vessels_of_the_liver_are_seen_where_the_ct_tells_them(liver_hu, blood_hu, seen):
    """A branch of 8 mm that the segmentation calls liver, beside the labelled portal vein."""
    mm, shape = 1.5, (40, 48, 48)
    k, j, i = np.indices(shape) * mm
    branch = np.hypot(j - 30, k - 30) < 4
    portal = np.hypot(j - 60, i - 12) < 7
    labels = np.where(portal, BLOOD, LIVER)
    labels[:, :3], labels[:, -3:] = 0, 0
    hu = np.where(branch | portal, blood_hu, liver_hu) + np.random.default_rng(0).normal(0, 12, shape)
    matrix = np.diag([mm, mm, mm, 1.0])
    under = AcousticMedium.from_ct(hu, matrix, outside="air")
    scatter = AcousticMedium.from_labels(labels, TABLE, matrix, elsewhere=under).maps[3].numpy()
    dark = scatter < 0.5
    middle = np.hypot(j - 30, k - 30) < 2
    middle[..., :4], middle[..., -4:] = False, False
    assert (dark[middle].mean() > 0.9) == seen
    liver = (labels == LIVER) & (np.hypot(j - 30, k - 30) > 8) & (np.hypot(j - 60, i - 12) > 10)
    assert dark[liver].mean() < 0.01
