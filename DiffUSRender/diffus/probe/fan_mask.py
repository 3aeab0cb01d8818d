"""Which pixels show ultrasound: the region of the fan, for its outline, and where the beam reached."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy import ndimage
from scipy.spatial import ConvexHull, QhullError
from torch import Tensor

from ..errors import InputError, _

if TYPE_CHECKING:
    from jaxtyping import Bool, Real

    Array = np.ndarray | Tensor
    Images = Real[Array, "h w"] | Real[Array, "n h w"] | Bool[Array, "h w"] | Bool[Array, "n h w"]

MIN_PIXELS = 32  # of an image's side
MIN_FRACTION = 0.03  # of the image that the fan fills


def fan_mask(images: Images) -> Bool[Tensor, "h w"]:
    """Pixels that show ultrasound: the largest region that is not background in the image or the mean frame.

    Background is the level of the image's border where that is dark and even. Text, rulers and markers beside the fan
    are left out, holes are filled. This region has the outline of the fan as drawn; `beam_mask` is surer of its inside.

    Raises:
        InputError: The images are empty, constant, not finite or not grey.
    """
    mean = _mean_frame(images)
    low, high = float(mean.min()), float(mean.max())
    if high <= low:
        raise InputError(_("No ultrasound fan can be seen in this image: all of its pixels have the same value."))
    threshold = _background_level(mean, low, high)
    margin = 8  # so that the image's border itself neither erodes nor closes anything
    filled = ndimage.binary_closing(np.pad(mean > threshold, margin, mode="edge"), iterations=3)
    labels = ndimage.label(ndimage.binary_opening(filled, iterations=2))[0]
    largest = labels == np.argmax(np.bincount(labels.ravel(), minlength=2)[1:]) + 1
    if largest.sum() < MIN_FRACTION * mean.size:
        raise InputError(
            _(
                "No ultrasound fan can be seen in this image: its bright pixels are scattered; check "
                "that this is a B-mode image."
            )
        )
    # Opening rounds the corners off: give back what it took right beside the region.
    whole = ndimage.binary_dilation(largest, iterations=3) & filled
    inner = slice(margin, -margin)
    return torch.from_numpy(ndimage.binary_fill_holes(whole[inner, inner]))


def _mean_frame(images: np.ndarray | Tensor) -> np.ndarray:
    array = np.asarray(images.detach().cpu() if isinstance(images, Tensor) else images)
    if array.ndim not in (2, 3) or min(array.shape[-2:]) < MIN_PIXELS or not array.size:
        raise InputError(
            _(
                "The fan needs a grey image (rows, columns) or a stack of them, at least {MIN_PIXELS} "
                "pixels wide and high, but the shape is {shape}."
            ),
            MIN_PIXELS=MIN_PIXELS,
            shape=array.shape,
        )
    mean = array.mean(0, dtype=np.float64) if array.ndim == 3 else array.astype(np.float64)
    if not np.isfinite(mean).all():
        raise InputError(_("The image holds NaN or infinite pixels; export it again."))
    return mean


def _background_level(mean: np.ndarray, low: float, high: float) -> float:
    """The brightest value that still is background; below the darkest pixel where there is no even, dark border."""
    border = np.concatenate([mean[:2].ravel(), mean[-2:].ravel(), mean[:, :2].ravel(), mean[:, -2:].ravel()])
    level = (high - low) / 256
    counts, edges = np.histogram(border, bins=64, range=(low, low + 16 * level))  # quarters of a grey level
    most_frequent = edges[np.argmax(counts)]
    even = border[np.abs(border - most_frequent) < 4 * level]
    if len(even) < 0.1 * len(border):
        return low - 1.0
    # Video compression makes the background uneven; 0.5 % of the range is nothing to the eye.
    spread = np.percentile(np.abs(even - np.median(even)), 90)
    return float(np.median(even) + (spread + 0.005 * (high - low) if spread > 0 else 0.0))


def beam_mask(pixels: Real[np.ndarray, "k rows columns"]) -> Bool[np.ndarray, "rows columns"]:
    """Where the beam reached in frames of any type.

    The convex hull of the pixels that are bright and (with four frames or more) change, without what lies above the
    first such pixel of each column: a convex probe's face bends into the hull. Annotations do not change.
    """
    low, high = pixels.min(0).astype(np.float32), pixels.max(0).astype(np.float32)
    bright = (high - low if len(pixels) >= 4 else high) > 0.015 * max(float(high.max()), 1e-12)
    size = max(3, min(bright.shape) // 60)
    dense = ndimage.uniform_filter(bright.astype(np.float32), size) > 0.5
    labels, count = ndimage.label(dense)
    if count == 0:
        return bright
    sizes = ndimage.sum_labels(dense, labels, np.arange(1, count + 1))
    dense = np.isin(labels, 1 + np.flatnonzero(sizes > 0.02 * sizes.max()))
    below_face = np.maximum.accumulate(dense, axis=0) | ~dense.any(0)
    return _convex_hull(dense) & below_face


def _convex_hull(mask: np.ndarray) -> np.ndarray:
    points = np.argwhere(mask)
    if np.ptp(points, axis=0).min() == 0:
        return mask
    try:
        sides = ConvexHull(points).equations
    except QhullError:  # all on one line
        return mask
    rows, columns = np.indices(mask.shape)
    inside = np.ones_like(mask)
    for row, column, offset in np.unique(sides, axis=0):
        inside &= row * rows + column * columns + offset <= 1e-6
    return inside
