"""Walls and sheets by the angle at which the beam meets them: cosines from what lies on the rays, without look-ups."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .echo import window_sum

if TYPE_CHECKING:
    from jaxtyping import Float

    from .plan import FramePlan

WALL_MM = 2.0  # half the side of the patch over which a wall's direction is averaged: about a voxel
MAX_SPREAD_MM = 6.0  # depth between two rays over which the echo of a steep wall is spread at most
SHEET_FWHM_MM = 1.2  # of the amplitude across a sheet
SHEET_STEP_MM = 1.5  # of the differences along a ray: further than the voxel in which a distance has its kink
_SHEET_SIGMA_MM = SHEET_FWHM_MM / (2 * math.sqrt(2 * math.log(2)))


def specular_lobe(
    cosine_square: Float[Tensor, "*rays"], exponent: float | Tensor, diffuse_db: float | Tensor
) -> Float[Tensor, "*rays"]:
    """Amplitude of an interface met at an angle: F + (1 - F) |cos|^m, 1 at normal incidence.

    Args:
        cosine_square: of the angle of incidence.
        exponent: m.
        diffuse_db: F in dB, what remains from the side.
    """
    floor = 10 ** (diffuse_db / 20)
    return floor + (1 - floor) * (cosine_square + 1e-12) ** (exponent / 2)


def wall_slopes(
    plan: FramePlan, impedance: Float[Tensor, "b s rays samples"]
) -> tuple[Float[Tensor, "b 1 rays samples"], Float[Tensor, "b 1 rays samples"]]:
    """How walls lie to the rays, by the gradient of ln Z in the image plane.

    The gradient is that of the mean over a patch of `WALL_MM` to either side, so that it has a voxel's scale: steps
    between voxels make no stairs, and a crisp step still has a direction. A tilt out of the plane is not seen.

    Returns:
        cos^2 of the angle of incidence, 1 where there is no gradient; and the depth that a wall gains from one ray to
        the next, mm. Each (B, 1, rays, samples).
    """
    probe = plan.probe
    level = torch.log(impedance)
    level = level if level.shape[1] == 1 else (level * plan.weights[:, None, None]).sum(1, keepdim=True)
    level = level - level[..., :1]
    spacing = probe.lateral_spacing_mm().to(level)
    reach = max(1, round(WALL_MM / probe.sample_spacing_mm))
    rays = max(1, min(round(WALL_MM / float(spacing[probe.samples // 2])), probe.rays // 4))
    along = _shifted(level, reach) - _shifted(level, -reach)
    area = window_sum(level, reach) * probe.sample_spacing_mm
    index = torch.arange(probe.rays, device=level.device)
    after, before = (index + rays).clamp(max=probe.rays - 1), (index - rays).clamp(min=0)
    # Where a wall lies one mm deeper a ray further, the area in the window differs by the wall's step times 1 mm.
    across = area[..., after, :] - area[..., before, :]
    across = across / ((after - before)[:, None] * spacing.clamp(min=1e-3))
    # A steep wall leaves the window within the patch; so does its step along the rays, in the mean over the patch.
    inner = (
        along[..., (index + rays // 2).clamp(max=probe.rays - 1), :] + along[..., (index - rays // 2).clamp(min=0), :]
    )
    along = 0.25 * (along + inner) + 0.125 * (along[..., after, :] + along[..., before, :])
    square = along.square() + 1e-9
    across = across.square()
    return square / (square + across), spacing * (across / square + 1e-12).sqrt()


def spread_between_rays(
    plan: FramePlan, reflection: Float[Tensor, "b s rays samples"], slope_mm: Float[Tensor, "b 1 rays samples"]
) -> Float[Tensor, "b s rays samples"]:
    """The echo of walls that run steeply between two rays, spread over the depths in between.

    A ray stands for all sound as far as its neighbours. Sampled on the ray alone, an oblique wall would be a chain of
    dots; spread evenly over the depth that it gains, it is a line. Its amplitude stays.

    Args:
        plan: of the frame.
        reflection: of the walls.
        slope_mm: depth that the wall gains from ray to ray, of `wall_slopes`.
    """
    spacing, samples = plan.probe.sample_spacing_mm, reflection.shape[-1]
    half = (slope_mm.clamp(max=MAX_SPREAD_MM) * (0.5 / spacing)).clamp(min=0.5).expand(reflection.shape)
    # The sum over `half` becomes a mean over the pulse, whose equivalent length in samples the scale holds.
    pulse = (plan.reflection_scale / 10 ** (plan.settings.reflection_db / 20)).clamp(min=1.0)
    density = reflection / torch.minimum(2 * half, pulse)
    middle = torch.arange(samples, dtype=reflection.dtype, device=reflection.device) + 0.5
    change = reflection.new_zeros(*reflection.shape[:-1], samples + 2)
    for sign, end in ((1, middle - half), (-1, middle + half)):
        end = end.clamp(0, samples)
        first = end.detach().floor()
        later, index = density * (end - first), first.long()
        change = change.scatter_add(-1, index, sign * (density - later)).scatter_add(-1, index + 1, sign * later)
    return torch.cumsum(change, -1)[..., :samples]


def sheet_profile(distance_mm: Float[Tensor, "*rays samples"], spacing_mm: float) -> Float[Tensor, "*rays samples"]:
    """Amplitude across a sheet, 1 on its medial surface, of FWHM `SHEET_FWHM_MM`.

    Args:
        distance_mm: from the medial surface, as sampled, (..., samples).
        spacing_mm: between samples.
    """
    square = _true_distance_square(distance_mm, spacing_mm)[0]
    return torch.exp(square * (-0.5 / _SHEET_SIGMA_MM**2))


def sheet_cosine_square(
    distance_mm: Float[Tensor, "*rays samples"], spacing_mm: float
) -> Float[Tensor, "*rays samples"]:
    """cos^2 of incidence on the nearest sheet: for a plane, d(s+h)^2 + d(s-h)^2 - 2 d(s)^2 = 2 h^2 cos^2.

    Args:
        distance_mm: from the medial surface, as sampled, (..., samples).
        spacing_mm: between samples.
    """
    square, mean = _true_distance_square(distance_mm, spacing_mm)
    step = max(1, round(SHEET_STEP_MM / spacing_mm)) * spacing_mm
    return ((mean - square) / step**2).clamp(0, 1)


def _true_distance_square(distance_mm: Tensor, spacing_mm: float) -> tuple[Tensor, Tensor]:
    """d(s)^2, and the mean of d^2 a step before and behind.

    An unsigned distance has a kink on the sheet, and between voxels its trilinear values do not reach zero. A step away
    they are right: with d+ and d- there, the distances from the sheet are (d+ - d-)/2 and (d+ + d-)/2 for s and for
    the step (times cos), the lesser being that of s where the sheet lies in between.
    """
    step = max(1, round(SHEET_STEP_MM / spacing_mm))
    size = distance_mm.abs()
    ahead, behind = _shifted(size, step), _shifted(size, -step)
    near, far = (0.5 * (ahead - behind)).square(), (0.5 * (ahead + behind)).square()
    sampled = distance_mm.square()
    outside = (2 * sampled / (far + 1e-6) - 1).clamp(0, 1)
    return near + outside * (sampled - near), near + far


def _shifted(values: Float[Tensor, "*rays samples"], by: int) -> Float[Tensor, "*rays samples"]:
    """The values `by` samples further along the ray (before, where negative), the ends repeated."""
    by = max(-values.shape[-1], min(by, values.shape[-1]))
    if by > 0:
        return torch.cat([values[..., by:], values[..., -1:].expand(*values.shape[:-1], by)], -1)
    return torch.cat([values[..., :1].expand(*values.shape[:-1], -by), values[..., : values.shape[-1] + by]], -1)
