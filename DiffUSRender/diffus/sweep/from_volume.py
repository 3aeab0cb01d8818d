"""Slices of a 3-D ultrasound volume as a tracked sweep, and the probe that they show."""

from __future__ import annotations

import numpy as np
import torch

from ..errors import InputError, _
from ..geometry.pose import require_invertible
from ..io.sweeps import SweepReport
from ..probe.fan_mask import beam_mask
from .sweep import MIN_PIXELS, TrackedSweep


def sweep_from_volume(volume, ijk_to_ras, *, slices: int = 24, axis: int = 2) -> TrackedSweep:
    """Cuts a 3-D ultrasound volume into tracked frames, each with its own mask: where the volume holds echoes.

    Args:
        volume: (K, J, I) voxels of any real type.
        ijk_to_ras: (4, 4), voxel centres (i, j, k, 1) to RAS mm, which is the sweep's reference.
        slices: How many frames, at most.
        axis: What they are cut across: 0 (i), 1 (j) or 2 (k).

    Raises:
        InputError: No volume, an empty one, or one whose geometry is singular.
    """
    data = np.asarray(volume)
    if data.ndim != 3 or min(data.shape) < MIN_PIXELS:
        raise InputError(_("A 3-D ultrasound volume is needed, but this one's shape is {shape}."), shape=data.shape)
    given = torch.as_tensor(np.asarray(ijk_to_ras, dtype=np.float64))
    matrix = require_invertible(given, "The ultrasound volume's ijk_to_ras").numpy()
    if not np.isfinite(data).all():
        raise InputError(_("The ultrasound volume holds NaN or infinite voxels; replace them first."))
    order = {2: (0, 1, 2), 1: (0, 2, 1), 0: (1, 2, 0)}[axis]  # columns, rows, across, as ijk axes
    stack = data.transpose([2 - a for a in reversed(order)])
    used = np.flatnonzero((stack > stack.min()).mean((1, 2)) > 0.02)
    if used.size == 0:
        raise InputError(_("The ultrasound volume is empty; choose one that holds echoes."))
    chosen = np.unique(np.linspace(used[0], used[-1], min(slices, used[-1] - used[0] + 1)).round().astype(int))
    poses = np.tile(np.eye(4), (len(chosen), 1, 1))
    poses[:, :3, :3] = matrix[:3, order]
    poses[:, :3, 3] = matrix[:3, 3] + chosen[:, None] * matrix[:3, order[2]]
    if np.linalg.det(poses[0, :3, :3]) < 0:  # which way a single slice's normal points is free
        poses[:, :3, 2] *= -1
    masks = np.stack([beam_mask(stack[n : n + 1]) for n in chosen])
    return TrackedSweep.from_arrays(stack[chosen], poses, mask=masks, report=SweepReport(len(chosen), from_volume=True))
