"""What the network from MRI intensity to impedance can learn: tissues with an intensity and an impedance each."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING

from ..errors import InputError, _
from .impedance import LEVELS, TISSUES
from .tissue import tissue_table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .tissue import Tissue

POINT_LISTS = ("brain", "seed")


@dataclass(frozen=True)
class ReferencePoint:
    """One tissue that the network learns.

    Args:
        tissue: its name in the tissue table.
        level: normalised intensity.
        impedance_mrayl: MRayl.
        source: where the numbers are from.
    """

    tissue: str
    level: float
    impedance_mrayl: float
    source: str = ""


def reference_list(name: str = POINT_LISTS[0], tissues: Mapping[str, Tissue] | None = None) -> list[ReferencePoint]:
    """A list of reference points by its name, intensities ascending.

    "brain" holds fluid, grey and white matter on the scale of `normalise`; the shipped weights learned it. "seed" is
    what the authors of the DiffUS paper (arXiv 2508.06768) trained on, figure 1. Its levels are relaxation times T1
    over that of fluid, 2500 ms, taken as intensities: fluid is the brightest there, while in a T1-weighted image it
    is the darkest.

    Args:
        name: one of `POINT_LISTS`.
        tissues: by name; their impedances replace the list's own.

    Raises:
        InputError: for another name.
    """
    if name not in POINT_LISTS:
        raise InputError(
            _('No list of reference points is called "{name}"; use one of: {names}.'),
            name=name,
            names=", ".join(POINT_LISTS),
        )
    if name == "brain":
        table = tissue_table()
        points = [
            ReferencePoint(tissue, level, table[tissue].impedance_mrayl, table[tissue].source)
            for tissue, level in zip(TISSUES, LEVELS)
        ]
    else:
        text = resources.files("diffus.data").joinpath("reference_points.csv").read_text(encoding="utf-8")
        points = [
            ReferencePoint(row["tissue"], float(row["level"]), float(row["impedance_mrayl"]), row["source"])
            for row in csv.DictReader(text.splitlines())
            if row["list"] == name
        ]
    if not tissues:
        return points
    return [
        ReferencePoint(p.tissue, p.level, t.impedance_mrayl, t.source) if (t := tissues.get(p.tissue)) else p
        for p in points
    ]
