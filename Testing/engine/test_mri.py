"""MRI: the intensity scale, the impedance network, memberships, gel around the head."""

import math
from importlib import resources

import numpy as np
import pytest
import torch
from diffus.errors import InputError
from diffus.medium import (
    GEL,
    AcousticMedium,
    ImpedanceMLP,
    IntensityScale,
    fit_intensity_scale,
    foreground_mask,
    load_impedance,
    normalise,
    reference_points,
    save_impedance,
    tissue_memberships,
    tissue_table,
    train_impedance,
)
from diffus.medium.impedance import impedance_of_levels
from diffus.medium.mri import narrow_fluid
from scipy import ndimage

EYE = np.eye(4)
MNI = "mni152_2009a_{}_1mm.nii.gz"


def head(size=48, noise=2.0, levels=(40.0, 80.0, 110.0), skull=15.0, scalp=180.0):
    """A round head: ventricle, white and grey matter, fluid, dark skull, bright scalp, air; and what each voxel is."""
    x = np.linspace(-1, 1, size)
    r = np.sqrt(x[:, None, None] ** 2 + x[None, :, None] ** 2 + x[None, None, :] ** 2)
    edges = (0.2, 0.5, 0.68, 0.72, 0.8, 0.9)
    where = np.digitize(r, edges)
    fluid, grey, white = levels
    values = np.array([fluid, white, grey, fluid, skull, scalp, 0.0])[where]
    return values + np.abs(np.random.default_rng(0).normal(0, noise, r.shape)), where


def impedance_by_tissue(medium, fluid, grey, white):
    impedance = medium.maps[0].numpy()
    return [float(np.median(impedance[mask])) for mask in (fluid, grey, white)]


def read(path):
    sitk = pytest.importorskip("SimpleITK")
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def ventricles(t1, grey, white):
    """Fluid of the atlas, by its own maps: neither grey nor white, and well inside of the brain."""
    from scipy import ndimage

    brain = ndimage.binary_erosion(t1 > 0, iterations=3)
    return brain & (grey + white < 0.1)


def test_order_in_the_atlas(shared_data):
    t1, grey, white = (read(shared_data / "mri" / MNI.format(name)) for name in ("t1", "gm", "wm"))
    grey, white = grey / 255, white / 255
    medium = AcousticMedium.from_mri(t1, EYE)
    fluid_z, grey_z, white_z = impedance_by_tissue(medium, ventricles(t1, grey, white), grey > 0.9, white > 0.9)
    assert fluid_z + 0.03 < grey_z < white_z - 0.005
    assert [fluid_z, grey_z, white_z] == pytest.approx([z for _, z in reference_points()], abs=0.01)
    assert medium.maps[:, 0, 0, 0].tolist() == pytest.approx(GEL)
    brain = grey + white > 0.9
    for share, truth in zip(tissue_memberships(t1).numpy()[1:], (grey, white)):
        assert np.corrcoef(share[brain], truth[brain])[0, 1] > 0.95
        assert np.abs(share - truth)[brain].mean() < 0.08


def test_order_in_a_whole_head(shared_data):
    sitk = pytest.importorskip("SimpleITK")
    image = sitk.ReadImage(str(shared_data / "mri" / "colin27_ch2_t1_1mm.nii.gz"))
    t1 = sitk.GetArrayFromImage(image)
    maps = []
    for name in ("gm", "wm", "t1"):
        atlas = sitk.ReadImage(str(shared_data / "mri" / MNI.format(name)))
        atlas = sitk.Resample(atlas, image, sitk.Transform(), sitk.sitkLinear, 0.0, sitk.sitkFloat32)
        maps.append(sitk.GetArrayFromImage(atlas) / 255)
    grey, white, atlas_t1 = maps
    medium = AcousticMedium.from_mri(t1, EYE)
    fluid = ventricles(atlas_t1, grey, white)
    fluid_z, grey_z, white_z = impedance_by_tissue(medium, fluid, grey > 0.9, white > 0.9)
    assert fluid_z + 0.01 < grey_z < white_z - 0.005
    scatter = medium.maps[3].numpy()
    assert np.median(scatter[grey > 0.9]) < np.median(scatter[white > 0.9])
    assert medium.maps[:, 180, 0, 0].tolist() == pytest.approx(GEL)
    assert medium.maps[0, 40, 108, 90] != GEL[0]


def test_order_in_the_image_of_the_demo():
    pytest.importorskip("nilearn", reason="skipped: nilearn, whose wheel holds the MNI152 image, is not installed")
    folder = resources.files("nilearn") / "datasets" / "data"
    t1, grey, white = (
        read(folder / f"mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii.gz") for name in ("t1", "gm", "wm")
    )
    medium = AcousticMedium.from_mri(t1, EYE)
    fluid_z, grey_z, white_z = impedance_by_tissue(
        medium, ventricles(t1, grey / 255, white / 255), grey > 229, white > 229
    )
    assert fluid_z < grey_z < white_z


def test_bright_fluid_of_a_real_t2_is_fluid(shared_data):
    t2 = read(shared_data / "mri" / "patient_t2_1mm.nii.gz")
    scale = fit_intensity_scale(t2, contrast="t2")
    fluid, grey, white = scale.centres
    assert fluid > 1.5 * grey > 1.5 * white
    maps = AcousticMedium.from_mri(t2, EYE, contrast="t2", scale=scale).maps
    deep = maps[:, 60:100, 50:120, 50:110]
    bright = t2[60:100, 50:120, 50:110] > fluid
    within = torch.from_numpy(ndimage.binary_opening(ndimage.binary_erosion(bright), iterations=2))
    assert within.sum() > 1000
    assert deep[0][within].max() < 1.54
    assert deep[3][within].max() < 0.02
    assert deep[0][torch.from_numpy(~bright)].median() > 1.57


def test_whole_head_and_stripped_brain_get_the_same_scale():
    t1, where = head()
    whole = fit_intensity_scale(t1).centres
    stripped = fit_intensity_scale(np.where(where < 3, t1, 0)).centres
    assert whole == pytest.approx((42, 82, 112), abs=3)
    assert stripped == pytest.approx(whole, abs=2)


def test_maps_do_not_depend_on_the_gain_of_the_scanner():
    t1, _ = head()
    a = AcousticMedium.from_mri(torch.from_numpy(t1), EYE).maps
    b = AcousticMedium.from_mri(torch.from_numpy(3.7 * t1 + 250), EYE).maps
    torch.testing.assert_close(a, b, rtol=0, atol=1e-6)


def test_t2_gives_what_t1_gives():
    t1, where = head(noise=0.5)
    t2, _ = head(noise=0.5, levels=(230.0, 110.0, 75.0), skull=10.0, scalp=60.0)
    brain = torch.from_numpy(where < 3)
    a = AcousticMedium.from_mri(t1, EYE, texture_db=0.0).maps[:, brain]
    b = AcousticMedium.from_mri(t2, EYE, contrast="t2", texture_db=0.0).maps[:, brain]
    assert (a - b).abs().mean(1).tolist() == pytest.approx([0, 0, 0, 0], abs=0.02)


def test_the_head_is_found_with_its_dark_skull_and_without_noise_of_the_air():
    t1, where = head(noise=4.0)
    found = foreground_mask(torch.from_numpy(t1)).numpy()
    assert (found == (where < 6)).mean() > 0.98
    maps = AcousticMedium.from_mri(t1, EYE).maps
    assert maps[:, 0, 0, 0].tolist() == pytest.approx(GEL)
    assert maps[0, 24, 24, 24].item() == pytest.approx(1.52, abs=0.01)


def test_mask_decides_where_the_patient_is():
    t1, where = head()
    maps = AcousticMedium.from_mri(t1, EYE, mask=where < 3).maps
    outside = maps[1:, torch.from_numpy(where >= 3)]
    assert torch.equal(outside, torch.tensor(GEL[1:])[:, None].expand_as(outside))
    # impedance is smoothed over one voxel, so that the mask's edge shows no steps
    beyond = maps[0, torch.from_numpy(~ndimage.binary_dilation(where < 3, np.ones((3, 3, 3))))]
    assert (beyond - GEL[0]).abs().max() < 1e-4


def test_normalise_puts_the_tissues_in_their_places():
    centres = torch.tensor([40.0, 80.0, 110.0, 125.0, 20.0])
    t1 = normalise(centres, IntensityScale((40.0, 80.0, 110.0)))
    assert t1.tolist() == pytest.approx([0, 0.6, 1, 1.2, -0.3], abs=1e-6)
    t2 = normalise(centres, IntensityScale((110.0, 80.0, 40.0)))
    assert t2[:3].tolist() == pytest.approx([1, 0.6, 0], abs=1e-6)


def test_memberships_are_partial_volume_in_t1_order():
    t1 = torch.full((4, 4, 4), 100.0)
    t1[0] = 40
    t1[1, 1] = 55
    shares = tissue_memberships(t1, torch.ones(4, 4, 4), scale=IntensityScale((40.0, 80.0, 100.0)))
    assert shares.shape == (3, 4, 4, 4)
    torch.testing.assert_close(shares.sum(0), torch.ones(4, 4, 4))
    assert shares[:, 0, 0, 0].tolist() == [1, 0, 0]
    assert shares[:, 1, 1, 0].tolist() == pytest.approx([0.625, 0.375, 0])
    assert shares[:, 3, 3, 3].tolist() == [0, 0, 1]


def test_memberships_of_more_classes_and_of_the_head_only():
    t1, _ = head()
    shares = tissue_memberships(t1, n=4)
    assert shares.shape[0] == 4
    assert shares[:, 0, 0, 0].tolist() == [0, 0, 0, 0]
    brightness = [float(np.average(t1, weights=share)) for share in shares.numpy()]
    assert brightness == sorted(brightness)


def test_memberships_feed_the_medium():
    t1, _ = head(noise=0.0)
    medium = AcousticMedium.from_memberships(tissue_memberships(t1), ["csf", "grey matter", "white matter"], EYE)
    from_mri = AcousticMedium.from_mri(t1, EYE, sulci=torch.zeros(t1.shape), texture_db=0.0)
    torch.testing.assert_close(medium.maps[1:], from_mri.maps[1:], rtol=0, atol=1e-5)
    # The network's impedance of the classes is within its error of the table's.
    torch.testing.assert_close(medium.maps[0], from_mri.maps[0], rtol=0, atol=0.003)


def test_narrow_fluid_is_bright_and_wide_fluid_is_black():
    """A sulcus of 2 mm and a ventricle of 12 mm in white matter."""
    t1 = np.full((40, 40, 60), 110.0)
    t1[:, :, 10:12] = 40
    t1[12:24, 12:24, 30:42] = 40
    t1[:, :, 50:] = 80
    scale = IntensityScale((40.0, 80.0, 110.0))
    medium = AcousticMedium.from_mri(t1, EYE, np.ones_like(t1), scale=scale, texture_db=0.0)
    scattering = medium.maps[3]
    assert scattering[18, 18, 36] < 0.02
    # The sulcus scatters as brain does, and what shines is the sheet in its middle.
    assert scattering[20, 20, 10:12].tolist() == pytest.approx([1.0] * 2, rel=1e-3)
    distance, level = medium.sample(torch.tensor([10.5, 20.0, 20.0]))[4:]
    assert distance < 0.2
    assert level > 2
    assert scattering[30, 30, 45].item() == pytest.approx(1, rel=1e-3)


def test_narrow_fluid_is_what_a_ball_does_not_fit_into():
    """As scipy's grey opening of the fluid in bytes, whatever box the head lies in."""
    level, inside = torch.full((30, 26, 28), 1.0), torch.zeros(30, 26, 28, dtype=torch.bool)
    inside[3:27, 4:22, 5:25] = True
    generator = torch.Generator().manual_seed(0)
    level[inside] = 1.2 * torch.rand(int(inside.sum()), generator=generator) - 0.2
    fluid = (((0.6 - level) / 0.6).clamp(0, 1) * inside).numpy()
    grid = np.ogrid[-4:5, -2:3, -2:3]
    ball = (grid[0] / 4.2) ** 2 + (grid[1] / 2.2) ** 2 + (grid[2] / 2.2) ** 2 <= 1
    wanted = fluid - ndimage.grey_opening(fluid, footprint=ball)
    assert np.abs(narrow_fluid(level, inside, (0.5, 1.0, 1.0)).numpy() - wanted).max() < 1 / 255


def test_the_box_around_the_head_changes_nothing():
    """A head in a large and in a tight volume has the same maps."""
    t1, where = head(24)
    scale = IntensityScale((40.0, 80.0, 110.0))
    tight = AcousticMedium.from_mri(t1, EYE, mask=where < 3, scale=scale).maps
    wide = AcousticMedium.from_mri(np.pad(t1, 9), EYE, mask=np.pad(where < 3, 9), scale=scale).maps
    torch.testing.assert_close(wide[:, 9:-9, 9:-9, 9:-9], tight, rtol=0, atol=1e-6)
    assert wide[:, 0, 0, 0].tolist() == pytest.approx(GEL)


def test_shipped_weights_know_the_tissues_and_rise():
    model = load_impedance()
    level = torch.linspace(-0.5, 1.5, 401)
    for place, impedance in reference_points():
        assert model(torch.tensor(place)).item() == pytest.approx(impedance, abs=0.003)
    assert (model(level)[(level >= 0) & (level <= 1)].diff() > 0).all()
    assert model(torch.tensor([-9.0, 9.0])).tolist() == model(level[[0, -1]]).tolist()


def test_training_is_seeded_and_gives_the_shipped_weights():
    state = torch.get_rng_state()
    steps = list(train_impedance())
    assert torch.equal(state, torch.get_rng_state())
    assert [step.epoch for step in steps[:2]] == [1, 2]
    assert steps[-1].epoch == steps[-1].epochs == len(steps)
    assert steps[-1].loss < steps[0].loss / 100
    level = torch.linspace(-0.5, 1.5, 201)
    torch.testing.assert_close(steps[-1].model(level), load_impedance()(level), rtol=0, atol=2e-3)
    first, again, other = (list(train_impedance(epochs=5, seed=s))[-1].model(level) for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_training_on_other_points():
    *_, last = train_impedance([(1.0, 1.9), (0.0, 1.4)], epochs=400)
    assert last.model(torch.tensor([0.0, 0.5, 1.0])).tolist() == pytest.approx([1.4, 1.65, 1.9], abs=0.03)
    for points in ([(0.0, 1.5)], [(0.0, 1.5), (0.0, 1.6)], [(0.0, -1.0), (1.0, 1.6)], [(0.0, math.nan), (1.0, 1.5)]):
        with pytest.raises(InputError, match=r"[Rr]eference points"):
            next(train_impedance(points))
    with pytest.raises(InputError, match="epochs"):
        next(train_impedance(epochs=0))


def test_weights_go_through_a_file(tmp_path):
    *_, last = train_impedance(epochs=3)
    save_impedance(last.model, tmp_path / "mine.pt")
    level = torch.linspace(0, 1, 9)
    assert torch.equal(load_impedance(tmp_path / "mine.pt")(level), last.model(level))
    t1, _ = head(24)
    by_file = AcousticMedium.from_mri(t1, EYE, mapping=tmp_path / "mine.pt").maps
    by_model = AcousticMedium.from_mri(t1, EYE, mapping=last.model).maps
    torch.testing.assert_close(by_file, by_model.detach())


class Trap:
    """Unpickling this would run code."""

    def __reduce__(self):
        return (print, ("run",))


@pytest.mark.parametrize("content", ["text", "half", "foreign", "other shapes", "code", "nan"])
def test_bad_weights(tmp_path, content, capsys):
    path = tmp_path / "weights.pt"
    good = load_impedance()
    if content == "text":
        path.write_text("no weights")
    elif content == "half":
        save_impedance(good, path)
        path.write_bytes(path.read_bytes()[:3000])
    elif content == "foreign":
        torch.save({"conv.weight": torch.ones(3)}, path)
    elif content == "other shapes":
        save_impedance(ImpedanceMLP(hidden=8), path)
    elif content == "code":
        torch.save(Trap(), path)
    else:
        good.offset.fill_(math.nan)
        save_impedance(good, path)
    with pytest.raises(InputError, match=r"weights\.pt"):
        load_impedance(path)
    assert "run" not in capsys.readouterr().out


def test_missing_weights(tmp_path):
    with pytest.raises(InputError, match="do not exist"):
        load_impedance(tmp_path / "none.pt")


def test_a_mapping_of_ones_own():
    t1, where = head(24)
    maps = AcousticMedium.from_mri(t1, EYE, mask=where < 3, mapping=lambda level: 1.5 + 0.1 * level).maps
    white = maps[0][torch.from_numpy(where == 1)]
    assert white.median().item() == pytest.approx(1.6, abs=0.01)
    with pytest.raises(InputError, match="same shape"):
        AcousticMedium.from_mri(t1, EYE, mapping=lambda level: level.mean())


def test_gradients_of_the_network():
    model = load_impedance().double()
    level = torch.tensor([[-0.2, 0.1, 0.45], [0.7, 0.93, 1.3]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(model, level)
    assert torch.autograd.gradcheck(lambda x: impedance_of_levels(model, x), level)


def test_the_network_can_be_fitted_through_a_medium():
    model = load_impedance().double().requires_grad_(True)
    t1, where = head(16)
    medium = AcousticMedium.from_mri(torch.from_numpy(t1), EYE, mask=where < 3, mapping=model)
    loss = medium.sample(torch.full((5, 3), 7.3, dtype=torch.float64))[0].sum()
    gradient = torch.autograd.grad(loss, model.layers[-1].bias)[0]
    # Impedance is offset + scale * network: at a point of pure tissue the bias moves it by the scale.
    assert gradient.item() == pytest.approx(5 * model.scale.item(), rel=1e-6)


@pytest.mark.parametrize("contrast", ["t1", "t2"])
def test_gradients_to_the_image(contrast):
    generator = torch.Generator().manual_seed(0)
    t1 = (30 + 90 * torch.rand(3, 3, 4, generator=generator, dtype=torch.float64)).requires_grad_()
    scale = IntensityScale((40.0, 80.0, 110.0) if contrast == "t1" else (110.0, 80.0, 40.0))
    mask = torch.ones(3, 3, 4)
    mask[0, 0, 0] = 0
    sulci = torch.rand(3, 3, 4, generator=generator)
    options = {"scale": scale, "sulci": sulci, "texture_db": 0.0}
    build = lambda v: AcousticMedium.from_mri(v, EYE, mask, **options).maps  # noqa: E731
    assert torch.autograd.gradcheck(build, t1, eps=1e-6, atol=1e-6)
    assert torch.autograd.gradcheck(lambda v: tissue_memberships(v, mask, scale=scale), t1)


def test_an_image_of_two_levels_still_works():
    t1 = np.zeros((8, 8, 8))
    t1[2:6, 2:6, 2:6] = 1
    maps = AcousticMedium.from_mri(t1, EYE).maps
    assert maps[:, 0, 0, 0].tolist() == pytest.approx(GEL)
    assert maps[0, 4, 4, 4].item() == pytest.approx(tissue_table()["white matter"].impedance_mrayl, abs=0.003)


@pytest.mark.parametrize(
    ("t1", "message"),
    [
        (np.zeros((0, 4, 4)), "empty"),
        (np.full((4, 4, 4), 7), "constant"),
        (np.full((4, 4, 4), np.nan), "NaN"),
        (np.zeros((4, 4)), "3-D"),
        (np.zeros((4, 4, 4, 3)), "several components"),
        (torch.zeros(4, 4, 4, dtype=torch.complex64), "complex"),
    ],
)
def test_bad_volumes(t1, message):
    with pytest.raises(InputError, match=message):
        AcousticMedium.from_mri(t1, EYE)


def test_bad_arguments():
    t1, _ = head(16)
    for arguments, message in (
        ({"mask": np.ones((2, 2, 2))}, "grid"),
        ({"mask": np.zeros_like(t1)}, "mask is empty"),
        ({"contrast": "flair"}, "contrast"),
        ({"scale": IntensityScale((1.0, 2.0))}, "tissue classes"),
    ):
        with pytest.raises(InputError, match=message):
            AcousticMedium.from_mri(t1, EYE, **arguments)
    with pytest.raises(InputError, match="at least 2"):
        tissue_memberships(t1, n=1)
