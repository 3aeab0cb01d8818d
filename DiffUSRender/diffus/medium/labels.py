"""Segmentations to acoustic properties, label by label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from ..errors import InputError
from .tissue import GEL, Tissue, label_table, tissue_table

if TYPE_CHECKING:
    from jaxtyping import Float, Integer

LabelTable = str | Mapping[int, str | Tissue] | Sequence[tuple[int, str | Tissue]]


def label_maps(
    labels: np.ndarray | Tensor, table: LabelTable, *, antialias: bool = True, under: Tensor | None = None
) -> Float[Tensor, "4 k j i"]:
    """The four maps of a label volume, (4, K, J, I), float32; under: the maps at label 0. See `AcousticMedium`."""
    array = as_labels(labels)
    values, index = _distinct(array)
    rows = torch.tensor(_properties(values.tolist(), table), dtype=torch.float32)
    # Voxel by voxel, channels side by side: the layout in which the medium keeps its maps.
    maps = rows.index_select(0, torch.from_numpy(index.ravel())).view(*index.shape, len(GEL))
    if under is not None:
        free = torch.from_numpy(array == 0)
        maps = torch.where(free[..., None], under.detach().to(maps).permute(1, 2, 3, 0), maps)
    if antialias:
        for channel in maps.numpy().transpose(3, 0, 1, 2):
            channel[:] = ndimage.gaussian_filter(channel, 0.7, mode="nearest", truncate=3)
    return maps.permute(3, 0, 1, 2)


def as_labels(labels: np.ndarray | Tensor) -> Integer[np.ndarray, "k j i"]:
    """A label volume, (K, J, I), as integers. Raises InputError unless it is 3-D and of whole numbers from 0 on."""
    array = labels.detach().cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
    if array.size == 0:
        raise InputError(f"The label volume is empty (shape {array.shape}); load one with voxels.")
    if array.ndim != 3 or min(array.shape) < 2:
        raise InputError(
            f"The labels must be a 3-D volume of one number per voxel, at least 2x2x2, not of shape {array.shape}."
        )
    if array.dtype == bool:
        return array.astype(np.uint8)
    if not np.issubdtype(array.dtype, np.integer):
        with np.errstate(invalid="ignore"):
            whole = array.astype(np.int32)
        if not np.array_equal(whole, array):
            raise InputError("The labels must be whole numbers; choose a label volume or a segmentation, not an image.")
        array = whole
    if array.min() < 0:
        raise InputError(f"The label volume holds the negative label {array.min()}; labels start at 0.")
    return array


def _distinct(labels: Integer[np.ndarray, "k j i"]) -> tuple[np.ndarray, np.ndarray]:
    """The labels that occur, ascending, and the place of every voxel's label among them (int32)."""
    if labels.max() >= 1 << 20:
        values, index = np.unique(labels, return_inverse=True)
        return values, index.reshape(labels.shape).astype(np.int32)
    occurs = np.zeros(int(labels.max()) + 1, dtype=bool)
    occurs[labels] = True
    return np.flatnonzero(occurs), (np.cumsum(occurs, dtype=np.int32) - 1)[labels]


def _properties(values: list[int], table: LabelTable) -> list[tuple[float, float, float, float]]:
    """The channels' values of each label."""
    entries = dict(label_table(table) if isinstance(table, str) else table)
    tissues, rows, missing = tissue_table(), [], []
    for value in values:
        entry = entries.get(value)
        tissue = entry if isinstance(entry, Tissue) or entry is None else tissues.find(entry)
        if tissue is not None:
            rows.append(tissue.properties)
        elif value == 0 and entry is None:
            rows.append(GEL)
        else:
            missing.append(str(value) if entry is None else f'{value} ("{entry}")')
    if missing:
        named = ", ".join(missing[:8]) + (f" and {len(missing) - 8} more" if len(missing) > 8 else "")
        raise InputError(
            f"No tissue is known for label {named}; add it to the label table with one of the tissue names."
        )
    return rows
