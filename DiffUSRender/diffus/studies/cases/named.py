"""Folders in the form of ReMIND2Reg (Learn2Reg): `<case>_<modality>.nii.gz`, where a number stands for the modality.

Juvekar et al. 2024, "ReMIND: The Brain Resection Multimodal Imaging Database". Every volume is 256^3 voxels of 0.5 mm,
and all of a case share one world: the ultrasound is already placed by the tracker.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from .case import Case

if TYPE_CHECKING:
    from pathlib import Path

ULTRASOUND = "0000"
MRI = {"0001": "ceT1", "0002": "T2"}
NAME = re.compile(r"^(?P<case>.+)_(?P<number>\d{4})\.nii(\.gz)?$")


def named_cases(folder: Path) -> list[Case]:
    """The cases of a folder and of its `images*` folders by name; none where no file is called so."""
    files: dict[str, dict[str, Path]] = {}
    for where in (folder, *sorted(folder.glob("images*"))):
        for path in sorted(where.glob("*.nii*")):
            match = NAME.match(path.name)
            if match and match["number"] in (ULTRASOUND, *MRI):
                files.setdefault(match["case"], {})[match["number"]] = path
    return [
        Case(
            name,
            {"intraoperative": found[ULTRASOUND]} if ULTRASOUND in found else {},
            {modality: found[number] for number, modality in MRI.items() if number in found},
        )
        for name, found in sorted(files.items())
    ]
