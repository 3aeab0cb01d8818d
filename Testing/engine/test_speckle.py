"""Speckle and noise of delivered slices: statistics, the beam's correlation, no repeats, new noise in every frame."""

import math
from dataclasses import replace

import pytest
import torch
from diffus.geometry.pose import twist_to_matrix
from diffus.probe import probe_preset
from diffus.probe.presets import preset_names
from diffus.render.renderer import UltrasoundRenderer, speckle_of
from diffus.render.scatter import plane_grid, spread_loss, sum_waves
from support.phantoms import phantom, pose_from, probe_of

OBLIQUE = pose_from((20.0, -30.0, 10.0), (30.0, 20.0, -10.0))
RANGE_DB = 120.0  # that nothing is clipped
PLAIN = {"attenuation": False, "noise_db": None, "clutter_db": None, "dynamic_range_db": RANGE_DB, "gain_db": 0.0}


def delivered_power(probe, seed: int = 0, **settings) -> torch.Tensor:
    """|x|^2 at every pixel of a slice of uniform tissue, 1 for white matter; NaN outside of the fan."""
    renderer = UltrasoundRenderer(probe, seed=seed, **PLAIN, **settings)
    medium = phantom(size_mm=340.0, spacing_mm=10.0)
    with torch.no_grad():
        image = renderer(medium, pose_from((0, 0, 0), (0, 0, 0)))[0].double()
    inside = renderer.plan(torch.float32, "cpu").inside
    return torch.where(inside, 10 ** ((image - 0.6) * RANGE_DB / 10), torch.nan)


def speckle_at_pixels(probe, pose: torch.Tensor) -> torch.Tensor:
    """Complex speckle at the pixels of the fan."""
    renderer = UltrasoundRenderer(probe)
    plan = renderer.plan(torch.float32, "cpu")
    with torch.no_grad():
        lines = speckle_of(plan, renderer.points_ras(pose[None]))
        return torch.complex(*plan.pixels.lines.speckle_at(lines)[0])


def coherence(a: torch.Tensor, b: torch.Tensor) -> float:
    power = (a.abs().square().mean() * b.abs().square().mean()).sqrt()
    return ((a * b.conj()).mean().abs() / power).item()


@pytest.mark.parametrize("name", preset_names())
def test_delivered_slices_are_fully_developed_speckle(name):
    power = torch.stack([delivered_power(probe_preset(name), seed) for seed in range(2)])
    power = power[~power.isnan()]
    amplitude = power.sqrt()
    assert (amplitude.mean() / amplitude.std()).item() == pytest.approx(math.sqrt(math.pi / (4 - math.pi)), abs=0.05)
    assert (power.mean() ** 2 / power.var()).item() == pytest.approx(1.0, abs=0.07)
    assert 10 * math.log10(power.mean()) == pytest.approx(0.0, abs=0.3)


def test_speckle_does_not_depend_on_the_sampling():
    """It is made on lines of its own, which pulse and beam alone say: the same from 96 rays and 200 samples on."""
    probe = probe_preset("craniotomy-convex")
    usual = delivered_power(probe)
    for rays, samples in ((96, 200), (768, 800)):
        other = delivered_power(replace(probe, rays=rays, samples=samples))
        assert torch.equal(other.isnan(), usual.isnan())
        apart = (other - usual).abs() > 0.1 + 0.1 * usual.abs()
        assert apart.double().mean() < 1e-4  # single pixels of the fan's rim


def test_outer_rays_and_first_and_last_samples_are_as_bright_as_others():
    probe = probe_of("convex")
    power = torch.stack([delivered_power(probe, seed) for seed in range(16)]).mean(0)
    ray, sample = probe.polar_coordinates(probe.slice_geometry().pixel_centres()).unbind(-1)
    for rim in (ray < 2, ray > probe.rays - 3, sample < 8, sample > probe.samples - 5):
        level = power[rim & ~power.isnan()].mean()
        assert 10 * math.log10(level) == pytest.approx(0.0, abs=0.5)


@pytest.mark.parametrize("name", ["craniotomy-convex", "linear", "phased"])
def test_a_shift_out_of_the_plane_keeps_what_the_beam_keeps(name):
    """exp(-d^2 / (4 sigma^2)) of the slice's thickness, at every depth; of the intensity, its square."""
    probe = probe_preset(name)
    xy = probe.slice_geometry().pixel_centres()[UltrasoundRenderer(probe).plan(torch.float32, "cpu").inside]
    depth = probe.polar_coordinates(xy)[:, 1] * probe.sample_spacing_mm
    here = speckle_at_pixels(probe, OBLIQUE)
    for shift in (0.05, 0.2, 0.5, 1.0, 2.0):
        moved = OBLIQUE.clone()
        moved[:3, 3] += shift * OBLIQUE[:3, 2]
        there = speckle_at_pixels(probe, moved)
        for part in range(5):
            middle = (part + 0.5) / 5 * probe.depth_mm
            band = (depth - middle).abs() < probe.depth_mm / 10
            sigma = probe.beam.elevation_sigma_mm(depth[band]).square().mean().sqrt().item()
            expected = math.exp(-(shift**2) / (4 * sigma**2))
            assert coherence(here[band], there[band]) == pytest.approx(expected, abs=0.1)
            intensity = torch.stack([part[band].abs().square() for part in (here, there)])
            assert torch.corrcoef(intensity)[0, 1].item() == pytest.approx(expected**2, abs=0.1)


def test_a_small_tilt_does_not_boil():
    probe = probe_preset("craniotomy-convex")
    here = speckle_at_pixels(probe, OBLIQUE)
    for axis in (0, 1):  # out of the plane, about the lateral axis and about the depth axis
        turn = [0.0, 0.0, 0.0]
        turn[axis] = 0.2
        assert coherence(here, speckle_at_pixels(probe, OBLIQUE @ pose_from(tuple(turn), (0, 0, 0)))) > 0.95


def test_no_texture_repeats_within_an_image():
    """Coherence with the same image shifted by anything, over images 16 cm deep."""
    probe = replace(probe_preset("abdominal-convex"), mm_per_pixel=0.5)
    inside = UltrasoundRenderer(probe).plan(torch.float32, "cpu").inside
    image = torch.zeros(inside.shape, dtype=torch.complex128)
    image[inside] = speckle_at_pixels(probe, OBLIQUE).to(torch.complex128)
    size = [2 * n for n in image.shape]

    def against_itself(values: torch.Tensor) -> torch.Tensor:
        return torch.fft.ifft2(torch.fft.fft2(values, size).abs().square())

    shared = against_itself(inside.double()).real
    found = against_itself(image).abs() / shared.clamp(min=1) / image[inside].abs().square().mean()
    found[shared < 0.25 * inside.sum()] = 0
    apart = torch.fft.fftfreq(size[0], 1 / size[0])[:, None].square() + torch.fft.fftfreq(size[1], 1 / size[1]).square()
    found[apart.sqrt() * 0.5 < 8.0] = 0
    assert found.max() < 0.15


def test_the_plane_sums_its_waves():
    """The quick sum against the plain one, at the nodes."""
    generator = torch.Generator().manual_seed(0)
    grid = plane_grid((-6.0, -4.0), (10.0, 9.0), 0.25)
    vectors = 2 * torch.randn(1, 40, 2, generator=generator, dtype=torch.float64)
    phases, amplitudes = torch.rand(2, 1, 40, generator=generator, dtype=torch.float64) * 6
    plane = torch.complex(*sum_waves(vectors, phases, amplitudes, grid)[0])
    x, y = (
        (torch.arange(n, dtype=torch.float64) - n // 2) * step + middle
        for n, step, middle in zip(grid.size, grid.spacing, grid.centre)
    )
    places = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)
    plain = torch.polar(amplitudes[0], phases[0] + places @ vectors[0].T).sum(-1)
    loss = spread_loss(torch.linspace(-0.5, 0.5, grid.size[1] + 1, dtype=torch.float64)[:-1])[:, None]
    loss = loss * spread_loss(torch.linspace(-0.5, 0.5, grid.size[0] + 1, dtype=torch.float64)[:-1])
    within = (places[..., 0] > -6) & (places[..., 0] < 10) & (places[..., 1] > -4) & (places[..., 1] < 9)
    error = (plane / loss - plain)[within].abs().square().mean() / plain[within].abs().square().mean()
    assert error.sqrt() < 0.05


def test_every_frame_has_noise_of_its_own_and_the_same_again():
    """Of a slice that shows nothing but noise, about the focus, where noise is even."""
    probe = probe_of("convex")
    renderer = UltrasoundRenderer(probe, speckle=False, noise_db=-20.0, tgc_margin_db=None, attenuation=False)
    medium = phantom()
    depth = probe.polar_coordinates(probe.slice_geometry().pixel_centres())[..., 1] * probe.sample_spacing_mm
    inside = renderer.plan(torch.float32, "cpu").inside & ((depth - probe.focus_mm).abs() < 5)
    poses = torch.eye(4, dtype=torch.float64).expand(3, 4, 4)
    with torch.no_grad():
        frames = renderer(medium, poses, frame=5)
        again, next_one = renderer(medium, poses[0], frame=5), renderer(medium, poses[0], frame=6)
    assert torch.equal(again[0], frames[0])
    assert torch.equal(next_one[0], frames[1])
    correlation = torch.corrcoef(frames[:, inside]).fill_diagonal_(0.0)
    assert correlation.abs().max() < 0.05
    power = 10 ** ((frames[:, inside].double() - 0.6) * 6)
    assert (power.mean() ** 2 / power.var()).item() == pytest.approx(1.0, abs=0.07)


@pytest.mark.parametrize("name", ["frequency_mhz", "focus_mm", "f_number", "cycles"])
def test_the_derivative_to_a_number_of_the_probe_is_that_of_the_image(name):
    """Scatterers and noise stay where they are when a fitted number changes a little."""
    probe = probe_of("convex", rays=32, samples=80, depth_mm=30.0, frequency_mhz=3.0, mm_per_pixel=0.5)
    medium = phantom(dtype=torch.float64)
    weight = torch.randn(probe.slice_geometry().rows, probe.slice_geometry().columns, dtype=torch.float64)

    def value(number: torch.Tensor) -> torch.Tensor:
        return (UltrasoundRenderer(replace(probe, **{name: number}))(medium, OBLIQUE) * weight).sum()

    number = torch.tensor(float(getattr(probe, name)) * 1.02, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(value(number), number)
    step = 1e-5 * number.detach()
    with torch.no_grad():
        numerical = (value(number + step) - value(number - step)) / (2 * step)
    assert slope.item() == pytest.approx(numerical.item(), rel=1e-3, abs=1e-6)


def test_the_derivative_to_the_pose_goes_through_the_speckle():
    probe = probe_of("linear", rays=32, samples=80, depth_mm=30.0, width_mm=20.0, frequency_mhz=3.0, mm_per_pixel=0.5)
    medium = phantom(dtype=torch.float64)
    renderer = UltrasoundRenderer(probe)
    image = renderer(medium, OBLIQUE).detach()
    weight = image.roll(1, 1) - image

    def value(twist: torch.Tensor) -> torch.Tensor:
        return (renderer(medium, OBLIQUE @ twist_to_matrix(twist)) * weight).sum()

    twist = torch.zeros(6, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(value(twist), twist)
    for axis in range(6):
        step = torch.zeros(6, dtype=torch.float64)
        step[axis] = 1e-6
        with torch.no_grad():
            numerical = (value(step) - value(-step)) / 2e-6
        assert slope[axis].item() == pytest.approx(numerical.item(), rel=1e-3, abs=1e-3 * slope.abs().max().item())
