"""Volumes, slices and transforms as files, through SimpleITK.

Files follow ITK: geometry in LPS, and a transform file holds the map *from* the parent, as 3D Slicer
writes it. Everything here takes and gives RAS and maps *to* the parent. Nothing is written half (`atomic`).
"""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk

from .atomic import replacing, require_writable
from .errors import InputError
from .medium.tissue import TISSUE_COLUMNS, Tissue
from .volumes import LPS, write_volume

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

VOLUME_SUFFIXES = (".nrrd", ".nii.gz", ".nii", ".mha")
TRANSFORM_SUFFIXES = (".tfm", ".h5", ".txt", ".mat")
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
    path = _existing_file(path)
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
    path = _existing_file(path)
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


def read_transform(path: str | os.PathLike) -> np.ndarray:
    """The matrix to parent, (4, 4) float64, RAS, as 3D Slicer shows it after loading the file (.tfm, .h5, .txt, .mat).

    Raises InputError, naming the file: missing, not a transform, 2-D, not linear, or singular.
    """
    path = _existing_file(path)
    try:
        transform = sitk.ReadTransform(str(path))
    except RuntimeError as error:
        raise InputError(f"{path} cannot be read as a transform; give a .tfm or .h5 file of 3D Slicer.") from error
    if transform.GetDimension() != 3:
        raise InputError(f"{path} is a {transform.GetDimension()}-D transform; give a three-dimensional one.")
    if not transform.IsLinear():
        raise InputError(f"{path} is not a linear transform; a probe's pose is rigid, give a linear transform.")
    from_parent = np.eye(4)
    from_parent[:3, 3] = transform.TransformPoint((0.0, 0.0, 0.0))
    for axis in range(3):
        from_parent[:3, axis] = np.subtract(transform.TransformPoint(np.eye(3)[axis].tolist()), from_parent[:3, 3])
    if not np.isfinite(from_parent).all() or abs(np.linalg.det(from_parent)) < 1e-9:
        raise InputError(f"{path} holds a singular transform (it flattens space); give a rigid one.")
    return LPS @ np.linalg.inv(from_parent) @ LPS


def write_transform(path: str | os.PathLike, matrix_to_parent: np.ndarray) -> None:
    """Writes a linear transform, (4, 4), RAS, so that 3D Slicer loads it with this matrix to parent."""
    path = require_writable(path, TRANSFORM_SUFFIXES)
    from_parent = LPS @ np.linalg.inv(np.asarray(matrix_to_parent, dtype=np.float64)) @ LPS
    transform = sitk.AffineTransform(from_parent[:3, :3].ravel().tolist(), from_parent[:3, 3].tolist())
    with replacing(path) as temporary:
        sitk.WriteTransform(transform, str(temporary))


def require_not_input(written: Iterable[str | Path | None], read: Iterable[str | Path | None]) -> None:
    """Raises InputError if a file to be written is one that is read: its content would be lost."""
    sources = {Path(path).resolve() for path in read if path}
    for path in filter(None, written):
        if Path(path).resolve() in sources:
            raise InputError(f"{path} is read too and would be overwritten; choose another file to write.")


def read_label_names(path: str | os.PathLike) -> dict[int, str]:
    """{label value: name} from a table: JSON ({"1": "liver"} or {"liver": 1}), CSV (value, name), or a Slicer .ctbl.

    Raises InputError, naming the file: missing, another format, or nothing in it.
    """
    path = _existing_file(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix.lower() == ".json":
            rows = list(json.loads(text).items())
        elif path.suffix.lower() == ".ctbl":
            rows = [shlex.split(line)[:2] for line in text.splitlines() if line and not line.startswith("#")]
        else:
            rows = list(csv.reader(text.splitlines()))
    except (ValueError, AttributeError) as error:
        raise InputError(f"{path} is not a label table; give JSON, CSV (value, name) or a Slicer .ctbl.") from error
    names = dict(pair for pair in map(_label_and_name, rows) if pair)
    if not names:
        raise InputError(f"{path} names no label; every row needs a whole number and a name.")
    return names


def read_tissues(path: str | os.PathLike) -> dict[str, Tissue]:
    """{name: tissue} of a CSV with the columns of `TISSUE_COLUMNS`. Raises InputError, naming the file."""
    path = _existing_file(path)
    try:
        rows = list(csv.DictReader(path.read_text(encoding="utf-8-sig").splitlines()))
        texts = ("name", "source")
        tissues = [Tissue(**{c: row[c] if c in texts else float(row[c]) for c in TISSUE_COLUMNS}) for row in rows]
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} is not a tissue table; it needs the columns {', '.join(TISSUE_COLUMNS)}.") from error
    if not tissues:
        raise InputError(f"{path} is not a tissue table: it has no row below its heading.")
    numbers = [(t.impedance_mrayl, t.attenuation_db_cm_mhz, t.attenuation_exponent) for t in tissues]
    scattering = [t.scattering_db for t in tissues]
    physical = np.isfinite(numbers).all() and not np.isnan(scattering).any() and np.max(scattering, initial=0) < 100
    if not physical or min(z for z, _, _ in numbers) <= 0 or min(a for _, a, _ in numbers) < 0:
        raise InputError(f"{path} holds tissues that cannot be: impedances must be positive, attenuation 0 or more.")
    return {tissue.name: tissue for tissue in tissues}


def read_settings(path: str | os.PathLike) -> dict[str, object]:
    """The settings of a frame in a JSON file, by name, also of one that `fit` wrote. Raises InputError, naming it."""
    path = _existing_file(path)
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON: {error}.") from error
    if isinstance(settings, dict):
        settings = settings.get("settings", settings)
    if not isinstance(settings, dict):
        raise InputError(f"{path} must hold settings by name, as fit writes them.")
    return settings


def read_number_pairs(path: str | os.PathLike) -> list[tuple[float, float]]:
    """The rows of a CSV with two numbers each; a heading is skipped. Raises InputError, naming the file."""
    path = _existing_file(path)
    try:
        rows = [row for row in csv.reader(path.read_text(encoding="utf-8-sig").splitlines()) if row]
        if rows and not re.match(r"[-+.\d]", rows[0][0].strip()):
            rows = rows[1:]
        return [(float(first), float(second)) for first, second in rows]
    except ValueError as error:
        raise InputError(f"{path} must hold two numbers in every row, separated by a comma.") from error


def _label_and_name(row: Sequence) -> tuple[int, str] | None:
    """The first whole number of a row and the first text beside it; None for a heading."""
    cells = [str(cell).strip() for cell in row]
    numbers = [cell for cell in cells if cell.isdecimal()]
    texts = [cell for cell in cells if cell and not re.fullmatch(r"[\d.]+", cell)]
    return (int(numbers[0]), texts[0]) if numbers and texts else None


def _existing_file(path: str | os.PathLike) -> Path:
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path} is a folder; give one file.")
    if not path.is_file():
        raise InputError(f"There is no file {path}; check the name.")
    return path


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
