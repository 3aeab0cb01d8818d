"""Curves through given points, applied to whole volumes and differentiable."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from jaxtyping import Float, Shaped


SLAB = 8  # planes of a volume that are worked on at a time


def in_slabs(function: Callable[..., Tensor], *volumes: Shaped[Tensor, "n *shape"]) -> Shaped[Tensor, "..."]:
    """A function of volumes, voxel by voxel, taken some planes at a time: what it needs in between stays in the cache.

    Its result may have leading axes. Differentiable if the function is.
    """
    parts = [function(*planes) for planes in zip(*(volume.split(SLAB) for volume in volumes))]
    return torch.cat(parts, parts[0].ndim - volumes[0].ndim)


def piecewise_linear(
    x: Float[Tensor, "*shape"], knots: Sequence[float], values: Sequence[float]
) -> Float[Tensor, "*shape"]:
    """The broken line through (knots, values) at x, continued at both ends; differentiable to x.

    Args:
        x: of any shape.
        knots: ascending.
        values: one per knot.
    """
    if len(set(values)) == 1:
        return torch.full_like(x, values[0])
    k, v = x.new_tensor(knots), x.new_tensor(values)
    slopes = (v[1:] - v[:-1]) / (k[1:] - k[:-1])
    piece = torch.bucketize(x.detach().contiguous(), k[1:-1], out_int32=True).flatten()
    offsets = (v[:-1] - slopes * k[:-1]).index_select(0, piece).view_as(x)
    return offsets + slopes.index_select(0, piece).view_as(x) * x
