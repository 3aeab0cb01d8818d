"""Folders in the form of ReMIND2Reg (Learn2Reg): intraoperative ultrasound with the preoperative MRI of each patient.

Juvekar et al. 2024, "ReMIND: The Brain Resection Multimodal Imaging Database". Every volume is 256^3 voxels of 0.5 mm,
`<name>_<case>_<modality>.nii.gz`, and all of a case share one world: the ultrasound is already placed by the tracker.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError

ULTRASOUND = "0000"
MODALITIES = {"ceT1": "0001", "T2": "0002"}  # of the MRI, in the order of preference
_NAME = re.compile(r"^(?P<case>.+)_(?P<modality>000[012])\.nii(\.gz)?$")


@dataclass(frozen=True)
class Case:
    """One patient.

    Args:
        name: as in the files.
        ultrasound: its file.
        mri: {modality: file}, one or two of `MODALITIES`.
    """

    name: str
    ultrasound: Path
    mri: dict[str, Path]

    def choose(self, modality: str | None) -> str | None:
        """`modality` if the case has it, or without one the first that it has; None where there is none."""
        if modality is None:
            return next(name for name in MODALITIES if name in self.mri)
        return modality if modality in self.mri else None


def find_cases(folder: str | Path) -> tuple[list[Case], list[str]]:
    """The cases of a folder or of its `images*` folders.

    Returns:
        The cases by name, and the names of those without ultrasound or without any MRI.

    Raises:
        InputError: there is no usable case.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"There is no folder {folder}; give the one that holds imagesTr or the volumes themselves.")
    files: dict[str, dict[str, Path]] = {}
    for where in (folder, *sorted(folder.glob("images*"))):
        for path in sorted(where.glob("*.nii*")):
            match = _NAME.match(path.name)
            if match:
                files.setdefault(match["case"], {})[match["modality"]] = path
    cases, unusable = [], []
    for name, found in sorted(files.items()):
        mri = {modality: found[number] for modality, number in MODALITIES.items() if number in found}
        if ULTRASOUND in found and mri:
            cases.append(Case(name, found[ULTRASOUND], mri))
        else:
            unusable.append(name)
    if not cases:
        raise InputError(
            f"{folder} holds no case in the form of ReMIND2Reg: <case>_0000.nii.gz (ultrasound) "
            "with <case>_0001.nii.gz (ceT1) or <case>_0002.nii.gz (T2)."
        )
    return cases, unusable
