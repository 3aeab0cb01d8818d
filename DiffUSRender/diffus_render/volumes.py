"""Volumes in their place in the world, through SimpleITK."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk

from .atomic import replacing
from .errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def place_in_ras(image: sitk.Image, ijk_to_ras: np.ndarray) -> sitk.Image:
    """Gives a 3-D image the geometry of (4, 4) voxel centres (i, j, k, 1) to RAS mm; returns the image."""
    lps = LPS @ np.asarray(ijk_to_ras, dtype=np.float64)
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    return image


def write_volume(path: str | Path, array: np.ndarray, ijk_to_ras: np.ndarray) -> None:
    """Writes voxels (K, J, I) with voxel centres (i, j, k, 1) to RAS mm, (4, 4), in the format of the ending."""
    image = place_in_ras(sitk.GetImageFromArray(array), ijk_to_ras)
    with replacing(path) as temporary:
        write_image(image, temporary)


def write_image(image: sitk.Image, path: Path) -> None:
    """Writes an image, compressed; raises InputError where that fails, as on a full disk."""
    try:
        sitk.WriteImage(image, str(path), useCompression=True)
    except RuntimeError as error:
        raise InputError(f"Nothing could be written to {path.parent}; is the disk full?") from error
