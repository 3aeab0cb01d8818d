"""The preoperative volume as the registration reads it: smoothed channels in one table, sampled at points in mm."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from ..errors import InputError

if TYPE_CHECKING:
    from jaxtyping import Float

# Hounsfield units outside of this window tell an ultrasound image nothing more.
CT_WINDOW = (-200.0, 1200.0)


class ChannelVolume:
    """Channels on a voxel grid, kept voxel by voxel in memory, so that one look-up fetches all of them.

    channels (C, K, J, I); ijk_to_ras (4, 4) float64. Outside of the grid every channel is zero. Where the first channel
    is not above `air` there is nothing that could send an echo.
    """

    def __init__(self, channels: Float[Tensor, "c k j i"], ijk_to_ras: Float[Tensor, "4 4"], air: float = -math.inf):
        self.air = air
        padded = torch.nn.functional.pad(channels, (1, 1, 1, 1, 1, 1))
        self.size = padded.shape[1:]
        self.table = padded.flatten(1).t().contiguous()
        # One row holds the four neighbours in x and y, so that a trilinear look-up takes two fetches, not eight.
        row = self.size[2]
        self.squares = torch.cat([self.table.roll(-shift, 0) for shift in (0, 1, row, row + 1)], 1)
        shifted = ijk_to_ras.to(device=channels.device, dtype=torch.float64).clone()
        shifted[:3, 3] -= shifted[:3, :3].sum(1)
        self.ras_to_ijk = torch.linalg.inv(shifted)

    @property
    def channels(self) -> int:
        return self.table.shape[1]

    def nearest(self, points: Float[Tensor, "n 3"], reference_to_ras: Float[Tensor, "b 4 4"]) -> Float[Tensor, "n b c"]:
        """Channels of the nearest voxel at every point under every pose; for search, not for gradients."""
        fused = (self.ras_to_ijk @ reference_to_ras).to(points.dtype)
        index = torch.addmm(
            (fused[:, :3, 3].T + 0.5).reshape(1, -1), points, fused[:, :3, :3].permute(2, 1, 0).reshape(3, -1)
        ).reshape(len(points), 3, -1)
        k, j, i = self.size
        flat = index[:, 2].clamp(0, k - 1).to(torch.int32) * j
        flat = (flat + index[:, 1].clamp(0, j - 1).to(torch.int32)) * i
        flat = flat + index[:, 0].clamp(0, i - 1).to(torch.int32)
        return torch.index_select(self.table, 0, flat.flatten()).reshape(len(points), -1, self.channels)

    def sample(self, points: Float[Tensor, "*shape 3"], gradient: bool = False):
        """Trilinear channels (..., C) at RAS points; with `gradient` also their exact derivatives (..., C, 3) per mm.

        Differentiable with respect to the points.
        """
        matrix = self.ras_to_ijk.to(points.dtype)
        index = points @ matrix[:3, :3].T + matrix[:3, 3]
        k, j, i = self.size
        limit = index.new_tensor([i - 1.0, j - 1.0, k - 1.0])
        inside = ((index >= 0) & (index <= limit)).all(-1)
        index = torch.minimum(index.clamp_min(0.0), limit)
        low = torch.minimum(index.detach().floor(), limit - 1)
        f = (index - low).unsqueeze(-1).to(self.table.dtype).unbind(-2)
        low = low.to(torch.int64)
        base = (low[..., 2] * j + low[..., 1]) * i + low[..., 0]
        below, above = (
            torch.index_select(self.squares, 0, (base + z).flatten()).reshape(*base.shape, 4, -1).unbind(-2)
            for z in (0, i * j)
        )
        corner = {(x, y, z): part[x + 2 * y] for z, part in enumerate((below, above)) for y in (0, 1) for x in (0, 1)}
        along_x = {(y, z): torch.lerp(corner[0, y, z], corner[1, y, z], f[0]) for y in (0, 1) for z in (0, 1)}
        along_y = {z: torch.lerp(along_x[0, z], along_x[1, z], f[1]) for z in (0, 1)}
        keep = inside[..., None].to(self.table.dtype)
        value = torch.lerp(along_y[0], along_y[1], f[2]) * keep
        if not gradient:
            return value
        dx = {(y, z): corner[1, y, z] - corner[0, y, z] for y in (0, 1) for z in (0, 1)}
        dx = torch.lerp(torch.lerp(dx[0, 0], dx[1, 0], f[1]), torch.lerp(dx[0, 1], dx[1, 1], f[1]), f[2])
        dy = torch.lerp(along_x[1, 0] - along_x[0, 0], along_x[1, 1] - along_x[0, 1], f[2])
        dz = along_y[1] - along_y[0]
        slope = torch.stack([dx, dy, dz], -1) * keep[..., None]
        return value, slope @ matrix[:3, :3].to(slope.dtype)


def prepare_volume(volume, ijk_to_ras, kind: str = "generic") -> tuple[np.ndarray, np.ndarray]:
    """The volume (K, J, I) as finite float32 and its matrix as float64; raises InputError in one sentence.

    kind `ct` is clipped to the window CT_WINDOW in HU; `mri`, `us` and `generic` stay as they are.
    """
    data = np.asarray(volume)
    if data.ndim != 3 or min(data.shape) < 4:
        raise InputError(f"A 3-D volume is needed, but this one's shape is {data.shape}.")
    data = data.astype(np.float32)
    if not np.isfinite(data).all():
        raise InputError("The volume holds NaN or infinite voxels; mask or replace them first.")
    matrix = np.asarray(ijk_to_ras, dtype=np.float64)
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all() or abs(np.linalg.det(matrix[:3, :3])) < 1e-9:
        raise InputError("The volume's ijk_to_ras must be an invertible 4x4 matrix.")
    if kind == "ct":
        data = np.clip(data, *CT_WINDOW) - CT_WINDOW[0]
    if float(data.std()) == 0.0:
        raise InputError("The volume is constant: there is nothing in it to register to.")
    return data, matrix


def crop_around(data: np.ndarray, matrix: np.ndarray, points: np.ndarray, margin_mm: float):
    """The part of the volume within `margin_mm` of the RAS points (n, 3), and its matrix; None if nothing overlaps."""
    index = (points - matrix[:3, 3]) @ np.linalg.inv(matrix[:3, :3]).T
    margin = margin_mm / np.linalg.norm(matrix[:3, :3], axis=0)
    low = np.maximum(np.floor(index.min(0) - margin), 0).astype(int)
    high = np.minimum(np.ceil(index.max(0) + margin) + 1, np.array(data.shape[::-1])).astype(int)
    if (high - low < 4).any():
        return None
    moved = matrix.copy()
    moved[:3, 3] += matrix[:3, :3] @ low
    return data[low[2] : high[2], low[1] : high[1], low[0] : high[0]], moved


def intensity_and_gradient(
    data: np.ndarray, matrix: np.ndarray, sigma_mm: float, scale: float, device="cpu", air: float = -math.inf
) -> ChannelVolume:
    """LC2's two regressors (Wein 2013): the volume smoothed by a Gaussian, and the length of its gradient per mm.

    `scale` divides the intensities (the standard deviation of the whole volume's head, say), so that a ridge of one
    size suits every volume; `air` is in the volume's own units.
    """
    spacing = np.linalg.norm(matrix[:3, :3], axis=0)[::-1]
    smooth = ndimage.gaussian_filter(data, sigma_mm / spacing, mode="nearest") / scale
    slope = np.sqrt(sum(g * g for g in np.gradient(smooth, *spacing)))
    channels = torch.from_numpy(np.stack([smooth, slope]).astype(np.float32)).to(device)
    return ChannelVolume(channels, torch.from_numpy(matrix), air / scale)
