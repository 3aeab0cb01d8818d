"""Where a sweep lies: its middle, its size, and how many of its frames show something new."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from ..sweep.sweep import TrackedSweep

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

APART_MM = 0.5  # frames nearer to each other than this show the same


def sweep_extent(sweep: TrackedSweep) -> tuple[Float[Tensor, "3"], float, Float[Tensor, "n 3"]]:
    """Where the fan's pixels lie, over all frames.

    Returns:
        Their centre (3,), their RMS distance to it, and a sparse set of them (n, 3), reference mm.
    """
    points = []
    for number in range(len(sweep)):
        mask = sweep.mask[0 if sweep.mask.shape[0] == 1 else number]
        pixels = torch.nonzero(mask)[:: max(1, int(mask.sum()) // 200)].double()
        flat = torch.cat([pixels.flip(1), torch.zeros(len(pixels), 1), torch.ones(len(pixels), 1)], 1).double()
        points.append((flat @ sweep.image_to_reference[number].T)[:, :3])
    cloud = torch.cat(points)
    centre = cloud.mean(0)
    return centre, float((cloud - centre).square().sum(1).mean().sqrt()), cloud


def frames_apart(sweep: TrackedSweep) -> int:
    """How many frames lie at least APART_MM (RMS over the image's corners) from each other: a still probe adds none."""
    right, bottom = sweep.frames.shape[2] - 1.0, sweep.frames.shape[1] - 1.0
    corners = torch.tensor([[x, y, 0.0, 1.0] for x in (0.0, right) for y in (0.0, bottom)], dtype=torch.float64)
    kept: list[Tensor] = []
    for pose in sweep.image_to_reference.double().cpu():
        here = (corners @ pose.T)[:, :3]
        if all((here - other).square().sum(1).mean().sqrt() >= APART_MM for other in kept):
            kept.append(here)
    return len(kept)


def field_scale(sweep: TrackedSweep) -> float:
    """Size of the fan relative to one of 3500 mm2 (a neurosurgical one, 72 mm deep), within what the levels bear."""
    area = float(sweep.mask.float().sum((1, 2)).mean() * sweep.pixel_mm.prod())
    return float(np.clip(np.sqrt(area / 3500.0), 0.35, 2.0))
