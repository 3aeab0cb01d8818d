"""Sheets: thin bright structures, found with less than a voxel's error in fractions of tissue.

A sheet is the medial surface of something narrow (`ridge`: fluid between gyri, the falx, a fascia) or the border of
something wide (`border`: the wall of a ventricle, a vessel or an organ). Both give small plane patches, one a voxel;
`sheet_channels` writes the way to the nearest patch and its level into the voxels around.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from jaxtyping import Bool, Float, Float32, Int, Shaped

# Vectors to a sheet are known this far from it, and its level is whole to `LEVEL_MM`: an echo 1.2 mm wide, and the
# neighbours 1 mm along a ray from which the angle of incidence is found.
REACH_MM, LEVEL_MM = 2.8, 1.7
NEAR_MM = 1.5  # to here every patch is tried, further off one of a block of 2x2x2 voxels
SHEET_GRID_MM = 0.9  # finer voxels are put together: sheets are found within a tenth of that
# Standard deviations of the Gaussians under which ridges and borders are sought; they draw a bent border inwards.
RIDGE_MM, BORDER_MM = 0.9, 0.6
MIN_BEND = 0.05  # of a ridge, curvature over height per mm^2
MIN_STEEPNESS = 0.05  # of a border, per mm
CHUNK = 8192  # patches that are worked on at a time, so that they stay in the processor's cache
_INSIDE_VOXEL = 0.6  # a patch lies at most so far from its voxel's centre, in voxels
_LATERAL_VOXEL = 0.75, 1.8  # how far a patch near by, and one of a block, extends in its plane


@dataclass(frozen=True)
class Patches:
    """Small pieces of plane, one a voxel, in mm along the grid's axes k, j, i from voxel (0, 0, 0).

    Args:
        voxels: (n, 3), the voxel of each.
        centres: (n, 3), mm.
        normals: (n, 3), of unit length; their sign means nothing.
        levels: (n,), amplitude of the echo at normal incidence, relative to white-matter speckle.
    """

    voxels: Int[np.ndarray, "n 3"]
    centres: Float32[np.ndarray, "n 3"]
    normals: Float32[np.ndarray, "n 3"]
    levels: Float32[np.ndarray, " n"]

    def __len__(self) -> int:
        return len(self.voxels)


def decibels(level_db: float) -> float:
    """Amplitude relative to white-matter speckle."""
    return 10 ** (level_db / 20)


def ridge(
    fraction: Float32[np.ndarray, "k j i"],
    spacing_mm: Sequence[float],
    level: float,
    *,
    least: float = 0.25,
    within: Bool[np.ndarray, "k j i"] | None = None,
) -> Patches:
    """The medial surface of what is narrow in a fraction: where it is greatest across (Steger 1998, TPAMI 20:113-125).

    Args:
        fraction: (K, J, I), 0 to 1.
        spacing_mm: along k, j, i.
        level: of the patches.
        least: the fraction from which a voxel can hold a ridge, before smoothing.
        within: where ridges may lie; None for everywhere.
    """
    candidates = fraction > least
    if within is not None:
        candidates &= within
    smooth = _smoothed(fraction, spacing_mm, RIDGE_MM)
    voxels, gradient, hessian = _derivatives(smooth, spacing_mm, candidates)
    values, normals = _least_eigenpair(hessian)
    # The parabola is laid through the logarithm, for what is narrow and blurred has nearly a Gaussian's profile.
    slope = (gradient * normals).sum(1) / smooth[tuple(voxels.T)].clip(min=1e-3)
    bend = values / smooth[tuple(voxels.T)].clip(min=1e-3)
    step = np.where(bend < -MIN_BEND, -slope / np.minimum(bend - slope * slope, -1e-6), np.inf)
    return _patches(voxels, normals, step, spacing_mm, level)


def border(
    fraction: Float32[np.ndarray, "k j i"],
    spacing_mm: Sequence[float],
    level: float,
    *,
    within: Bool[np.ndarray, "k j i"] | None = None,
) -> Patches:
    """The surface on which a fraction is one half; arguments as for `ridge`."""
    smooth = _smoothed(fraction, spacing_mm, BORDER_MM)
    candidates = np.abs(smooth - 0.5) < 0.45
    if within is not None:
        candidates &= within
    voxels, gradient, _hessian = _derivatives(smooth, spacing_mm, candidates)
    steepness = np.sqrt((gradient * gradient).sum(1))
    normals = gradient / np.maximum(steepness, 1e-6)[:, None]
    # Straight in the logit: a step that is blurred has nearly its profile.
    here = smooth[tuple(voxels.T)].clip(0.02, 0.98)
    logit = np.log(here / (1 - here))
    step = np.where(steepness > MIN_STEEPNESS, -logit * here * (1 - here) / np.maximum(steepness, 1e-6), np.inf)
    return _patches(voxels, normals, step, spacing_mm, level)


def joined(*parts: Patches) -> Patches:
    """Several patches as one."""
    return Patches(*(np.concatenate([getattr(p, f) for p in parts]) for f in Patches.__dataclass_fields__))


def sheet_channels(
    patches: Patches, shape: Sequence[int], ijk_to_ras: Float[Tensor, "4 4"]
) -> Float[Tensor, "4 k j i"]:
    """The channels of a medium's sheets: the vector from each voxel to the nearest patch in RAS mm, and its level.

    Zero where no patch is in reach; the level falls to zero there.

    Args:
        patches: of `ridge` and `border`, on the grid.
        shape: (K, J, I) of the grid.
        ijk_to_ras: (4, 4), voxel centre to RAS mm.
    """
    steps = ijk_to_ras[:3, :3].double().numpy()
    spacing = np.linalg.norm(steps, axis=0)[::-1]
    vectors, distance, levels = _nearest(patches, shape, spacing)
    levels[_between_sheets(vectors, distance, spacing)] = 0
    # Whole where the echo is, then falling: vectors to two sheets that meet half-way must not look like a third.
    fall = np.clip((REACH_MM - distance) / (REACH_MM - LEVEL_MM), 0, 1)
    levels *= fall * fall * (3 - 2 * fall)
    directions = torch.from_numpy((steps / spacing[::-1])[:, ::-1].astype(np.float32))
    return torch.cat([torch.tensordot(directions, torch.from_numpy(vectors), 1), torch.from_numpy(levels)[None]])


def sheet_grid(spacing_mm: Sequence[float]) -> tuple[int, int, int]:
    """How many voxels along k, j, i make one of the grid on which sheets are sought, about `SHEET_GRID_MM` wide."""
    return tuple(max(1, round(SHEET_GRID_MM / mm)) for mm in spacing_mm)


def on_sheet_grid(fraction: Shaped[Tensor, "k j i"], factor: tuple[int, int, int]) -> Float32[np.ndarray, "k2 j2 i2"]:
    """The means of a fraction over blocks of `factor` voxels."""
    fraction = fraction.detach().cpu().float()
    if factor != (1, 1, 1):
        fraction = F.avg_pool3d(fraction[None, None], factor, ceil_mode=True, count_include_pad=False)[0, 0]
    return fraction.numpy()


def from_sheet_grid(
    channels: Float[Tensor, "4 k2 j2 i2"], factor: tuple[int, int, int], shape: Sequence[int]
) -> Float[Tensor, "4 k j i"]:
    """The channels of sheets at the voxels of a grid of `shape`: vectors are straight between blocks."""
    if factor == (1, 1, 1):
        return channels
    size = [n * f for n, f in zip(channels.shape[1:], factor)]
    finer = F.interpolate(channels[None], size, mode="trilinear", align_corners=False)[0]
    return finer[:, : shape[0], : shape[1], : shape[2]]


def _between_sheets(
    vectors: Float32[np.ndarray, "3 k j i"], distance: Float32[np.ndarray, "k j i"], spacing_mm: np.ndarray
) -> Bool[np.ndarray, "k j i"]:
    """Voxels half-way between two sheets: to a neighbour their vectors turn round though no sheet lies between."""
    between = np.zeros(distance.shape, bool)
    for axis, mm in enumerate(spacing_mm):
        ahead, behind = (slice(None),) * axis + (slice(1, None),), (slice(None),) * axis + (slice(None, -1),)
        turn = sum(part[ahead] * part[behind] for part in vectors)
        turned = (turn < 0) & (distance[ahead] + distance[behind] > np.float32(1.2 * mm))
        between[ahead] |= turned
        between[behind] |= turned
    return between & (distance > 0.6 * spacing_mm.min())


def _nearest(
    patches: Patches, shape: Sequence[int], spacing_mm: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of every voxel: vector to the nearest patch in reach, (3, k, j, i), mm along k, j, i; its length; its level."""
    half = [int(REACH_MM / mm + 0.5) for mm in spacing_mm]
    padded = [size + 2 * h for size, h in zip(shape, half)]
    squares = np.full(math.prod(padded), np.inf, np.float32)
    nearest = np.zeros(len(squares), np.int32)
    offsets = [np.array(o) - half for o in np.ndindex(*(2 * h + 1 for h in half))]
    away = [np.linalg.norm(o * spacing_mm) - 0.5 * spacing_mm.min() for o in offsets]
    near = [o for o, mm in zip(offsets, away) if mm <= max(NEAR_MM, spacing_mm.max())]
    far = [o for o, mm in zip(offsets, away) if max(NEAR_MM, spacing_mm.max()) < mm <= REACH_MM]
    blocks = np.ravel_multi_index(tuple((patches.voxels // 2).T), [size // 2 + 1 for size in shape])
    everyone, of_blocks = np.arange(len(patches)), np.unique(blocks, return_index=True)[1]
    lateral = [np.float32(voxels * spacing_mm.max()) for voxels in _LATERAL_VOXEL]
    _try(patches, everyone, near, lateral[0], half, padded, spacing_mm, squares, nearest)
    # What is near keeps its own patch: those of blocks stand for more of the sheet than is theirs.
    by_blocks = np.where(np.isinf(squares), squares, np.float32(-1))
    _try(patches, of_blocks, far, lateral[1], half, padded, spacing_mm, by_blocks, nearest)
    near_by = by_blocks == -1
    squares = np.where(near_by, squares, by_blocks)
    inner = tuple(slice(h, h + size) for h, size in zip(half, shape))
    squares, nearest, near_by = (x.reshape(padded)[inner].ravel() for x in (squares, nearest, near_by))
    vectors, levels = np.zeros((3, len(squares)), np.float32), np.zeros(len(squares), np.float32)
    found = np.flatnonzero(squares < REACH_MM**2)
    rows = np.concatenate([patches.centres.T, patches.normals.T, patches.levels[None]])
    for start in range(0, len(found), CHUNK):
        here = found[start : start + CHUNK]
        *towards, nk, nj, ni, levels[here] = rows[:, nearest[here]]
        for part, number, mm in zip(towards, np.unravel_index(here, shape), spacing_mm):
            part -= number * np.float32(mm)
        normal = towards[0] * nk + towards[1] * nj + towards[2] * ni
        aside = [part - normal * n for part, n in zip(towards, (nk, nj, ni))]
        width = np.sqrt(sum(part * part for part in aside))
        beyond = np.maximum(width - lateral[0], 0) * near_by[here] / np.maximum(width, np.float32(1e-6))
        for vector, n, part in zip(vectors, (nk, nj, ni), aside):
            vector[here] = normal * n + beyond * part
    distance = np.sqrt(np.where(squares < REACH_MM**2, squares, np.inf).astype(np.float32))
    return vectors.reshape(3, *shape), distance.reshape(shape), levels.reshape(shape)


def _try(
    patches: Patches,
    chosen: Int[np.ndarray, " m"],
    offsets: Sequence[np.ndarray],
    lateral: np.float32,
    half: Sequence[int],
    padded: Sequence[int],
    spacing_mm: np.ndarray,
    squares: np.ndarray,
    nearest: np.ndarray,
) -> None:
    """Writes a patch's number, and the square of its distance, to the voxels at some offsets that it is nearest to."""
    spacing = spacing_mm.astype(np.float32)
    strides = np.array([padded[1] * padded[2], padded[2], 1])
    for start in range(0, len(chosen), CHUNK):
        chunk = chosen[start : start + CHUNK]
        flat = (patches.voxels[chunk] + half) @ strides
        nk, nj, ni = normals = np.ascontiguousarray(patches.normals[chunk].T)
        shift = patches.centres[chunk] - patches.voxels[chunk].astype(np.float32) * spacing
        sk, sj, si = shift = np.ascontiguousarray(shift.T)
        along, square = (shift * normals).sum(0), (shift * shift).sum(0)
        for offset in offsets:
            target = flat + int(offset @ strides)
            k, j, i = offset.astype(np.float32) * spacing
            normal = along - (k * nk + j * nj + i * ni)
            whole = square - 2 * (k * sk + j * sj + i * si) + (k * k + j * j + i * i)
            aside = np.sqrt(np.maximum(whole - normal * normal, 0)) - lateral
            away = normal * normal + np.maximum(aside, 0) ** 2
            # No voxel is met twice with one offset, so that this needs no atomic minimum.
            nearer = np.flatnonzero(away < squares[target])
            squares[target[nearer]] = away[nearer]
            nearest[target[nearer]] = chunk[nearer]


def _patches(
    voxels: np.ndarray, normals: np.ndarray, step: np.ndarray, spacing_mm: Sequence[float], level: float
) -> Patches:
    """The patches that lie within their own voxels: `step` mm along the normals from the centres."""
    spacing = np.asarray(spacing_mm, np.float32)
    shift = np.where(np.isfinite(step), step, 1e6).astype(np.float32)[:, None] * normals
    kept = (np.abs(shift) <= _INSIDE_VOXEL * spacing).all(1) & ((normals * normals).sum(1) > 0.5)
    centres = voxels[kept].astype(np.float32) * spacing + shift[kept]
    return Patches(
        voxels[kept],
        centres.astype(np.float32),
        normals[kept].astype(np.float32),
        np.full(int(kept.sum()), level, np.float32),
    )


def _smoothed(fraction: np.ndarray, spacing_mm: Sequence[float], sigma_mm: float) -> np.ndarray:
    sigma = [max(sigma_mm / mm, 0.8 * sigma_mm) for mm in spacing_mm]
    return ndimage.gaussian_filter(fraction, sigma, mode="nearest", truncate=2.5)


def _derivatives(
    smooth: np.ndarray, spacing_mm: Sequence[float], candidates: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Candidate voxels, (n, 3), not on the grid's border, and gradient (n, 3) and Hessian (n, 3, 3) per mm there."""
    inner = np.zeros_like(candidates)
    inner[1:-1, 1:-1, 1:-1] = candidates[1:-1, 1:-1, 1:-1]
    flat = np.flatnonzero(inner)
    values = smooth.ravel()
    strides = (smooth.shape[1] * smooth.shape[2], smooth.shape[2], 1)
    at: Callable[[int], np.ndarray] = lambda shift: values[flat + shift]  # noqa: E731
    gradient, hessian = np.empty((len(flat), 3), np.float32), np.empty((len(flat), 3, 3), np.float32)
    here = at(0)
    for a, (stride, mm) in enumerate(zip(strides, spacing_mm)):
        up, down = at(stride), at(-stride)
        gradient[:, a] = (up - down) / (2 * mm)
        hessian[:, a, a] = (up + down - 2 * here) / mm**2
        for b in range(a):
            other = strides[b]
            mixed = at(stride + other) + at(-stride - other) - at(stride - other) - at(other - stride)
            hessian[:, a, b] = hessian[:, b, a] = mixed / (4 * mm * spacing_mm[b])
    return np.stack(np.unravel_index(flat, smooth.shape), 1), gradient, hessian


def _least_eigenpair(matrices: Float32[np.ndarray, "n 3 3"]) -> tuple[np.ndarray, np.ndarray]:
    """The least eigenvalue of symmetric 3x3 matrices and its unit vector, in closed form (Smith 1961, CACM 4:168)."""
    mean = np.trace(matrices, axis1=1, axis2=2) / 3
    deviation = matrices - mean[:, None, None] * np.eye(3, dtype=np.float32)
    scale = np.sqrt((deviation * deviation).sum((1, 2)) / 6).clip(min=1e-12)
    b = deviation / scale[:, None, None]
    half = (b[:, 0] * np.cross(b[:, 1], b[:, 2])).sum(1) / 2
    angle = np.arccos(half.clip(-1, 1)) / 3
    values = mean + 2 * scale * np.cos(angle + 2 * math.pi / 3)
    rows = matrices - values[:, None, None] * np.eye(3, dtype=np.float32)
    # The vector is normal to the rows: of their three products the longest is the most certain.
    products = np.stack([np.cross(rows[:, a], rows[:, (a + 1) % 3]) for a in range(3)], 1)
    lengths = np.sqrt((products * products).sum(2))
    longest = lengths.argmax(1)
    everyone = np.arange(len(matrices))
    return values, products[everyone, longest] / lengths[everyone, longest].clip(min=1e-20)[:, None]
