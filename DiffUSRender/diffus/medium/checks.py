"""Volumes, masks and matrices as the medium takes them, checked once and in plain words."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError, _
from ..geometry.pose import require_invertible

if TYPE_CHECKING:
    from jaxtyping import Bool, Float


def as_volume(values: np.ndarray | Tensor, name: str) -> Float[Tensor, "k j i"]:
    """A scalar volume, (K, J, I), as a finite floating tensor.

    A floating tensor keeps its dtype, device and gradient; numpy arrays and integers become float32.

    Raises:
        InputError: for anything that is not a 3-D scalar volume of finite numbers with at least two voxels an axis.
    """
    shape = tuple(np.shape(values))
    if 0 in shape:
        raise InputError(_("The {name} is empty (shape {shape}); load a volume with voxels."), name=name, shape=shape)
    if len(shape) == 4:
        raise InputError(
            _("The {name} has several components per voxel (shape {shape}); choose a scalar volume."),
            name=name,
            shape=shape,
        )
    if len(shape) != 3 or min(shape) < 2:
        raise InputError(
            _("The {name} must be a 3-D volume of at least 2x2x2 voxels, but its shape is {shape}."),
            name=name,
            shape=shape,
        )
    if isinstance(values, Tensor):
        if values.is_complex():
            raise InputError(_("The {name} holds complex numbers; choose a real scalar volume."), name=name)
        volume = values if values.dtype in (torch.float32, torch.float64) else values.float()
    else:
        try:
            volume = torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))
        except (TypeError, ValueError) as error:
            raise InputError(_("The {name} does not hold numbers; choose a scalar volume."), name=name) from error
    # The least and the greatest value are NaN if any is: one pass without a mask of the volume's size.
    if not torch.isfinite(torch.stack(torch.aminmax(volume.detach()))).all():
        raise InputError(_("The {name} holds NaN or infinite voxels; replace them before rendering."), name=name)
    return volume


def require_contrast(volume: Tensor, name: str) -> None:
    """Raises InputError if all voxels are equal."""
    low, high = torch.aminmax(volume.detach())
    if low == high:
        raise InputError(
            _("The {name} is constant (every voxel is {item:g}); choose a volume that shows anatomy."),
            name=name,
            item=low.item(),
        )


def as_mask(mask: np.ndarray | Tensor, like: Tensor) -> Bool[Tensor, "k j i"]:
    """A mask on the grid of `like`, true where it is not zero. Raises InputError if shapes differ or it is empty."""
    if tuple(np.shape(mask)) != tuple(like.shape):
        raise InputError(
            _("The mask has shape {shape} and the volume {other}; resample the mask onto the volume's grid."),
            shape=tuple(np.shape(mask)),
            other=tuple(like.shape),
        )
    if not isinstance(mask, Tensor):
        mask = torch.from_numpy(np.asarray(mask) != 0)
    inside = (mask if mask.dtype == torch.bool else mask != 0).to(like.device)
    if not inside.any():
        raise InputError(_("The mask is empty; choose one that covers the patient."))
    return inside


def as_memberships(memberships: np.ndarray | Tensor) -> Float[Tensor, "c k j i"]:
    """Soft memberships, (C, K, J, I), as a floating tensor. Raises InputError unless they are fractions of 1."""
    shape = tuple(np.shape(memberships))
    if len(shape) != 4 or min(shape) < 1 or min(shape[1:]) < 2:
        raise InputError(_("Memberships must have shape (tissues, K, J, I), but theirs is {shape}."), shape=shape)
    if not isinstance(memberships, Tensor):
        memberships = torch.from_numpy(np.ascontiguousarray(memberships, dtype=np.float32))
    fractions = memberships if memberships.dtype in (torch.float32, torch.float64) else memberships.float()
    values = fractions.detach()
    if not torch.isfinite(values).all():
        raise InputError(_("The memberships hold NaN or infinite numbers; replace them."))
    if values.min() < -1e-3 or values.sum(0).max() > 1 + 1e-2:
        raise InputError(
            _("Memberships must not be negative and must add up to 1 at most; scale them to fractions of 1.")
        )
    return fractions


def as_ijk_to_ras(matrix: np.ndarray | Tensor) -> Float[Tensor, "4 4"]:
    """A voxel-to-world matrix, float64 on the CPU, without gradient. Raises InputError unless it can be inverted."""
    if isinstance(matrix, Tensor):
        m = matrix.detach().to("cpu", torch.float64)
    else:
        m = torch.as_tensor(np.array(matrix, dtype=np.float64))
    if m.ndim != 2:
        raise InputError(_("ijk_to_ras must be a 4x4 matrix, but its shape is {shape}."), shape=tuple(m.shape))
    return require_invertible(m, "ijk_to_ras")
