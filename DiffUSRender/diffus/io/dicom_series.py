"""A DICOM series as a volume: a file for each slice, or one multi-frame file.

DICOM PS3.3 C.7.6.2 (image plane), C.7.6.16 (functional groups), C.8.24.6 (planes of an ultrasound volume).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk

from ..errors import InputError, _
from .volumes import LPS, Volume

if TYPE_CHECKING:
    import os

    from jaxtyping import Float
    from pydicom import Dataset

DICOM_SUFFIX = ".dcm"
EVEN = 0.05  # of the distance between slices, by which they may lie off
# (sequence, attribute) of a frame's position and directions: of the patient, or of an ultrasound volume.
POSITIONS = (("PlanePositionSequence", "ImagePositionPatient"), ("PlanePositionVolumeSequence", "ImagePositionVolume"))
ORIENTATIONS = (
    ("PlaneOrientationSequence", "ImageOrientationPatient"),
    ("PlaneOrientationVolumeSequence", "ImageOrientationVolume"),
)


@dataclass(frozen=True)
class Planes:
    """Where the slices of a series lie, LPS mm.

    Args:
        positions: (n, 3), centre of each slice's first pixel.
        directions: (2, 3), unit vectors along its rows and down its columns.
        spacing_mm: (2,), between columns and between rows.
    """

    positions: Float[np.ndarray, "n 3"]
    directions: Float[np.ndarray, "2 3"]
    spacing_mm: Float[np.ndarray, "2"]


def dicom_files(folder: str | os.PathLike) -> list[Path]:
    """The DICOM files of a folder by name."""
    return sorted(path for path in Path(folder).iterdir() if path.suffix.lower() == DICOM_SUFFIX)


def read_dicom_header(path: str | os.PathLike) -> Dataset:
    """What a DICOM file says but for its pixels. Raises InputError if it is none."""
    from pydicom import dcmread
    from pydicom.errors import InvalidDicomError

    try:
        return dcmread(path, stop_before_pixels=True)
    except (OSError, InvalidDicomError) as error:
        raise InputError(_("{path} cannot be read as DICOM; check the file."), path=path) from error


def read_dicom_series(folder: str | os.PathLike) -> Volume:
    """Reads the one series in a folder.

    Args:
        folder: holds the files of one series (.dcm), which may be one with all frames.

    Raises:
        InputError: no DICOM, more than one series, or slices that are no volume; names the folder.
    """
    files = dicom_files(folder) if Path(folder).is_dir() else []
    if not files:
        raise InputError(_("{path} holds no DICOM files (.dcm); give the folder of one series."), path=folder)
    headers = [read_dicom_header(path) for path in files]
    if len({header.get("SeriesInstanceUID") for header in headers}) > 1:
        raise InputError(_("{path} holds more than one DICOM series; give the folder of one."), path=folder)
    try:
        planes = _frames(headers[0]) if len(headers) == 1 else _slices(headers)
        voxels = np.concatenate([_pixels(path) for path in files])
        if voxels.ndim != 3 or len(voxels) != len(planes.positions) or len(voxels) < 2:
            raise ValueError("frames without a position")
        order, step = _even(planes)
    except (AttributeError, KeyError, IndexError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            _("{path} is no volume: its slices must be grey, of one size and direction, and at even distances."),
            path=folder,
        ) from error
    ijk_to_lps = np.eye(4)
    ijk_to_lps[:3, :2] = (planes.directions * planes.spacing_mm[:, None]).T
    ijk_to_lps[:3, 2], ijk_to_lps[:3, 3] = step, planes.positions[order[0]]
    return Volume(voxels[order], LPS @ ijk_to_lps)


def _slices(headers: list[Dataset]) -> Planes:
    """A file for each slice."""
    orientations = np.array([header.ImageOrientationPatient for header in headers], dtype=np.float64)
    if np.abs(orientations - orientations[0]).max() > 1e-3:
        raise ValueError("slices in different directions")
    positions = np.array([header.ImagePositionPatient for header in headers], dtype=np.float64)
    return Planes(positions, orientations[0].reshape(2, 3), _spacing(headers[0].PixelSpacing))


def _frames(header: Dataset) -> Planes:
    """One file with all frames."""
    shared = header.SharedFunctionalGroupsSequence[0]
    groups = header.PerFrameFunctionalGroupsSequence
    positions = np.array([_of_group((group, shared), POSITIONS) for group in groups], dtype=np.float64)
    orientation = np.array(_of_group((groups[0], shared), ORIENTATIONS), dtype=np.float64)
    measures = _of_group((groups[0], shared), (("PixelMeasuresSequence", "PixelSpacing"),))
    return Planes(positions, orientation.reshape(2, 3), _spacing(measures))


def _of_group(groups: tuple[Dataset, ...], names: tuple[tuple[str, str], ...]) -> object:
    """The first of these attributes that a frame, or all frames together, have; KeyError without any."""
    for group in groups:
        for sequence, attribute in names:
            if sequence in group and attribute in group[sequence][0]:
                return group[sequence][0][attribute].value
    raise KeyError(names[0][1])


def _spacing(between_rows_and_columns: object) -> np.ndarray:
    return np.array(between_rows_and_columns, dtype=np.float64)[::-1]


def _pixels(path: Path) -> np.ndarray:
    """(frames, rows, columns), rescaled as the file says."""
    array = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    return array[None] if array.ndim == 2 else array


def _even(planes: Planes) -> tuple[np.ndarray, np.ndarray]:
    """The order of the slices along their normal, and the step (3,) from one to the next, mm; else ValueError."""
    normal = np.cross(*planes.directions)
    order = np.argsort(planes.positions @ normal, kind="stable")
    first, last = planes.positions[order[[0, -1]]]
    step = (last - first) / (len(order) - 1)
    expected = first + np.arange(len(order))[:, None] * step
    size = np.linalg.norm(step)
    if not size > 0 or np.linalg.norm(planes.positions[order] - expected, axis=1).max() > EVEN * size:
        raise ValueError("slices at uneven distances")
    return order, step
