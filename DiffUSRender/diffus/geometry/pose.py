"""Poses: twists, points, every check of a matrix, and the rigid pose of an image."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..errors import InputError, _

if TYPE_CHECKING:
    from jaxtyping import Float


def twist_to_matrix(twist: Float[Tensor, "*batch 6"]) -> Float[Tensor, "*batch 4 4"]:
    """Exponential map of se(3).

    `torch.linalg.matrix_exp` of the 4x4 twist is exact, and differentiable at zero too
    (Murray, Li, Sastry 1994, A Mathematical Introduction to Robotic Manipulation, eq. 2.36).

    Args:
        twist: (..., 6), v in mm, then w in radians.

    Returns:
        The rigid matrix, (..., 4, 4).
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
    """Maps points of frame a to frame b; batch shapes broadcast.

    Args:
        a_to_b: (..., 4, 4).
        points: (..., n, 3) of frame a, mm.

    Returns:
        The points in frame b, (..., n, 3), mm.
    """
    return points @ a_to_b[..., :3, :3].transpose(-1, -2) + a_to_b[..., None, :3, 3]


def place_samples(
    probe_to_ras: Float[Tensor, "b 4 4"], points: Float[Tensor, "s rays samples 3"]
) -> Float[Tensor, "b s rays samples 3"]:
    """Samples of a probe at a batch of poses.

    Args:
        probe_to_ras: (B, 4, 4).
        points: (S, rays, samples, 3) of the probe's frame, mm; S counts its sub-rays.

    Returns:
        The points in RAS, (B, S, rays, samples, 3), mm.
    """
    batch = len(probe_to_ras)
    flat = points.reshape(-1, 3)
    # One product a pose, and shifts a whole ray long: a batched product, `addmm`, or a sum over rows of three numbers
    # takes many times as long on a CPU.
    length = points.shape[2]
    placed = [(flat @ pose[:3, :3].T).view(-1, 3 * length) + pose[:3, 3].repeat(length) for pose in probe_to_ras]
    placed = placed[0] if batch == 1 else torch.stack(placed)
    return placed.view(batch, *points.shape)


def require_affine(matrix: Tensor, name: str) -> Tensor:
    """Checks that a matrix maps points: the first step of every check of a matrix here.

    Args:
        matrix: (..., 4, 4), of any real type.
        name: What the matrix is, for the message.

    Returns:
        The matrix, float64, without gradient.

    Raises:
        InputError: It is not 4x4, not finite, or its last row is not 0 0 0 1.
    """
    if matrix.ndim < 2 or matrix.shape[-2:] != (4, 4):
        raise InputError(
            _("{name} must be a 4x4 matrix, but its shape is {shape}."), name=name, shape=tuple(matrix.shape)
        )
    m = matrix.detach().double()
    if not torch.isfinite(m).all():
        raise InputError(_("{name} holds NaN or infinite numbers; choose a valid transform."), name=name)
    if (m[..., 3, :] - m.new_tensor([0.0, 0.0, 0.0, 1.0])).abs().max() > 1e-6:
        raise InputError(_("{name} is not an affine transform: its last row must be 0 0 0 1."), name=name)
    return m


def require_rigid(matrix: Tensor, name: str, tolerance: float = 0.01) -> Tensor:
    """Checks that a matrix is a rotation and a translation.

    Args:
        matrix: (..., 4, 4).
        name: What the matrix is, for the message.
        tolerance: Relative scale or shear that is let pass, as tracker calibrations have it.

    Returns:
        `matrix` as it was given.

    Raises:
        InputError: It is not affine, or it flattens, mirrors, scales or shears space.
    """
    rotation = require_affine(matrix, name)[..., :3, :3]
    determinant = torch.linalg.det(rotation)
    if (determinant.abs() < 1e-6).any():
        raise InputError(_("{name} is singular (it flattens space); choose a rigid transform."), name=name)
    if (determinant < 0).any():
        raise InputError(
            _("{name} mirrors space (left-handed); choose a rigid transform without reflection."), name=name
        )
    gram = rotation.transpose(-1, -2) @ rotation
    if (gram - torch.eye(3, dtype=gram.dtype, device=gram.device)).abs().max() > 2 * tolerance:
        raise InputError(
            _("{name} scales or shears by more than {tolerance:.0%}; choose a rigid transform."),
            name=name,
            tolerance=tolerance,
        )
    return matrix


def require_invertible(matrix: Tensor, name: str) -> Tensor:
    """Checks that a matrix, that of voxels say, can be inverted whatever the size of its axes.

    Args:
        matrix: (..., 4, 4).
        name: What the matrix is, for the message.

    Returns:
        The matrix, float64, without gradient.

    Raises:
        InputError: It is not affine, or an axis is shorter than 1e-9 or lies in the plane of the others.
    """
    m = require_affine(matrix, name)
    size = m[..., :3, :3].norm(dim=-2)
    if (size < 1e-9).any() or (torch.linalg.det(m[..., :3, :3] / size[..., None, :]).abs() < 1e-6).any():
        raise InputError(_("{name} is singular (it flattens space); check spacing and directions."), name=name)
    return m


def require_image_matrix(matrix: Tensor, name: str, shear: float = 0.05) -> Tensor:
    """Checks the matrix of an image: rigid but for the size of a pixel along each axis and a small shear.

    Args:
        matrix: (..., 4, 4), from (column, row, 0, 1) to mm.
        name: What the matrix is, for the message.
        shear: Largest cosine of the angle between two axes.

    Returns:
        `matrix` as it was given.

    Raises:
        InputError: It is not affine, a pixel has no size, or the image is sheared or mirrored.
    """
    axes = require_affine(matrix, name)[..., :3, :3]
    size = axes.norm(dim=-2)
    if (size < 1e-6).any() or (size > 1e4).any():
        raise InputError(_("{name} gives a pixel no size in one direction; check the image calibration."), name=name)
    unit = axes / size[..., None, :]
    gram = unit.transpose(-1, -2) @ unit
    if (gram - torch.eye(3, dtype=gram.dtype, device=gram.device)).abs().max() > shear:
        raise InputError(
            _("{name} shears the image by more than {shear:.0%}; check the image calibration."), name=name, shear=shear
        )
    if (torch.linalg.det(axes) < 0).any():
        raise InputError(
            _("{name} mirrors the image (left-handed); flip its third column or the image's orientation."), name=name
        )
    return matrix


def image_pose(
    image_to_world: Float[Tensor, "*batch 4 4"], image_to_probe: Float[Tensor, "4 4"] | None = None
) -> tuple[Float[Tensor, "*batch 4 4"], Float[Tensor, "*batch 2"]]:
    """The rigid pose of an image whose matrix carries the size of a pixel and perhaps a small shear.

    The two axes in the plane, of unit length, become the nearest pair at right angles: the orthogonal factor of their
    polar decomposition, which turns both by the same angle (Higham 1986, Computing the polar decomposition, eq. 2.1).
    An image has no third axis: its normal completes them. The origin is mapped by the matrix itself.

    Args:
        image_to_world: (..., 4, 4), from (column, row, 0, 1) at pixel centres to mm.
        image_to_probe: (4, 4), scale and shift of the same pixels in the probe's plane; without it the pose's origin
            is the first pixel.

    Returns:
        probe_to_world (..., 4, 4) float64, rigid, and the size of a pixel (..., 2), column and row, mm.
    """
    matrix = image_to_world.double()
    size = matrix[..., :3, :2].norm(dim=-2)
    x, y = (matrix[..., :3, :2] / size[..., None, :]).unbind(-1)
    middle, across = torch.nn.functional.normalize(x + y, dim=-1), torch.nn.functional.normalize(x - y, dim=-1)
    x, y = (middle + across) * 0.5**0.5, (middle - across) * 0.5**0.5
    first_pixel = matrix.new_zeros(4)
    first_pixel[3] = 1.0
    origin = first_pixel if image_to_probe is None else torch.linalg.inv(image_to_probe.double())[:, 3]
    pose = torch.eye(4, dtype=torch.float64, device=matrix.device).expand(matrix.shape).clone()
    pose[..., :3, :3] = torch.stack([x, y, torch.linalg.cross(x, y)], -1)
    pose[..., :3, 3] = matrix[..., :3, :2] @ origin[:2] + matrix[..., :3, 3]
    return pose, size
