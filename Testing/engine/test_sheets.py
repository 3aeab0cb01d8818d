"""Sharp media: interfaces inside of voxels, thin bright sheets, and what a segmentation says in place of an MRI."""

import numpy as np
import pytest
import torch
from diffus.errors import InputError
from diffus.geometry.filters import denoise
from diffus.medium import AcousticMedium, IntensityScale, tissue_table
from diffus.medium.brain import DURA_DB, PIA_DB
from diffus.medium.mixture import sharpen, sharpening_gain
from diffus.medium.sheets import Patches, border, joined, ridge, sheet_channels
from scipy import ndimage

FINE = 8  # points along each axis over which the phantoms average a voxel
SCALE = IntensityScale((40.0, 80.0, 110.0))


def averaged(size, spacing, inside):
    """Fraction of every voxel, (size, size, size), of which `inside(points in mm, kji)` is true."""
    voxels = np.stack(np.meshgrid(*[np.arange(size)] * 3, indexing="ij"), -1).astype(float)
    total = np.zeros((size,) * 3)
    for part in np.ndindex(FINE, FINE, FINE):
        total += inside((voxels + (np.array(part) + 0.5) / FINE - 0.5) * spacing)
    return (total / FINE**3).astype(np.float32)


def matrix_of(spacing):
    """ijk_to_ras of voxels of this size along k, j, i."""
    return torch.diag(torch.tensor([*spacing[::-1], 1.0], dtype=torch.float64))


def unit(*vector):
    return np.array(vector) / np.linalg.norm(vector)


@pytest.mark.parametrize("samples", [96, 800, 3200])
@pytest.mark.parametrize("place", [9.5, 9.7, 10.0, 10.25])
def test_an_interface_is_a_step_in_its_place_at_any_sampling(place, samples):
    """Two half spaces whose border cuts voxels of 1 mm: the step is within 0.1 mm, and 0.6 mm wide at most."""
    liver = averaged(20, np.ones(3), lambda p: p[..., 2] < place)
    medium = AcousticMedium.of_fractions(torch.from_numpy(np.stack([liver, 1 - liver])), ["liver", "blood"], np.eye(4))
    x = torch.linspace(6, 14, samples, dtype=torch.float64)
    points = torch.stack([x, torch.full_like(x, 10.3), torch.full_like(x, 9.6)], -1)
    z = medium.sample(points)[0]
    table = tissue_table()
    low, high = table["blood"].impedance_mrayl, table["liver"].impedance_mrayl
    share = (z - low) / (high - low)
    crossing = x[(share > 0.5).nonzero().max()] + 8 / samples / 2
    assert abs(crossing.item() - place) < 0.1 + 8 / samples
    between = x[(share > 0.1) & (share < 0.9)]
    assert len(between) == 0 or between.max() - between.min() < 0.6


def test_an_oblique_interface_shows_no_stairs():
    """On a plane through voxels of 1 mm the border is at every place where it should be."""
    normal = unit(0.3, 0.5, 0.81)
    grey = averaged(24, np.ones(3), lambda p: p @ normal < 18.3)
    medium = AcousticMedium.of_fractions(torch.from_numpy(grey)[None], ["grey matter"], np.eye(4))
    aside = np.random.default_rng(0).normal(size=(300, 3)) * 1.5
    feet = 18.3 * normal + aside - (aside @ normal)[:, None] * normal
    steps = np.linspace(-1, 1, 201)
    points = torch.from_numpy((feet[:, None] + steps[:, None] * normal)[..., ::-1].copy())
    fraction = medium.mixture(points).fractions[0]
    place = torch.from_numpy(steps)[(fraction > 0.5).double().cumsum(1).argmax(1)]
    assert place.abs().max() < 0.13


def test_sharpened_fractions_are_fractions_and_pure_ones_stay():
    generator = torch.Generator().manual_seed(0)
    mixed = torch.rand(4, 500, generator=generator)
    mixed = torch.cat([mixed / mixed.sum(0), torch.eye(4)], 1)[:3]  # the fourth is what the others leave
    for gain in (1, 2, 4, 8):
        fractions, rest = sharpen(mixed, gain)
        torch.testing.assert_close(fractions.sum(0) + rest, torch.ones(504))
        torch.testing.assert_close(fractions[:, 500:], mixed[:, 500:])
    assert [sharpening_gain(mm) for mm in (0.2, 0.5, 1.0, 2.0, 5.0)] == [1, 2, 4, 8, 8]


def test_gradients_to_points_fractions_and_table():
    generator = torch.Generator().manual_seed(1)
    shares = (torch.rand(3, 4, 5, 4, generator=generator, dtype=torch.float64) / 3).requires_grad_()
    table = torch.rand(3, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    points = (1 + torch.rand(6, 3, generator=generator, dtype=torch.float64)).requires_grad_()
    under = torch.rand(4, 4, 5, 4, generator=generator, dtype=torch.float64)
    sheets = torch.rand(4, 4, 5, 4, generator=generator, dtype=torch.float64)

    def sampled(shares, table, points):
        options = {"elsewhere": under, "sheets": sheets, "echogenicity_db": under[0]}
        return AcousticMedium.of_fractions(shares, table, np.eye(4), **options).sample(points)

    assert sampled(shares, table, points).shape == (6, 6)
    assert torch.autograd.gradcheck(sampled, (shares, table, points))


def test_what_fractions_leave_is_the_medium_under_them():
    under = torch.rand(4, 3, 3, 3)
    shares = torch.zeros(1, 3, 3, 3)
    shares[0, :, :, 2] = 1
    medium = AcousticMedium.of_fractions(shares, ["liver"], np.eye(4), elsewhere=under)
    there, here = (medium.sample(torch.tensor(point)) for point in ([0.0, 1.0, 1.0], [2.0, 1.0, 1.0]))
    torch.testing.assert_close(there, under[:, 1, 1, 0])
    assert here.tolist() == pytest.approx(tissue_table()["liver"].properties)


def test_plain_maps_are_not_sharpened():
    maps = torch.rand(4, 3, 3, 3)
    middle = AcousticMedium(maps, np.eye(4)).sample(torch.tensor([0.5, 1.0, 1.0]))
    torch.testing.assert_close(middle, maps[:, 1, 1, :2].mean(-1))


# --- sheets


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.5, 0.5, 0.5), (1.2, 0.8, 1.0)])
@pytest.mark.parametrize("normal", [(1, 0, 0), (1, 2, 0.4), (0.6, -0.7, 0.5)])
def test_the_medial_surface_of_a_thin_gap_is_found_within_a_quarter_of_a_voxel(spacing, normal):
    """1.5 mm of fluid between gyri: patches lie on its middle, and the sampled distance is the distance."""
    spacing, normal, size = np.array(spacing), unit(*normal), 26
    place = (size / 2 * spacing) @ normal + 0.37
    gap = averaged(size, spacing, lambda p: np.abs(p @ normal - place) < 0.75)
    patches = ridge(gap, tuple(spacing.tolist()), 2.0)
    inner = ((patches.voxels > 3) & (patches.voxels < size - 4)).all(1)
    assert inner.sum() > 100
    assert np.abs(patches.centres[inner] @ normal - place).max() < 0.25 * spacing.min()
    sheets = sheet_channels(patches, gap.shape, matrix_of(spacing))
    medium = AcousticMedium(torch.zeros(4, *gap.shape), matrix_of(spacing), sheets=sheets)
    points = np.random.default_rng(0).uniform(7, size - 8, (4000, 3)) * spacing
    points -= (points @ normal - place - np.random.default_rng(1).uniform(-0.8, 0.8, 4000))[:, None] * normal
    points = points[((points > 7 * spacing) & (points < (size - 8) * spacing)).all(1)]
    assert len(points) > 200
    sampled = medium.sample(torch.from_numpy(points[:, ::-1].copy()).float()).numpy()
    away = np.abs(points @ normal - place)
    near = away < 0.6
    assert np.abs(sampled[4] - away)[near].max() < 0.3 * spacing.max()
    assert np.abs(sampled[4] - away)[near].mean() < 0.15
    assert sampled[5][near].min() > 1.7


def test_the_wall_of_a_ventricle_is_where_it_is():
    """A ball of fluid of 7.3 mm: the sampled distance to its wall is right along every direction, 0 on it."""
    centre = np.array([15.2, 14.7, 15.4])
    ball = averaged(31, np.ones(3), lambda p: np.linalg.norm(p - centre, axis=-1) < 7.3)
    sheets = sheet_channels(border(ball, (1.0, 1.0, 1.0), 3.0), ball.shape, torch.eye(4, dtype=torch.float64))
    medium = AcousticMedium(torch.zeros(4, *ball.shape), np.eye(4), sheets=sheets)
    outward = np.random.default_rng(0).normal(size=(2000, 3))
    outward /= np.linalg.norm(outward, axis=1)[:, None]
    for away in (0.0, 0.4, -0.7):
        points = torch.from_numpy((centre + (7.3 + away) * outward)[:, ::-1].copy()).float()
        distance, level = medium.sample(points)[4:].numpy()
        assert np.abs(distance - abs(away)).max() < 0.45
        # Within so small a ball the vectors turn from voxel to voxel, which shortens what lies between.
        assert abs(distance.mean() - abs(away)) < (0.12 if away >= 0 else 0.22)
        assert level.min() > 2.5


def test_no_third_sheet_appears_between_two():
    """Two planes 3.4 mm apart: half-way the vectors to them cancel, and there the level is nothing."""
    planes = [averaged(20, np.ones(3), lambda p, at=at: np.abs(p[..., 0] - at) < 0.5) for at in (8.1, 11.5)]
    both = joined(*(ridge(plane, (1.0, 1.0, 1.0), 1.0) for plane in planes))
    sheets = sheet_channels(both, (20, 20, 20), torch.eye(4, dtype=torch.float64))
    medium = AcousticMedium(torch.zeros(4, 20, 20, 20), np.eye(4), sheets=sheets)
    z = torch.linspace(6, 14, 400)
    distance, level = medium.sample(torch.stack([torch.full_like(z, 10.2), torch.full_like(z, 9.7), z], -1))[4:]
    echo = level * torch.exp(-(distance**2) / (2 * 0.51**2))
    peaks = z[1:-1][(echo[1:-1] > echo[:-2]) & (echo[1:-1] > echo[2:]) & (echo[1:-1] > 0.3)]
    assert len(peaks) == 2
    assert peaks.tolist() == pytest.approx([8.1, 11.5], abs=0.25)


def test_fine_voxels_have_the_sheets_of_coarse_ones():
    """A slanted sulcus of 2 mm on voxels of 0.45 mm: the distance sampled is right within a quarter of a millimetre."""
    normal, spacing = unit(0.5, 0.8, -0.3), np.full(3, 0.45)
    place = (30 * spacing) @ normal
    t1 = 110 - 70 * averaged(60, spacing, lambda p: np.abs(p @ normal - place) < 1)
    medium = AcousticMedium.from_mri(t1, matrix_of(spacing), np.ones_like(t1), scale=SCALE)
    points = np.random.default_rng(0).uniform(20, 40, (3000, 3)) * spacing
    points -= (points @ normal - place - np.random.default_rng(1).uniform(-0.8, 0.8, 3000))[:, None] * normal
    distance, level = medium.sample(torch.from_numpy(points[:, ::-1].copy()).float())[4:].numpy()
    assert np.abs(distance - np.abs(points @ normal - place)).max() < 0.25
    assert level.min() > 2


def test_nothing_makes_no_sheets():
    empty = ridge(np.zeros((5, 6, 7), np.float32), (1.0, 1.0, 1.0), 1.0)
    assert isinstance(empty, Patches)
    assert len(empty) == 0
    assert not sheet_channels(empty, (5, 6, 7), torch.eye(4, dtype=torch.float64)).any()


# --- the head


def slices_of_brain(size=40):
    """White matter with a sulcus of 2 mm at k = 10.5 and a ventricle of 12 mm around (26, 20, 20)."""
    t1 = np.full((size, size, size), 110.0, np.float32)
    t1[10:12] = 40
    t1[20:32, 14:26, 14:26] = 40
    return t1


def test_sulcus_and_ventricle_wall_are_sheets_and_the_ventricle_is_black():
    t1 = slices_of_brain()
    medium = AcousticMedium.from_mri(t1, np.eye(4), np.ones_like(t1), scale=SCALE)
    points = torch.tensor([[20.0, 20.0, 10.5], [8.0, 30.0, 10.5], [20.0, 20.0, 19.5], [20.0, 20.0, 26.0]])
    sulcus, far, wall, middle = medium.sample(points).T
    assert max(sulcus[4], far[4]) < 0.15
    assert wall[4] < 0.4
    assert min(sulcus[5], far[5], wall[5]) > 2
    assert middle[5] == 0
    assert 20 * middle[3].log10() < -25


def test_a_large_plane_is_brighter_than_a_bent_one():
    """Falx and tentorium are flat over centimetres, sulci are not: a fold gets two fifths of the rise at most."""
    size = 60
    flat = averaged(size, np.ones(3), lambda p: np.abs(p[..., 2] - 30.2) < 1)
    bent = averaged(size, np.ones(3), lambda p: np.abs(p[..., 2] - 30 - 5 * np.sin(p[..., 1] / 3)) < 1)
    levels = []
    for gap in (flat, bent):
        t1 = 110 - 70 * gap
        medium = AcousticMedium.from_mri(t1, np.eye(4), np.ones_like(t1), scale=SCALE)
        sheets = medium.sample(torch.rand(4000, 3, generator=torch.Generator().manual_seed(0)) * 30 + 15)[4:]
        levels.append(20 * sheets[1][sheets[0] < 0.5].median().log10().item())
    assert levels[0] == pytest.approx(DURA_DB, abs=0.5)
    assert levels[1] < PIA_DB + 0.4 * (DURA_DB - PIA_DB)


def test_grey_and_white_matter_make_no_bands():
    """Two-way loss at 8 MHz differs by 1 dB per cm of path at most."""
    grey, white = (tissue_table()[name] for name in ("grey matter", "white matter"))
    loss = [2 * t.attenuation_db_cm_mhz * 8**t.attenuation_exponent for t in (grey, white)]
    assert abs(loss[0] - loss[1]) <= 1
    assert abs(grey.scattering_db - white.scattering_db) <= 2


def test_noise_of_the_scan_is_no_confetti():
    """Half grey, half white with 4 % of noise: sharpened without more ado it would jump from voxel to voxel."""
    generator = np.random.default_rng(0)
    t1 = np.full((30, 30, 30), 95.0, np.float32)
    t1[:, :, 20:] = 40.0
    t1 += generator.normal(0, 4, t1.shape).astype(np.float32)
    medium = AcousticMedium.from_mri(t1, np.eye(4), np.ones_like(t1), scale=SCALE)
    points = torch.rand(5000, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([12.0, 24.0, 24.0]) + 3
    spread = medium.mixture(points).fractions[3].std()
    raw = AcousticMedium.of_fractions(
        torch.from_numpy(np.stack([(110 - t1) / 30, (t1 - 80) / 30])).clamp(0, 1),
        ["grey matter", "white matter"],
        np.eye(4),
    )
    assert spread < 0.5 * raw.mixture(points).fractions[1].std()
    assert medium.sample(points)[5].max() < 0.5  # and no sheet is made of noise


def test_noise_goes_and_edges_stay():
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(40, 40, 40, generator=generator)
    inside = torch.ones(40, 40, 40, dtype=torch.bool)
    assert denoise(noise, inside).std() < 0.3
    step = noise + torch.where(torch.arange(40)[:, None, None] < 20, 0.0, 10.0)
    across = denoise(step, inside).mean((1, 2))
    assert across[19] < 1.5
    assert across[20] > 8.5
    still = torch.where(torch.arange(40)[:, None, None] < 20, 0.0, 10.0).expand(40, 40, 40)
    torch.testing.assert_close(denoise(still, inside), still)


def test_brain_is_uneven_where_the_mri_is_and_fluid_is_not():
    """Several dB over some mm in tissue, from the image's own signal; nothing in an even image, or when not wanted."""
    t1 = slices_of_brain()
    own = ndimage.gaussian_filter(np.random.default_rng(0).standard_normal(t1.shape), 1.5).astype(np.float32)
    uneven = np.where(t1 > 100, 100 + 4 * own / own.std(), t1).astype(np.float32)
    points = torch.rand(4000, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([36.0, 36.0, 5.0]) + 2
    spreads = []
    for image, wanted in ((t1, 2.5), (uneven, 0.0), (uneven, 2.5)):
        medium = AcousticMedium.from_mri(image, np.eye(4), np.ones_like(t1), scale=SCALE, texture_db=wanted)
        spreads.append((20 * medium.sample(points)[3].log10()).std().item())
        assert 20 * medium.sample(torch.tensor([20.0, 20.0, 26.0]))[3].log10() < -35
    assert spreads[0] < 0.1
    assert spreads[1] < 1
    assert 1 < spreads[2] < 4


# --- a segmentation in place of the MRI


def test_a_segmentation_overrides_the_mri():
    t1 = slices_of_brain()
    labels = np.zeros(t1.shape, np.uint8)
    labels[4:9, 4:14, 4:14], labels[34:38, 28:36, 28:36], labels[20:32, 30:32, 4:12] = 1, 2, 3
    names = {1: "tumour", 2: "blood vessel", 3: "falx"}
    options = {"mask": np.ones_like(t1), "scale": SCALE}
    plain = AcousticMedium.from_mri(t1, np.eye(4), **options)
    medium = AcousticMedium.from_mri(t1, np.eye(4), **options, segmentation=(labels, names))
    points = torch.tensor([[9.0, 9.0, 6.0], [32.0, 32.0, 36.0], [8.0, 30.5, 26.0], [30.0, 10.0, 16.0]])
    tumour, vessel, falx, elsewhere = medium.sample(points).T
    table = tissue_table()
    assert tumour[:3].tolist() == pytest.approx(table["tumour"].properties[:3], abs=1e-3)
    assert vessel[:4].tolist() == pytest.approx(table["blood"].properties, abs=0.02)
    assert falx[4] < 0.3
    assert falx[5] > 4
    torch.testing.assert_close(elsewhere, plain.sample(points[3:])[:, 0])
    with pytest.raises(InputError, match="label 3"):
        AcousticMedium.from_mri(t1, np.eye(4), **options, segmentation=(labels, {1: "tumour", 2: "vessel"}))
    with pytest.raises(InputError, match="grid"):
        AcousticMedium.from_mri(t1, np.eye(4), **options, segmentation=(labels[1:], names))


def test_a_tumour_is_uneven_and_stays_so():
    """Several dB over some mm, the same whenever the medium is built."""
    t1 = np.full((40, 40, 40), 110.0, np.float32)
    t1[:2] = 40
    labels = np.zeros(t1.shape, np.uint8)
    labels[8:32, 8:32, 8:32] = 1
    options = {"mask": np.ones_like(t1), "scale": SCALE, "segmentation": (labels, {1: "tumor"})}
    first, second = (AcousticMedium.from_mri(t1, np.eye(4), **options) for _ in range(2))
    points = torch.rand(4000, 3, generator=torch.Generator().manual_seed(0)) * 18 + 11
    decibels = 20 * first.sample(points)[3].log10()
    assert decibels.mean().item() == pytest.approx(6, abs=1.0)
    assert 2 < decibels.std() < 5
    torch.testing.assert_close(first.sample(points), second.sample(points))
    beside = 20 * first.sample(points + torch.tensor([0.5, 0.0, 0.0]))[3].log10()
    assert np.corrcoef(decibels, beside)[0, 1] > 0.8


def test_a_cavity_in_a_tumour_has_a_wall():
    t1 = np.full((40, 40, 40), 110.0, np.float32)
    t1[:2] = 40
    labels = np.zeros(t1.shape, np.uint8)
    labels[8:32, 8:32, 8:32], labels[14:26, 14:26, 14:26] = 1, 2
    options = {"mask": np.ones_like(t1), "scale": SCALE}
    medium = AcousticMedium.from_mri(t1, np.eye(4), **options, segmentation=(labels, {1: "tumor", 2: "cavity"}))
    wall, middle = medium.sample(torch.tensor([[20.0, 20.0, 13.5], [20.0, 20.0, 20.0]])).T
    assert wall[4] < 0.35
    assert wall[5] > 2
    assert 20 * middle[3].log10() < -35
