"""The slow texture of brain: echogenicity that varies by some dB over some mm, taken from the MRI's own signal."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Float

# Intra-operative frames (RESECT) vary by 11 to 14 % of their mean grey within each of these bands, even tissue with
# speckle alone by 4 %. What makes it, fibres and small vessels, an MRI shows only in part; its own fine signal, brought
# to like strength everywhere, at least lies in the tissue and stays there. Standard deviations in mm.
BANDS_MM = ((0.9, 2.0), (2.0, 5.0))
TEXTURE_DB = 2.5  # standard deviation of all bands together
GRID_MM = 1.6
SPREAD_MM = 8.0  # over which the strength is made even
FAINT = 0.002  # of normalised intensity: what varies less is no signal


def unevenness_db(
    level: Float[Tensor, "k j i"], tissue: Float[Tensor, "k j i"], spacing_mm: Sequence[float], spread_db: float
) -> Float[Tensor, "k j i"]:
    """What is to be added to the scattering of brain tissue, in dB.

    Args:
        level: (K, J, I), normalised intensity.
        tissue: (K, J, I), the fraction that is grey or white matter; fluid stays as it is.
        spacing_mm: along k, j, i.
        spread_db: standard deviation that is aimed at.
    """
    factor = [max(1, round(GRID_MM / mm)) for mm in spacing_mm]
    sizes = np.array(spacing_mm) * factor
    weight, signal = (_pooled(x, factor) for x in (tissue, level * tissue))
    solid = weight > 0.3
    field = np.zeros_like(weight)
    for band in BANDS_MM:
        fine, coarse = (
            ndimage.gaussian_filter(signal, mm / sizes, truncate=2.5)
            / ndimage.gaussian_filter(weight, mm / sizes, truncate=2.5).clip(min=1e-3)
            for mm in band
        )
        part = (fine - coarse) * solid
        share = ndimage.uniform_filter(solid.astype(np.float32), np.rint(SPREAD_MM / sizes).astype(int)).clip(min=1e-2)
        power = ndimage.uniform_filter(part * part, np.rint(SPREAD_MM / sizes).astype(int)).clip(min=0) / share
        field += np.tanh(0.7 * part / np.sqrt(power + FAINT**2)) / 0.6
    if solid.any():
        field -= field[solid].mean()
    field *= (spread_db / len(BANDS_MM) ** 0.5) * weight.clip(max=1)
    size = [n * f for n, f in zip(field.shape, factor)]
    finer = F.interpolate(torch.from_numpy(field)[None, None], size, mode="trilinear", align_corners=False)[0, 0]
    return finer[: level.shape[0], : level.shape[1], : level.shape[2]].to(level)


def _pooled(volume: Tensor, factor: Sequence[int]) -> np.ndarray:
    volume = volume.detach().cpu().float()[None, None]
    return F.avg_pool3d(volume, tuple(factor), ceil_mode=True, count_include_pad=False)[0, 0].numpy()
