"""Rigid poses: twists, checks, and the change between RAS and LPS."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..errors import InputError

if TYPE_CHECKING:
    from jaxtyping import Float


def twist_to_matrix(twist: Float[Tensor, "*batch 6"]) -> Float[Tensor, "*batch 4 4"]:
    """Exponential map of se(3): twist (v in mm, w in radians), shape (..., 6), to a rigid 4x4 matrix.

    `torch.linalg.matrix_exp` of the 4x4 twist is exact, and differentiable at zero too
    (Murray, Li, Sastry 1994, A Mathematical Introduction to Robotic Manipulation, eq. 2.36).
    """
    v, w = twist[..., :3], twist[..., 3:]
    zero = torch.zeros_like(w[..., 0])
    rows = torch.stack(
        [
            torch.stack([zero, -w[..., 2], w[..., 1], v[..., 0]], -1),
            torch.stack([w[..., 2], zero, -w[..., 0], v[..., 1]], -1),
            torch.stack([-w[..., 1], w[..., 0], zero, v[..., 2]], -1),
            torch.stack([zero, zero, zero, zero], -1),
        ],
        -2,
    )
    return torch.linalg.matrix_exp(rows)


def transform_points(
    a_to_b: Float[Tensor, "*batch 4 4"], points: Float[Tensor, "*batch n 3"]
) -> Float[Tensor, "*batch n 3"]:
    """Maps points of frame a, shape (..., n, 3), mm, to frame b; batch shapes broadcast."""
    return points @ a_to_b[..., :3, :3].transpose(-1, -2) + a_to_b[..., None, :3, 3]


def place_samples(
    probe_to_ras: Float[Tensor, "b 4 4"], points: Float[Tensor, "s rays samples 3"]
) -> Float[Tensor, "b s rays samples 3"]:
    """Samples of a probe, (S, rays, samples, 3) mm of its frame, at a batch of poses (B, 4, 4)."""
    turned = torch.einsum("bij,srnj->bsrni", probe_to_ras[:, :3, :3], points)
    return turned + probe_to_ras[:, None, None, None, :3, 3]


def ras_to_lps(matrix: Float[Tensor, "*batch 4 4"]) -> Float[Tensor, "*batch 4 4"]:
    """The same map, 4x4, with both of its ends flipped between RAS and LPS (its own inverse)."""
    sign = matrix.new_tensor([-1.0, -1.0, 1.0, 1.0])
    return sign[:, None] * matrix * sign


def require_rigid(matrix: Tensor, name: str, tolerance: float = 0.01) -> Tensor:
    """Returns `matrix`, (..., 4, 4), if it is rigid to `tolerance` (relative), else raises InputError naming it."""
    if matrix.ndim < 2 or matrix.shape[-2:] != (4, 4):
        raise InputError(f"{name} must be a 4x4 matrix, but its shape is {tuple(matrix.shape)}.")
    m = matrix.detach().double()
    if not torch.isfinite(m).all():
        raise InputError(f"{name} holds NaN or infinite numbers; choose a valid transform.")
    last = m.new_tensor([0.0, 0.0, 0.0, 1.0])
    if not torch.allclose(m[..., 3, :], last.expand_as(m[..., 3, :]), atol=1e-6):
        raise InputError(f"{name} is not an affine transform: its last row must be 0 0 0 1.")
    rotation = m[..., :3, :3]
    determinant = torch.linalg.det(rotation)
    if (determinant.abs() < 1e-6).any():
        raise InputError(f"{name} is singular (it flattens space); choose a rigid transform.")
    if (determinant < 0).any():
        raise InputError(f"{name} mirrors space (left-handed); choose a rigid transform without reflection.")
    gram = rotation.transpose(-1, -2) @ rotation
    if (gram - torch.eye(3, dtype=m.dtype, device=m.device)).abs().max() > 2 * tolerance:
        raise InputError(f"{name} scales or shears by more than {tolerance:.0%}; choose a rigid transform.")
    return matrix
