"""What must come out of the renderer, measured on phantoms."""

import math

import pytest
import torch
from diffus.geometry.filters import gaussian_kernel
from diffus.probe.beam import Beam, axial_sigma_mm
from diffus.render.blur import blur_across, blur_along
from diffus.render.plan import plan_frame
from diffus.render.renderer import UltrasoundRenderer, render_iq
from diffus.render.settings import make_settings
from support.phantoms import phantom, probe_of

AT_FACE = torch.eye(4, dtype=torch.float64)


def envelope(probe, medium, **settings) -> torch.Tensor:
    """|x| of one frame (rays, samples), without noise and gain."""
    renderer = UltrasoundRenderer(probe, noise_db=None, **settings)
    plan = renderer.plan(medium.dtype, medium.device)
    iq = render_iq(plan, medium, renderer.points_ras(AT_FACE[None], medium.dtype))[0]
    return (iq**2).sum(0).sqrt()


def level_db(region: torch.Tensor) -> float:
    return 10 * math.log10((region.double() ** 2).mean().item() + 1e-30)


@pytest.mark.parametrize("kind", ["convex", "linear", "phased"])
def test_uniform_tissue_is_fully_developed_speckle(kind):
    frames = [
        envelope(probe_of(kind, rays=192), phantom(), attenuation=False, seed=seed)[8:-8, 100:-10] for seed in range(4)
    ]
    power = torch.stack(frames).double() ** 2
    amplitude = power.sqrt()
    assert (amplitude.mean() / amplitude.std()).item() == pytest.approx(1.913, abs=0.05)
    nakagami_m = power.mean() ** 2 / power.var()
    assert nakagami_m.item() == pytest.approx(1.0, abs=0.05)


def test_a_cyst_is_anechoic_with_enhancement_behind():
    def cyst(maps, x, y, z):
        inside = (x**2 + (y - 25) ** 2 + z**2) < 8**2
        maps[1][inside], maps[3][inside] = 0.002, 0.0

    image = envelope(probe_of("linear"), phantom(cyst))
    beside, middle = slice(8, 30), slice(56, 72)
    within, behind = slice(140, 190), slice(270, 330)  # 21..28 mm, 40..50 mm deep
    assert level_db(image[middle, within]) < level_db(image[beside, within]) - 30
    gained = level_db(image[middle, behind]) - level_db(image[beside, behind])
    # 16 mm of tissue at 0.5 dB/(cm MHz), 5 MHz, twice, that the cyst does not take
    assert gained == pytest.approx(2 * 1.55 * 0.5 * 5, abs=1.5)


def test_bone_casts_a_shadow_deeper_than_20_db():
    def bone(maps, x, y, z):
        inside = (x.abs() < 6) & (y > 18) & (y < 24)
        maps[0][inside], maps[1][inside] = 6.46, 13.0

    image = envelope(probe_of("linear"), phantom(bone))
    assert level_db(image[56:72, 240:300]) < level_db(image[5:30, 240:300]) - 20


@pytest.mark.parametrize("exponent", [1.0, 1.2])
def test_attenuation_follows_the_power_of_frequency(exponent):
    medium = phantom(tissue=(1.6, 0.4, exponent, 1.0))
    losses = []
    for frequency in (2.5, 5.0):
        frames = torch.stack([envelope(probe_of("linear", frequency_mhz=frequency), medium, seed=s) for s in range(3)])
        shallow, deep = frames[:, :, 60:120], frames[:, :, 300:360]
        losses.append((level_db(shallow) - level_db(deep)) / (2 * 240 * 60 / 399 / 10))
    assert losses[0] == pytest.approx(0.4 * 2.5**exponent, rel=0.05)
    assert losses[1] / losses[0] == pytest.approx(2**exponent, rel=0.05)


def width_mm(profile: torch.Tensor, spacing_mm: float) -> float:
    """Full width at half maximum, interpolated."""
    half = profile.max() / 2
    above = (profile >= half).nonzero().flatten()
    first, last = above[0].item(), above[-1].item()
    left = first - (profile[first] - half) / (profile[first] - profile[first - 1])
    right = last + (profile[last] - half) / (profile[last] - profile[last + 1])
    return (right - left).item() * spacing_mm


@pytest.mark.parametrize("depth", [15.0, 30.0, 50.0])
def test_point_spread_widths_follow_the_formula(depth):
    probe = probe_of("linear", rays=512, samples=3000, width_mm=20.0, f_number=3.0)
    plan = plan_frame(probe, make_settings(speckle=False), torch.float64)
    point = torch.zeros(1, 512, 3000, dtype=torch.float64)
    sample = round(depth / probe.sample_spacing_mm)
    point[0, 256, sample] = 1
    image = blur_across(blur_along(point, plan.pulse_taps)[:, None].expand(-1, 2, -1, -1), plan.lateral_factors)[0, 0]
    wavelength = 1.54 / 5
    assert width_mm(image[256], probe.sample_spacing_mm) == pytest.approx(probe.cycles * wavelength / 2, rel=0.1)
    # What elements a wavelength wide see off their normal widens either beam: lambda / (2 pi 0.483).
    elements = wavelength / (2 * math.pi * (math.pi**2 / 3 + 1) ** -0.5)
    transmit_focus, receive = (math.hypot(1.2 * wavelength * f / 2.355, elements) for f in (4, 3))
    rayleigh = 2 * math.pi * transmit_focus**2 / wavelength
    transmit = transmit_focus * math.sqrt(1 + ((depth - 30) / rayleigh) ** 2)
    expected = 2.355 / math.hypot(1 / transmit, 1 / receive)
    assert width_mm(image[:, sample], 20 / 511) == pytest.approx(expected, rel=0.1)


def test_the_beam_is_narrowest_at_the_focus():
    depth = torch.linspace(5, 100, 96, dtype=torch.float64)
    sigma = Beam(0.3, 40.0, 3.0, 3.0).lateral_sigma_mm(depth)
    assert depth[sigma.argmin()] == 40
    assert sigma[0] > sigma[20]
    assert sigma[-1] > sigma[60]


def boundary(maps, x, y, z):
    maps[0][y > 30] = 1.7


@pytest.mark.parametrize(("rays", "samples"), [(128, s) for s in (200, 400, 800, 1600)] + [(r, 400) for r in (96, 384)])
def test_levels_do_not_depend_on_the_sampling(rays, samples):
    reference, probe = probe_of("linear"), probe_of("linear", rays=rays, samples=samples)
    medium = phantom(boundary)
    for settings in ({"speckle": False, "attenuation": False}, {"attenuation": False, "reflection_db": -40.0}):
        levels = []
        for each in (reference, probe):
            frames = torch.stack([envelope(each, medium, **settings, seed=seed) for seed in range(4)])
            depth = each.depths_mm()
            if settings.get("speckle", True):
                levels.append(level_db(frames[:, :, (depth > 8) & (depth < 55)]))
            else:
                levels.append(20 * math.log10(frames[:, :, (depth > 28) & (depth < 33)].max()))
        assert levels[0] == pytest.approx(levels[1], abs=0.5)


@pytest.mark.parametrize(
    "change", [{"elevation_layers": 3}, {"rays_per_line": 8}, {"elevation_layers": 3, "rays_per_line": 4}]
)
def test_sub_rays_keep_the_speckle_level(change):
    """They sample the medium; speckle is made by the beam."""
    levels = []
    for probe in (probe_of("linear"), probe_of("linear", **change)):
        frames = torch.stack([envelope(probe, phantom(), attenuation=False, seed=seed)[:, 60:380] for seed in range(3)])
        levels.append(level_db(frames))
    assert levels[0] == pytest.approx(levels[1], abs=0.1)


def test_unit_speckle_is_at_zero_db():
    image = envelope(probe_of("convex"), phantom(), attenuation=False)
    assert level_db(image[:, 60:380]) == pytest.approx(0.0, abs=0.3)


def test_specular_lobe_dims_an_oblique_boundary_only():
    def ramp(maps, x, y, z):
        maps[0] += 0.1 * ((x + y - 30) / 2**0.5 / 4 + 0.5).clamp(0, 1)

    def flat(maps, x, y, z):
        maps[0] += 0.1 * ((y - 30) / 4 + 0.5).clamp(0, 1)

    straight, oblique = phantom(flat), phantom(ramp)
    probe = probe_of("linear")
    boundaries = {"speckle": False, "attenuation": False}
    plain, lobed = (
        [envelope(probe, m, **boundaries, **lobe)[40:88].max() for m in (straight, oblique)]
        for lobe in ({"specular_exponent": 0.0}, {"specular_exponent": 4.0, "diffuse_db": -60.0})
    )
    assert (lobed[0] / plain[0]).item() == pytest.approx(1, abs=0.02)
    assert (lobed[1] / plain[1]).item() == pytest.approx(math.cos(math.radians(45)) ** 4, rel=0.15)


def test_start_depth_hides_the_skull_without_a_mirror():
    def skull(maps, x, y, z):
        inside = (y > 4) & (y < 10)
        maps[0][inside], maps[1][inside] = 5.2, 13.0

    probe = probe_of("linear")
    closed, opened = (envelope(probe, phantom(skull), start_depth_mm=start, attenuation=True) for start in (0.0, 13.0))
    behind = slice(120, 200)
    assert level_db(opened[:, behind]) > level_db(closed[:, behind]) + 40
    assert opened[:, :80].max() < 0.01


def test_kernels_have_unit_area():
    sigma = torch.tensor([0.05, 0.3, 2.0], dtype=torch.float64)
    taps = gaussian_kernel(sigma, 60, 0.2)
    assert torch.allclose(taps.sum(-1), torch.ones(3, dtype=torch.float64))
    assert float(axial_sigma_mm(0.3, 2.0)) == pytest.approx(0.3 / 2.3548, rel=1e-4)


def test_a_bright_wall_leaves_nothing_on_other_rays():
    """The blur of its power, 100 dB above, must not ring or round off beside it."""
    probe = probe_of("convex")
    plan = plan_frame(probe, make_settings())
    power = torch.zeros(1, 2, probe.rays, probe.samples)
    power[:, :, 40, 200] = 1e10
    blurred = blur_across(power, plan.lateral_factors)[0, 1, :, 200]
    assert blurred[40] > 1e9
    assert blurred[:30].abs().max() < 1e-3
    assert blurred[50:].abs().max() < 1e-3
