"""Acoustic properties of tissues: the tables in `data/`, every number with its source, and names for them."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import resources
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError, _
from ..io.atomic import existing_file

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Float

CHANNELS = ("impedance_mrayl", "attenuation_db_cm_mhz", "attenuation_exponent", "scattering")

# What surrounds the patient: a matched coupling gel (between fat and skin, so never a mirror) that neither
# attenuates nor scatters. One value per channel; the row "gel" of the table says the same.
GEL = (1.55, 0.0, 1.0, 0.0)

# Of a tissue table on file, one row per tissue.
TISSUE_COLUMNS = (
    "name",
    "density",
    "speed",
    "impedance_mrayl",
    "attenuation_db_cm_mhz",
    "attenuation_exponent",
    "scattering_db",
    "source",
)

# Ours, and with the impedances of the authors of the DiffUS paper (arXiv 2508.06768) where they give one.
TISSUE_TABLES = ("diffus", "seed")

LABEL_TABLES = ("totalsegmentator-v1", "totalsegmentator-v2", "totalsegmentator-mr", "freesurfer")

_SIDES = {"left", "right", "l", "r", "lh", "rh", "ctx"}
_LEVEL = re.compile(r"[a-z]?\d+")


@dataclass(frozen=True)
class Tissue:
    """One tissue.

    Args:
        name: as in the table.
        density: kg/m3.
        speed: m/s.
        impedance_mrayl: MRayl.
        attenuation_db_cm_mhz: a; sound of f MHz loses a * f**b dB/cm.
        attenuation_exponent: b.
        scattering_db: amplitude of the backscatter in dB relative to white matter, -inf for none.
        source: where each number is from.
    """

    name: str
    density: float
    speed: float
    impedance_mrayl: float
    attenuation_db_cm_mhz: float
    attenuation_exponent: float = 1.0
    scattering_db: float = 0.0
    source: str = ""

    @property
    def scattering(self) -> float:
        """Backscatter as a linear amplitude, white matter 1.0."""
        return 10 ** (self.scattering_db / 20)

    @property
    def properties(self) -> tuple[float, float, float, float]:
        """The values of the medium's channels, in the order of `CHANNELS`."""
        return (self.impedance_mrayl, self.attenuation_db_cm_mhz, self.attenuation_exponent, self.scattering)


class TissueTable(Mapping[str, Tissue]):
    """Tissues by name, with the other names that segmentations use for them.

    `table[name]` takes the table's own names only; `find` also understands the aliases, upper case, "_" and "-",
    left and right, and levels such as L5 or a rib's number.
    """

    def __init__(self, tissues: Mapping[str, Tissue], aliases: Mapping[str, str]):
        self._tissues = dict(tissues)
        self._aliases = {name: name for name in tissues} | dict(aliases)

    @property
    def aliases(self) -> dict[str, str]:
        """{name as `find` compares it: the table's own name}."""
        return dict(self._aliases)

    def __getitem__(self, name: str) -> Tissue:
        return self._tissues[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tissues)

    def __len__(self) -> int:
        return len(self._tissues)

    def find(self, name: str) -> Tissue | None:
        """The tissue that a structure called `name` is made of, or None if the name says nothing."""
        words = _words(name)
        whole = [w for w in words if w not in _SIDES]
        for candidate in (words, whole, [w for w in whole if not _LEVEL.fullmatch(w)]):
            tissue = self._aliases.get(" ".join(candidate))
            if tissue is not None:
                return self._tissues[tissue]
        return None

    def require(self, tissue: str | Tissue) -> Tissue:
        """As `find`; a `Tissue` is returned as it is.

        Raises:
            InputError: if the name is not known.
        """
        if isinstance(tissue, Tissue):
            return tissue
        found = self.find(tissue)
        if found is None:
            raise InputError(
                _('No tissue is called "{tissue}"; use one of: {names}.'), tissue=tissue, names=", ".join(self)
            )
        return found


@lru_cache
def tissue_table(name: str = TISSUE_TABLES[0]) -> TissueTable:
    """A tissue table by its name, with the names of structures in `data/labels.csv`.

    Args:
        name: one of `TISSUE_TABLES`. "diffus" is `data/tissues.csv`; "seed" the same with the five impedances of
            `data/tissues_seed.csv`, whose tissues keep our density, speed, attenuation and scattering.

    Raises:
        InputError: for another name.
    """
    if name not in TISSUE_TABLES:
        raise InputError(
            _('No tissue table is called "{name}"; use one of: {names}.'), name=name, names=", ".join(TISSUE_TABLES)
        )
    if name == "seed":
        tissues = dict(tissue_table())
        for row in _read_rows("tissues_seed.csv"):
            ours, impedance = tissues[row["name"]], float(row["impedance_mrayl"])
            source = f"impedance: {row['source']}; all else: {ours.source}"
            tissues[ours.name] = replace(ours, impedance_mrayl=impedance, source=source)
        return TissueTable(tissues, tissue_table().aliases)
    tissues = {}
    for row in _read_rows("tissues.csv"):
        numbers = {key: float(row[key]) for key in row if key not in ("name", "source")}
        tissues[row["name"]] = Tissue(name=row["name"], source=row["source"], **numbers)
    aliases = {" ".join(_words(row["name"])): row["tissue"] for row in _read_rows("labels.csv")}
    return TissueTable(tissues, aliases)


def label_table(name: str) -> dict[int, str]:
    """The label numbers of a public segmentation model, {value: structure name}.

    Numbers as in TotalSegmentator's map_to_binary.py (tasks total_v1, total, total_mr) and FreeSurfer's
    FreeSurferColorLUT.txt (aseg and SynthSeg structures).

    Args:
        name: one of `LABEL_TABLES`.

    Raises:
        InputError: for another name.
    """
    if name not in LABEL_TABLES:
        raise InputError(
            _('No label table is called "{name}"; use one of: {names}.'), name=name, names=", ".join(LABEL_TABLES)
        )
    column = name.replace("-", "_")
    return {int(row[column]): row["name"] for row in _read_rows("labels.csv") if row[column]}


def tissue_properties(
    tissues: Sequence[str | Tissue] | Float[Tensor, "c 4"],
) -> Float[Tensor, "c 4"]:
    """The channels' values of tissues (names or `Tissue`s), (C, 4), float64; a tensor (C, 4) is returned as it is."""
    if isinstance(tissues, Tensor):
        return tissues
    table = tissue_table()
    return torch.tensor([table.require(tissue).properties for tissue in tissues], dtype=torch.float64)


def _words(name: str) -> list[str]:
    return re.sub(r"[^a-z0-9]+", " ", name.lower()).split()


def _read_rows(file: str) -> list[dict[str, str]]:
    text = resources.files("diffus.data").joinpath(file).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


def named_tissues(name: str | os.PathLike) -> Mapping[str, Tissue]:
    """{name: tissue} of one of `TISSUE_TABLES`, or of a file as `read_tissues` takes it. Raises InputError."""
    return tissue_table(name) if name in TISSUE_TABLES else read_tissues(name)


def labels_with_tissues(labels: str | Mapping[int, str], tissues: Mapping[str, Tissue]) -> dict[int, str | Tissue]:
    """A label table whose tissues are those of `tissues` where it has them, else the table's.

    Args:
        labels: one of `LABEL_TABLES`, or {value: name of a structure}.
        tissues: by name, such as `tissue_table("seed")`.

    Returns:
        {value: tissue}; the name itself where no tissue is known for it.
    """
    names = label_table(labels) if isinstance(labels, str) else labels
    found = {value: tissue_table().find(name) for value, name in names.items()}
    return {value: name if (t := found[value]) is None else tissues.get(t.name, t) for value, name in names.items()}


def read_tissues(path: str | os.PathLike) -> dict[str, Tissue]:
    """{name: tissue} of a CSV with the columns of `TISSUE_COLUMNS`.

    Raises:
        InputError: naming the file, if it is missing, no such table, or holds tissues that cannot be.
    """
    path = existing_file(path)
    try:
        rows = list(csv.DictReader(path.read_text(encoding="utf-8-sig").splitlines()))
        texts = ("name", "source")
        tissues = [Tissue(**{c: row[c] if c in texts else float(row[c]) for c in TISSUE_COLUMNS}) for row in rows]
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise InputError(
            _("{path} is not a tissue table; it needs the columns {names}."), path=path, names=", ".join(TISSUE_COLUMNS)
        ) from error
    if not tissues:
        raise InputError(_("{path} is not a tissue table: it has no row below its heading."), path=path)
    numbers = [(t.impedance_mrayl, t.attenuation_db_cm_mhz, t.attenuation_exponent) for t in tissues]
    scattering = [t.scattering_db for t in tissues]
    physical = np.isfinite(numbers).all() and not np.isnan(scattering).any() and np.max(scattering, initial=0) < 100
    if not physical or min(z for z, _, _ in numbers) <= 0 or min(a for _, a, _ in numbers) < 0:
        raise InputError(
            _("{path} holds tissues that cannot be: impedances must be positive, attenuation 0 or more."), path=path
        )
    return {tissue.name: tissue for tissue in tissues}
