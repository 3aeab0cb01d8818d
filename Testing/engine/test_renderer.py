"""The whole frame: geometry, gradients, batches, settings and bad input."""

import copy
import io
import math
from dataclasses import replace

import pytest
import torch
from diffus.errors import InputError
from diffus.geometry.pose import transform_points, twist_to_matrix
from diffus.medium.medium import AcousticMedium
from diffus.medium.tissue import GEL
from diffus.probe import probe_preset
from diffus.probe.beam import Beam
from diffus.render.blur import blur_across, blur_along, lateral_factors
from diffus.render.display import linear_brightness, log_compress
from diffus.render.plan import plan_frame
from diffus.render.renderer import UltrasoundRenderer, render_polar
from diffus.render.scan_conversion import scan_convert, scan_grid
from diffus.render.scatter import plane_grid, sum_waves
from diffus.render.settings import PaperArtefacts, make_settings
from support.phantoms import phantom, pose_from, probe_of

AT_FACE = torch.eye(4, dtype=torch.float64)
PROBES = ("convex", "linear", "phased")


def brightest_mm(image: torch.Tensor, probe) -> torch.Tensor:
    """Probe-frame mm of the intensity centroid of what is brighter than half of the peak."""
    weight = (image - 0.5 * image.max()).clamp(min=0).double()
    centres = probe.slice_geometry().pixel_centres()
    return (centres * weight[..., None]).sum((0, 1)) / weight.sum()


@pytest.mark.parametrize("kind", PROBES)
@pytest.mark.parametrize("direction", [(1, 1, 1), (-1, -1, 1)])
def test_a_point_target_lands_at_its_millimetre(kind, direction):
    """Under a turned and shifted probe, in RAS and LPS volumes with an oblique, anisotropic grid."""
    probe = probe_of(kind, rays=192)
    probe_to_ras = pose_from((20.0, -35.0, 50.0), (12.0, -7.0, 31.0))
    target_probe = torch.tensor([[6.0, 33.0, 0.0]], dtype=torch.float64)
    target_ras = transform_points(probe_to_ras, target_probe)[0]
    scale = torch.diag(torch.tensor([0.8 * direction[0], 1.0 * direction[1], 0.6 * direction[2], 1.0]).double())
    ijk_to_ras = pose_from((-10.0, 15.0, 5.0), (0.0, 0.0, 0.0)) @ scale
    index = torch.tensor([40.0, 50.0, 60.0], dtype=torch.float64)
    ijk_to_ras[:3, 3] = target_ras - ijk_to_ras[:3, :3] @ index
    maps = torch.tensor(GEL)[:, None, None, None].repeat(1, 121, 101, 81)
    maps[3, 60, 50, 40] = 30.0
    medium = AcousticMedium(maps, ijk_to_ras)
    # The mean over seeds: one speckle alone may be dark in the middle.
    settings = {"noise_db": None, "compression": "linear", "gain_db": -40.0}
    image = sum(UltrasoundRenderer(probe, seed=seed, **settings)(medium, probe_to_ras)[0] for seed in range(6))
    assert (brightest_mm(image, probe) - target_probe[0, :2]).norm() < 0.5


@pytest.mark.parametrize("kind", PROBES)
def test_marked_side_is_right_and_depth_is_down(kind):
    def spot(maps, x, y, z):
        maps[3] = 0.01
        maps[3][(x - 8) ** 2 + (y - 20) ** 2 + z**2 < 2**2] = 10

    probe = probe_of(kind)
    image = UltrasoundRenderer(probe, noise_db=None)(phantom(spot), AT_FACE)[0]
    row, column = divmod(image.argmax().item(), image.shape[1])
    assert column > image.shape[1] / 2
    assert row < image.shape[0] / 2


@pytest.mark.parametrize("echo", ["layered", "transmission", "reverberation"])
@pytest.mark.parametrize("kind", PROBES)
def test_gradient_to_pose_through_the_whole_renderer(echo, kind):
    def waves(maps, x, y, z):
        maps[0] += 0.05 * torch.sin(0.3 * y + 0.2 * x) + 0.03 * torch.cos(0.25 * z)
        maps[3] *= 0.7 + 0.2 * torch.sin(0.2 * x + 0.1 * y)

    medium = phantom(waves, size_mm=24, dtype=torch.float64)
    probe = probe_of(
        kind, rays=7, samples=11, depth_mm=9.0, frequency_mhz=2.0, mm_per_pixel=0.9, elevation_layers=2,
        **({"width_mm": 7.0} if kind == "linear" else {}),
    )  # fmt: skip
    # A coarse grain keeps the steps of the finite differences within one cell of the texture.
    renderer = UltrasoundRenderer(probe, echo, grain_mm=4.0, specular_exponent=2.0)
    base = pose_from((3.0, 5.0, 2.0), (0.31, 0.27, 0.43))
    twist = torch.tensor([[0.01, -0.02, 0.015, 0.011, -0.007, 0.013]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda xi: renderer(medium, base @ twist_to_matrix(xi)),
        (twist,),
        eps=1e-6,
        atol=1e-5,
        rtol=1e-3,
        fast_mode=True,
    )


def test_gradient_to_medium_and_parameters():
    torch.manual_seed(0)
    maps = torch.tensor([1.6, 0.5, 1.1, 1.0], dtype=torch.float64)[:, None, None, None].repeat(1, 3, 4, 3)
    maps = (maps * (1 + 0.02 * torch.randn_like(maps))).requires_grad_()
    affine = torch.diag(torch.tensor([6.0, 6.0, 6.0, 1.0], dtype=torch.float64))
    affine[:3, 3] = torch.tensor([-6.0, -1.0, -6.0])
    names = ("frequency_mhz", "focus_mm", "f_number", "gain_db", "tgc_db_per_cm", "dynamic_range_db", "reflection_db")
    values = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (2.0, 6.0, 2.0, 1.0, 2.0, 60.0, 40.0)]

    def frame(maps, *values):
        given = dict(zip(names, values))
        probe = replace(
            probe_of("linear", rays=6, samples=9, depth_mm=8.0, width_mm=6.0, mm_per_pixel=0.9),
            **{name: given.pop(name) for name in names[:3]},
        )
        return UltrasoundRenderer(probe, grain_mm=4.0, **given)(AcousticMedium(maps, affine), AT_FACE)

    assert torch.autograd.gradcheck(frame, (maps, *values), eps=1e-6, atol=1e-5, rtol=1e-3, fast_mode=True)


@pytest.mark.parametrize(
    ("stage", "shape"),
    [
        (lambda x: blur_along(x, x.new_tensor([0.1, 0.7, 0.2])), (2, 3, 8)),
        (
            lambda x: blur_across(x, lateral_factors(x.new_full((8,), 0.7), x.new_full((8,), 0.5), 5)[None]),
            (2, 2, 5, 8),
        ),
        (lambda x: Beam(0.3, 20.0, 3.0, 2.0).lateral_sigma_mm(x), (6,)),
        (lambda x: Beam(0.3, 20.0, 3.0, 2.0, aperture_mm=15.0, radius_mm=30.0).gain_db(x), (6,)),
        (lambda x: log_compress(x, x.new_full((4,), 2.0), 60.0), (1, 2, 3, 4)),
        (lambda x: linear_brightness(0.1 * x, 3.0), (1, 2, 3, 4)),
        (lambda x: sum_waves(x, x[..., 0], x[..., 1], plane_grid((0.0, 0.0), (4.0, 3.0), 0.9)), (1, 3, 2)),
        (lambda x: scan_convert(x, *scan_grid(probe_of("convex", rays=4, samples=8, mm_per_pixel=7.0))), (1, 4, 8)),
        (twist_to_matrix, (2, 6)),
    ],
)
def test_gradient_of_every_stage(stage, shape):
    x = (0.2 + torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(stage, (x,))


def test_a_batch_of_poses_equals_one_by_one():
    renderer, medium = UltrasoundRenderer(probe_of("convex", rays=32, samples=80)), phantom()
    poses = torch.stack([pose_from((0, 5, 0), (1, 0, 0)), pose_from((4, 0, 9), (0, 3, 2))])
    batch = renderer(medium, poses)
    assert batch.shape[0] == 2
    for frame, (pose, image) in enumerate(zip(poses, batch)):
        torch.testing.assert_close(renderer(medium, pose, frame)[0], image, atol=1e-3, rtol=0)


def test_a_batch_with_the_papers_artefacts_equals_one_by_one():
    renderer, medium = UltrasoundRenderer(probe_of("convex", rays=32, samples=80), preset="paper"), phantom()
    poses = torch.stack([pose_from((0, 5, 0), (1, -12, 0)), pose_from((4, 0, 9), (0, -13, 2))])
    torch.testing.assert_close(renderer(medium, poses)[1], renderer(medium, poses[1])[0], atol=1e-3, rtol=0)


def test_a_preview_in_inference_mode_does_not_spoil_gradients():
    renderer, medium = UltrasoundRenderer(probe_of(rays=16, samples=40)), phantom()
    with torch.inference_mode():
        renderer(medium, AT_FACE)
    pose = AT_FACE.clone().requires_grad_()
    renderer(medium, pose).mean().backward()
    assert pose.grad.abs().sum() > 0


def test_a_start_depth_below_the_image_is_refused():
    with pytest.raises(InputError, match="below the image"):
        UltrasoundRenderer(probe_of(rays=8, samples=16), start_depth_mm=60.0)(phantom(), AT_FACE)


def test_the_same_seed_gives_the_same_image_and_another_one_other_speckle():
    medium, probe = phantom(), probe_of("convex", rays=32, samples=80)
    first, again, other = (UltrasoundRenderer(probe, seed=seed)(medium, AT_FACE) for seed in (4, 4, 5))
    assert torch.equal(first, again)
    assert (first - other).abs().mean() > 0.02


def test_image_is_in_range_and_black_outside_the_fan():
    probe = probe_of("convex")
    image = UltrasoundRenderer(probe)(phantom(), AT_FACE)
    geometry = probe.slice_geometry()
    assert image.shape == (1, geometry.rows, geometry.columns)
    assert image.min() >= 0
    assert image.max() <= 1
    assert image[0, -1, 0] == 0
    assert image[0, -1, -1] == 0
    assert image.mean() > 0.1


def test_coupling_gel_around_the_volume_is_no_mirror():
    """A fan that starts 15 mm above the tissue sees its surface, but loses nothing to it."""
    lifted = AT_FACE.clone()
    lifted[1, 3] = -25.0
    probe = probe_of("linear")
    plan = plan_frame(probe, make_settings(noise_db=None, attenuation=False, speckle=False))
    renderer = UltrasoundRenderer(probe)
    polar = render_polar(plan, phantom(), renderer.points_ras(lifted[None]))
    assert polar.max() < 1


def test_gradient_reaches_a_volume_that_needs_it():
    maps = phantom().maps.clone().requires_grad_()
    image = UltrasoundRenderer(probe_of(rays=16, samples=40))(AcousticMedium(maps, phantom().ijk_to_ras), AT_FACE)
    image.sum().backward()
    assert maps.grad.abs().sum() > 0


def test_artefacts_of_the_paper_change_the_image():
    probe = probe_of("convex", rays=32, samples=80)
    plain = UltrasoundRenderer(probe)(phantom(), AT_FACE)
    spoilt = UltrasoundRenderer(probe, artefacts=PaperArtefacts())(phantom(), AT_FACE)
    assert plain.shape == spoilt.shape
    assert (plain - spoilt).abs().mean() > 0.001


def test_the_paper_preset_shows_boundaries_and_no_speckle():
    def wall(maps, x, y, z):
        maps[0][y > 30] = 1.7

    renderer = UltrasoundRenderer(probe_of("linear", rays=32, samples=120), preset="paper", artefacts=None)
    assert renderer.settings.echo == "layered"
    polar = renderer.polar(phantom(wall), renderer.points_ras(AT_FACE[None]))[0]
    depth = renderer.probe.depths_mm()
    assert (polar[:, (depth > 29) & (depth < 31)].amax(1) > 0.2).all()
    assert polar[:, depth > 33].max() < 0.01


@pytest.mark.parametrize(
    ("pose", "words"),
    [
        (torch.zeros(4, 4), "not an affine"),
        (torch.diag(torch.tensor([2.0, 2.0, 2.0, 1.0])), "scales or shears"),
        (torch.diag(torch.tensor([1.0, 1.0, 0.0, 1.0])), "singular"),
        (torch.diag(torch.tensor([-1.0, 1.0, 1.0, 1.0])), "mirrors space"),
        (torch.full((4, 4), math.nan), "NaN"),
        (torch.eye(3), "4x4"),
        (pose_from((0, 0, 0), (500, 0, 0)), "entirely outside"),
    ],
)
def test_a_bad_pose_gets_one_sentence(pose, words):
    with pytest.raises(InputError, match=words) as error:
        UltrasoundRenderer(probe_of(rays=8, samples=16))(phantom(), pose)
    assert str(error.value).count(".") == 1 or words == "scales or shears"


@pytest.mark.parametrize(
    "settings",
    [
        {"dynamic_range_db": 0.0},
        {"gain_db": math.nan},
        {"echo": "magic"},
        {"compression": "square"},
        {"start_depth_mm": -1.0},
        {"seed": -3},
        {"seed": 1.5, "speckle": False},
        {"speckle": "no"},
        {"artefacts": 1.0},
        {"echo": ["magic"]},
        {"colour": "red"},
    ],
)
@pytest.mark.bad_input
def test_a_bad_setting_gets_one_sentence(settings):
    with pytest.raises(InputError) as error:
        UltrasoundRenderer(probe_of(rays=8, samples=16), **settings)(phantom(), AT_FACE)
    assert next(iter(settings)).split("_")[0] in str(error.value) or "magic" in str(error.value)


def small(**settings):
    """A small, quick renderer."""
    return UltrasoundRenderer(probe_of(rays=16, samples=40), **settings)


def test_a_number_of_the_settings_is_no_attribute_of_its_own():
    """It would be kept and change nothing."""
    renderer = UltrasoundRenderer(probe_preset("linear"), fit=("reflection_db",))
    for name in ("gain_db", "focus_mm"):
        with pytest.raises(InputError, match="set these anew"):
            setattr(renderer, name, 5.0)
    renderer.gain_db = torch.nn.Parameter(torch.tensor(5.0))
    assert renderer.settings.gain_db == 5.0


def test_changed_settings_and_probes_change_the_image():
    renderer, medium = small(), phantom()
    first = renderer(medium, AT_FACE)
    renderer.settings = renderer.settings.replace(gain_db=-20.0)
    darker = renderer(medium, AT_FACE)
    assert torch.equal(darker, small(gain_db=-20.0)(medium, AT_FACE))
    assert darker.mean() < first.mean() - 0.05
    renderer.probe = replace(renderer.probe, depth_mm=30.0)
    shallow = renderer(medium, AT_FACE)
    assert shallow.shape[1:] == (renderer.probe.slice_geometry().rows, renderer.probe.slice_geometry().columns)
    assert shallow.shape != first.shape


def test_a_tensor_that_changes_in_place_changes_the_image():
    """Also one without a gradient, and under no_grad: what tensors take part in is never kept."""
    gain = torch.tensor(0.0)
    renderer, medium = small(gain_db=gain), phantom()
    with torch.no_grad():
        first = renderer(medium, AT_FACE)
        gain.sub_(20.0)
        assert torch.equal(renderer(medium, AT_FACE), small(gain_db=-20.0)(medium, AT_FACE))
    assert first.mean() > renderer(medium, AT_FACE).mean()


FITTED = ("gain_db", "dynamic_range_db", "noise_db", "tgc_db_per_cm", "reflection_db", "specular_exponent")
FITTED += ("frequency_mhz", "focus_mm", "f_number", "transmit_f_number", "cycles")


def test_every_fitted_number_is_a_parameter_with_a_gradient():
    def wall(maps, x, y, z):
        maps[0][y + 0.3 * x > 30] = 1.7

    plain, medium = small(specular_exponent=2.0), phantom(wall)
    renderer = small(specular_exponent=2.0, fit=FITTED)
    assert sorted(dict(renderer.named_parameters())) == sorted(FITTED)
    image = renderer(medium, AT_FACE)
    torch.testing.assert_close(image.detach(), plain(medium, AT_FACE), atol=1e-4, rtol=0)
    image.square().sum().backward()
    assert all(p.grad is not None and p.grad != 0 for p in renderer.parameters())


def test_parameters_that_are_handed_over_are_the_modules():
    gain, focus = torch.nn.Parameter(torch.tensor(3.0)), torch.nn.Parameter(torch.tensor(20.0))
    renderer = UltrasoundRenderer(probe_of(rays=16, samples=40, focus_mm=focus), gain_db=gain)
    assert dict(renderer.named_parameters()) == {"focus_mm": focus, "gain_db": gain}
    assert renderer.settings.gain_db is gain
    renderer.settings = renderer.settings.replace(gain_db=1.0)
    assert list(renderer.parameters()) == [focus]
    renderer.gain_db = gain
    assert renderer.settings.gain_db is gain
    with torch.no_grad():
        gain.fill_(-30.0)
    assert renderer.settings.gain_db.item() == -30.0


@pytest.mark.parametrize("names", [("colour",), ("depth_mm",), ("echo",)])
def test_what_cannot_be_fitted_gets_one_sentence(names):
    with pytest.raises(InputError, match="cannot be fitted; choose from frequency_mhz"):
        small(fit=names)
    with pytest.raises(InputError, match="cannot be fitted"):
        small().register_parameter(names[0], torch.nn.Parameter(torch.tensor(1.0)))
    with pytest.raises(InputError, match="noise_db is none"):
        small(noise_db=None, fit=("noise_db",))


def test_adam_over_the_parameters_lowers_the_loss():
    medium, target = phantom(), small(gain_db=-12.0)(phantom(), AT_FACE)
    renderer = small(fit=("gain_db",))
    adam = torch.optim.Adam(renderer.parameters(), lr=1.0)
    losses = []
    for _ in range(45):
        adam.zero_grad()
        loss = (renderer(medium, AT_FACE) - target).square().mean()
        loss.backward()
        adam.step()
        losses.append(loss.item())
    assert losses[-1] < 0.02 * losses[0]
    assert renderer.settings.gain_db.item() == pytest.approx(-12.0, abs=2.0)


def test_parameters_and_constants_follow_to():
    renderer, medium = small(fit=("gain_db",)), phantom()
    with torch.no_grad():
        assert torch.equal(renderer(medium, AT_FACE), small()(medium, AT_FACE))
    assert renderer.to(torch.float64).gain_db.dtype == torch.float64

    renderer = small()
    assert renderer(medium, AT_FACE).dtype == torch.float32
    constants = dict(renderer.named_buffers())
    assert {name.split(".")[-1] for name in constants} >= {"points", "lateral_factors", "waves", "grid"}
    renderer.to(torch.float64)
    assert {buffer.dtype for buffer in renderer.buffers()} == {torch.float64, torch.bool, torch.int64}
    exact = small().plan(torch.float64, "cpu").points
    assert torch.equal(renderer.plan(torch.float64, torch.device("cpu")).points, exact)
    assert torch.equal(renderer(medium, AT_FACE), small()(medium, AT_FACE))  # its dtype is the medium's
    assert renderer.plan(torch.float64, "cpu").to(torch.float32).field.waves.dtype == torch.float32


def test_a_state_dict_round_trips():
    renderer, medium = small(fit=("gain_db", "focus_mm")), phantom()
    with torch.no_grad():
        renderer.gain_db.fill_(-9.0)
        renderer.focus_mm.fill_(25.0)
        image = renderer(medium, AT_FACE)
    state = renderer.state_dict()
    assert {name: value.item() for name, value in state.items()} == {"gain_db": -9.0, "focus_mm": 25.0}
    other = small(fit=("gain_db", "focus_mm"))
    other.load_state_dict(state)
    assert torch.equal(other(medium, AT_FACE).detach(), image)
    plain = small()
    plain(medium, AT_FACE)
    assert not plain.state_dict()


def test_a_renderer_can_be_copied_and_saved():
    renderer, medium = small(fit=("gain_db",), noise_db=None), phantom()
    plain = small()
    plain(medium, AT_FACE)
    for made in (renderer, plain):
        file = io.BytesIO()
        torch.save(made, file)
        file.seek(0)
        for other in (copy.deepcopy(made), torch.load(file, weights_only=False)):
            assert torch.equal(other(medium, AT_FACE), made(medium, AT_FACE))
            other.settings = other.settings.replace(gain_db=-25.0)
            assert other(medium, AT_FACE).mean() < made(medium, AT_FACE).mean()
    assert [name for name, _ in copy.deepcopy(renderer).named_parameters()] == ["gain_db"]
