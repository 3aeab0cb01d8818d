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
    from .settings import RenderSettings

WALL_MM = 2.0  # half the side of the patch over which a wall's direction is averaged: about a voxel
SHEET_FWHM_MM = 1.2  # of the amplitude across a sheet
SHEET_STEP_MM = 1.5  # of the differences along a ray: further than the voxel in which a distance has its kink
_SHEET_SIGMA_MM = SHEET_FWHM_MM / (2 * math.sqrt(2 * math.log(2)))


def specular_lobe(cosine_square: Float[Tensor, "*rays"], settings: RenderSettings) -> Float[Tensor, "*rays"]:
    """Amplitude of an interface met at an angle: floor + (1 - floor) |cos|^m, 1 at normal incidence.

    Args:
        cosine_square: of the angle of incidence.
        settings: `specular_exponent` is m, `diffuse_db` the floor.
    """
    floor = 10 ** (settings.diffuse_db / 20)
    return floor + (1 - floor) * (cosine_square + 1e-12) ** (settings.specular_exponent / 2)


def wall_cosine_square(plan: FramePlan, impedance: Float[Tensor, "b s rays samples"]) -> Tensor:
    """cos^2 between the rays and the gradient of ln Z in the image plane, (B, 1, rays, samples); 1 where there is none.

    The gradient is that of the mean over a patch of `WALL_MM` to either side, so that it has a voxel's scale: steps
    between voxels make no stairs, and a crisp step still has a direction. A tilt out of the plane is not seen.
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
    # Where a wall lies one mm deeper a ray further, the area in the window differs by the wall's step times 1 mm.
    index = torch.arange(probe.rays, device=level.device)
    after, before = (index + rays).clamp(max=probe.rays - 1), (index - rays).clamp(min=0)
    distance = (after - before)[:, None] * spacing.clamp(min=1e-3)
    across = (area[..., after, :] - area[..., before, :]) / distance
    square = along.square() + 1e-9
    return square / (square + across.square())


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
