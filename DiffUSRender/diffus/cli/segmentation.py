"""A segmentation beside a volume: its labels on the volume's grid, and in words what they are taken for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError
from ..medium.labels import as_labels, labels_on_grid
from ..medium.tissue import label_table, tissue_table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..io.volumes import Volume
    from ..medium import Tissue


def segmentation_on(
    segmentation: Volume, names: str | Mapping[int, str | Tissue], volume: Volume
) -> tuple[np.ndarray, str]:
    """The labels on the grid of a volume, (K, J, I), and which of them is taken for what, in words.

    Args:
        segmentation: labels on any grid.
        names: what they are: a public table's name, or {value: name or tissue}.
        volume: whose grid it is.

    Raises:
        InputError: a segmentation without labels, or one that lies elsewhere.
    """
    given = as_labels(segmentation.array)
    if not given.any():
        raise InputError("The segmentation is empty; give one with labels.")
    labels = labels_on_grid(given, segmentation.ijk_to_ras, volume.array.shape, volume.ijk_to_ras)
    if not labels.any():
        raise InputError("The segmentation lies outside of the volume; check that both are of one patient.")
    names = label_table(names) if isinstance(names, str) else names
    values, counts = np.unique(labels[labels != 0], return_counts=True)
    millilitres = abs(np.linalg.det(volume.ijk_to_ras[:3, :3])) / 1000
    parts = [
        f"{value} is {_called(names.get(value))}, {count * millilitres:.3g} ml"
        for value, count in zip(values.tolist(), counts)
    ]
    moved = "" if labels is given else " (resampled to the volume's grid)"
    return labels, "; ".join(parts) + moved


def _called(entry: str | Tissue | None) -> str:
    """The tissue of a label, with the label's own name where that is another."""
    tissue = tissue_table().find(entry) if isinstance(entry, str) else entry
    if tissue is None:
        return "no known tissue"
    return f"{tissue.name} ({entry})" if isinstance(entry, str) and entry.lower() != tissue.name else tissue.name
