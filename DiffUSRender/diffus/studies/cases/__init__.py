"""Data sets of intraoperative ultrasound with preoperative MRI, in one common form."""

from __future__ import annotations

from pathlib import Path

from ...errors import InputError
from .case import MODALITIES, SIMULATED, STAGES, Case, read_scan
from .learn2reg import dataset_json, learn2reg_cases
from .named import named_cases
from .remind import remind_cases

__all__ = ["MODALITIES", "SIMULATED", "STAGES", "Case", "find_cases", "read_scan"]


def find_cases(folder: str | Path) -> tuple[list[Case], list[str]]:
    """The cases of a data set: with Learn2Reg's JSON, named as in ReMIND2Reg, or ReMIND as TCIA ships it.

    Args:
        folder: of the data set, or the JSON itself.

    Returns:
        The usable cases by name, and the names of those without ultrasound or without an MRI to simulate from.

    Raises:
        InputError: there is no usable case.
    """
    folder = Path(folder)
    if folder.suffix.lower() == ".json" and folder.is_file():
        found = learn2reg_cases(folder)
    elif not folder.is_dir():
        raise InputError(f"There is no folder {folder}; give the one of the data set.")
    else:
        described = dataset_json(folder)
        found = learn2reg_cases(described) if described else named_cases(folder) or remind_cases(folder)
    cases = [case for case in found if case.usable]
    if not cases:
        raise InputError(
            f"{folder} holds no case with ultrasound and MRI: neither <case>_0000.nii.gz with <case>_0001.nii.gz or "
            "_0002.nii.gz (ReMIND2Reg), nor a Learn2Reg JSON, nor DICOM series as in ReMIND."
        )
    return cases, [case.name for case in found if not case.usable]
