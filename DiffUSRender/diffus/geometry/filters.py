"""Smoothing of maps, so that echoes show boundaries and not voxels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Float


def soften(volume: Float[Tensor, "k j i"]) -> Float[Tensor, "k j i"]:
    """Binomial smoothing over the neighbours of each voxel, ends repeated.

    The slope of a trilinear map jumps from voxel to voxel, and echoes are slopes: unsmoothed, oblique boundaries
    show the voxels as steps.
    """
    for axis in range(3):
        n = volume.shape[axis]
        before = torch.cat([volume.narrow(axis, 0, 1), volume.narrow(axis, 0, n - 1)], axis)
        after = torch.cat([volume.narrow(axis, 1, n - 1), volume.narrow(axis, n - 1, 1)], axis)
        volume = 0.5 * volume + 0.25 * (before + after)
    return volume
