"""Segmentations: label volumes, and which tissue each label is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage
from torch import Tensor

from ..errors import InputError, _
from .tissue import GEL, Tissue, label_table, tissue_table

if TYPE_CHECKING:
    from jaxtyping import Float, Integer

LabelTable = str | Mapping[int, str | Tissue] | Sequence[tuple[int, str | Tissue]]


def label_tissues(
    labels: Integer[np.ndarray, "k j i"], table: LabelTable, *, rest: bool = False
) -> tuple[tuple[Tissue, ...], Integer[np.ndarray, "k j i"]]:
    """The tissues of a segmentation and the number of every voxel's; errors as in `AcousticMedium.from_labels`.

    Labels of one tissue are one. The number beyond the last is gel, and what is like gel.

    Args:
        labels: (K, J, I), as `as_labels` gives them.
        table: as for `from_labels`.
        rest: whether label 0 stands for another medium: its number is the one beyond gel's.
    """
    values, index = _distinct(labels)
    of_label = _tissues_of(values.tolist(), table)
    kept = [None if rest and value == 0 else tissue for value, tissue in zip(values, of_label)]
    tissues = [tissue for tissue in dict.fromkeys(kept) if tissue is not None and tissue.properties != GEL]
    numbers = [tissues.index(tissue) if tissue in tissues else len(tissues) for tissue in kept]
    if rest and values[0] == 0:
        numbers[0] = len(tissues) + 1
    return tuple(tissues), np.array(numbers, dtype=np.int32)[index]


def as_labels(labels: np.ndarray | Tensor) -> Integer[np.ndarray, "k j i"]:
    """A label volume, (K, J, I), as integers.

    Raises:
        InputError: unless it is 3-D, at least 2x2x2, and of whole numbers from 0 on.
    """
    array = labels.detach().cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
    if array.size == 0:
        raise InputError(_("The label volume is empty (shape {shape}); load one with voxels."), shape=array.shape)
    if array.ndim != 3 or min(array.shape) < 2:
        raise InputError(
            _("The labels must be a 3-D volume of one number per voxel, at least 2x2x2, not of shape {shape}."),
            shape=array.shape,
        )
    if array.dtype == bool:
        return array.astype(np.uint8)
    if not np.issubdtype(array.dtype, np.integer):
        with np.errstate(invalid="ignore"):
            whole = array.astype(np.int32)
        if not np.array_equal(whole, array):
            raise InputError(
                _("The labels must be whole numbers; choose a label volume or a segmentation, not an image.")
            )
        array = whole
    if array.min() < 0:
        raise InputError(_("The label volume holds the negative label {min}; labels start at 0."), min=array.min())
    return array


def labels_on_grid(
    labels: Integer[np.ndarray, "k j i"],
    ijk_to_ras: Float[np.ndarray, "4 4"],
    shape: tuple[int, int, int],
    onto: Float[np.ndarray, "4 4"],
) -> Integer[np.ndarray, "k2 j2 i2"]:
    """A label volume on another grid, by the nearest voxel; 0 beyond its own.

    Args:
        labels: (K, J, I), as `as_labels` gives them.
        ijk_to_ras: (4, 4), its voxel centres to RAS mm.
        shape: (K, J, I) of the other grid.
        onto: (4, 4), that grid's voxel centres to RAS mm.
    """
    if labels.shape == tuple(shape) and np.allclose(ijk_to_ras, onto, atol=1e-3):
        return labels
    between = np.linalg.inv(ijk_to_ras) @ onto
    by_row = between[:3, :3][::-1, ::-1]
    return ndimage.affine_transform(labels, by_row, between[:3, 3][::-1], shape, order=0, mode="grid-constant", cval=0)


def _distinct(labels: Integer[np.ndarray, "k j i"]) -> tuple[np.ndarray, np.ndarray]:
    """The labels that occur, ascending, and the number of every voxel's label among them (int32)."""
    if labels.max() >= 1 << 20:
        values, index = np.unique(labels, return_inverse=True)
        return values, index.reshape(labels.shape).astype(np.int32)
    occurs = np.zeros(int(labels.max()) + 1, dtype=bool)
    occurs[labels] = True
    return np.flatnonzero(occurs), (np.cumsum(occurs, dtype=np.int32) - 1)[labels]


def _tissues_of(values: list[int], table: LabelTable) -> list[Tissue | None]:
    """The tissue of each label; None for a label 0 that the table does not name."""
    entries = dict(label_table(table) if isinstance(table, str) else table)
    tissues, found, missing = tissue_table(), [], []
    for value in values:
        entry = entries.get(value)
        tissue = entry if isinstance(entry, Tissue) or entry is None else tissues.find(entry)
        found.append(tissue)
        if tissue is None and (value != 0 or entry is not None):
            missing.append(str(value) if entry is None else f'{value} ("{entry}")')
    if missing:
        named = ", ".join(missing[:8]) + (f" and {len(missing) - 8} more" if len(missing) > 8 else "")
        raise InputError(
            _("No tissue is known for label {named}; add it to the label table with one of the tissue names."),
            named=named,
        )
    return found
