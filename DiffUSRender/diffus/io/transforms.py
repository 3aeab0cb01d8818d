"""Transforms as files, through SimpleITK.

A transform file holds the map *from* the parent in LPS, as 3D Slicer writes it. Everything here takes and gives RAS and
maps *to* the parent.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk

from ..errors import InputError
from .atomic import existing_file, replacing, require_writable
from .volumes import LPS

if TYPE_CHECKING:
    pass


TRANSFORM_SUFFIXES = (".tfm", ".h5", ".txt", ".mat")


def read_transform(path: str | os.PathLike) -> np.ndarray:
    """The matrix to parent, (4, 4) float64, RAS, as 3D Slicer shows it after loading the file (.tfm, .h5, .txt, .mat).

    Raises InputError, naming the file: missing, not a transform, 2-D, not linear, or singular.
    """
    path = existing_file(path)
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
