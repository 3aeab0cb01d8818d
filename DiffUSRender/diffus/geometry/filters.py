"""Filters of images and volumes: the one Gaussian, the smoothing of maps, the grey opening."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from jaxtyping import Bool, Float, Shaped

SLAB = 8  # planes that are worked on at a time, so that they stay in the processor's cache
NOISE_SLABS = 8  # so many slabs tell the noise of a volume


# The lowest decile of local variances of white noise of variance 1, and what they hardly exceed.
_DECILE_OF_NOISE, _OVER = 0.64, 1.8


def gaussian_kernel(
    sigma: Float[Tensor, "*n"], half: int, spacing: Float[Tensor, "*n"] | float = 1.0
) -> Float[Tensor, "*n taps"]:
    """Gaussian kernels of unit sum, (..., 2 half + 1), sampled every `spacing`; differentiable to sigma."""
    offset = torch.arange(-half, half + 1, dtype=sigma.dtype, device=sigma.device)
    if isinstance(spacing, Tensor):
        spacing = spacing[..., None]
    kernel = torch.exp(-0.5 * (offset * spacing / sigma[..., None]) ** 2)
    return kernel / kernel.sum(-1, keepdim=True)


def convolve(signal: Float[Tensor, "*batch n"], kernel: Float[Tensor, " taps"], ends: str) -> Float[Tensor, "*batch m"]:
    """Convolves along the last axis.

    Args:
        signal: (..., n).
        kernel: (2h + 1,).
        ends: "constant" (zeros beyond) or "replicate", which keep the length, or "valid" (m = n - 2h).
    """
    rows = signal.reshape(1, -1, signal.shape[-1])
    if ends != "valid":
        rows = F.pad(rows, (len(kernel) // 2,) * 2, mode=ends)
    return F.conv1d(rows.transpose(0, 1), kernel.flip(-1)[None, None]).reshape(*signal.shape[:-1], -1)


def gaussian_blur(
    images: Float[Tensor, "*batch h w"], sigma: float | tuple[float, float], *, ends: str = "constant", half: int = 0
) -> Float[Tensor, "*batch h2 w2"]:
    """Images blurred by a Gaussian along rows and columns. Divide by the blurred mask where there is one.

    Args:
        images: (..., h, w).
        sigma: standard deviation in pixels, one number, or that along h and along w; 0 leaves an axis as it is.
        ends: as in `convolve`.
        half: half width of the kernel in pixels; 0 takes three standard deviations.
    """
    both = sigma if isinstance(sigma, tuple) else (sigma, sigma)
    for axis, width in zip((-2, -1), both):
        if width > 0:
            kernel = gaussian_kernel(images.new_tensor(width), half or max(1, math.ceil(3 * width)))
            images = convolve(images.transpose(axis, -1), kernel, ends).transpose(axis, -1)
    return images


def box_filter(images: Float[Tensor, "*batch h w"], size: int | tuple[int, int]) -> Float[Tensor, "*batch h w"]:
    """Mean of the box of `size` pixels, along h and w or both, around every pixel; zeros beyond the border."""
    size = size if isinstance(size, tuple) else (size, size)
    h, w = images.shape[-2:]
    flat = images.reshape(-1, 1, h, w)
    return F.avg_pool2d(flat, size, 1, (size[0] // 2, size[1] // 2))[..., :h, :w].reshape(images.shape)


def box_mean(
    images: Float[Tensor, "*#batch h w"], mask: Float[Tensor, "*#batch h w"], size: int | tuple[int, int]
) -> Float[Tensor, "*batch h w"]:
    """As `box_filter`, over the pixels of the box that are in the mask, 0 to 1; zero where none is."""
    return box_filter(images * mask, size) / box_filter(mask, size).clamp_min(1e-12)


def soften(volume: Float[Tensor, "k j i"]) -> Float[Tensor, "k j i"]:
    """Binomial smoothing (1, 2, 1) over the neighbours of each voxel, ends repeated.

    The slope of a trilinear map jumps from voxel to voxel, and echoes are slopes: unsmoothed, oblique boundaries
    show the voxels as steps.
    """
    volume = F.pad(volume[None, None], (1,) * 6, mode="replicate")[0, 0] / 64
    for axis in (0, 0, 1, 1, 2, 2):
        n = volume.shape[axis] - 1
        volume = volume.narrow(axis, 0, n) + volume.narrow(axis, 1, n)
    return volume


def box_mean_3(volume: Float[Tensor, "k j i"]) -> Float[Tensor, "k j i"]:
    """Mean of the 3x3x3 voxels around each, ends repeated."""
    volume = F.pad(volume[None, None], (1,) * 6, mode="replicate")[0, 0] / 27
    for axis in range(3):
        n = volume.shape[axis] - 2
        volume = volume.narrow(axis, 0, n) + volume.narrow(axis, 1, n) + volume.narrow(axis, 2, n)
    return volume


def denoise(volume: Float[Tensor, "k j i"], inside: Bool[Tensor, "k j i"]) -> Float[Tensor, "k j i"]:
    """A volume whose even regions are smoothed over 3x3x3 voxels and whose edges stay: the local filter of Lee.

    Lee 1980 (IEEE TPAMI 2:165-168). The noise is what the most even tenth of the patient varies by. Where voxels vary
    by no more than chance makes of it, their mean is taken, and the more they vary, the less. Differentiable.

    Args:
        volume: any scale.
        inside: where the patient is.
    """
    slabs = [slice(start, min(start + SLAB, len(volume))) for start in range(0, len(volume), SLAB)]
    some = slabs[:: max(1, len(slabs) // NOISE_SLABS)]
    variances = torch.cat([_local_moments(volume, slab)[1][inside[slab]] for slab in some])
    variances = variances[:: max(1, len(variances) // 100_000)]
    if not len(variances):
        return volume
    noise = variances.kthvalue(1 + (len(variances) - 1) // 10).values / _DECILE_OF_NOISE
    parts = []
    for slab in slabs:
        mean, variance = _local_moments(volume, slab)
        kept = (1 - _OVER * noise / variance.clamp(min=torch.finfo(volume.dtype).tiny)).clamp(min=0)
        parts.append(mean + kept * (volume[slab] - mean))
    return torch.cat(parts)


def _local_moments(volume: Float[Tensor, "k j i"], slab: slice) -> tuple[Tensor, Tensor]:
    """Mean and variance of the 3x3x3 voxels around each voxel of some planes."""
    around = volume[max(slab.start - 1, 0) : slab.stop + 1]
    middle = around.mean()  # squares of small numbers are exact
    around = around - middle
    inner = slice(slab.start - max(slab.start - 1, 0), None)
    mean, square = (box_mean_3(x)[inner][: slab.stop - slab.start] for x in (around, around * around))
    return mean + middle, (square - mean * mean).clamp(min=0)


def grey_opening(volume: Shaped[np.ndarray, "k j i"], reach: Sequence[int]) -> Shaped[np.ndarray, "k j i"]:
    """Grey opening with a ball, to the last digit that of `scipy.ndimage.grey_opening`, in a fraction of its time.

    A ball is a bundle of runs along the last axis, and the extremum over a run grows from that over the next shorter
    one, so that each voxel is compared once per run and not once per voxel of the ball.

    Args:
        volume: (K, J, I) of any type that can be compared; 16-bit integers are the fastest.
        reach: half width of the ball along k, j, i, in voxels.
    """
    grid = np.ogrid[tuple(slice(-r, r + 1) for r in reach)]
    ball = sum((g / (r + 0.2)) ** 2 for g, r in zip(grid, reach)) <= 1
    runs = [(dk, dj, int(n) // 2) for (dk, dj), n in np.ndenumerate(ball.sum(2)) if n]
    return _extremum(_extremum(volume, reach, runs, np.minimum), reach, runs, np.maximum)


def _extremum(
    volume: np.ndarray, reach: Sequence[int], runs: Sequence[tuple[int, int, int]], better: Callable
) -> np.ndarray:
    """The least (`np.minimum`) or greatest value in the ball of runs (row k, row j, half length), ends mirrored."""
    padded = np.pad(volume, [(r, r) for r in reach], mode="symmetric")
    _, j, i = volume.shape
    middle, result = reach[2], np.empty_like(volume)
    for start in range(0, len(volume), SLAB):
        slab, best = padded[start : start + SLAB + 2 * reach[0]], result[start : start + SLAB]
        run, begun = slab[..., middle : middle + i], False
        for half in range(middle + 1):
            if half:
                run = better(run, slab[..., middle - half : middle - half + i])
                better(run, slab[..., middle + half : middle + half + i], out=run)
            for dk, dj, length in runs:
                if length == half:
                    part = run[dk : dk + len(best), dj : dj + j]
                    best[...] = better(best, part) if begun else part
                    begun = True
    return result
