"""How far a rendered sweep is from a real one when no speckle of theirs can agree.

Two things can be compared all the same. The mean: the real frames against the expected brightness, at every scale of a
pyramid. And the texture: how strongly and over what distance the brightness varies about its local mean, by depth; the
spread of log-compressed speckle is 5.57 dB whatever the tissue, so it tells the dynamic range, and its grain tells
pulse and beam, that is frequency and focus.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from ..geometry.filters import box_mean
from ..render.expected import SPECKLE_DB

if TYPE_CHECKING:
    from jaxtyping import Float

LEVELS = 4  # of the pyramid, each of half the resolution
TYPICAL_RANGE_DB = 60.0
SAMPLES_PER_CELL = 10.0  # of the polar grid in one speckle cell, roughly: what counts as one independent measurement
BANDS = 12  # of depth
LAGS = (1, 2, 3)  # of the autocorrelation, in samples and in rays
WINDOW = (9, 17)  # rays and samples of the local mean
MIN_CELLS = 30.0  # of a band whose texture is looked at
MIN_BRIGHTNESS, MAX_BRIGHTNESS = 0.15, 0.85  # between which speckle is not clipped


def mean_misfit(
    expected: Float[Tensor, "f rays samples"],
    target: Float[Tensor, "f rays samples"],
    weight: Float[Tensor, "f rays samples"],
) -> Tensor:
    """Mean squared difference in units of speckle's own spread, over a pyramid: 1 at the truth's finest level.

    Args:
        expected, target: (F, rays, samples), brightness in [0, 1].
        weight: 0 to 1; coarser levels are weighted means, so that nothing of outside leaks in.
    """
    difference, total, misfit, count = (expected - target) * weight, weight, 0.0, 0
    for level in range(LEVELS):
        if level:
            difference, total = (F.avg_pool2d(part[:, None], 2)[:, 0] for part in (difference, total))
        if min(difference.shape[-2:]) < 4:
            break
        misfit = misfit + (difference.square() / total.clamp(min=1e-6)).sum() / total.sum().clamp(min=1e-6)
        count += 1
    return misfit / count / (SPECKLE_DB / TYPICAL_RANGE_DB) ** 2


def texture_features(
    image: Float[Tensor, "f rays samples"], weight: Float[Tensor, "f rays samples"]
) -> tuple[Float[Tensor, "bands n"], Float[Tensor, " bands"]]:
    """Texture of every band of depth; differentiable to the image.

    Args:
        image: (F, rays, samples), brightness in [0, 1].
        weight: (F, rays, samples), 0 to 1.

    Returns:
        Log of the spread about the local mean and the autocorrelations at `LAGS` along and across, (bands, 7), and the
        number of speckle cells of each band.
    """
    kernel = tuple(min(size, n - 1 + n % 2) for size, n in zip(WINDOW, image.shape[-2:]))
    rest = (image - box_mean(image, weight, kernel)) * weight

    def summed(values: Tensor) -> Tensor:
        profile = values.sum((0, 1))
        return torch.stack([part.sum() for part in profile.tensor_split(BANDS)])

    cells = summed(weight) / SAMPLES_PER_CELL
    variance = summed(rest.square()) / summed(weight).clamp(min=1e-6) + 1e-8
    features = [0.5 * variance.log()]
    for axis in (2, 1):
        for lag in LAGS:
            n = image.shape[axis] - lag
            near, far = (part.narrow(axis, 0, n) for part in (rest, weight))
            ahead, beyond = (part.narrow(axis, lag, n) for part in (rest, weight))
            pad = (0, lag) if axis == 2 else (0, 0, 0, lag)
            product, pairs = F.pad(near * ahead, pad), F.pad(far * beyond, pad)
            features.append(summed(product) / summed(pairs).clamp(min=1e-6) / variance)
    return torch.stack(features, -1), cells


def texture_misfit(features: Float[Tensor, "bands n"], target: Float[Tensor, "bands n"], cells: Tensor) -> Tensor:
    """Half the sum of squared differences of features, each in units of what chance makes in two such textures."""
    precision = torch.where(cells > MIN_CELLS, 0.5 * cells, 0.0)
    return 0.5 * ((features - target).square() * precision[:, None]).sum()


def unclipped(
    target: Float[Tensor, "f rays samples"], inside: Float[Tensor, "f rays samples"]
) -> Float[Tensor, "f rays samples"]:
    """Where speckle can be judged, 0 or 1: inside, and neither black nor saturated on average."""
    mean = box_mean(target, inside, WINDOW)
    return inside * (mean > MIN_BRIGHTNESS) * (mean < MAX_BRIGHTNESS)
