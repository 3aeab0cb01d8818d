"""Labels with sharp borders: of every voxel the two tissues that are most of it, and how much is the first.

Four bytes a voxel, whatever the number of tissues. A point takes the two tissues of the voxel it lies in; how near it
is to the border between them follows from their fractions in the eight voxels around, which are interpolated.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError, _
from .mixture import SHEET_RANGE_MM, STEP_MM

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Bool, Float, Int, Int32, Integer, UInt16

MAX_TISSUES = 255
SOFTEN_MM = 0.7  # standard deviation of the softening on fine voxels; on coarse ones it is 1 voxel
_MAX_PASSES = 8
_COARSE_MM = 1.2
_ONE = 4096  # the fraction 1 in whole numbers: sums of eight fit into 16 bits
_THIN = 0.03  # tissues that lose more of their voxels by twice the softening, such as vessels, get it once
_LEAST = 0.01  # a smaller second fraction counts as none
_LOGIT = 1.702  # the logistic function at 1.702 x is the normal distribution's within 0.01


@dataclass(frozen=True)
class Borders:
    """The tissues at points and the distance from the border between them.

    Args:
        first, second: (n,), numbers of the tissues; the same where no border is near.
        distance_mm: (n,), from the border, positive in the first tissue, at most `SHEET_RANGE_MM`.
    """

    first: Int[Tensor, " n"]
    second: Int[Tensor, " n"]
    distance_mm: Float[Tensor, " n"]

    @property
    def share(self) -> Float[Tensor, " n"]:
        """The fraction of the first tissue: a smooth step `STEP_MM` wide."""
        return torch.sigmoid(self.distance_mm * (4 / STEP_MM))


@dataclass(frozen=True)
class LabelPairs:
    """The packed tissues of a label volume, with a rim of `outside` around it.

    Args:
        packed: (K+2, J+2, I+2), first tissue + 256 second tissue + 65536 fraction of the first of both, 0 to 255.
        spacing_mm: along i, j, k.
        sigma_mm: standard deviation of the softened borders along i, j, k.
    """

    packed: Int32[Tensor, "k j i"]
    spacing_mm: tuple[float, float, float]
    sigma_mm: tuple[float, float, float]

    def to(self, device: torch.device) -> LabelPairs:
        """The same on another device."""
        return replace(self, packed=self.packed.to(device))

    def borders(self, ijk: Float[Tensor, "n 3"]) -> Borders:
        """The tissues at points given in voxels; differentiable to them.

        Args:
            ijk: (n, 3), voxel centres at whole numbers.
        """
        sizes = ijk.new_tensor(self.packed.shape).flip(0)
        position = (ijk + 1).clamp(min=ijk.new_zeros(3), max=sizes - 1)
        words = self.packed.view(-1).index_select(0, self._flat(position.detach().round()))
        first, second = words & 255, (words >> 8) & 255
        distance = torch.full_like(position[:, 0], SHEET_RANGE_MM)
        # A voxel of one tissue needs no interpolation: inside of organs this saves most of the work. Elsewhere than on
        # a CPU to count them would cost more.
        mixed = torch.nonzero(first != second)[:, 0] if words.device.type == "cpu" else None
        if mixed is None:
            return Borders(first, second, self._distance(position, first, second))
        if len(mixed):
            parts = position.index_select(0, mixed), first.index_select(0, mixed), second.index_select(0, mixed)
            distance = distance.index_copy(0, mixed, self._distance(*parts))
        return Borders(first, second, distance)

    def _flat(self, kji_last: Tensor) -> Int[Tensor, " n"]:
        """Index of voxels given as (n, 3) whole numbers i, j, k."""
        _, j, i = self.packed.shape
        whole = kji_last.to(torch.int64)
        return (whole[:, 2] * j + whole[:, 1]) * i + whole[:, 0]

    def _distance(self, position: Tensor, first: Tensor, second: Tensor) -> Tensor:
        """Distance of points from the border between two tissues, positive in the first."""
        top = position.new_tensor(self.packed.shape).flip(0) - 2
        base = torch.minimum(position.detach().floor(), top)
        _, j, i = self.packed.shape
        steps = torch.tensor([(c >> 2) * j * i + (c >> 1 & 1) * i + (c & 1) for c in range(8)], device=position.device)
        words = self.packed.view(-1).index_select(0, (self._flat(base) + steps[:, None]).view(-1)).view(8, -1)
        part = (words >> 16).to(position)
        one, other = words & 255, (words >> 8) & 255
        # Voxels of one tissue hold it twice, the second time with the fraction zero.
        parts = [
            torch.where(one == tissue, part, 0.0) + torch.where(other == tissue, 255 - part, 0.0)
            for tissue in (first, second)
        ]
        corners = torch.stack(parts).view(2, 2, 2, 2, -1)
        values = corners
        for axis in range(3):  # i, j, k: the last axis of the corners that is left
            values = values[..., 0, :] + (values[..., 1, :] - values[..., 0, :]) * (position - base)[:, axis]
        ratio = ((values[0] + 1) / (values[1] + 1)).log()
        return (ratio * (self._sigma(corners.detach()) / _LOGIT)).clamp(-SHEET_RANGE_MM, SHEET_RANGE_MM)

    def _sigma(self, corners: Float[Tensor, "2 2 2 2 m"]) -> Float[Tensor, " m"] | float:
        """Standard deviation in mm of the softened border across itself, where voxels are not cubes by its normal."""
        low, high = min(self.sigma_mm), max(self.sigma_mm)
        if high < 1.2 * low:
            return math.sqrt(low * high)
        margin = corners[0] - corners[1]
        slopes = [margin.diff(dim=2 - axis).mean((0, 1, 2)) for axis in range(3)]
        squares = torch.stack([(slope / mm).square() for slope, mm in zip(slopes, self.spacing_mm)])
        normal = squares / (squares.sum(0) + 1e-6)
        return sum(part * sigma**2 for part, sigma in zip(normal, self.sigma_mm)).clamp(min=low**2).sqrt()


def pack_labels(
    index: Integer[np.ndarray, "k j i"], spacing_mm: Sequence[float], outside: int, *, antialias: bool = True
) -> LabelPairs:
    """The packed tissues of a label volume.

    Args:
        index: (K, J, I), the number of each voxel's tissue, 0 to 254.
        spacing_mm: along k, j, i.
        outside: the number of what surrounds the grid.
        antialias: soften the steps between voxels, so that slanted borders are smooth.

    Raises:
        InputError: for more tissues than a byte can number.
    """
    if max(int(index.max()), outside) >= MAX_TISSUES:
        raise InputError(_("The segmentation holds more than {count} tissues; merge some."), count=MAX_TISSUES - 1)
    index = index.astype(np.uint8, copy=False)
    spacing_mm = [float(mm) for mm in spacing_mm]
    passes = [min(max(round(4 * (SOFTEN_MM / mm) ** 2), 2), _MAX_PASSES) for mm in spacing_mm]
    # Coarse voxels show steps along slanted borders: organs are softened twice as much, vessels would be lost.
    more = [2 * n if mm > _COARSE_MM else n for n, mm in zip(passes, spacing_mm)]
    packed = np.full([size + 2 for size in index.shape], outside * 257 + (255 << 16), np.int32)
    inner = packed[1:-1, 1:-1, 1:-1]
    first, second, part = _two_largest(index, passes, more) if antialias else (index, index, np.uint8(255))
    inner[:] = first
    for values, places in ((second, 8), (part, 16)):
        inner += np.left_shift(values, places, dtype=np.int32)
    # A pass of (1, 6, 1) / 8 has the variance 1/4, trilinear interpolation about 1/6.
    sigma = [mm * math.sqrt((n + m) / 8 + 1 / 6) for mm, n, m in zip(spacing_mm, passes, more)]
    return LabelPairs(torch.from_numpy(packed), tuple(reversed(spacing_mm)), tuple(reversed(sigma)))


def _two_largest(
    index: Integer[np.ndarray, "k j i"], passes: Sequence[int], more: Sequence[int]
) -> tuple[Integer[np.ndarray, "k j i"], Integer[np.ndarray, "k j i"], Integer[np.ndarray, "k j i"]]:
    """The two tissues with the largest softened fractions, and the first one's part of both, 0 to 255.

    Softened by `more` passes, but for thin tissues and what is near them.
    """
    best, next_best = np.zeros(index.shape, np.uint16), np.zeros(index.shape, np.uint16)
    first, second = index.copy(), index.copy()
    boxes = _boxes(index, max(more))
    thin, near_thin = set(), np.zeros(index.shape, bool)
    for tissue, box in boxes if more != passes else []:
        mask = index[box] == tissue
        if (_softened(mask, more)[mask] < _ONE // 2).mean() > _THIN:
            thin.add(tissue)
            near_thin[box] |= _softened(mask, passes) > 0
    for tissue, box in boxes:
        mask = index[box] == tissue
        fraction = _softened(mask, passes)
        if more != passes and tissue not in thin:
            np.copyto(fraction, _softened(mask, more), where=~near_thin[box])
        a, b, one, other = best[box], next_best[box], first[box], second[box]
        leads, follows = fraction > a, (fraction <= a) & (fraction > b)
        np.copyto(b, a, where=leads)
        np.copyto(other, one, where=leads)
        np.copyto(a, fraction, where=leads)
        np.copyto(one, np.uint8(tissue), where=leads)
        np.copyto(b, fraction, where=follows)
        np.copyto(other, np.uint8(tissue), where=follows)
    alone = next_best < _LEAST * _ONE
    np.copyto(second, first, where=alone)
    next_best[alone] = 0
    part = np.empty(index.shape, np.uint8)
    for plane, a, b in zip(part, best, next_best):
        total = a + b.astype(np.float32)
        plane[:] = np.rint(a * (255 / np.maximum(total, 1)))
    return first, second, part


def _boxes(index: Integer[np.ndarray, "k j i"], reach: int) -> list[tuple[int, tuple[slice, ...]]]:
    """The tissues that occur and the box of each, with `reach` voxels around it."""
    # By planes, so that no volume of larger numbers is needed.
    tall, wide, deep = index.shape
    occurs = [np.zeros((size, 256), bool) for size in (tall, wide, deep)]
    for k, plane in enumerate(index):
        rows = np.arange(wide)[:, None]
        occurs[0][k, plane] = True
        occurs[1][rows, plane] = True
        occurs[2][np.arange(deep)[None], plane] = True
    boxes = []
    for tissue in np.flatnonzero(occurs[0].any(0)).tolist():
        ends = [np.flatnonzero(along[:, tissue])[[0, -1]].tolist() for along in occurs]
        boxes.append((tissue, tuple(slice(max(low - reach, 0), high + 1 + reach) for low, high in ends)))
    return boxes


def _softened(mask: Bool[np.ndarray, "k j i"], passes: Sequence[int]) -> UInt16[np.ndarray, "k j i"]:
    """A mask smoothed by (1, 6, 1) / 8 along each axis as often as told, ends repeated; 1 is `_ONE`."""
    volume = mask.astype(np.uint16) * np.uint16(_ONE)
    for axis, times in enumerate(passes):
        for _pass in range(times):
            rim = [(1, 1) if a == axis else (0, 0) for a in range(3)]
            wide = np.pad(volume, rim, mode="edge")
            ahead, behind = ([slice(None)] * 3 for _ in range(2))
            ahead[axis], behind[axis] = slice(2, None), slice(None, -2)
            volume *= np.uint16(6)
            volume += wide[tuple(ahead)]
            volume += wide[tuple(behind)]
            volume >>= np.uint16(3)
    return volume
