"""Where a neurosurgeon would put the probe: on the brain, in an opening of the skull, looking at the middle.

In an MRI of the whole head the brain is found first, for the probe does not stand on the skin and sound does not pass
the skull. World RAS, mm.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy import ndimage

from ..errors import InputError
from ..medium.mri import fit_intensity_scale, normalise

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

    from ..probe import Probe

# From the middle of the brain to the opening, RAS of a head that looks along +y; of the right side.
DIRECTIONS = {"frontal": (0.45, 0.6, 0.66), "parietal": (0.45, -0.4, 0.8), "temporal": (0.93, 0.1, 0.35)}
CRANIOTOMIES = tuple(f"{side}-{name}" for name in DIRECTIONS for side in ("left", "right"))
TISSUE = 0.35  # normalised intensity above which is grey or white matter, scalp or marrow
OPENED_MM = 3.0  # bridges between brain and scalp that are narrower are cut
CLOSED_MM = 10.0  # sulci that are narrower belong to the brain
MARGIN_MM = 1.0  # of fluid about it
STEP_MM = 0.5


def brain_of(
    mri: Float[np.ndarray, "k j i"], ijk_to_ras: Float[np.ndarray, "4 4"], *, contrast: str = "t1"
) -> Bool[np.ndarray, "k j i"]:
    """The brain in an MRI of the head, whole or stripped, with its fluid, (K, J, I): by threshold and opening.

    Args:
        mri: (K, J, I).
        ijk_to_ras: (4, 4).
        contrast: "t1" or "t2".

    Raises:
        InputError: for an MRI without contrast, or one that shows no brain.
    """
    spacing = np.linalg.norm(np.asarray(ijk_to_ras)[:3, :3], axis=0)[::-1]
    volume = torch.from_numpy(np.asarray(mri, dtype=np.float32))
    scale = fit_intensity_scale(volume, contrast=contrast, spacing_mm=spacing.tolist())
    level = normalise(volume, scale).numpy()
    # The scale is that of deep brain: fat and marrow are brighter than white matter by far.
    solid = (level > TISSUE) & (level < 1.6)
    core = ndimage.distance_transform_edt(solid, sampling=spacing) > OPENED_MM
    regions, count = ndimage.label(core)
    if count == 0:
        raise InputError("The MRI shows no brain; give its mask with --mask.")
    largest = regions == 1 + np.argmax(ndimage.sum_labels(core, regions, np.arange(1, count + 1)))
    return _closed(_within(largest, spacing, OPENED_MM) & solid, spacing)


def _closed(brain: np.ndarray, spacing: np.ndarray) -> Bool[np.ndarray, "k j i"]:
    """With sulci, ventricles and a margin of fluid."""
    pad = int(np.ceil(CLOSED_MM / spacing.min())) + 1
    wide = _within(np.pad(brain, pad), spacing, CLOSED_MM)
    closed = ndimage.distance_transform_edt(wide, sampling=spacing) > CLOSED_MM - MARGIN_MM
    return ndimage.binary_fill_holes(closed)[pad:-pad, pad:-pad, pad:-pad]


def _within(mask: np.ndarray, spacing: np.ndarray, reach_mm: float) -> np.ndarray:
    return ndimage.distance_transform_edt(~mask, sampling=spacing) <= reach_mm


def craniotomy(
    brain: Bool[np.ndarray, "k j i"], ijk_to_ras: Float[np.ndarray, "4 4"], probe: Probe, window: str
) -> Float[torch.Tensor, "4 4"]:
    """A pose of the probe on the surface of the brain, looking at its middle across the body (coronal).

    Args:
        brain: (K, J, I).
        ijk_to_ras: (4, 4).
        probe: whose face is pressed on until its ends touch.
        window: of `CRANIOTOMIES`.

    Returns:
        probe_to_ras (4, 4), float64; the marked side is the patient's left, or up where the probe stands at a side.

    Raises:
        InputError: another window, or no brain.
    """
    if window not in CRANIOTOMIES:
        raise InputError(f"There is no window {window!r}; choose one of {', '.join(CRANIOTOMIES)}.")
    if not brain.any():
        raise InputError("The mask of the brain is empty; give another.")
    side, name = window.split("-")
    outward = np.array(DIRECTIONS[name])
    outward[0] *= -1.0 if side == "left" else 1.0
    outward /= np.linalg.norm(outward)
    matrix = np.asarray(ijk_to_ras, dtype=np.float64)
    middle = matrix[:3, :3] @ np.argwhere(brain).mean(0)[::-1] + matrix[:3, 3]
    steps = np.arange(0.0, 200.0, STEP_MM)
    points = middle + steps[:, None] * outward
    to_ijk = np.linalg.inv(matrix)
    index = np.rint(points @ to_ijk[:3, :3].T + to_ijk[:3, 3]).astype(int)
    valid = ((index >= 0) & (index < brain.shape[::-1])).all(1)
    i, j, k = np.where(valid[:, None], index, 0).T
    surface = points[np.flatnonzero(valid & brain[k, j, i])[-1]]
    ends = replace(probe, elevation_layers=1, rays_per_line=1).ray_geometry()[0][:, 1]
    press = float(ends.max() - ends.min())
    marked = np.array([0.0, 0.0, 1.0]) if name == "temporal" else np.array([-1.0, 0.0, 0.0])
    marked -= (marked @ outward) * outward
    marked /= np.linalg.norm(marked)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([marked, -outward, np.cross(marked, -outward)], 1)
    pose[:3, 3] = surface - press * outward
    return torch.from_numpy(pose)
