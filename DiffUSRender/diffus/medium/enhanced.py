"""Blood with contrast agent in a CT: as bright as bone, but even."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Bool, Float
    from torch import Tensor

BLOOD_HU = 45.0  # without contrast agent
SOFT_HU = 60.0  # of what lies around
_ENHANCED_HU, _BONE_HU, _METAL_HU = 190.0, 700.0, 1000.0  # what is brighter than 700 is no blood
_LEAST_MM3 = 1500.0
_OPENING_MM = 2.0
# Numbers within 6 mm vary by less than this where blood fills them. That is half of a heart with its chambers and
# great vessels, and at most a sixth of a bone (vertebrae, pelvis, ribs and sternum of two patients).
_SPREAD, _SPREAD_HU = 0.12, 12.0
_EVEN = 0.3
_RIM_VOXELS = 2


def without_contrast(
    hu: Float[Tensor, "k j i"], variance: Float[Tensor, "k j i"], spacing_mm: Sequence[float]
) -> tuple[Float[Tensor, "k j i"], Float[Tensor, "k j i"] | None]:
    """A CT whose blood with contrast agent has the numbers of blood without, and the fraction of such blood.

    From about 200 HU on, blood has the numbers of marrow and would be taken for bone. Marrow is uneven. Vessels of less
    than about 8 mm are not told from bone.

    Args:
        hu: (K, J, I), without noise.
        variance: (K, J, I), of the numbers around, in HU^2, without the noise's.
        spacing_mm: along k, j, i.

    Returns:
        Hounsfield units, and the fraction of each voxel or None where there is no such blood, (K, J, I) each.
    """
    values = hu.detach().cpu().numpy()
    blood = _blood(values, variance.detach().cpu().numpy(), spacing_mm)
    if blood is None:
        return hu, None
    inside = torch.from_numpy(ndimage.binary_erosion(blood)).to(hu.device)
    near = torch.from_numpy(ndimage.binary_dilation(blood, iterations=_RIM_VOXELS)).to(hu.device)
    near &= (hu > SOFT_HU) & (hu < _METAL_HU) | inside
    # The blurred rim is as much blood as its number says, between soft tissue and the brightest beside it.
    size = 2 * _RIM_VOXELS + 1
    top = F.max_pool3d(hu.detach()[None, None].clamp(max=_METAL_HU), size, stride=1, padding=_RIM_VOXELS)[0, 0]
    fraction = ((hu - SOFT_HU) / (top - SOFT_HU).clamp(min=1.0)).clamp(0, 1)
    fraction = torch.where(inside, 1.0, torch.where(near, fraction, 0.0))
    return torch.where(near, BLOOD_HU, hu), fraction


def _blood(hu: np.ndarray, variance: np.ndarray, spacing_mm: Sequence[float]) -> Bool[np.ndarray, "k j i"] | None:
    """The bright regions that are mostly even."""
    # Implants and thick cortical bone are even too, but brighter than any blood.
    bright = (hu > _ENHANCED_HU) & (hu < _METAL_HU)
    least = max(8, round(_LEAST_MM3 / math.prod(spacing_mm)))
    even = bright & (hu < _BONE_HU) & (variance < (_SPREAD * hu + _SPREAD_HU) ** 2)
    if even.sum() < _EVEN * least:
        return None
    opened = ndimage.binary_opening(bright, iterations=max(1, round(_OPENING_MM / min(spacing_mm))))
    regions, count = ndimage.label(opened)
    sizes = np.bincount(regions.ravel(), minlength=count + 1)
    even_sizes = np.bincount(regions[even], minlength=count + 1)
    chosen = (sizes >= least) & (even_sizes > _EVEN * sizes)
    chosen[0] = False
    if not chosen.any():
        return None
    # What the opening took off: trabeculae, and the ends of vessels.
    return ndimage.binary_dilation(chosen[regions], iterations=2, mask=bright) | chosen[regions]
