"""The brain's sheets from an MRI alone: sulci and fissures, falx and tentorium, and the walls of wide fluid."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .sheets import Patches, border, decibels, joined, ridge

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Bool, Float32

# Amplitudes of the echoes at normal incidence in dB relative to white-matter speckle: hand-set, as bright as these
# structures are in intra-operative frames (RESECT). Pia and vessels of a sulcus; dura of falx and tentorium; ependyma.
PIA_DB, DURA_DB, WALL_DB = 16.0, 22.0, 14.0
# Dura is a large plane, sulci are bent: so much of a disc around a patch must be sheet for its level to rise.
DISC_MM = (4.0, 8.0)
FLATNESS = (0.55, 0.9)
_ANGLES = 6


def brain_sheets(
    fluid: Float32[np.ndarray, "k j i"],
    narrow: Float32[np.ndarray, "k j i"],
    inside: Bool[np.ndarray, "k j i"],
    spacing_mm: Sequence[float],
) -> Patches:
    """The patches of the brain's sheets.

    Args:
        fluid: (K, J, I), the fraction of all fluid.
        narrow: (K, J, I), the part of it that lies in narrow gaps.
        inside: (K, J, I), the brain or head; nothing lies beyond.
        spacing_mm: along k, j, i.
    """
    medial = ridge(narrow, spacing_mm, decibels(PIA_DB), within=inside)
    flat = flatness(medial, inside.shape, spacing_mm)
    low, high = FLATNESS
    rise = np.clip((flat - low) / (high - low), 0, 1)
    medial.levels[:] = 10 ** ((PIA_DB + (DURA_DB - PIA_DB) * rise) / 20)
    # Wide fluid, with the narrow horns and clefts that go on from it, so that no wall is drawn across them.
    walls = border(fluid, spacing_mm, decibels(WALL_DB), within=_near(fluid - narrow > 0.5, spacing_mm) & inside)
    return joined(medial, walls)


def flatness(patches: Patches, shape: Sequence[int], spacing_mm: Sequence[float]) -> Float32[np.ndarray, " n"]:
    """How much of a disc around every patch, in its own plane, is sheet too: 0 to 1."""
    spacing = np.asarray(spacing_mm, np.float32)
    sheet = np.zeros([n + 2 for n in shape], bool)
    sheet[tuple(patches.voxels.T + 1)] = True
    # A plane between two voxels must find either.
    thick = sheet.copy()
    for axis in range(3):
        for shift in (-1, 1):
            thick |= np.roll(sheet, shift, axis)
    least = np.abs(patches.normals).argmin(1)
    first = np.cross(patches.normals, np.eye(3, dtype=np.float32)[least])
    first /= np.linalg.norm(first, axis=1)[:, None]
    second = np.cross(patches.normals, first)
    found = np.zeros(len(patches), np.float32)
    for radius in DISC_MM:
        for angle in np.arange(_ANGLES) * (2 * np.pi / _ANGLES):
            along = np.float32(radius * np.cos(angle)), np.float32(radius * np.sin(angle))
            at = np.rint((patches.centres + along[0] * first + along[1] * second) / spacing).astype(np.int32) + 1
            found += thick[tuple(at.clip(0, np.array(thick.shape) - 1).T)]
    return found / (len(DISC_MM) * _ANGLES)


def _near(mask: Bool[np.ndarray, "k j i"], spacing_mm: Sequence[float]) -> Bool[np.ndarray, "k j i"]:
    """Voxels within a voxel or about 1.5 mm of a mask, by shifts."""
    for axis, mm in enumerate(spacing_mm):
        for _shift in range(max(1, round(1.5 / mm))):
            grown = mask.copy()
            ahead, behind = (slice(None),) * axis + (slice(1, None),), (slice(None),) * axis + (slice(None, -1),)
            grown[ahead] |= mask[behind]
            grown[behind] |= mask[ahead]
            mask = grown
    return mask
