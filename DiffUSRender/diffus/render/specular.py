"""Walls and sheets by the angle at which the beam meets them: cosines from what lies on the rays, without look-ups."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Float

    from .plan import FramePlan

WALL_MM = 2.0  # half the side of the patch over which a wall's direction is averaged: about a voxel
MAX_SPREAD_MM = 6.0  # depth between two rays over which the echo of a steep wall is spread at most
FAINT = 1e-5  # an echo of a wall that is not worth spreading
SHEET_FWHM_MM = 1.1  # of the amplitude across a sheet
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
    probe, samples = plan.probe, impedance.shape[-1]
    level = torch.log(impedance)
    level = level if level.shape[1] == 1 else (level * plan.weights[:, None, None]).sum(1, keepdim=True)
    level = level - level[..., :1]
    spacing = probe.lateral_spacing_mm().to(level)
    reach = max(1, round(WALL_MM / probe.sample_spacing_mm))
    rays = max(1, min(round(WALL_MM / float(spacing[samples // 2])), probe.rays // 4))
    # A patch is alike for neighbouring samples: every `stride`-th is enough.
    stride = max(1, reach // 3)
    at, count = stride // 2, math.ceil(samples / stride)
    padded = _padded(level, reach + stride)[..., stride:]
    along = (padded[..., at + 2 * reach :: stride] - padded[..., at : -2 * reach : stride])[..., :count]
    total = F.pad(torch.cumsum(padded, -1), (1, 0))
    ends = total[..., at + 2 * reach + 1 :: stride]
    area = (ends - total[..., at::stride][..., : ends.shape[-1]])[..., :count] * probe.sample_spacing_mm
    spacing = spacing[torch.arange(at, at + count * stride, stride, device=level.device).clamp(max=samples - 1)]
    index = torch.arange(probe.rays, device=level.device)
    after, before = (index + rays).clamp(max=probe.rays - 1), (index - rays).clamp(min=0)
    # Where a wall lies one mm deeper a ray further, the area in the window differs by the wall's step times 1 mm.
    across = area.index_select(-2, after) - area.index_select(-2, before)
    across = across / ((after - before)[:, None] * spacing.clamp(min=1e-3))
    # A steep wall leaves the window within the patch; so does its step along the rays, in the mean over the patch.
    further, nearer = (index + rays // 2).clamp(max=probe.rays - 1), (index - rays // 2).clamp(min=0)
    inner = along.index_select(-2, further) + along.index_select(-2, nearer)
    along = 0.25 * (along + inner) + 0.125 * (along.index_select(-2, after) + along.index_select(-2, before))
    square = along.square() + 1e-9
    across = across.square()
    cosine_square, slope = square / (square + across), spacing * (across / square + 1e-12).sqrt()
    whole = (F.interpolate(each[:, 0], scale_factor=stride)[:, None] for each in (cosine_square, slope))
    return tuple(each[..., :samples] for each in whole)


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
    half = (slope_mm.clamp(max=MAX_SPREAD_MM) * (0.5 / spacing)).expand(reflection.shape).flatten()
    flat = reflection.flatten()
    if flat.device.type == "cpu":  # few samples lie on walls; elsewhere the host would have to wait for their number
        chosen = ((half > 0.5) & (flat.abs() > FAINT)).nonzero()[:, 0]
    else:
        chosen = torch.arange(flat.numel(), device=flat.device)
    half, echo = half[chosen].clamp(min=0.5), flat[chosen]
    # The sum over `half` becomes a mean over the pulse, whose equivalent length in samples the scale holds.
    pulse = (plan.reflection_scale / 10 ** (plan.settings.reflection_db / 20)).clamp(min=1.0)
    density = echo / torch.minimum(2 * half, pulse)
    middle, ray = (chosen % samples).to(flat) + 0.5, (chosen // samples) * (samples + 2)
    change = flat.new_zeros(flat.numel() // samples * (samples + 2))
    for sign, end in ((1, middle - half), (-1, middle + half)):
        end = end.clamp(0, samples)
        first = end.detach().floor()
        later, index = density * (end - first), ray + first.long()
        change = change.index_add(0, index, sign * (density - later)).index_add(0, index + 1, sign * later)
    spread = torch.cumsum(change.view(*reflection.shape[:-1], samples + 2), -1)[..., :samples]
    return spread + flat.index_fill(0, chosen, 0.0).view(reflection.shape)


def sheet_shape(
    distance_mm: Float[Tensor, "*rays samples"], spacing_mm: float
) -> tuple[Float[Tensor, "*rays samples"], Float[Tensor, "*rays samples"]]:
    """Profile of the nearest sheet, and how it lies to the rays.

    An unsigned distance has a kink on the sheet, and between voxels its trilinear values need not reach zero. A step h
    away they are right: with d+ and d- there, the distances from the sheet are (d+ - d-)/2 and (d+ + d-)/2 for s and
    for the step (times cos), the lesser being that of s where the sheet lies in between.

    Args:
        distance_mm: from the medial surface, as sampled, (..., samples).
        spacing_mm: between samples.

    Returns:
        The amplitude, 1 on the medial surface, of FWHM `SHEET_FWHM_MM`; and cos^2 of the angle of incidence: for a
        plane, d(s+h)^2 + d(s-h)^2 - 2 d(s)^2 = 2 h^2 cos^2.
    """
    step = max(1, round(SHEET_STEP_MM / spacing_mm))
    size = distance_mm.abs()
    padded = _padded(size, step)
    ahead, behind = padded[..., 2 * step :], padded[..., : size.shape[-1]]
    near, far = (0.5 * (ahead - behind)).square(), (0.5 * (ahead + behind)).square()
    sampled = size.square()
    outside = (2 * sampled / (far + 1e-6) - 1).clamp(0, 1)
    square = near + outside * (sampled - near)
    cosine_square = ((near + far - square) / (step * spacing_mm) ** 2).clamp(0, 1)
    # Far away it ends at 2e-9: squares of less are denormal numbers, which a CPU is slow at.
    return torch.exp((square * (-0.5 / _SHEET_SIGMA_MM**2)).clamp(min=-20)), cosine_square


def _padded(values: Float[Tensor, "*rays samples"], by: int) -> Tensor:
    """The ends repeated `by` times, (..., samples + 2 by)."""
    first, last = (end.expand(*values.shape[:-1], by) for end in (values[..., :1], values[..., -1:]))
    return torch.cat([first, values, last], -1)
