"""How frames look by depth: grey levels, blackness, the size of texture along and across the rays, bands along rays.

Frames are first laid out along the rays of their fan, where lateral is an angle and shadows are columns. Texture is
looked at about its slow trend, in patches that are neither dark nor clipped; widths are the full width at half maximum
of the autocovariance of grey levels, the median over the patches.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError
from ..geometry.filters import gaussian_blur
from ..sweep.probe_sweep import ray_grid
from .images import autocorrelation_width

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

    from ..probe import Probe

DARK, BRIGHT = 10 / 255, 200 / 255  # grey levels that count as black and as white
THIRDS = ("near", "middle", "deep")
QUARTERS = 4
PATCH_MM = 12.0
TREND_MM = 4.0  # standard deviation of what is taken off as anatomy
MIN_GREY = 0.06  # of a patch's mean: below is the noise floor
CLIPPED = 0.05  # fraction of a patch that may be black or saturated
MOST_PATCHES = 300  # of a third of the depth
MIN_PATCHES = 3
BANDS_DEG = 3.0  # width over which rays are averaged before their slopes are compared
BANDS_DEPTH = (0.15, 0.75)  # of the depth, over which slopes are taken


@dataclass(frozen=True)
class FanStatistics:
    """Of a set of frames; NaN where the frames do not show it (all black, or a linear array's angle).

    grey_1 to grey_4: mean grey of the depth's quarters. below_10, above_200: fractions of the fan's pixels, of 255.
    axial_*_mm, lateral_*_mm, lateral_*_deg: widths of the texture in the depth's thirds. bands_db_per_cm: spread of
    the rays' slopes of brightness about their mean.
    """

    grey_1: float
    grey_2: float
    grey_3: float
    grey_4: float
    below_10: float
    above_200: float
    axial_near_mm: float
    axial_middle_mm: float
    axial_deep_mm: float
    lateral_near_mm: float
    lateral_middle_mm: float
    lateral_deep_mm: float
    lateral_near_deg: float
    lateral_middle_deg: float
    lateral_deep_deg: float
    bands_db_per_cm: float


FAN_STATISTICS = tuple(field.name for field in fields(FanStatistics))


def fan_statistics(
    frames: Float[Tensor, "k h w"],
    mask: Bool[Tensor, "h w"],
    probe: Probe,
    pixel_to_probe: Float[Tensor, "4 4"],
    *,
    dynamic_range_db: float = 60.0,
) -> FanStatistics:
    """Statistics by depth of frames in a probe's fan.

    Args:
        frames: (K, h, w) in [0, 1].
        mask: (h, w), the fan.
        probe: whose fan it is; only its shape counts.
        pixel_to_probe: (4, 4), pixel centre (column, row, 0, 1) to probe mm.
        dynamic_range_db: of the display, for the slopes.
    """
    spacing = float(pixel_to_probe[1, 1])
    samples = round(probe.depth_mm / spacing) + 1
    arc = float(probe.lateral_spacing_mm()[-1]) * (probe.rays - 1)
    fan = replace(probe, rays=max(16, round(arc / spacing) + 1), samples=samples, elevation_layers=1, rays_per_line=1)
    grid = ray_grid(fan, pixel_to_probe, *mask.shape).to(frames)
    inside = _sampled(mask.to(frames)[None], grid, "bilinear")[0] > 0.99
    polar = torch.cat([_sampled(frame[None], grid, "bicubic") for frame in frames]).clamp(0, 1) * inside
    grey = [
        _mean(part, within) for part, within in zip(polar.tensor_split(QUARTERS, 2), inside.tensor_split(QUARTERS, 1))
    ]
    pixels = frames[:, mask]
    widths = [_widths(polar, inside, fan, third) for third in range(len(THIRDS))]
    axial, lateral, angle = zip(*widths)
    return FanStatistics(
        *grey,
        (pixels < DARK).float().mean().item(),
        (pixels > BRIGHT).float().mean().item(),
        *axial,
        *lateral,
        *angle,
        _bands(polar, inside, fan, dynamic_range_db),
    )


def _sampled(images: Float[Tensor, "k h w"], grid: Tensor, mode: str) -> Float[Tensor, "k rays samples"]:
    where = grid.expand(len(images), *grid.shape)
    return F.grid_sample(images[:, None], where, mode=mode, align_corners=True)[:, 0]


def _mean(polar: Tensor, inside: Tensor) -> float:
    return polar[:, inside].mean().item() if inside.any() else math.nan


def _widths(polar: Tensor, inside: Tensor, probe: Probe, third: int) -> tuple[float, float, float]:
    """Axial and lateral width of the texture in mm, and the lateral one in degrees, of one third of the depth."""
    along, across = probe.sample_spacing_mm, probe.lateral_spacing_mm()
    height = max(8, round(PATCH_MM / along))
    first, last = round(third * probe.samples / 3), round((third + 1) * probe.samples / 3)
    found = []
    for top in range(first, last - height + 1, max(1, height // 2)):
        spacing = float(across[top + height // 2])
        width = min(max(8, round(PATCH_MM / spacing)), probe.rays)
        for left in range(0, probe.rays - width + 1, max(1, width // 2)):
            cut = (slice(None), slice(left, left + width), slice(top, top + height))
            if inside[cut[1:]].all():
                found += [(patch, spacing) for patch in polar[cut] if _useful(patch)]
    order = torch.randperm(len(found), generator=torch.Generator().manual_seed(third))[:MOST_PATCHES].tolist()
    axial, lateral, angle = [], [], []
    radius = float(across[0]) / float(across[-1] - across[0]) * probe.depth_mm if across[-1] > across[0] else math.nan
    step = float(across[-1]) / (radius + probe.depth_mm)  # of the angle between rays
    for number in order:
        patch, spacing = found[number]
        sigma = (TREND_MM / spacing, TREND_MM / along)
        even = patch - gaussian_blur(patch, sigma) / gaussian_blur(torch.ones_like(patch), sigma)
        try:
            wide = autocorrelation_width(even, -2).item()
            axial.append(autocorrelation_width(even, -1, spacing=along).item())
        except InputError:
            continue  # no texture that ends within the patch
        lateral.append(wide * spacing)
        angle.append(math.degrees(wide * step))
    if len(axial) < MIN_PATCHES:
        return math.nan, math.nan, math.nan
    return tuple(torch.tensor(values).median().item() for values in (axial, lateral, angle))


def _useful(patch: Float[Tensor, "rays samples"]) -> bool:
    clipped = ((patch <= 0) | (patch >= 1)).float().mean()
    return bool(patch.mean() > MIN_GREY) and bool(clipped < CLIPPED)


def _bands(polar: Tensor, inside: Tensor, probe: Probe, dynamic_range_db: float) -> float:
    """Standard deviation over the rays of the slope of brightness, dB/cm, mean over the frames.

    The slope common to all rays is the time gain's; what is left is attenuation and shadow behind tissue.
    """
    first, last = (round(part * probe.samples) for part in BANDS_DEPTH)
    wide = max(1, round(BANDS_DEG / math.degrees(_opening(probe)) * probe.rays)) if _opening(probe) else 1
    cut, weight = polar[:, :, first:last], inside[:, first:last].to(polar).expand(len(polar), -1, -1)
    kernel = (min(wide, cut.shape[1]), 1)
    total = F.avg_pool2d(weight[:, None], kernel, kernel)[:, 0]
    level = F.avg_pool2d((cut * weight)[:, None], kernel, kernel)[:, 0] / total.clamp(min=1e-6)
    use = (total > 0.99).to(level)
    depth = probe.depths_mm()[first:last].to(level) / 10
    mean = (depth * use).sum(2, keepdim=True) / use.sum(2, keepdim=True).clamp(min=1)
    lever = (depth - mean) * use
    slope = (lever * level).sum(2) / lever.square().sum(2).clamp(min=1e-6) * dynamic_range_db
    whole = use.mean(2) > 0.8
    slopes = [one[rays] for one, rays in zip(slope, whole) if rays.sum() > 2]
    return torch.stack([one.std() for one in slopes]).mean().item() if slopes else math.nan


def _opening(probe: Probe) -> float:
    """Angle between the first and the last ray, rad; 0 for parallel ones."""
    across = probe.lateral_spacing_mm()
    return float(across[-1] - across[0]) * (probe.rays - 1) / probe.depth_mm
