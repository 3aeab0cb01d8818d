"""One patient of a data set: intraoperative 3-D ultrasound and the preoperative MRI, all in one world."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ...io.dicom_series import read_dicom_series
from ...io.volumes import read_volume
from ...medium.labels import labels_on_grid

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from ...io.volumes import Volume

# When the ultrasound was acquired, in the order of preference: nearer to the preoperative MRI first. The first two are
# before the resection, "preimri" after it and before the intraoperative MRI (ReMIND).
STAGES = ("predura", "postdura", "preimri", "intraoperative")
# Of the MRI, in the order of preference: {modality: its contrast for `from_mri`, None where that knows none}.
MODALITIES = {"ceT1": "t1", "T1": "t1", "T2": "t2", "FLAIR": None}
SIMULATED = tuple(name for name, contrast in MODALITIES.items() if contrast)
# What ReMIND segments and where the MRI is wrong about it: {structure: tissue}; the later lie over the former.
STRUCTURES = {"ventricles": "csf", "previous_resection_cavity": "fluid", "tumor": "tumour"}


@dataclass(frozen=True)
class Case:
    """One patient.

    Args:
        name: as in the data set.
        ultrasound: {stage: file, or folder of a DICOM series}, of `STAGES`.
        mri: {modality: file, or folder of a DICOM series}, of `MODALITIES`.
        segmentations: {structure: file} in the preoperative MRI, such as tumor.
        keypoints: {"ultrasound" or a modality: file}, where the data set gives corresponding points.
    """

    name: str
    ultrasound: Mapping[str, Path]
    mri: Mapping[str, Path]
    segmentations: Mapping[str, Path] = field(default_factory=dict)
    keypoints: Mapping[str, Path] = field(default_factory=dict)

    @property
    def usable(self) -> bool:
        """Whether there is ultrasound, and an MRI that ultrasound can be simulated from."""
        return bool(self.ultrasound) and any(name in self.mri for name in SIMULATED)

    def choose(self, modality: str | None) -> str | None:
        """`modality` if the case has it, without one the first of `SIMULATED` that it has; None where there is none."""
        return _first(self.mri, SIMULATED, modality)

    def choose_stage(self, stage: str | None) -> str | None:
        """As `choose`, for the stage of the ultrasound and `STAGES`."""
        return _first(self.ultrasound, STAGES, stage)

    def segmented(self, mri: Volume) -> tuple[np.ndarray, dict[int, str]] | None:
        """The `STRUCTURES` on the grid of an MRI of the case and their tissues, as `from_mri` takes them; or None."""
        labels, table = np.zeros(mri.array.shape, np.uint8), {}
        for number, (structure, tissue) in enumerate(STRUCTURES.items(), 1):
            if structure in self.segmentations:
                found = read_volume(self.segmentations[structure])
                mask = labels_on_grid(found.array, found.ijk_to_ras, mri.array.shape, mri.ijk_to_ras) > 0
                labels[mask], table[number] = number, tissue
        return (labels, table) if labels.any() else None


def _first(found: Mapping[str, Path], order: tuple[str, ...], wanted: str | None) -> str | None:
    names = order if wanted is None else (wanted,)
    return next((name for name in names if name in found), None)


def read_scan(path: Path) -> Volume:
    """The volume of a case: a file, or the folder of a DICOM series. Raises InputError."""
    return read_dicom_series(path) if path.is_dir() else read_volume(path)


def modality_of(description: str) -> str | None:
    """The modality of an MRI by its description, such as 3D_AX_T1_postcontrast; None where it says nothing."""
    words = re.sub(r"[^a-z0-9]+", " ", description.lower())
    if "flair" in words:
        return "FLAIR"
    if re.search(r"\bt1ce\b|\bcet1\b|\bt1c\b|\bt1gd\b|post ?contrast|gadolinium|enhanced", words):
        return "ceT1"
    return next((name for name in ("T1", "T2") if re.search(rf"(?<![a-z0-9]){name.lower()}", words)), None)
