"""CT sampled at points: edges in their place without the tissues between, noise as it was, walls, gradients."""

import numpy as np
import pytest
import torch
from diffus.medium import AcousticMedium, tissue_table
from diffus.medium.ct import even_tissue
from diffus.medium.enhanced import BLOOD_HU
from diffus.medium.mixture import STEP_MM
from diffus.medium.sheets import decibels
from diffus.medium.walls import FASCIA_DB, WALL_DB
from engine.test_sharp_labels import SLANTED, near_plane, scaled

GAS, LUNG, FAT, MUSCLE = -1000.0, -820.0, -100.0, 55.0


def blurred(spacing, low, high, offset=0.0, normal=SLANTED):
    """Two tissues on either side of a plane as a scanner sees them: averaged over the voxel. (K, J, I) and matrix."""
    matrix, shape = scaled(spacing)
    k, j, i = np.indices(shape)
    points = np.stack([i, j, k], -1) @ matrix[:3, :3].T + matrix[:3, 3]
    width = np.linalg.norm(normal * np.array(spacing)) * 1.2
    fraction = np.clip((points @ normal - offset) / width + 0.5, 0, 1)
    return low + (high - low) * fraction, matrix


@pytest.mark.parametrize("spacing", [(0.7, 0.7, 0.7), (1.0, 1.0, 1.0), (3.0, 3.0, 3.0), (0.8, 0.8, 3.0)])
@pytest.mark.parametrize("low", [GAS, LUNG, FAT])
def test_an_edge_is_a_step_in_its_place(spacing, low):
    hu, matrix = blurred(spacing, low, MUSCLE, offset=0.3)
    medium = AcousticMedium.from_ct(hu, matrix, outside="air")
    along = torch.linspace(-9, 9, 1801)
    normal = torch.from_numpy(SLANTED).float()
    feet = near_plane(SLANTED, 0.3, np.zeros(40))
    impedance = medium.sample(feet[:, None] + along[:, None] * normal)[0]
    first, last = impedance[:, 0].mean(), impedance[:, -1].mean()
    fraction = (impedance - first) / (last - first)
    place = along[(fraction < 0.5).sum(1).clamp(max=1800)]
    assert place.mean().abs() < 0.12 * max(spacing)
    assert place.std() < 0.15 * max(spacing)
    width = ((fraction > 0.1) & (fraction < 0.9)).double().sum(1).mean() * 0.01
    assert width < STEP_MM + 0.3 * max(spacing)  # the scanner's own blur is three times as wide


def test_gas_beside_muscle_has_no_rim_of_lung_or_fat():
    """Maps at the voxels, interpolated, were 40 dB/cm MHz of lung for two millimetres."""
    hu, matrix = blurred((3.0, 3.0, 3.0), GAS, MUSCLE)
    medium = AcousticMedium.from_ct(hu, matrix, outside="air")
    points = near_plane(SLANTED, 0.0, np.random.default_rng(0).uniform(-4, 4, 4000))
    attenuation, before = medium.sample(points)[1], AcousticMedium(medium.maps, matrix).sample(points)[1]
    assert (attenuation > 12).double().mean() < 0.3 * (before > 12).double().mean()


def test_noise_of_an_organ_is_not_sharpened():
    generator = torch.Generator().manual_seed(0)
    hu = 60 + 15 * torch.randn(40, 40, 40, generator=generator)
    medium = AcousticMedium.from_ct(hu, np.eye(4))
    points = torch.rand(5000, 3, generator=generator) * 20 + 10
    sharp, plain = medium.sample(points)[0], AcousticMedium(medium.maps, np.eye(4)).sample(points)[0]
    assert sharp.std() < 2.5 * plain.std()
    assert sharp.std() < 0.006
    assert medium.sample(points)[3].std() < 0.02


@pytest.mark.parametrize("spacing", [(0.7, 0.7, 0.7), (1.0, 1.0, 1.0), (3.0, 3.0, 3.0)])
def test_fat_on_muscle_has_a_fascia(spacing):
    hu, matrix = blurred(spacing, FAT, MUSCLE)
    medium = AcousticMedium.from_ct(hu, matrix, outside="air")
    on, off = (medium.sample(near_plane(SLANTED, 0.0, np.full(200, d)))[4:] for d in (0.0, 1.0))
    assert on[1].median().item() == pytest.approx(decibels(FASCIA_DB))
    assert on[0].abs().median() < 0.15 * max(spacing)
    assert off[0].abs().median().item() == pytest.approx(1.0, abs=0.35)


def test_fluid_has_a_wall_and_gas_has_none():
    x = torch.arange(40.0) - 19.5
    radius = (x[:, None, None] ** 2 + x[None, :, None] ** 2 + x[None, None, :] ** 2).sqrt()
    hu = torch.where(radius < 12, 5.0, 60.0)
    matrix = np.eye(4)
    matrix[:3, 3] = -19.5
    bladder = AcousticMedium.from_ct(hu, matrix, outside="air")
    around = torch.nn.functional.normalize(torch.randn(300, 3, generator=torch.Generator().manual_seed(0)), dim=1)
    assert bladder.sample(around * 12)[5].median().item() == pytest.approx(decibels(WALL_DB), rel=0.05)
    assert bladder.sample(around * 12)[4].abs().median() < 1.0
    assert bladder.sample(around * 6)[3].max() < 2 * tissue_table()["fluid"].scattering
    gas, matrix = blurred((1.0, 1.0, 1.0), GAS, MUSCLE)
    level = AcousticMedium.from_ct(gas, matrix, outside="air").sample(near_plane(SLANTED, 0.0, np.zeros(100)))[5]
    assert level.max() == 0


def test_the_skin_is_smooth_and_no_mirror():
    hu, matrix = blurred((3.0, 3.0, 3.0), GAS, FAT)
    medium = AcousticMedium.from_ct(hu, matrix)
    along = torch.linspace(-8, 8, 321)
    impedance = medium.sample(along[:, None] * torch.from_numpy(SLANTED).float())[0]
    assert impedance.min() > 1.25
    assert impedance.max() < 1.6
    assert medium.sample(near_plane(SLANTED, 0.0, np.linspace(-4, 4, 500)))[5].max() < 0.5


def test_gradients_to_points_and_numbers():
    hu, matrix = blurred((3.0, 3.0, 3.0), LUNG, MUSCLE)
    hu = torch.from_numpy(hu[4:9, 4:9, 4:9].copy()).requires_grad_()
    matrix[:3, 3] += 12
    build = lambda v: AcousticMedium.from_ct(v, matrix, outside="air", denoised=False)  # noqa: E731
    points = near_plane(SLANTED, 0.0, np.random.default_rng(0).uniform(-0.3, 0.3, 12)).double() * 0.2
    points.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: build(hu.detach()).sample(x)[:4], points, atol=1e-4, rtol=1e-2)
    (slope,) = torch.autograd.grad(build(hu).sample(points.detach())[0].sum(), hu)
    assert torch.isfinite(slope).all()
    assert slope.abs().max() > 0


def ball(size, radius_mm, mm):
    x = (torch.arange(size) - (size - 1) / 2) * mm
    return (x[:, None, None] ** 2 + x[None, :, None] ** 2 + x[None, None, :] ** 2).sqrt() - radius_mm


@pytest.mark.parametrize("mm", [0.8, 1.5, 3.0])
def test_enhanced_blood_is_dark_and_marrow_is_bone(mm):
    generator = torch.Generator().manual_seed(0)
    outward = ball(round(60 / mm), 14.0, mm)
    noise = 12 * torch.randn(outward.shape, generator=generator)
    blood = 50 + 350 * (0.5 - outward / mm).clamp(0, 1) + noise
    marrow = torch.nn.functional.interpolate(
        torch.randn(1, 1, 20, 20, 20, generator=generator), outward.shape, mode="trilinear"
    )[0, 0]
    bone = torch.where(outward < -3, 280 + 90 * marrow, torch.where(outward < 0, 800.0, 50.0)) + noise
    matrix = np.diag([mm, mm, mm, 1.0])
    middle = torch.full((1, 3), (outward.shape[0] - 1) / 2 * mm)
    around = torch.nn.functional.normalize(torch.randn(500, 3, generator=generator), dim=1)
    of_blood, of_bone = (AcousticMedium.from_ct(hu, matrix, outside="air") for hu in (blood, bone))
    inside = of_blood.sample(middle + 10 * around)
    assert inside[1].mean().item() == pytest.approx(tissue_table()["blood"].attenuation_db_cm_mhz, abs=0.02)
    assert inside[3].max() < 0.05
    assert inside[0].mean().item() == pytest.approx(1.62, abs=0.04)
    rim = of_blood.sample(middle + torch.linspace(12, 17, 500)[:, None] * around)
    assert rim[1].max() < 0.7  # no shell of bone
    assert of_bone.sample(middle + 12.5 * around)[1].median() > 2


def test_blood_of_a_real_heart_and_bones_of_a_real_patient(shared_data):
    sitk = pytest.importorskip("SimpleITK")
    millilitres = {}
    for file, mm in (("heart_thorax_ct_crop_1p5mm", 1.5), ("abdomen_pelvis_ct_3mm", 3.0)):
        hu = torch.from_numpy(
            sitk.GetArrayFromImage(sitk.ReadImage(str(shared_data / "ct" / f"{file}.nii.gz")))
        ).float()
        even, fluid = even_tissue(hu, (mm,) * 3)
        bright = hu > 200
        millilitres[file] = ((fluid > 0.5) & bright).sum().item() * mm**3 / 1000
        assert even[fluid > 0.99].max() <= BLOOD_HU + 1
    assert millilitres["heart_thorax_ct_crop_1p5mm"] > 600
    assert millilitres["abdomen_pelvis_ct_3mm"] == 0
