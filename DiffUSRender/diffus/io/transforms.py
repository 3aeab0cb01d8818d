"""Transforms as files, through SimpleITK.

A transform file holds the map *from* the parent in LPS, as 3D Slicer writes it. Everything here takes and gives RAS and
maps *to* the parent.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from ..errors import InputError, _
from .atomic import existing_file, no_space, replacing, require_space, require_writable
from .volumes import LPS

MIN_DETERMINANT = 1e-12  # of a map that does not flatten space
TRANSFORM_SUFFIXES = (".tfm", ".h5", ".txt", ".mat")
TEXT_SUFFIXES = (".tfm", ".txt")
MAX_BYTES = 1 << 16  # of a file with one linear transform; HDF5 takes 9 kB


def read_transform(path: str | os.PathLike) -> np.ndarray:
    """Reads the one linear transform of a file: a pose, a registration or an image calibration.

    Args:
        path: A .tfm, .h5, .txt or .mat file, as 3D Slicer or ITK writes it.

    Returns:
        The matrix to parent, (4, 4) float64, RAS, as 3D Slicer shows it after loading the file.

    Raises:
        InputError: Missing, not a transform, cut off, more than one, 2-D, not linear, or singular; names the file.
    """
    path = existing_file(path)
    if path.suffix.lower() in TEXT_SUFFIXES:
        _require_whole(path)
    try:
        transform = sitk.ReadTransform(str(path))
    except RuntimeError as error:
        raise InputError(
            _("{path} cannot be read as a transform; give a .tfm or .h5 file of 3D Slicer."), path=path
        ) from error
    if transform.GetDimension() != 3:
        raise InputError(
            _("{path} is a {dimension}-D transform; give a three-dimensional one."),
            path=path,
            dimension=transform.GetDimension(),
        )
    if not transform.IsLinear():
        raise InputError(_("{path} is not a linear transform; give one that is a single matrix."), path=path)
    from_parent = np.eye(4)
    from_parent[:3, 3] = transform.TransformPoint((0.0, 0.0, 0.0))
    for axis in range(3):
        from_parent[:3, axis] = np.subtract(transform.TransformPoint(np.eye(3)[axis].tolist()), from_parent[:3, 3])
    if not np.isfinite(from_parent).all() or abs(np.linalg.det(from_parent)) < MIN_DETERMINANT:
        raise InputError(
            _("{path} holds a singular transform (it flattens space); give one that can be inverted."), path=path
        )
    return LPS @ np.linalg.inv(from_parent) @ LPS


def _require_whole(path: Path) -> None:
    """Raises InputError for a text file that ITK would read in part: one cut off, or the first transform of several."""
    transforms = re.split(r"^Transform:", path.read_text(encoding="latin-1"), flags=re.MULTILINE)[1:]
    single = [text for text in transforms if not text.lstrip().startswith("CompositeTransform")]
    for text in single:
        if not all(re.search(f"^{key}:", text, re.MULTILINE) for key in ("Parameters", "FixedParameters")):
            raise InputError(_("{path} is cut off (its transform lacks parameters); save it again."), path=path)
    if len(single) > 1 and len(single) == len(transforms):
        raise InputError(_("{path} holds {count} transforms; give a file of one."), path=path, count=len(single))


def write_transform(path: str | os.PathLike, matrix_to_parent: np.ndarray) -> None:
    """Writes a linear transform so that 3D Slicer loads it with this matrix to parent.

    ITK does not say when the disk is full, so the file is read again before it takes its name.

    Args:
        path: Ends in one of TRANSFORM_SUFFIXES.
        matrix_to_parent: (4, 4), RAS, invertible.

    Raises:
        InputError: The matrix cannot be inverted, or the file cannot be written or does not hold it.
    """
    path = require_writable(path, TRANSFORM_SUFFIXES)
    matrix = np.asarray(matrix_to_parent, dtype=np.float64)
    if not np.isfinite(matrix).all() or abs(np.linalg.det(matrix)) < MIN_DETERMINANT:
        raise InputError(_("The transform for {path} cannot be inverted; nothing was written."), path=path)
    from_parent = LPS @ np.linalg.inv(matrix) @ LPS
    transform = sitk.AffineTransform(from_parent[:3, :3].ravel().tolist(), from_parent[:3, 3].tolist())
    with replacing(path) as temporary:
        require_space(temporary, MAX_BYTES)  # HDF5 ends the process on a full disk
        try:
            sitk.WriteTransform(transform, str(temporary))
            written = read_transform(temporary)
        except (RuntimeError, OSError, InputError) as error:
            raise no_space(path) from error
        if not np.allclose(written, matrix_to_parent, rtol=1e-6, atol=1e-6):
            raise no_space(path)
