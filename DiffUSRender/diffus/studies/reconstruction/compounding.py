"""Compounding: pixels go to the voxels around them, weighted trilinearly, and are averaged there.

The pixel-based method of Trobaugh et al. 1994 and Barry et al. 1997 with a trilinear kernel; holes are filled from
around them. What a reconstruction by physics has to beat.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Float

    from ...sweep.sweep import TrackedSweep
    from .grid import VoxelGrid

MIN_WEIGHT = 1e-3


def compound(sweep: TrackedSweep, grid: VoxelGrid, *, fill_voxels: float = 3.0) -> Float[Tensor, "k j i"]:
    """Mean brightness of a sweep's pixels on a grid in its reference frame.

    Blocks of pixels of at most half a voxel are averaged first, which changes no more than that and saves time.

    Args:
        sweep: pixels within its mask are used.
        grid: the voxels.
        fill_voxels: voxels without a pixel take the Gaussian-weighted mean around them, of this standard deviation,
            which is doubled until every voxel has a value.

    Returns:
        Brightness 0 to 1, (K, J, I).
    """
    step = max(1, int(0.5 * grid.spacing_mm / sweep.pixel_mm[0].item()))
    total, weight = torch.zeros(2, math.prod(grid.shape))
    for index, frame in enumerate(sweep.frames):
        mask = sweep.mask[index % sweep.mask.shape[0]].float()
        covered = F.avg_pool2d(mask[None], step)[0]
        mean = F.avg_pool2d((frame * mask)[None], step)[0] / covered.clamp(min=1e-6)
        row, column = torch.nonzero(covered > 0, as_tuple=True)
        pixel = torch.stack([column, row], 1).double() * step + (step - 1) / 2
        matrix = sweep.image_to_reference[index]
        points = pixel @ matrix[:3, :2].T + matrix[:3, 3]
        _splat(total, weight, grid, points, mean[row, column], covered[row, column])
    seen = weight > MIN_WEIGHT
    mean = torch.where(seen, total / weight.clamp(min=MIN_WEIGHT), 0.0)
    return _fill(mean.view(grid.shape), seen.view(grid.shape), fill_voxels)


def _splat(total: Tensor, weight: Tensor, grid: VoxelGrid, points: Tensor, values: Tensor, weights: Tensor) -> None:
    """Adds values (n,) at points (n, 3) to the eight voxels around each, in place."""
    k, j, i = grid.shape
    position = ((points - grid.origin) / grid.spacing_mm).float()
    base = position.floor()
    fraction, base = position - base, base.long()
    limits = torch.tensor([i, j, k])
    for corner in range(8):
        step = torch.tensor([corner & 1, corner >> 1 & 1, corner >> 2 & 1])
        voxel = base + step
        part = torch.where(step.bool(), fraction, 1 - fraction).prod(1) * weights
        valid = ((voxel >= 0) & (voxel < limits)).all(1)
        flat = ((voxel[:, 2] * j + voxel[:, 1]) * i + voxel[:, 0])[valid]
        total.index_add_(0, flat, (part * values)[valid])
        weight.index_add_(0, flat, part[valid])


def _fill(mean: Tensor, seen: Tensor, sigma: float) -> Tensor:
    """`mean` with what was not seen taken from around it."""
    values, known = mean.numpy().copy(), seen.numpy().astype(np.float32)
    while not (known > 0).all() and sigma < max(mean.shape):
        around = ndimage.gaussian_filter(known, sigma, mode="constant", truncate=3)
        total = ndimage.gaussian_filter(values * known, sigma, mode="constant", truncate=3)
        new = (known == 0) & (around > MIN_WEIGHT)
        values[new] = total[new] / around[new]
        known[new] = 1.0
        sigma *= 2
    values[known == 0] = mean[seen].mean().item()
    return torch.from_numpy(values)
