"""The voxel grid of a reconstruction, along the axes of the reference frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...errors import InputError

if TYPE_CHECKING:
    from jaxtyping import Float

MAX_VOXELS = 20_000_000  # at about 250 bytes each while a volume is reconstructed


@dataclass(frozen=True)
class VoxelGrid:
    """A grid of cubes.

    Args:
        shape: (K, J, I).
        spacing_mm: edge of a voxel.
        origin: centre of voxel (0, 0, 0), RAS mm, (3,), float64.
    """

    shape: tuple[int, int, int]
    spacing_mm: float
    origin: Float[Tensor, "3"]

    @property
    def ijk_to_ras(self) -> Float[Tensor, "4 4"]:
        """Voxel centre (i, j, k, 1) to reference mm, (4, 4) float64."""
        matrix = torch.eye(4, dtype=torch.float64) * self.spacing_mm
        matrix[3, 3] = 1.0
        matrix[:3, 3] = self.origin
        return matrix

    def centres(self, dtype: torch.dtype = torch.float32) -> Float[Tensor, "k j i 3"]:
        """Reference mm of every voxel centre, (K, J, I, 3)."""
        axes = [self.origin[a] + self.spacing_mm * torch.arange(self.shape[2 - a]) for a in range(3)]
        z, y, x = torch.meshgrid(axes[2].to(dtype), axes[1].to(dtype), axes[0].to(dtype), indexing="ij")
        return torch.stack([x, y, z], -1)


def grid_around(points: Float[Tensor, "*n 3"], spacing_mm: float, margin_mm: float = 0.0) -> VoxelGrid:
    """The smallest grid around points.

    Args:
        points: mm, (..., 3).
        spacing_mm: edge of a voxel.
        margin_mm: around the points.

    Raises:
        InputError: more than MAX_VOXELS voxels.
    """
    flat = points.reshape(-1, 3).double()
    low = flat.amin(0) - margin_mm - spacing_mm / 2
    size = ((flat.amax(0) + margin_mm + spacing_mm / 2 - low) / spacing_mm).ceil().long() + 1
    if int(size.prod()) > MAX_VOXELS:
        raise InputError(
            f"Voxels of {spacing_mm:g} mm make a volume of {' x '.join(map(str, size.tolist()))}; choose larger voxels."
        )
    i, j, k = size.tolist()
    return VoxelGrid((k, j, i), float(spacing_mm), low)
