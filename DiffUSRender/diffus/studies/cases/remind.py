"""ReMIND as The Cancer Imaging Archive ships it: DICOM series of MRI and 3-D ultrasound, segmentations as NRRD.

Juvekar et al. 2024, Scientific Data 11:494, doi 10.7937/3RAG-D070. Folders are patient / study / series, and a series'
description says what it is: 3D_AX_T1_postcontrast, USpredura ... The segmentations lie in a tree of their own,
`<patient>-preop-SEG-<structure>-MR-<series>.nrrd`. All of a patient share the world of the neuronavigation.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from ...errors import InputError
from ...io.dicom_series import DICOM_SUFFIX, read_dicom_header
from .case import STAGES, Case, modality_of

SEGMENTATION = re.compile(r"^(?P<case>.+?)-(?P<phase>pre|intra)op-SEG-(?P<structure>.+?)-MR-.+\.nrrd$", re.I)


@dataclass(frozen=True)
class _Series:
    """A folder with one series: patient, what it is ("US" and its stage, or "MR" and its modality), and its files."""

    folder: Path
    patient: str
    scanner: str
    what: str
    volumetric: bool
    files: int


def remind_cases(folder: Path) -> list[Case]:
    """The cases of a folder by name; none where it holds no DICOM."""
    series, masks = [], []
    for where, _folders, names in os.walk(folder):
        files = sorted(name for name in names if name.lower().endswith(DICOM_SUFFIX))
        if files and (found := _series(Path(where), files)):
            series.append(found)
        masks += [(Path(where) / name, match) for name in names if (match := SEGMENTATION.match(name))]
    cases = []
    for patient in sorted({each.patient for each in series}):
        own = [each for each in series if each.patient == patient]
        # The most resolved of several: acquired in 3-D, then the most slices, then the last by name.
        own.sort(key=lambda each: (each.volumetric, each.files, each.folder.name))
        structures = {
            match["structure"].lower(): path
            for path, match in sorted(masks)
            if match["case"] == patient and match["phase"].lower() == "pre"
        }
        cases.append(
            Case(
                patient,
                {each.what: each.folder for each in own if each.scanner == "US"},
                {each.what: each.folder for each in own if each.scanner == "MR"},
                structures,
            )
        )
    return cases


def _series(folder: Path, files: list[str]) -> _Series | None:
    """The series of a folder; None for what is neither ultrasound nor preoperative MRI."""
    try:
        header = read_dicom_header(folder / files[0])
    except InputError:  # one bad file costs its series alone
        return None
    description = str(header.get("SeriesDescription", ""))
    scanner = str(header.get("Modality", "")).upper()
    patient = str(header.get("PatientID", "")) or folder.parent.parent.name
    if scanner == "US":
        letters = re.sub(r"[^a-z]", "", description.lower())
        what = next((stage for stage in STAGES if stage in letters), STAGES[-1])
    else:
        study = f"{header.get('StudyDescription', '')} {folder.parent.name}".lower()
        what = None if "intraop" in study or scanner != "MR" else modality_of(description)
    if what is None:
        return None
    frames = int(header.get("NumberOfFrames", 1) or 1)
    return _Series(folder, patient, scanner, what, "3d" in description.lower(), max(len(files), frames))
