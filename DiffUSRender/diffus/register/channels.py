"""The preoperative volume as the registration reads it: smoothed channels in one table, sampled at points in mm."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError, _
from ..geometry.pose import require_invertible

if TYPE_CHECKING:
    from jaxtyping import Float

CT_WINDOW = (-200.0, 1200.0)  # HU; what lies outside of it makes no difference to an ultrasound image
MRI = ("mri", "mri-t2")  # T1-weighted or alike (dark fluid), and with bright fluid
AIR_FRACTION = 0.06  # of the 99th percentile, below which an MRI shows air: no echo comes from there
STATISTICS_VOXELS = 16_000_000  # at most about so many, evenly taken, give the standard deviation and the percentile
GRID_PER_SIGMA = 0.7  # spacing of a smoothed grid; at its Nyquist frequency a Gaussian of sigma passes 4e-5
SLAB_VOXELS = 2_000_000  # of the input in one step


class ChannelVolume:
    """Channels on a voxel grid, kept voxel by voxel in memory, so that one look-up fetches all of them.

    Outside of the grid every channel is zero. Where the first channel is not above `air` there is nothing that could
    send an echo.

    Args:
        grid: (K, J, I, C) channels; the outermost voxels are zero.
        ijk_to_ras: (4, 4) float64, mm, of this grid.
        air: In the units of the first channel.
    """

    def __init__(self, grid: Float[Tensor, "k j i c"], ijk_to_ras: Float[Tensor, "4 4"], air: float = -math.inf):
        self.air = air
        self.size = grid.shape[:3]
        self.table = grid.flatten(0, 2)
        self._squares: Tensor | None = None
        self.ras_to_ijk = torch.linalg.inv(ijk_to_ras.to(device=grid.device, dtype=torch.float64))

    @property
    def channels(self) -> int:
        return self.table.shape[1]

    @property
    def squares(self) -> Float[Tensor, "n c4"]:
        """Each voxel with its neighbours in x and y, so that a trilinear look-up takes two fetches, not eight."""
        if self._squares is None:
            for _ in self.fill():
                pass
        return self._squares

    def fill(self) -> Iterator[None]:
        """Makes `squares` in short steps."""
        count, row = len(self.table), self.size[2]
        squares = self.table.new_empty(count, 4, self.channels)
        for first in range(0, count, SLAB_VOXELS):
            for corner, shift in enumerate((0, 1, row, row + 1)):
                part = self.table[first + shift : first + shift + SLAB_VOXELS]
                squares[first : first + len(part), corner] = part[: count - first]
            yield
        squares[count - row - 1 :] = 0  # beyond the last voxel
        self._squares = squares.flatten(1)

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
        """Trilinear channels at points; differentiable with respect to the points.

        Args:
            points: (..., 3) RAS mm.
            gradient: Whether the channels' exact derivatives are wanted too.

        Returns:
            (..., C) channels; with `gradient` also (..., C, 3), their derivatives per mm.
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


@dataclass(frozen=True)
class SourceVolume:
    """The volume as it was given: it is never copied as a whole, whatever its type.

    data (K, J, I); ijk_to_ras (4, 4) float64; window: values are clipped to it, and its lower end is zero; scale: the
    standard deviation, which divides the intensities so that a ridge of one size suits every volume; air: see
    ChannelVolume, in units of `scale`.
    """

    data: np.ndarray
    ijk_to_ras: np.ndarray
    window: tuple[float, float] | None
    scale: float
    air: float

    @property
    def spacing(self) -> np.ndarray:
        """Along k, j, i, in mm."""
        return np.linalg.norm(self.ijk_to_ras[:3, :3], axis=0)[::-1]


def prepare_volume(volume, ijk_to_ras, kind: str = "generic") -> SourceVolume:
    """Checks a volume and measures its contrast.

    Args:
        volume: (K, J, I) of any real type.
        ijk_to_ras: (4, 4), mm.
        kind: `ct` is clipped to CT_WINDOW; an MRI has air in it.

    Raises:
        InputError: Not 3-D, not finite, constant, or a matrix that cannot be inverted.
    """
    data = np.asarray(volume)
    if data.ndim != 3 or min(data.shape) < 4:
        raise InputError(_("A 3-D volume is needed, but this one's shape is {shape}."), shape=data.shape)
    low, high = float(data.min()), float(data.max())  # NaN if there is one
    if not math.isfinite(low) or not math.isfinite(high):
        raise InputError(_("The volume holds NaN or infinite voxels; mask or replace them first."))
    matrix = np.array(ijk_to_ras, dtype=np.float64)
    require_invertible(torch.from_numpy(matrix), "The volume's ijk_to_ras")
    window = CT_WINDOW if kind == "ct" else None
    step = max(1, math.ceil((data.size / STATISTICS_VOXELS) ** (1 / 3)))
    thin = _intensities(data[::step, ::step, ::step], window)
    scale = float(thin.std())
    if scale == 0.0:
        thin = _intensities(data, window)
        scale = float(thin.std())
    if scale == 0.0:
        raise InputError(_("The volume is constant: there is nothing in it to register to."))
    air = AIR_FRACTION * float(np.percentile(thin, 99)) / scale if kind in MRI else -math.inf
    return SourceVolume(data, matrix, window, scale, air)


def _intensities(data: np.ndarray, window: tuple[float, float] | None) -> np.ndarray:
    """A copy in float32, clipped."""
    values = data.astype(np.float32)
    return values if window is None else np.clip(values, *window, out=values) - np.float32(window[0])


@dataclass(frozen=True)
class _Axis:
    """Smoothing and resampling along one axis: output n is the sum of `weights` over the inputs."""

    low: int  # first voxel of the crop
    weights: Float[Tensor, "out in"]
    spacing: float  # of the output, mm
    start: float  # position of the first output voxel, in input voxels

    @property
    def size(self) -> int:
        return self.weights.shape[0]

    def inputs(self, first: int, last: int) -> tuple[int, int]:
        """The input voxels that outputs first..last-1 need, within the crop."""
        used = torch.nonzero(self.weights[first:last].any(0)).flatten()
        return int(used[0]), int(used[-1]) + 1


def _axis(low: int, high: int, spacing: float, sigma_mm: float) -> _Axis:
    """A Gaussian of sigma_mm, cut at four sigma, ends repeated; at every voxel, or on a coarser grid that suffices."""
    count = high - low
    grid = max(spacing, GRID_PER_SIGMA * sigma_mm)
    size = max(2, int((count - 1) * spacing / grid + 1e-6) + 1)
    start = 0.5 * ((count - 1) - (size - 1) * grid / spacing)
    centre = start + torch.arange(size, dtype=torch.float64) * grid / spacing
    reach = int(4 * sigma_mm / spacing + 0.5)
    voxel = torch.arange(-reach - 1, count + reach + 1)
    away = voxel - centre[:, None]
    weights = torch.exp(-0.5 * (away * spacing / sigma_mm) ** 2) * (away.abs() <= reach + 0.5)
    inside = torch.zeros(size, count, dtype=torch.float64)
    inside.index_add_(1, voxel.clamp(0, count - 1), weights)
    return _Axis(low, (inside / inside.sum(1, keepdim=True)).float(), grid, start)


def smoothed_channels(
    source: SourceVolume, points: Float[Tensor, "n 3"], margin_mm: float, sigma_mm: float, device="cpu"
) -> Generator[None, None, ChannelVolume | None]:
    """LC2's two regressors (Wein 2013): the volume smoothed by a Gaussian, and the length of its gradient per mm.

    Only the part around the points is made, on the volume's own grid or a coarser one that still holds what the
    smoothing leaves. A generator, in slabs.

    Args:
        source: The volume.
        points: (n, 3) RAS mm.
        margin_mm: How far around the points.
        sigma_mm: Standard deviation of the Gaussian.
        device: Of the result.

    Returns:
        The channels, or None if nothing overlaps.
    """
    box = _box(source, points.cpu().numpy(), margin_mm)
    if box is None:
        return None
    axes = [_axis(*limits, spacing, sigma_mm) for limits, spacing in zip(box, source.spacing)]
    smooth = torch.empty([axis.size for axis in axes])
    for first, last in _slabs(axes[0].size, SLAB_VOXELS // (axes[1].weights.shape[1] * axes[2].weights.shape[1])):
        low, high = axes[0].inputs(first, last)
        k, j, i = (slice(axis.low, axis.low + axis.weights.shape[1]) for axis in axes)
        block = source.data[k, j, i][low:high]
        part = torch.from_numpy(_intensities(block, source.window) / np.float32(source.scale))
        part = (axes[0].weights[first:last, low:high] @ part.flatten(1)).unflatten(1, part.shape[1:])
        smooth[first:last] = _along(_along(part, axes[1]).transpose(1, 2), axes[2]).transpose(1, 2)
        yield
    grid = torch.zeros(*(n + 2 for n in smooth.shape), 2)
    for first, last in _slabs(len(smooth), SLAB_VOXELS // smooth[0].numel()):
        low, high = max(first - 1, 0), min(last + 1, len(smooth))
        slopes = torch.gradient(smooth[low:high], spacing=[axis.spacing for axis in axes])
        length = torch.stack(slopes).square().sum(0).sqrt()[first - low : last - low]
        grid[first + 1 : last + 1, 1:-1, 1:-1] = torch.stack([smooth[first:last], length], -1)
        yield
    del smooth
    ratio = np.array([axis.spacing for axis in axes]) / source.spacing
    voxel_to_ijk = np.eye(4)
    voxel_to_ijk[:3, :3] = np.diag(ratio[::-1])
    origin = np.array([axis.low + axis.start for axis in axes]) - ratio  # of the border
    voxel_to_ijk[:3, 3] = origin[::-1]
    volume = ChannelVolume(grid.to(device), torch.from_numpy(source.ijk_to_ras @ voxel_to_ijk), source.air)
    yield from volume.fill()
    return volume


def _along(block: Float[Tensor, "a n b"], axis: _Axis, rows: int = 32) -> Float[Tensor, "a out b"]:
    """The weights along the middle axis, a band of them at a time: most are zero."""
    parts = []
    for first in range(0, axis.size, rows):
        low, high = axis.inputs(first, first + rows)
        parts.append(axis.weights[first : first + rows, low:high] @ block[:, low:high])
    return torch.cat(parts, 1)


def _slabs(count: int, thickness: int) -> Iterator[tuple[int, int]]:
    """(first, last) of every slab of at least four voxels' thickness."""
    thickness = max(4, thickness)
    yield from ((first, min(first + thickness, count)) for first in range(0, count, thickness))


def _box(source: SourceVolume, points: np.ndarray, margin_mm: float) -> list[tuple[int, int]] | None:
    """(low, high) along k, j, i of the voxels within `margin_mm` of the RAS points; None if nothing overlaps."""
    ras_to_ijk = np.linalg.inv(source.ijk_to_ras)
    index = (points @ ras_to_ijk[:3, :3].T + ras_to_ijk[:3, 3])[:, ::-1]
    margin = margin_mm / source.spacing
    low = np.maximum(np.floor(index.min(0) - margin), 0).astype(int)
    high = np.minimum(np.ceil(index.max(0) + margin) + 1, np.array(source.data.shape)).astype(int)
    return None if (high - low < 4).any() else list(zip(low.tolist(), high.tolist()))
