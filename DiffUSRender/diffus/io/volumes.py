"""Volumes, slices and pictures as files, through SimpleITK.

Files follow ITK: geometry in LPS. Everything here takes and gives RAS. Nothing is written half (`atomic`).
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk

from ..errors import InputError
from .atomic import existing_file, replacing, require_writable

if TYPE_CHECKING:
    pass


LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
VOLUME_SUFFIXES = (".nrrd", ".nii.gz", ".nii", ".mha")


PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".gif")


@dataclass(frozen=True)
class Volume:
    """A scalar volume.

    array: (K, J, I) voxels in the file's own type; ijk_to_ras: (4, 4) float64, voxel centres (i, j, k, 1) to
    RAS mm; labels: {value: name} where the file is a Slicer segmentation (.seg.nrrd), else empty.
    """

    array: np.ndarray
    ijk_to_ras: np.ndarray
    labels: dict[int, str] = field(default_factory=dict)


def read_volume(path: str | os.PathLike) -> Volume:
    """Reads a scalar volume of any format that SimpleITK knows.

    Raises InputError, naming the file: missing, a folder, not an image, not 3-D, more than one value per voxel,
    a single slice, NaN or infinite voxels, or one value everywhere.
    """
    path = existing_file(path)
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        raise InputError(f"{path} cannot be read as an image; give a NIfTI, NRRD or MetaImage volume.") from error
    size = image.GetSize()
    if image.GetDimension() != 3 or min(size) < 2:
        shape = " x ".join(map(str, size))
        raise InputError(f"{path} is not a 3-D volume (it has {shape} pixels); give one with several slices.")
    components = image.GetNumberOfComponentsPerPixel()
    if components != 1 or "complex" in image.GetPixelIDTypeAsString():
        raise InputError(f"{path} holds {components} values per voxel (colour or vector); give a scalar volume.")
    array = sitk.GetArrayFromImage(image)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise InputError(f"{path} holds NaN or infinite voxels; replace them first (CT: -1000, MRI: 0).")
    if array.min() == array.max():
        raise InputError(f"{path} holds the same value ({array.flat[0]:g}) in every voxel; give one with content.")
    return Volume(array, _ijk_to_ras(image), _segment_names(image))


def write_slice(path: str | os.PathLike, image: np.ndarray, pixel_to_ras: np.ndarray) -> None:
    """Writes one slice, uint8 (rows, columns), as a volume of shape (1, rows, columns) in its place in the world.

    pixel_to_ras: (4, 4), pixel centres (column, row, 0, 1) to RAS mm; its third column is the slice's thickness.
    """
    path = require_writable(path, VOLUME_SUFFIXES)
    write_volume(path, np.asarray(image, dtype=np.uint8)[None], pixel_to_ras)


def read_picture(path: str | os.PathLike) -> tuple[np.ndarray, float | None]:
    """A grey picture (H, W), or frames (N, H, W), float32, and its mm per pixel, None where the file does not say.

    Takes pictures (PNG, JPEG, ...), images with geometry (NRRD, MetaImage, DICOM) and sequences of frames; colour
    becomes grey. Raises InputError, naming the file: missing, not an image, or pixels that are not square.
    """
    path = existing_file(path)
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        raise InputError(f"{path} cannot be read as an image; give PNG, JPEG, NRRD, MetaImage or DICOM.") from error
    pixels = sitk.GetArrayFromImage(image).astype(np.float32)
    components = image.GetNumberOfComponentsPerPixel()
    if components in (3, 4):
        pixels = pixels[..., :3].mean(-1)
    elif components > 1:  # the frames of a .seq.nrrd
        pixels = np.moveaxis(pixels, -1, 0)
    pixels = np.squeeze(pixels)
    if pixels.ndim not in (2, 3):
        raise InputError(f"{path} is not a picture or a series of pictures (its shape is {pixels.shape}).")
    across, down = image.GetSpacing()[:2]
    if path.suffix.lower() in PICTURE_SUFFIXES or across == down == 1.0:  # what formats say that know no size
        return pixels, None
    if abs(across - down) > 0.01 * down:
        raise InputError(f"{path} has pixels of {across:g} x {down:g} mm; resample it to square pixels.")
    return pixels, float(down)


def _ijk_to_ras(image: sitk.Image) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    matrix[:3, 3] = image.GetOrigin()
    return LPS @ matrix


def _segment_names(image: sitk.Image) -> dict[int, str]:
    names = {}
    for key in image.GetMetaDataKeys():
        match = re.fullmatch(r"(Segment\d+)_LabelValue", key)
        if match and image.HasMetaDataKey(f"{match[1]}_Name"):
            names[int(image.GetMetaData(key))] = image.GetMetaData(f"{match[1]}_Name")
    return names


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
