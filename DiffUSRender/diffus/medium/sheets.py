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
from scipy import ndimage
from torch import Tensor

from .mixture import SHEET_CHANNELS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from jaxtyping import Bool, Float, Float32, Int

# A sheet is known this far from it: an echo 1.2 mm wide, and what trilinear sampling needs of its neighbours.
REACH_MM = 1.7
REACH_VOXELS = 2.0
SMOOTH_MM = 0.9  # standard deviation of the Gaussian under which ridges and borders are sought
MIN_BEND = 0.05  # of a ridge, curvature over height per mm^2
CHUNK = 8192  # patches that are worked on at a time, so that they stay in the processor's cache
_INSIDE_VOXEL = 0.6  # a patch lies at most so far from its voxel's centre, in voxels
_LATERAL_VOXEL = 0.75  # how far a patch extends in its plane


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
    smooth = _smoothed(fraction, spacing_mm)
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
    smooth = _smoothed(fraction, spacing_mm)
    candidates = np.abs(smooth - 0.5) < 0.45
    if within is not None:
        candidates &= within
    voxels, gradient, _hessian = _derivatives(smooth, spacing_mm, candidates)
    steepness = np.sqrt((gradient * gradient).sum(1))
    normals = gradient / np.maximum(steepness, 1e-6)[:, None]
    here = smooth[tuple(voxels.T)]
    step = np.where(steepness > 0.05, (0.5 - here) / np.maximum(steepness, 1e-6), np.inf)
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
    reach = max(REACH_MM, REACH_VOXELS * float(spacing.min()))
    vectors, distance, levels = _nearest(patches, shape, spacing, reach)
    levels[_between_sheets(vectors, distance, shape, spacing)] = 0
    # Full where the echo is, then falling: vectors to two sheets that meet half-way must not look like a third.
    fall = np.clip((reach - distance) / (0.4 * reach), 0, 1)
    directions = (steps / spacing[::-1])[:, ::-1].astype(np.float32)
    channels = np.zeros((SHEET_CHANNELS, math.prod(shape)), np.float32)
    found = np.flatnonzero(levels)
    channels[:3, found] = directions @ vectors[:, found]
    channels[3] = levels * fall * fall * (3 - 2 * fall)
    return torch.from_numpy(channels.reshape(SHEET_CHANNELS, *shape))


def _between_sheets(
    vectors: Float32[np.ndarray, "3 voxels"],
    distance: Float32[np.ndarray, " voxels"],
    shape: Sequence[int],
    spacing_mm: np.ndarray,
) -> Int[np.ndarray, " n"]:
    """Voxels half-way between two sheets: to a neighbour their vectors turn round though no sheet lies between."""
    found = np.flatnonzero(np.isfinite(distance) & (distance > 0.6 * spacing_mm.min()))
    known = np.zeros(len(distance), bool)
    known[found] = True
    between = []
    for stride, mm in zip((shape[1] * shape[2], shape[2], 1), spacing_mm):
        first = found[found < len(distance) - stride]
        first = first[known[first + stride] & (distance[first] + distance[first + stride] > 1.2 * mm)]
        turned = (vectors[:, first] * vectors[:, first + stride]).sum(0) < 0
        between += [first[turned], first[turned] + stride]
    return np.concatenate(between)


def _nearest(
    patches: Patches, shape: Sequence[int], spacing_mm: np.ndarray, reach: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of every voxel: vector to the nearest patch in reach (3, voxels), mm along k, j, i; its length; its level."""
    half = [int(reach / mm + 0.5) for mm in spacing_mm]
    padded = [size + 2 * h for size, h in zip(shape, half)]
    squares = np.full(math.prod(padded), np.inf, np.float32)
    nearest = np.zeros(len(squares), np.int32)
    strides = np.array([padded[1] * padded[2], padded[2], 1])
    lateral = np.float32(_LATERAL_VOXEL * spacing_mm.max())
    spacing = spacing_mm.astype(np.float32)
    flat = np.ravel_multi_index(tuple((patches.voxels + half).T), padded)
    shift = patches.centres - patches.voxels.astype(np.float32) * spacing
    along, square = (shift * patches.normals).sum(1), (shift * shift).sum(1)
    offsets = [np.array(o) - half for o in np.ndindex(*(2 * h + 1 for h in half))]
    offsets = [o for o in offsets if np.linalg.norm(o * spacing_mm) <= reach + 0.5 * spacing_mm.min()]
    for start in range(0, len(patches), CHUNK):
        chunk = slice(start, start + CHUNK)
        nk, nj, ni = np.ascontiguousarray(patches.normals[chunk].T)
        sk, sj, si = np.ascontiguousarray(shift[chunk].T)
        for offset in offsets:
            target = flat[chunk] + int(offset @ strides)
            k, j, i = offset.astype(np.float32) * spacing
            normal = along[chunk] - (k * nk + j * nj + i * ni)
            whole = square[chunk] - 2 * (k * sk + j * sj + i * si) + (k * k + j * j + i * i)
            aside = np.sqrt(np.maximum(whole - normal * normal, 0)) - lateral
            away = normal * normal + np.maximum(aside, 0) ** 2
            # No voxel is met twice with one offset, so that this needs no atomic minimum.
            nearer = np.flatnonzero(away < squares[target])
            squares[target[nearer]] = away[nearer]
            nearest[target[nearer]] = nearer + start
    inner = tuple(slice(h, h + size) for h, size in zip(half, shape))
    squares, nearest = (np.ascontiguousarray(x.reshape(padded)[inner]).ravel() for x in (squares, nearest))
    found = np.flatnonzero(squares < reach * reach)
    which = nearest[found]
    voxels = np.stack(np.unravel_index(found, shape), 1).astype(np.float32)
    towards, normals = patches.centres[which] - voxels * spacing, patches.normals[which]
    normal = (towards * normals).sum(1, keepdims=True)
    aside = towards - normal * normals
    width = np.sqrt((aside * aside).sum(1, keepdims=True))
    vectors = np.zeros((3, len(squares)), np.float32)
    vectors[:, found] = (normal * normals + np.maximum(1 - lateral / np.maximum(width, 1e-6), 0) * aside).T
    levels = np.zeros(len(squares), np.float32)
    levels[found] = patches.levels[which]
    return vectors, np.sqrt(squares), levels


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


def _smoothed(fraction: np.ndarray, spacing_mm: Sequence[float]) -> np.ndarray:
    sigma = [max(SMOOTH_MM / mm, 0.75) for mm in spacing_mm]
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
