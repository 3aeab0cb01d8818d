"""What a segmentation says in place of an MRI: tumour, oedema, cavity, vessels, choroid plexus, falx and tentorium."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from .labels import as_labels, label_tissues

if TYPE_CHECKING:
    from jaxtyping import Bool, Float32, Integer

    from .labels import LabelTable
    from .memberships import Box
    from .tissue import Tissue

STEP_VOXELS = 0.7  # standard deviation of the Gaussian over the labels' steps
SHEET_TISSUE = "dura"  # thin in a segmentation or not, what shines is its medial surface
FLUID_DB = -20.0  # what scatters less is fluid, and has walls
# Standard deviation of the slow texture of a tissue, in dB, and its two scales in mm. Hand-set: gliomas are uneven in
# intra-operative frames by several dB over some mm.
TEXTURE_DB = {"tumour": 3.5, "necrosis": 3.0, "oedema": 1.5}
TEXTURE_MM = (0.9, 2.2)


@dataclass(frozen=True)
class Override:
    """A segmentation in a box of the MRI's grid.

    Args:
        tissues: one per fraction.
        fractions: (C, k, j, i), each tissue's.
        covered: (k, j, i), how much of a voxel is no longer the MRI's: the fractions, and gel where the table says so.
        fluid: (k, j, i), the sum of those that are fluid.
        thin: (k, j, i), the fraction that is dura, of which only the medial surface counts.
        echogenicity_db: (k, j, i), the texture of uneven tissues, or None.
    """

    tissues: tuple[Tissue, ...]
    fractions: Float32[np.ndarray, "c k j i"]
    covered: Float32[np.ndarray, "k j i"]
    fluid: Float32[np.ndarray, "k j i"]
    thin: Float32[np.ndarray, "k j i"]
    echogenicity_db: Float32[np.ndarray, "k j i"] | None


def override_of(
    labels: Integer[np.ndarray, "k j i"], table: LabelTable, box: Box, spacing_mm: Sequence[float], seed: int = 0
) -> Override:
    """What the labels of a segmentation, (K, J, I), say in a box of the grid; label 0 says nothing.

    Args:
        labels: on the grid of the MRI.
        table: as in `AcousticMedium.from_labels`.
        box: of the grid.
        spacing_mm: along k, j, i.
        seed: of the texture of uneven tissues; it belongs to the voxels.

    Raises:
        InputError: as `AcousticMedium.from_labels`.
    """
    array = as_labels(labels)
    found, numbers = label_tissues(array, table)
    index, said = numbers[box], array[box] != 0
    bulk = [n for n, tissue in enumerate(found) if tissue.name != SHEET_TISSUE]
    tissues = tuple(found[n] for n in bulk)
    fractions = np.zeros((len(bulk), *said.shape), np.float32)
    texture = None
    for fraction, number, tissue in zip(fractions, bulk, tissues):
        chosen = said & (index == number)
        fraction[:] = _softened(chosen)
        if tissue.name in TEXTURE_DB:
            texture = np.zeros(said.shape, np.float32) if texture is None else texture
            _add_texture(texture, fraction, TEXTURE_DB[tissue.name], spacing_mm, seed)
    fluid = sum((f for f, t in zip(fractions, tissues) if t.scattering_db < FLUID_DB), np.zeros(said.shape, np.float32))
    names = [tissue.name for tissue in found]
    thin = said & (index == names.index(SHEET_TISSUE)) if SHEET_TISSUE in names else np.zeros_like(said)
    return Override(tissues, fractions, _softened(said & ~thin), fluid, _softened(thin), texture)


def _softened(mask: Bool[np.ndarray, "k j i"]) -> Float32[np.ndarray, "k j i"]:
    """The mask with soft steps, worked out around it only."""
    result = np.zeros(mask.shape, np.float32)
    around = _around(mask, 3)
    if around is not None:
        result[around] = ndimage.gaussian_filter(mask[around].astype(np.float32), STEP_VOXELS, truncate=3)
    return result


def _add_texture(
    texture: np.ndarray, fraction: np.ndarray, spread_db: float, spacing_mm: Sequence[float], seed: int
) -> None:
    """Adds noise of two scales where a tissue is, seeded, so that it stays where it is in the tissue."""
    around = _around(fraction > 0, 0)
    rng = np.random.default_rng(seed)
    field = np.zeros(fraction[around].shape, np.float32)
    for sigma_mm in TEXTURE_MM:
        noise = rng.standard_normal(field.shape, dtype=np.float32)
        noise = ndimage.gaussian_filter(noise, [sigma_mm / mm for mm in spacing_mm], mode="wrap")
        field += noise / max(float(noise.std()), 1e-6)
    texture[around] += fraction[around] * field * (spread_db / np.sqrt(len(TEXTURE_MM)))


def _around(mask: Bool[np.ndarray, "k j i"], margin: int) -> Box | None:
    """The box of a mask with a margin in voxels; None for an empty mask."""
    found = ndimage.find_objects(mask.astype(np.uint8))
    if not found:
        return None
    return tuple(slice(max(s.start - margin, 0), min(s.stop + margin, n)) for s, n in zip(found[0], mask.shape))
