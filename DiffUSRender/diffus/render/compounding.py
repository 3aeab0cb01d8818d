"""Spatial compounding: looks whose rays leave the face at different angles, seen in the one fan."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from ..sweep.probe_sweep import inside_fan, polar_grid

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

    from ..probe import Probe

SPREAD_DEG = 16.0  # from the first look to the last, as linear and convex arrays steer


def look_angles(probe: Probe, looks: int) -> list[float]:
    """Angles in radians by which the looks' rays are turned; a phased array's rays meet in one point and stay."""
    if looks == 1 or probe.type == "phased":
        return [0.0] * looks
    return torch.linspace(-0.5, 0.5, looks, dtype=torch.float64).mul(math.radians(SPREAD_DEG)).tolist()


def turned_points(
    probe: Probe, points: Float[Tensor, "b s rays samples 3"], angle: float
) -> Float[Tensor, "b s rays samples 3"]:
    """The samples of rays that leave the face turned by an angle, by interpolation of those of the straight rays."""
    if angle == 0:
        return points
    ray = torch.arange(probe.rays, dtype=torch.float64)
    sample = torch.arange(probe.samples, dtype=torch.float64)
    straight = probe.plane_points(*torch.meshgrid(ray, sample, indexing="ij"))
    where = polar_grid(probe, _turned(straight, probe, angle)).to(points)
    layers = points.flatten(0, 1).permute(0, 3, 1, 2)
    found = F.grid_sample(layers, where.expand(len(layers), -1, -1, -1), padding_mode="border", align_corners=True)
    return found.permute(0, 2, 3, 1).view_as(points)


def in_look(
    probe: Probe, where: Float[Tensor, "1 1 pixels 2"], angle: float
) -> tuple[Float[Tensor, "1 1 pixels 2"], Bool[Tensor, " pixels"]]:
    """Where pixels lie among the rays and samples of a look, as `polar_grid`, and whether it reaches them.

    Args:
        probe: whose fan.
        where: of the pixels among the straight rays.
        angle: of the look.
    """
    if angle == 0:
        return where, torch.ones(where.shape[2], dtype=torch.bool, device=where.device)
    last = where.new_tensor([probe.samples - 1, probe.rays - 1])
    sample, ray = ((where + 1) / 2 * last).unbind(-1)
    found = polar_grid(probe, _straightened(probe.plane_points(ray, sample), probe, angle))
    return found, inside_fan(found)[0, 0]


def _turned(xy: Float[Tensor, "*points 2"], probe: Probe, angle: float) -> Float[Tensor, "*points 2"]:
    """Where points of the straight rays go if these turn about their beginning on the face; mm."""
    x, y = xy.unbind(-1)
    if not math.isfinite(radius := probe.curvature_mm):
        return torch.stack([x + y * math.sin(angle), y * math.cos(angle)], -1)
    ray, along = torch.atan2(x, y + radius), torch.hypot(x, y + radius) - radius
    x = radius * ray.sin() + along * (ray + angle).sin()
    y = radius * (ray.cos() - 1) + along * (ray + angle).cos()
    return torch.stack([x, y], -1)


def _straightened(xy: Float[Tensor, "*points 2"], probe: Probe, angle: float) -> Float[Tensor, "*points 2"]:
    """The inverse of `_turned`."""
    x, y = xy.unbind(-1)
    if not math.isfinite(radius := probe.curvature_mm):
        return torch.stack([x - y * math.tan(angle), y / math.cos(angle)], -1)
    away = torch.hypot(x, y + radius)
    along = (away.square() - (radius * math.sin(angle)) ** 2).sqrt() - radius * math.cos(angle)
    ray = torch.atan2(x, y + radius) - torch.atan2(along * math.sin(angle), radius + along * math.cos(angle))
    return torch.stack([(radius + along) * ray.sin(), (radius + along) * ray.cos() - radius], -1)
