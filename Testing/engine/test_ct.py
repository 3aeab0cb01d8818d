"""CT: Hounsfield units to impedance, attenuation and scattering; gel around the patient."""

import numpy as np
import pytest
import torch
from diffus.errors import InputError
from diffus.geometry.filters import soften
from diffus.medium import GEL, SCANNERS, AcousticMedium
from diffus.medium.ct import (
    density_from_hu,
    even_tissue,
    impedance_from_hu,
    local_statistics,
    noise_level,
    speed_from_hu,
)

EYE = np.eye(4)


def body_with_air(size=48, spacing=1.0):
    """A body (40 HU) with fat, a bowel of gas inside, and a windpipe that the top face cuts; air around; a rim."""
    x = np.linspace(-1, 1, size)
    k, j, i = np.meshgrid(x, x, x, indexing="ij")
    radius = np.sqrt(j**2 + i**2)
    hu = np.where(radius < 0.7, 40.0, -1000.0)
    hu[(radius >= 0.7) & (radius < 0.75)] = -450.0
    hu[np.sqrt(k**2 + (j - 0.2) ** 2 + i**2) < 0.2] = -1000.0
    hu[(np.sqrt((j + 0.4) ** 2 + i**2) < 0.12) & (k > 0.3)] = -990.0
    return hu


@pytest.mark.parametrize(("hu", "impedance"), [(-100, 1.30), (0, 1.54), (40, 1.64), (1000, 3.72), (1500, 5.43)])
def test_checked_values(hu, impedance):
    assert impedance_from_hu(torch.tensor(float(hu))).item() == pytest.approx(impedance, rel=0.01)


def test_published_points_of_each_curve():
    # Schneider 1996: water-like and bone lines; Mast 2000 below the blend; Webb 2018 above it.
    hu = torch.tensor([-70.0, 98.0, 200.0, 260.0, 400.0, 1000.0], dtype=torch.float64)
    density = density_from_hu(hu)
    assert density.tolist() == pytest.approx([948.3, 1100.9, 1153.0, 1183.7, 1276.4, 1673.9], abs=0.1)
    speed = speed_from_hu(hu, "ge-bone")
    assert speed[0].item() == pytest.approx(1452.7, abs=0.1)
    assert speed[4:].tolist() == pytest.approx([1620.0, 2070.0])


@pytest.mark.parametrize("scanner", [*SCANNERS, (1.0, 1220.0)])
def test_impedance_rises_with_hu_for_every_scanner(scanner):
    hu = torch.linspace(-900, 3000, 39001, dtype=torch.float64)
    assert (impedance_from_hu(hu, scanner).diff() > 0).all()


def test_air_and_metal_are_clamped():
    air = impedance_from_hu(torch.tensor([-3024.0, -1000.0, -950.0, -900.0]))
    assert air.tolist() == pytest.approx([0.0004] * 4, rel=1e-3)
    metal, top = impedance_from_hu(torch.tensor([30000.0, 3000.0]))
    assert metal == top
    assert density_from_hu(torch.tensor([-1000.0])).item() == pytest.approx(1.2)


def test_scanner_rows_matter_in_bone_only():
    hu = torch.tensor([50.0, 1200.0])
    standard, bone = (impedance_from_hu(hu, name) for name in ("ge-standard", "ge-bone"))
    assert standard[0] == bone[0]
    assert standard[1] > 1.05 * bone[1]


def uniform(hu, size=12):
    """A body of one number in air, without the air."""
    volume = torch.full((size, size, size), float(hu))
    volume[0, 0, 0] += 1
    return AcousticMedium.from_ct(volume, EYE).maps[:, size // 2, size // 2, size // 2].tolist()


def test_what_each_number_does_to_sound():
    gas, fat, water, liver, bone = (uniform(hu) for hu in (-1000, -100, 5, 60, 1600))
    _, attenuation, _, scattering = zip(gas, fat, water, liver, bone)
    assert attenuation[2] < 0.05
    assert 0.4 < attenuation[1] < 0.8
    assert 0.4 < attenuation[3] < 0.8
    assert attenuation[4] > 10
    assert scattering[0] == 0
    assert scattering[2] < 0.05 < scattering[1] < scattering[3] == 1 < scattering[4]


def test_noisy_urine_is_fluid_and_a_border_of_fat_and_muscle_is_not():
    generator = torch.Generator().manual_seed(0)
    noise = 12 * torch.randn(24, 24, 24, generator=generator)
    share = even_tissue(5 + noise, (1.0, 1.0, 1.0))[1]
    assert share[6:-6, 6:-6, 6:-6].min() > 0.8
    border = torch.full((24, 24, 24), -100.0)
    border[:, :, 12:] = 60.0
    border[:, :, 11:13] = torch.tensor([-30.0, 5.0])
    assert even_tissue(border, (1.0, 1.0, 1.0))[1].max() < 0.2


@pytest.mark.parametrize("spacing", [0.5, 1.0, 3.0])
def test_a_cyst_is_found_at_any_voxel_size(spacing):
    x = (torch.arange(int(60 / spacing)) + 0.5) * spacing - 30
    radius = (x[:, None, None] ** 2 + x[None, :, None] ** 2 + x[None, None, :] ** 2).sqrt()
    share = even_tissue(torch.where(radius < 14, 5.0, 60.0), (spacing,) * 3)[1]
    assert share[radius < 8].min() > 0.8
    assert share[radius > 20].max() < 1e-3


def noisy_organ():
    """60 HU with a border to fat, noise of 15 HU; the noise-free image too."""
    clean = torch.full((24, 24, 48), 60.0)
    clean[:, :, 24:] = -100.0
    return clean + 15 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0)), clean


@pytest.mark.parametrize("size", [120, 126, 127, 129])
def test_local_means_lie_where_the_voxels_are(size):
    """A step is met half-way at its own place, also far from the corner and where cells of 2 mm do not come out."""
    hu = torch.zeros(12, 12, size)
    hu[..., size - 15 :] = 100.0
    profile = local_statistics(hu, (1.0, 1.0, 0.5))[0][6, 6].numpy()
    assert np.interp(50.0, profile[size - 30 : size - 4], np.arange(size - 30, size - 4)) == pytest.approx(
        size - 15.5, abs=1.0
    )


def test_noise_is_measured():
    noisy, clean = noisy_organ()
    assert noise_level(noisy).item() == pytest.approx(15, rel=0.05)
    assert noise_level(clean).item() == 0
    assert noise_level(clean[:4, :4, :4]).item() == 0


def test_noise_goes_and_edges_stay():
    noisy, clean = noisy_organ()
    true, raw, smooth = (
        AcousticMedium.from_ct(image, EYE, denoised=denoised).maps[0]
        for image, denoised in ((clean, False), (noisy, False), (noisy, True))
    )
    true = soften(true)
    inside = smooth[4:-4, 4:-4, 6:18]
    assert (inside - true[4:-4, 4:-4, 6:18]).std() < 0.3 * (raw - true)[4:-4, 4:-4, 6:18].std()
    step = smooth[:, :, 23].mean() - smooth[:, :, 24].mean()
    assert step.item() == pytest.approx((true[0, 0, 23] - true[0, 0, 24]).item(), rel=0.05)
    torch.testing.assert_close(AcousticMedium.from_ct(clean, EYE).maps[0], true)


def test_air_around_the_patient_is_gel_and_air_inside_stays():
    hu = body_with_air()
    maps = AcousticMedium.from_ct(hu, EYE).maps
    assert maps[:, 24, 0, 0].tolist() == pytest.approx(GEL)
    assert maps[0, 24, 28, 24] == pytest.approx(0.0004, rel=1e-3)
    assert maps[0, 46, 14, 24] == pytest.approx(0.0004, rel=1e-3)
    # From the side into the body: no voxel on the way is a mirror.
    path = maps[0, 4, 24, :24]
    assert path.min() > 1.5
    reflection = path.diff() / (path[1:] + path[:-1])
    assert reflection.abs().max() < 0.05


def test_air_around_may_stay():
    maps = AcousticMedium.from_ct(body_with_air(), EYE, outside="air").maps
    assert maps[0, 24, 0, 0] == pytest.approx(0.0004, rel=1e-3)
    with pytest.raises(InputError, match="outside"):
        AcousticMedium.from_ct(body_with_air(), EYE, outside="water")


def test_lung_that_fills_a_cropped_scan_is_not_gel():
    rng = np.random.default_rng(0)
    hu = rng.normal(-880, 30, (24, 24, 24))
    hu[8:16, 8:16, 8:16] = 50
    maps = AcousticMedium.from_ct(hu, EYE).maps
    assert maps[0, 0, 0, 0] < 0.2


def test_airways_that_lead_outside_stay_air():
    hu = body_with_air()
    hu[40:, :16, 23:26] = -1000.0
    maps = AcousticMedium.from_ct(hu, EYE).maps
    assert maps[0, 32, 14, 24] == pytest.approx(0.0004, rel=1e-3)
    # The same patient with the slices along another axis of the array.
    turned = AcousticMedium.from_ct(hu.transpose(2, 1, 0), EYE[[2, 1, 0, 3]]).maps
    torch.testing.assert_close(turned.permute(0, 3, 2, 1), maps)


def test_noise_of_urine_makes_no_echo():
    generator = torch.Generator().manual_seed(0)
    hu = torch.full((30, 30, 30), 60.0)
    hu[5:25, 5:25, 5:25] = 8.0
    hu += 15 * torch.randn(hu.shape, generator=generator)
    raw, smooth = (AcousticMedium.from_ct(hu, EYE, denoised=d).maps[0, 9:21, 9:21, 9:21] for d in (False, True))
    echo_db = [20 * (z.diff() / (2 * z[..., 1:])).square().mean().sqrt().log10().item() for z in (raw, smooth)]
    assert echo_db[0] > -38
    assert echo_db[1] < -60
    assert smooth.mean().item() == pytest.approx(1.54, rel=0.01)


def test_mask_decides_where_the_patient_is():
    hu = np.zeros((8, 8, 8), np.int16)
    hu[2:6, 2:6, 2:6] = 40
    maps = AcousticMedium.from_ct(hu, EYE, mask=hu > 0).maps
    assert maps[:, 0, 0, 0].tolist() == pytest.approx(GEL)
    assert maps[0, 3, 3, 3].item() == pytest.approx(1.64, rel=0.01)


def test_gradients_to_hu():
    generator = torch.Generator().manual_seed(0)
    hu = (-300 + 1900 * torch.rand(3, 4, 3, generator=generator, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(lambda v: AcousticMedium.from_ct(v, EYE).maps, hu, atol=1e-6)
    noisy, _ = noisy_organ()
    noisy = noisy[:14, :14, 16:30].double().requires_grad_()
    build = lambda v: AcousticMedium.from_ct(v, EYE).maps  # noqa: E731
    assert noise_level(noisy) > 5
    assert torch.autograd.gradcheck(build, noisy, atol=1e-5, fast_mode=True)
    water = (8 * torch.rand(3, 3, 3, generator=generator, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(lambda v: AcousticMedium.from_ct(v, EYE).maps, water, atol=1e-6)


@pytest.mark.parametrize("file", ["abdomen_pelvis_ct_3mm", "heart_thorax_ct_crop_1p5mm", "brain_ct_atlas_masked_1mm"])
def test_real_scans(shared_data, file):
    sitk = pytest.importorskip("SimpleITK")
    hu = sitk.GetArrayFromImage(sitk.ReadImage(str(shared_data / "ct" / f"{file}.nii.gz")))
    for denoised in (True, False):
        maps = AcousticMedium.from_ct(hu, EYE, outside="air", denoised=denoised).maps
        assert torch.isfinite(maps).all()
        assert (maps[0] > 0).all()
        assert (maps[1:] >= 0).all()
    values, impedance = torch.from_numpy(hu.astype(np.float32)).flatten(), maps[0].flatten()
    order = values.argsort()
    steps = values[order].diff(), impedance[order].diff()
    assert (steps[1] >= 0).all()
    inside = (values[order][:-1] > -900) & (values[order][1:] < 3000)
    assert (steps[1][inside & (steps[0] > 0)] > 0).all()


def test_gel_around_a_real_patient(shared_data):
    sitk = pytest.importorskip("SimpleITK")
    hu = sitk.GetArrayFromImage(sitk.ReadImage(str(shared_data / "ct" / "abdomen_pelvis_ct_3mm.nii.gz")))
    maps = AcousticMedium.from_ct(hu, np.diag([3.0, 3.0, 3.0, 1.0])).maps
    # Lines from the front and from the back, where the couch is: gel, then the skin without a mirror.
    for path in (maps[0, 56].flip(0), maps[0, 56]):
        for line in path[:, 40:80:4].T:
            skin = int((line != line[0]).nonzero()[0])
            assert line[0].item() == pytest.approx(GEL[0])
            assert line[: skin + 4].min() > 1.0
    assert maps[0, 20:90, 20:90, 20:100].min() == pytest.approx(0.0004, rel=1e-3)


@pytest.mark.parametrize(
    ("hu", "message"),
    [
        (np.zeros((0, 4, 4)), "empty"),
        (np.full((4, 4, 4), 7), "constant"),
        (np.full((4, 4, 4), np.nan), "NaN"),
        (np.array([[[0.0, np.inf]] * 2] * 2), "NaN or infinite"),
        (np.zeros((4, 4)), "3-D"),
        (np.zeros((1, 4, 4)), "3-D"),
        (np.zeros((4, 4, 4, 3)), "several components"),
        (np.array([[["a", "b"]] * 2] * 2), "numbers"),
    ],
)
def test_bad_volumes(hu, message):
    with pytest.raises(InputError, match=message):
        AcousticMedium.from_ct(hu, EYE)


@pytest.mark.bad_input
def test_bad_arguments():
    hu = body_with_air(12)
    with pytest.raises(InputError, match="scanner"):
        AcousticMedium.from_ct(hu, EYE, scanner="polaroid")
    with pytest.raises(InputError, match="two numbers"):
        AcousticMedium.from_ct(hu, EYE, scanner=(1.0,))
    with pytest.raises(InputError, match="grid"):
        AcousticMedium.from_ct(hu, EYE, mask=np.ones((3, 3, 3)))
    with pytest.raises(InputError, match="mask is empty"):
        AcousticMedium.from_ct(hu, EYE, mask=np.zeros_like(hu))
    with pytest.raises(InputError, match="singular"):
        AcousticMedium.from_ct(hu, np.diag([1.0, 0.0, 1.0, 1.0]))
