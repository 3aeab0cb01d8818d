"""What a screen shows: clutter in what is black, a time gain that stops at the noise, grey map, edges, persistence."""

import math
from dataclasses import replace

import pytest
import torch
from diffus.errors import InputError
from diffus.probe import preset_names, probe_preset
from diffus.render.compounding import in_look, look_angles, turned_points
from diffus.render.display import Persistence, enhance_edges, grey_map
from diffus.render.expected import expected_echo
from diffus.render.gain import display_gain_db, noise_level
from diffus.render.renderer import UltrasoundRenderer, render_iq
from diffus.render.settings import PRESET_HELP, PRESETS, RenderSettings, make_settings
from diffus.sweep.probe_sweep import polar_grid
from support.phantoms import phantom, probe_of

AT_FACE = torch.eye(4, dtype=torch.float64)


def cyst(maps, x, y, z):
    inside = (x**2 + (y - 30) ** 2) < 8**2
    maps[1][inside], maps[3][inside] = 0.5, 0.0


def powers(probe, medium, **settings):
    """|x|^2 (rays, samples), without noise, of one frame."""
    renderer = UltrasoundRenderer(probe, noise_db=None, **settings)
    plan = renderer.plan(medium.dtype, medium.device)
    return (render_iq(plan, medium, renderer.points_ras(AT_FACE[None], medium.dtype))[0].double() ** 2).sum(0)


def parts(probe):
    """Where the cyst's core and the tissue beside it lie in the polar image, (rays, samples)."""
    start, direction = probe.ray_geometry()
    x, y, _z = (start[:, None] + probe.depths_mm()[:, None] * direction[:, None]).unbind(-1)
    away = torch.hypot(x, y - 30)
    return away < 5, (away > 11) & (away < 16)


def contrast_db(probe, **settings) -> float:
    core, beside = parts(probe)
    frames = torch.stack([powers(probe, phantom(cyst), seed=seed, **settings) for seed in range(3)])
    return 10 * math.log10(frames[:, core].mean() / frames[:, beside].mean())


@pytest.mark.parametrize("kind", ["convex", "linear", "phased"])
def test_a_black_cyst_is_filled_by_clutter(kind):
    probe = probe_of(kind)
    black, filled = contrast_db(probe, clutter_db=None), contrast_db(probe)
    assert black < -50
    assert -45 < filled < -39  # at the focus; the clutter of scatterers that the cyst lacks is missing
    assert contrast_db(probe, clutter_db=-25.0) == pytest.approx(filled + 15, abs=0.7)
    defocused = contrast_db(replace(probe, focus_mm=60.0))
    assert defocused > filled + 2


@pytest.mark.parametrize(("rays", "samples"), [(96, 400), (384, 400), (128, 1600)])
def test_clutter_does_not_depend_on_the_sampling(rays, samples):
    assert contrast_db(probe_of(rays=rays, samples=samples)) == pytest.approx(contrast_db(probe_of()), abs=1.5)


def test_clutter_is_speckle():
    core = torch.stack([powers(probe_of(), phantom(cyst), seed=seed)[parts(probe_of())[0]] for seed in range(10)])
    amplitude = core.sqrt() / core.mean(1, keepdim=True).sqrt()
    assert (amplitude.mean() / amplitude.std()).item() == pytest.approx(1.91, abs=0.2)


def test_clutter_is_in_the_mean_image():
    probe, medium = probe_of(), phantom(cyst)
    frames = torch.stack([powers(probe, medium, seed=seed, reflection_db=-40.0) for seed in range(6)])
    renderer = UltrasoundRenderer(probe, noise_db=None, reflection_db=-40.0)
    plan = renderer.plan(medium.dtype, medium.device)
    _, expected = expected_echo(plan, medium, renderer.points_ras(AT_FACE[None], medium.dtype))
    core, _ = parts(probe)
    assert 10 * math.log10(frames[:, core].mean() / expected[0][core].mean()) == pytest.approx(0.0, abs=1.0)


@pytest.mark.parametrize("name", preset_names())
@pytest.mark.parametrize("look", ["default", "neuro", "abdomen", "cardiac", "vascular"])
def test_noise_never_exceeds_tissue(name, look):
    """In the default picture noise is nearly black at every depth, and tissue of the usual loss is even until there."""
    probe, settings = probe_preset(name), make_settings(look)
    depth = probe.depths_mm()
    gain = display_gain_db(probe, settings, depth) - settings.gain_db
    noise = 20 * noise_level(probe, settings, depth).log10() + gain
    assert noise.max() < -settings.tgc_margin_db + 1e-6
    tissue = gain - 0.1 * depth * 2 * 0.6 * probe.frequency_mhz
    assert (tissue[1:] - tissue[:-1]).max() < 0.01  # never brighter with depth
    compensated = (noise < -settings.tgc_margin_db - 12) & (gain < gain.max() - 12)
    compensated &= depth < settings.tgc_reach * probe.depth_mm
    assert compensated.any()
    assert tissue[compensated].abs().max() < 0.1


def test_the_far_field_sinks_into_black():
    """Of a small probe at 8 MHz, as in real frames of a brain: bright to half the depth, then dark, not noisy."""
    probe = probe_of("convex", radius_mm=5.0, fov_deg=88.0, frequency_mhz=8.0, depth_mm=70.0, focus_mm=35.0)
    medium = phantom(size_mm=160.0, tissue=(1.6, 0.6, 1.0, 1.0))
    renderer = UltrasoundRenderer(probe)
    polar = renderer.polar(medium, renderer.points_ras(AT_FACE[None], medium.dtype))[0]
    quarters = [part.mean().item() for part in polar.chunk(4, -1)]
    assert quarters[0] > 0.35
    assert quarters[1] > 0.6 * quarters[0]
    assert quarters[3] < 0.12
    assert quarters == sorted(quarters, reverse=True)


def test_the_time_gain_counts_from_the_start_depth():
    """Coupling has no loss: what lies below an opened skull is as bright as it would be at the face."""
    probe = probe_of("linear", frequency_mhz=8.0)
    medium = phantom(size_mm=100.0, tissue=(1.6, 0.6, 1.0, 1.0))
    opened = UltrasoundRenderer(probe, start_depth_mm=20.0, tgc_reach=1.0)
    closed = UltrasoundRenderer(probe, tgc_reach=1.0)
    below, above = (
        renderer.polar(medium, renderer.points_ras(AT_FACE[None], medium.dtype))[0] for renderer in (opened, closed)
    )
    at = (probe.depths_mm() > 22) & (probe.depths_mm() < 30)
    assert below[:, at].mean().item() == pytest.approx(above[:, at].mean().item(), abs=0.04)
    assert (below > 0.99).float().mean() < 0.01
    plan = opened.plan(medium.dtype, medium.device)
    assert (plan.gain_db[probe.depths_mm() <= 20] - opened.settings.gain_db).abs().max() < 1e-3


def test_the_time_gain_rises_as_deep_as_it_reaches():
    """Beyond, tissue falls by its own loss and by the beam's: the gain of a scanner's last slider stays."""
    probe = probe_of("linear", frequency_mhz=5.0, depth_mm=80.0)
    depth = probe.depths_mm()
    settings = RenderSettings(gain_db=0.0, noise_db=None, tgc_reach=0.5)
    gain = display_gain_db(probe, settings, depth) - 0.1 * depth * 6.0
    whole = display_gain_db(probe, settings.replace(tgc_reach=1.0), depth) - 0.1 * depth * 6.0
    assert whole.abs().max() < 1e-9
    assert gain[depth < 25].abs().max() < 0.1
    beam = probe.beam.gain_db(depth)
    at, deep = (int((depth - mm).abs().argmin()) for mm in (60.0, 78.0))
    assert (gain[deep] - gain[at]).item() == pytest.approx(-6.0 * 1.8 + (beam[deep] - beam[at]).item(), abs=0.15)


def test_black_may_be_grey_as_a_recorder_keeps_it():
    medium, probe = phantom(cyst), probe_of()
    dark, lifted = (UltrasoundRenderer(probe, black_level=level)(medium, AT_FACE)[0] for level in (0.0, 16 / 255))
    inside = dark > 0
    assert torch.allclose(lifted[inside], 16 / 255 + (1 - 16 / 255) * dark[inside], atol=1e-6)


def test_a_given_time_gain_stops_at_the_noise_too_unless_told_otherwise():
    probe, depth = probe_of(), probe_of().depths_mm()
    settings = RenderSettings(tgc_db_per_cm=12.0, tgc_reach=1.0, gain_db=0.0)
    stopped = display_gain_db(probe, settings, depth)
    free = display_gain_db(probe, settings.replace(tgc_margin_db=None), depth)
    assert free[-1] == pytest.approx(72.0)
    assert stopped.max() < 65 - 34 + 0.1


def test_the_focal_gain_is_calibrated_away_or_shown():
    probe, depth = probe_of("linear"), probe_of("linear").depths_mm()
    settings = RenderSettings(attenuation=False, noise_db=None, tgc_reach=1.0, gain_db=0.0)
    even = display_gain_db(probe, settings, depth)
    shown = display_gain_db(probe, settings.replace(focal_gain=1.0), depth)
    assert even.abs().max() < 1e-9
    assert torch.allclose(shown, probe.beam.gain_db(depth))
    noise = noise_level(probe, RenderSettings(), depth)
    assert depth[noise.argmin()].item() == pytest.approx(30.0, abs=4.0)


def test_the_time_gain_rises_to_its_reach_only():
    """Deeper, tissue falls by its loss; above, nothing changes, whatever the beam gathers there."""
    probe, depth = probe_of("linear"), probe_of("linear").depths_mm()
    whole = RenderSettings(tgc_reach=1.0, noise_db=None, gain_db=0.0)
    gain = display_gain_db(probe, whole.replace(tgc_reach=0.5), depth)
    shallow, deep = depth < 20, depth > 40
    assert torch.allclose(gain[shallow], display_gain_db(probe, whole, depth)[shallow], atol=0.1)
    assert (gain[deep][1:] <= gain[deep][:-1] + 0.01).all()
    none = whole.replace(attenuation=False, tgc_reach=0.5)
    assert display_gain_db(probe, none, depth).abs().max() == 0


def test_gain_is_differentiable():
    probe = replace(probe_of(), focus_mm=torch.tensor(30.0, dtype=torch.float64, requires_grad=True))

    def gain(tgc, noise, margin, focal, reach):
        chosen = {"tgc_db_per_cm": tgc, "noise_db": noise, "tgc_margin_db": margin}
        settings = RenderSettings(focal_gain=focal, tgc_reach=reach, **chosen)
        return display_gain_db(probe, settings, torch.linspace(1.0, 60.0, 7, dtype=torch.float64))

    numbers = [torch.tensor(n, dtype=torch.float64, requires_grad=True) for n in (6.0, -50.0, 34.0, 0.3, 0.55)]
    assert torch.autograd.gradcheck(gain, numbers)


def test_the_grey_map_is_a_curve_through_black_middle_and_white():
    levels = torch.linspace(0, 1, 101, dtype=torch.float64)
    assert torch.equal(grey_map(levels, 1.0), levels)
    curved = grey_map(levels, 2.0)
    assert (curved[1:] > curved[:-1]).all()
    assert curved[[0, 50, 100]].tolist() == [0.0, 0.5, 1.0]
    assert curved[20] < 0.1
    assert curved[80] > 0.9
    inner = levels[5:95].clone().requires_grad_()
    contrast = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(grey_map, (inner, contrast))
    grey_map(levels, contrast).sum().backward()
    assert torch.isfinite(contrast.grad)


def test_edges_are_enhanced_within_the_fan_only():
    image = torch.full((1, 40, 40), 0.4)
    image[:, :, 20:] = 0.6
    inside = torch.ones(40, 40, dtype=torch.bool)
    inside[:, :6] = False
    assert torch.equal(enhance_edges(image * inside, 0.0, inside), image * inside)
    sharper = enhance_edges(image * inside, 1.0, inside)
    assert sharper[0, 20, 19] < 0.37
    assert sharper[0, 20, 20] > 0.63
    assert sharper[0, 20, 6].item() == pytest.approx(0.4, abs=1e-5)  # the fan's rim is no edge
    assert sharper[:, :, :6].max() == 0


def test_persistence_averages_frames_of_one_size():
    shown = Persistence(0.75)
    first, second = torch.zeros(1, 4, 4), torch.ones(1, 4, 4)
    assert torch.equal(shown(first), first)
    assert torch.allclose(
        shown(torch.cat([second, second])), torch.tensor([0.25, 0.4375])[:, None, None].expand(2, 4, 4)
    )
    assert shown(torch.ones(1, 5, 5)).min() == 1  # another size: begun anew
    plain = Persistence(0.0)
    plain(first)
    assert torch.equal(plain(second), second)


def test_every_look_is_described_and_renders():
    assert set(PRESET_HELP) == set(PRESETS)
    probe, medium = probe_of(rays=32, samples=80), phantom()
    images = {name: UltrasoundRenderer(probe, preset=name)(medium, AT_FACE) for name in PRESETS}
    assert all(torch.isfinite(image).all() and image.max() <= 1 for image in images.values())
    assert make_settings("cardiac", grey_contrast=1.0).grey_contrast == 1.0
    with pytest.raises(InputError, match="choose one of default, paper, neuro"):
        make_settings("scanner")


def test_compounding_averages_independent_looks():
    """Envelopes of n looks have n times fewer speckle fluctuations in power, and tissue stays as bright."""
    probe, medium = probe_of("linear"), phantom()
    display = {"attenuation": False, "noise_db": None, "dynamic_range_db": 120.0, "tgc_reach": 1.0, "gain_db": 0.0}
    ratios, means = [], []
    for looks in (1, 4):
        renderer = UltrasoundRenderer(probe, compounding=looks, **display)
        image = renderer(medium, AT_FACE)[0]
        part = 10 ** ((image[100:400, 60:280].double() - 0.6) * 120 / 20)  # back to the envelope
        ratios.append((part.mean() / part.std()).item())
        means.append(part.mean().item())
    assert ratios[0] == pytest.approx(1.91, abs=0.1)
    assert ratios[1] == pytest.approx(2 * 1.91, abs=0.2)
    assert means[1] == pytest.approx(means[0], rel=0.03)


@pytest.mark.parametrize("kind", ["convex", "linear", "phased"])
def test_turned_rays_are_found_again(kind):
    probe = probe_of(kind)
    for angle in look_angles(probe, 3):
        points = probe.sample_points()[0].float()[None]
        turned = turned_points(probe, points, angle)
        middle = turned[0, 0, 64]
        direction = middle[100] - middle[0]
        assert torch.rad2deg(torch.atan2(direction[0], direction[1])).item() == pytest.approx(
            math.degrees(angle) + torch.rad2deg(torch.atan2(*(points[0, 0, 64, 100, :2]))).item(), abs=1.0
        )
        where = polar_grid(probe, turned[0, 0, 20:100, 10:300, :2].double())[None].flatten(1, 2)[:, None]
        found, seen = in_look(probe, where, angle)
        ray, sample = torch.meshgrid(torch.arange(20.0, 100.0), torch.arange(10.0, 300.0), indexing="ij")
        expected = torch.stack([2 * sample / 399 - 1, 2 * ray / 127 - 1], -1).flatten(0, 1)
        inside = where[0, 0].abs().amax(-1) < 0.999  # beyond the fan points are not followed
        assert seen[inside].all()
        assert (found[0, 0] - expected)[inside].abs().max() < 2e-3


def test_compounding_narrows_shadows_from_below():
    """Looks from either side see behind a reflector: its shadow ends in a tip."""

    def bone(maps, x, y, z):
        inside = (x.abs() < 3) & (y > 14) & (y < 18)
        maps[0][inside], maps[1][inside] = 6.46, 13.0

    probe, medium = probe_of("linear"), phantom(bone)
    levels = []
    for looks in (1, 5):
        renderer = UltrasoundRenderer(probe, compounding=looks, noise_db=None, attenuation=True)
        image = renderer(medium, AT_FACE)[0]
        rows, columns = image.shape
        middle, side = slice(columns // 2 - 8, columns // 2 + 8), slice(columns // 4, columns // 4 + 16)
        deep = slice(int(0.8 * rows), int(0.95 * rows))
        levels.append((image[deep, side].mean() - image[deep, middle].mean()).item())
    assert levels[1] < 0.6 * levels[0]
