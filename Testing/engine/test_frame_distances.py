"""Distances of patches and looks by depth: known answers, and what each measure does and does not see."""

import math

import numpy as np
import pytest
import torch
from diffus.errors import InputError
from diffus.metrics.fan import fan_statistics
from diffus.metrics.wasserstein import patch_wasserstein
from diffus.sweep.probe_sweep import frame_grid, in_fan, to_pixels
from scipy import ndimage
from support.phantoms import probe_of

PROBE = probe_of("convex", rays=200, samples=400, depth_mm=70.0, radius_mm=15.0, fov_deg=80.0, mm_per_pixel=0.3)
GEOMETRY = PROBE.slice_geometry()
MASK = in_fan(PROBE, GEOMETRY.pixel_to_probe, GEOMETRY.rows, GEOMETRY.columns)


def texture(sigma, seed, count=4, mean=0.4, spread=0.1):
    white = np.random.default_rng(seed).standard_normal((count, GEOMETRY.rows, GEOMETRY.columns))
    blurred = ndimage.gaussian_filter(white, (0, *sigma))
    return torch.from_numpy(mean + spread * blurred / blurred.std()).float()


def test_shift_of_grey_is_seen_by_the_last_level_alone():
    a, b = texture((2, 2), 0), texture((2, 2), 0) + 0.1
    found = patch_wasserstein(a, b, MASK)
    assert found.grey[:3].max().item() < 1e-5
    # A constant c moves the projection on a unit direction by c times the sum of its 49 numbers, c * E|N(0, 1)|.
    assert found.grey[3].item() == pytest.approx(0.1 * math.sqrt(2 / math.pi), rel=0.2)
    assert found.texture.max().item() < 1e-3


def test_contrast_moves_grey_but_not_normalised_texture():
    a = texture((2, 2), 0)
    found = patch_wasserstein(a, 0.4 + 2 * (a - 0.4), MASK)
    assert found.texture[:3].max().item() < 1e-4
    assert found.grey[1].item() > 0.01


def test_other_texture_is_farther_than_another_draw_of_the_same():
    a, again, wider = texture((1.5, 1.5), 0), texture((1.5, 1.5), 1), texture((1.5, 4.0), 2)
    same, other = patch_wasserstein(a, again, MASK), patch_wasserstein(a, wider, MASK)
    assert other.grey.mean() > 3 * same.grey.mean()
    assert other.texture.mean() > 3 * same.texture.mean()
    assert torch.equal(same.grey, patch_wasserstein(a, again, MASK).grey)


def test_what_lies_outside_of_the_fan_does_not_count():
    a, b = texture((2, 2), 0), texture((2, 2), 1)
    outside = torch.where(MASK, b, torch.rand(b.shape))
    there = patch_wasserstein(a, torch.where(MASK, b, 0.0), MASK)
    assert torch.allclose(patch_wasserstein(a, outside, MASK).grey, there.grey, atol=1e-6)


@pytest.mark.bad_input
def test_frames_that_do_not_fit_are_refused():
    a = texture((2, 2), 0)
    with pytest.raises(InputError, match="one size"):
        patch_wasserstein(a, a[:, :-1], MASK)
    with pytest.raises(InputError, match="too small"):
        patch_wasserstein(a, a, MASK & False)


def polar_texture(sigma_ray, sigma_sample, slope=0.0, seed=0):
    """Frames whose texture is a constant angle wide; `slope` is grey per cm of the right half."""
    white = np.random.default_rng(seed).standard_normal((4, PROBE.rays, PROBE.samples))
    blurred = ndimage.gaussian_filter(white, (0, sigma_ray, sigma_sample))
    polar = torch.from_numpy(0.5 + 0.08 * blurred / blurred.std()).float()
    right = (torch.arange(PROBE.rays) >= PROBE.rays // 2).float()[:, None]
    polar = polar - slope * right * PROBE.depths_mm().float() / 10
    grid = frame_grid(PROBE, GEOMETRY.pixel_to_probe, GEOMETRY.rows, GEOMETRY.columns)
    return to_pixels(polar, grid) * MASK


def test_widths_by_depth_are_those_of_a_known_texture():
    found = fan_statistics(polar_texture(2.5, 2.5), MASK, PROBE, GEOMETRY.pixel_to_probe)
    full = 2 * math.sqrt(2 * math.log(2)) * math.sqrt(2) * 2.5
    angle = full * 80.0 / (PROBE.rays - 1)
    for third in ("near", "middle", "deep"):
        assert getattr(found, f"axial_{third}_mm") == pytest.approx(full * PROBE.sample_spacing_mm, rel=0.15)
        assert getattr(found, f"lateral_{third}_deg") == pytest.approx(angle, rel=0.2)
    assert found.lateral_deep_mm > 1.6 * found.lateral_near_mm


def test_bands_along_rays_are_measured_in_db_per_cm():
    flat = fan_statistics(polar_texture(1.5, 1.5), MASK, PROBE, GEOMETRY.pixel_to_probe, dynamic_range_db=50.0)
    banded = fan_statistics(
        polar_texture(1.5, 1.5, slope=0.04), MASK, PROBE, GEOMETRY.pixel_to_probe, dynamic_range_db=50.0
    )
    assert flat.bands_db_per_cm < 0.4
    # One half of the rays falls by 2 dB/cm: a standard deviation of 1.
    assert banded.bands_db_per_cm == pytest.approx(1.0, abs=0.2)


def test_grey_levels_by_depth_and_black_frames():
    frames = torch.linspace(1, 0, GEOMETRY.rows)[None, :, None].expand(2, -1, GEOMETRY.columns) * MASK
    found = fan_statistics(frames.contiguous(), MASK, PROBE, GEOMETRY.pixel_to_probe)
    quarters = [found.grey_1, found.grey_2, found.grey_3, found.grey_4]
    assert quarters == sorted(quarters, reverse=True)
    assert found.grey_1 > 0.7
    assert found.grey_4 < 0.3
    assert found.below_10 == pytest.approx((frames[:, MASK] < 10 / 255).float().mean().item())
    black = fan_statistics(torch.zeros_like(frames), MASK, PROBE, GEOMETRY.pixel_to_probe)
    assert black.below_10 == 1.0
    assert math.isnan(black.lateral_deep_mm)
