"""Scatterers: complex circular Gaussian noise that is locked to the tissue, not to the screen."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from ..settings import SEED

if TYPE_CHECKING:
    from jaxtyping import Float

TEXTURE_SIZE = 64  # 2 MB: stays in the processor's cache
# Mean autocorrelation of the interpolated texture, over all positions and directions, is close to a Gaussian of this
# standard deviation in grains (within 0.01 up to one grain).
GRAIN_SIGMA = 0.63


def speckle_texture(seed: int, size: int = TEXTURE_SIZE) -> Float[Tensor, "2 size1 size1 size1"]:
    """A periodic cube of complex circular Gaussian noise of unit power.

    Args:
        seed: a whole number from 0 to 2^63 - 1.
        size: period in grains.

    Returns:
        Real and imaginary parts, (2, size+1, size+1, size+1). The last plane of every axis repeats the first, so that
        trilinear sampling wraps without a seam.

    Raises:
        InputError: for another seed.
    """
    SEED.check("seed", seed)
    generator = torch.Generator().manual_seed(seed)
    cube = torch.randn(size, size, size, 2, generator=generator) * math.sqrt(0.5)
    for axis in (0, 1, 2):
        cube = torch.cat([cube, cube.narrow(axis, 0, 1)], axis)
    # Both parts of a node lie side by side in memory: random access is what sampling costs.
    return cube.permute(3, 0, 1, 2)


def sample_speckle(
    texture: Float[Tensor, "2 s s s"], points_mm: Float[Tensor, "*points 3"], grain_mm: float
) -> Float[Tensor, "2 *points"]:
    """Noise at tissue points, exactly unit power everywhere, correlated over about a grain.

    The texture's axes are turned against the world's, so that no image plane or ray of common use repeats with its
    period. Trilinear interpolation of white noise has a power that varies between the nodes (the sum of the squared
    weights), which would falsify the Rayleigh statistics: it is divided out.

    Args:
        texture: of `speckle_texture`.
        points_mm: (..., 3), in the tissue's world.
        grain_mm: distance of the texture's nodes.

    Returns:
        Real and imaginary parts, (2, ...).
    """
    size = texture.shape[-1] - 1
    position = (points_mm @ (_turn(points_mm).T / grain_mm)).remainder(size)
    fraction = position - position.detach().floor()
    weight = 1 - 2 * fraction * (1 - fraction)
    power = weight[..., 0] * weight[..., 1] * weight[..., 2]
    flat = (position * (2 / size) - 1).reshape(1, 1, 1, -1, 3)
    value = F.grid_sample(texture[None], flat, mode="bilinear", padding_mode="border", align_corners=True)
    return value.reshape(2, *points_mm.shape[:-1]) * power.rsqrt()


def speckle_correlation(distance_mm: Tensor, grain_mm: float) -> Tensor:
    """Expected correlation of `sample_speckle` between points `distance_mm` apart (any shape)."""
    return torch.exp(-0.5 * (distance_mm / (GRAIN_SIGMA * grain_mm)) ** 2)


def _turn(like: Tensor) -> Float[Tensor, "3 3"]:
    """A fixed rotation whose axes have no small-integer relation to the world's."""
    a, b, c = 0.6180339887, 1.1447298858, 0.3819660113
    ca, sa, cb, sb, cc, sc = math.cos(a), math.sin(a), math.cos(b), math.sin(b), math.cos(c), math.sin(c)
    rows = [
        [ca * cb, ca * sb * sc - sa * cc, ca * sb * cc + sa * sc],
        [sa * cb, sa * sb * sc + ca * cc, sa * sb * cc - ca * sc],
        [-sb, cb * sc, cb * cc],
    ]
    return like.new_tensor(rows)
