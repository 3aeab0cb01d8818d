"""Data sets with Learn2Reg's JSON: which files there are, of which modality, and which are to be registered.

Hering et al. 2023, IEEE Trans. Med. Imaging 42:697-712. A file's last four digits are the number of its modality; pairs
are `fixed` and `moving`; what belongs to an image (label, mask, keypoints) stands beside it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from ...errors import InputError
from .case import Case, modality_of
from .named import MRI, NAME

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PAIRS = ("training_paired_images", "registration_val", "registration_test")
IMAGES = ("training", "test")


def dataset_json(folder: Path) -> Path | None:
    """The file of a folder that describes a data set of Learn2Reg, or None. Raises InputError if it is damaged."""
    for path in sorted(folder.glob("*dataset.json")):
        if _is_dataset(_read(path)):
            return path
    return None


def learn2reg_cases(path: Path) -> list[Case]:
    """The cases of a data set's JSON by name: every ultrasound with the MRI that it is paired with.

    Args:
        path: of the JSON; the paths in it are relative to its folder.

    Raises:
        InputError: no such JSON, no ultrasound in it, or none of its files is there.
    """
    described = _read(path)
    if not _is_dataset(described):
        raise InputError(f"{path} does not describe a data set of Learn2Reg: it needs modality, and training or pairs.")
    modalities = {f"{int(number):04d}": str(name) for number, name in described["modality"].items()}
    if not any(_is_ultrasound(name) for name in modalities.values()):
        raise InputError(f"{path} has no ultrasound among its modalities ({', '.join(modalities.values())}).")
    kinds = {
        number: "ultrasound" if _is_ultrasound(name) else _mri(name, number) for number, name in modalities.items()
    }
    cases: dict[str, dict[str, Path]] = {}
    points: dict[str, dict[str, Path]] = {}
    listed = list(_images(described))
    for image in listed:
        match = NAME.match(image.rsplit("/", 1)[-1])
        kind = kinds.get(match["number"]) if match else None
        file = path.parent / image
        if kind is None or not file.is_file():
            continue
        cases.setdefault(match["case"], {})[kind] = file
        beside = _keypoints(described, image)
        if beside and (path.parent / beside).is_file():
            points.setdefault(match["case"], {})[kind] = path.parent / beside
    if listed and not cases:
        raise InputError(f"None of the images that {path} lists is there; unpack them beside it.")
    found = []
    for name, files in sorted(cases.items()):
        ultrasound = files.pop("ultrasound", None)
        stages = {} if ultrasound is None else {"intraoperative": ultrasound}
        found.append(Case(name, stages, files, keypoints=points.get(name, {})))
    return found


def _read(path: Path) -> object:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is not valid JSON: {error}.") from error


def _is_dataset(described: object) -> bool:
    lists = isinstance(described, dict) and any(isinstance(described.get(key), list) for key in (*PAIRS, *IMAGES))
    return lists and isinstance(described.get("modality"), dict) and all(map(str.isdecimal, described["modality"]))


def _is_ultrasound(modality: str) -> bool:
    return modality.strip().lower() in ("us", "ius", "ultrasound")


def _mri(modality: str, number: str) -> str | None:
    """The modality of an MRI: as the name says; else, where it says MR, by its number as in ReMIND2Reg."""
    if (found := modality_of(modality)) is not None:
        return found
    return MRI.get(number, "T1") if modality.strip().lower() in ("mr", "mri") else None


def _images(described: dict) -> Iterator[str]:
    """Every image that is listed, once."""
    seen = {}
    for key in (*IMAGES, *PAIRS):
        for entry in described.get(key, ()):
            for image in [entry] if isinstance(entry, str) else [entry.get(k) for k in ("image", "fixed", "moving")]:
                image = image.get("image") if isinstance(image, dict) else image
                if isinstance(image, str):
                    seen.setdefault(image)
    yield from seen


def _keypoints(described: dict, image: str) -> str | None:
    """The file of an image's keypoints, or None."""
    for key in IMAGES:
        for entry in described.get(key, ()):
            if isinstance(entry, dict) and entry.get("image") == image:
                return next((v for k, v in entry.items() if k.startswith("keypoints") and isinstance(v, str)), None)
    return None
