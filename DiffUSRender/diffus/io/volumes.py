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

from ..errors import InputError, _
from .atomic import existing_file, no_space, replacing, require_writable
from .headers import require_voxel_size, require_whole

if TYPE_CHECKING:
    from collections.abc import Mapping

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

    Raises:
        InputError: Missing, a folder, not an image, not 3-D, more than one value per voxel, a single slice, NaN or
            infinite voxels, one value everywhere, cut off, or a size of voxels that cannot be; names the file.
    """
    path = existing_file(path)
    require_whole(path)
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        raise InputError(
            _("{path} cannot be read as an image; give a NIfTI, NRRD or MetaImage volume."), path=path
        ) from error
    size = image.GetSize()
    if image.GetDimension() != 3 or min(size) < 2:
        shape = " x ".join(map(str, size))
        raise InputError(
            _("{path} is not a 3-D volume (it has {shape} pixels); give one with several slices."),
            path=path,
            shape=shape,
        )
    require_voxel_size(path, image.GetSpacing())
    components = image.GetNumberOfComponentsPerPixel()
    if components != 1 or "complex" in image.GetPixelIDTypeAsString():
        raise InputError(
            _("{path} holds {components} values per voxel (colour or vector); give a scalar volume."),
            path=path,
            components=components,
        )
    array = sitk.GetArrayFromImage(image)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise InputError(_("{path} holds NaN or infinite voxels; replace them first (CT: -1000, MRI: 0)."), path=path)
    if array.min() == array.max():
        raise InputError(
            _("{path} holds the same value ({flat:g}) in every voxel; give one with content."),
            path=path,
            flat=array.flat[0],
        )
    return Volume(array, _ijk_to_ras(image), _segment_names(image))


def write_slice(
    path: str | os.PathLike, image: np.ndarray, pixel_to_ras: np.ndarray, keys: Mapping[str, str] | None = None
) -> None:
    """Writes one slice as a volume of shape (1, rows, columns) where it lies in the world.

    Args:
        path: Ends in one of VOLUME_SUFFIXES.
        image: (rows, columns), 0 to 255.
        pixel_to_ras: (4, 4), pixel centres (column, row, 0, 1) to RAS mm; its third column is the slice's thickness.
        keys: Of the header, as `write_volume` takes them.

    Raises:
        InputError: The file cannot be written.
    """
    path = require_writable(path, VOLUME_SUFFIXES)
    write_volume(path, np.asarray(image, dtype=np.uint8)[None], pixel_to_ras, keys)


def read_picture(path: str | os.PathLike) -> tuple[np.ndarray, float | None]:
    """Reads a grey picture or a series of frames.

    Args:
        path: A picture (PNG, JPEG, ...), an image with geometry (NRRD, MetaImage, DICOM), or a sequence of frames.

    Returns:
        Grey values (rows, columns) or (frames, rows, columns), float32, and mm per pixel, None where the file does not
        say.

    Raises:
        InputError: Missing, not an image, or pixels that are not square; names the file.
    """
    path = existing_file(path)
    require_whole(path)
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        raise InputError(
            _("{path} cannot be read as an image; give PNG, JPEG, NRRD, MetaImage or DICOM."), path=path
        ) from error
    frame_count = sum(bool(re.fullmatch(r"Seq_Frame\d+_ImageStatus", key)) for key in image.GetMetaDataKeys())
    pixels = frames_of_image(image, frame_count).astype(np.float32)
    if pixels.ndim != 3:
        raise InputError(
            _("{path} is not a picture or a series of pictures (its shape is {shape})."), path=path, shape=pixels.shape
        )
    pixels = pixels[0] if len(pixels) == 1 else pixels
    across, down = image.GetSpacing()[:2]
    if path.suffix.lower() in PICTURE_SUFFIXES or across == down == 1.0:  # what formats say that know no size
        return pixels, None
    if abs(across - down) > 0.01 * down:
        raise InputError(
            _("{path} has pixels of {across:g} x {down:g} mm; resample it to square pixels."),
            path=path,
            across=across,
            down=down,
        )
    return pixels, float(down)


def frames_of_image(image: sitk.Image, frame_count: int = 0) -> np.ndarray:
    """The pixels of an image file as grey frames.

    Args:
        image: A picture, a stack of frames, or a NRRD list, whose frames arrive as the components of a pixel.
        frame_count: How many frames the header tells of; 0 if it does not. It tells three frames from a colour.

    Returns:
        (frames, rows, columns) in the image's own type, colour as the mean of red, green and blue; more dimensions
        where the image is no series of 2-D frames.
    """
    pixels = sitk.GetArrayFromImage(image)
    components = image.GetNumberOfComponentsPerPixel()
    flat = pixels.ndim - (components > 1) == 2 or 1 in pixels.shape[:-1]
    if components > 1 and flat and (components == frame_count or components not in (3, 4)):
        pixels = np.moveaxis(pixels, -1, 0)
    elif components > 1:
        mean = pixels[..., :3].mean(-1, dtype=np.float32)
        pixels = (mean.round() if pixels.dtype.kind in "iu" else mean).astype(pixels.dtype)
    while pixels.ndim > 3 and 1 in pixels.shape[1:]:
        pixels = np.squeeze(pixels, axis=1 + pixels.shape[1:].index(1))
    return pixels[None] if pixels.ndim == 2 else pixels


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
    """Gives a 3-D image its geometry, ijk_to_ras (4, 4), voxel centres (i, j, k, 1) to RAS mm; returns the image."""
    lps = LPS @ np.asarray(ijk_to_ras, dtype=np.float64)
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    return image


def write_volume(
    path: str | Path, array: np.ndarray, ijk_to_ras: np.ndarray, keys: Mapping[str, str] | None = None
) -> None:
    """Writes a volume in the format of the ending.

    Args:
        path: Of the file.
        array: Voxels (K, J, I).
        ijk_to_ras: (4, 4), voxel centres (i, j, k, 1) to RAS mm.
        keys: Of the header; NIfTI has room for 79 characters of the first.

    Raises:
        DiskError: The file cannot be written, as on a full disk.
    """
    image = place_in_ras(sitk.GetImageFromArray(array), ijk_to_ras)
    for key, text in (keys or {}).items():
        image.SetMetaData(key, text)
    if keys and str(path).lower().endswith((".nii", ".nii.gz")):
        image.SetMetaData("ITK_FileNotes", next(iter(keys.values()))[:79])
    with replacing(path) as temporary:
        write_image(image, temporary)


def write_image(image: sitk.Image, path: Path) -> None:
    """Writes an image, compressed, and reads it again: not every format of ITK says when the disk is full.

    Raises:
        DiskError: the file does not hold the image.
    """
    try:
        sitk.WriteImage(image, str(path), useCompression=True)
        again = sitk.ReadImage(str(path))
    except RuntimeError as error:
        raise no_space(path) from error
    written, wanted = sitk.GetArrayViewFromImage(again), sitk.GetArrayViewFromImage(image)
    if not np.array_equal(written, wanted, equal_nan=wanted.dtype.kind == "f"):
        raise no_space(path)
