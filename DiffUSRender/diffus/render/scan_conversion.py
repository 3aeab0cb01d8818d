"""From the polar image to the slice in the probe plane."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

    from ..probe import Probe


def scan_grid(probe: Probe) -> tuple[Float[Tensor, "rows columns 2"], Bool[Tensor, "rows columns"]]:
    """Where each slice pixel lies in the polar image, as `grid_sample` wants it, and whether it is in the fan.

    Returns (rows, columns, 2) float64 in [-1, 1] (sample, then ray) and (rows, columns) bool.
    """
    polar = probe.polar_coordinates(probe.slice_geometry().pixel_centres())
    ray, sample = polar[..., 0], polar[..., 1]
    inside = (ray >= 0) & (ray <= probe.rays - 1) & (sample >= 0) & (sample <= probe.samples - 1)
    return torch.stack([2 * sample / (probe.samples - 1) - 1, 2 * ray / (probe.rays - 1) - 1], -1), inside


def scan_convert(
    polar: Float[Tensor, "batch rays samples"],
    grid: Float[Tensor, "rows columns 2"],
    inside: Bool[Tensor, "rows columns"],
) -> Float[Tensor, "batch rows columns"]:
    """Bilinear slice (B, rows, columns) of polar images (B, rays, samples), zero outside the fan."""
    where = grid.expand(polar.shape[0], *grid.shape)
    return F.grid_sample(polar[:, None], where, padding_mode="border", align_corners=True)[:, 0] * inside
