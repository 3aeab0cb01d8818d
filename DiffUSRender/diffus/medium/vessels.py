"""Vessels within the liver, which segmentations leave out: a CT tells them where blood and liver differ."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Bool, Float, Integer

    from .tissue import Tissue

ORGAN, BLOOD = "liver", "blood"
SMOOTH_MM = 1.2  # standard deviation of the Gaussian against noise
NEAR_MM = 20.0  # labelled blood so near the liver, portal vein and vena cava, says how bright blood is
APART = 3.0  # standard deviations of the liver's numbers by which blood must differ
_RIM_MM = 3.0  # of the liver, where its numbers are mixed with those of others
_LEAST_MM3 = 150.0
_LEAST_VOXELS = 50


def with_vessels(
    index: Integer[np.ndarray, "k j i"],
    tissues: Sequence[Tissue],
    hu: Float[np.ndarray, "k j i"],
    spacing_mm: Sequence[float],
) -> Integer[np.ndarray, "k j i"]:
    """The tissues of a segmentation with the liver's vessels as blood; as they are where the CT does not show them.

    Without contrast agent blood is a few HU darker than the liver, which noise hides.

    Args:
        index: (K, J, I), the number of each voxel's tissue.
        tissues: by number.
        hu: (K, J, I), of the CT that was segmented.
        spacing_mm: along k, j, i.
    """
    names = [tissue.name for tissue in tissues]
    if ORGAN not in names or BLOOD not in names:
        return index
    organ, blood = index == names.index(ORGAN), index == names.index(BLOOD)
    if not organ.any():
        return index
    margin = [math.ceil(NEAR_MM / mm) for mm in spacing_mm]
    found = ndimage.find_objects(organ.astype(np.uint8))[0]
    box = tuple(slice(max(s.start - m, 0), s.stop + m) for s, m in zip(found, margin))
    vessels = _vessels(organ[box], blood[box], hu[box], spacing_mm)
    if vessels is None:
        return index
    index = index.copy()
    index[box][vessels] = names.index(BLOOD)
    return index


def _vessels(
    organ: np.ndarray, blood: np.ndarray, hu: np.ndarray, spacing_mm: Sequence[float]
) -> Bool[np.ndarray, "k j i"] | None:
    """Voxels well inside of the organ that are nearer to blood's numbers than to its own."""
    inside = ndimage.binary_erosion(organ, iterations=max(1, round(_RIM_MM / max(spacing_mm))))
    reference = ndimage.binary_erosion(blood)
    if inside.sum() < _LEAST_VOXELS or reference.sum() < _LEAST_VOXELS:
        return None
    # Each is smoothed with its own voxels only.
    sigma = [SMOOTH_MM / mm for mm in spacing_mm]
    smooth, of_blood = (
        ndimage.gaussian_filter(np.where(mask, hu, 0).astype(np.float32), sigma)
        / np.maximum(ndimage.gaussian_filter(mask.astype(np.float32), sigma), 1e-3)
        for mask in (organ, blood)
    )
    own, other = np.median(smooth[inside]), np.median(of_blood[reference])
    spread = 1.4826 * np.median(np.abs(smooth[inside] - own))
    if abs(other - own) < APART * max(float(spread), 1.0):
        return None
    middle = (own + other) / 2
    alike = inside & ((smooth > middle) if other > own else (smooth < middle))
    regions, count = ndimage.label(alike, np.ones((3, 3, 3)))
    sizes = np.bincount(regions.ravel(), minlength=count + 1)
    kept = sizes * math.prod(spacing_mm) >= _LEAST_MM3
    kept[0] = False
    return kept[regions] if kept.any() else None
