"""Files of landmarks: Slicer's markups and .fcsv, .csv, and MNI's .tag."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError, _
from .atomic import existing_file

if TYPE_CHECKING:
    from jaxtyping import Float


@dataclass(frozen=True)
class Landmarks:
    """Named points, (n, 3) mm RAS."""

    names: tuple[str, ...]
    points: Float[Tensor, "n 3"]


def read_landmarks(path: str | Path) -> list[Landmarks]:
    """The point lists of a file; markups in LPS are turned to RAS, `.tag` and `.csv` hold RAS.

    Args:
        path: `.mrk.json`, `.fcsv`, `.csv` (name,x,y,z), or MNI's `.tag`.

    Returns:
        One list, RAS mm; one or two from a `.tag`.

    Raises:
        InputError: Missing, of another format, without points, or with coordinates that are not finite.
    """
    path = existing_file(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix == ".json":
            lists = [_from_markups(json.loads(text))]
        elif path.suffix == ".tag":
            lists = _from_tag(text)
        else:
            lists = [_from_csv(text)]
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            _("{name} holds no list of points that can be read (.mrk.json, .fcsv, .csv, .tag)."), name=path.name
        ) from error
    if not lists or any(len(found.names) == 0 for found in lists):
        raise InputError(_("{name} holds no points."), name=path.name)
    if not all(torch.isfinite(found.points).all() for found in lists):
        raise InputError(
            _("{name} holds NaN or infinite coordinates; place those points again or remove them."), name=path.name
        )
    return lists


def _from_markups(document: dict) -> Landmarks:
    markup = document["markups"][0]
    system = markup.get("coordinateSystem", "LPS")
    sign = [1.0, 1.0, 1.0] if str(system) in ("RAS", "0") else [-1.0, -1.0, 1.0]
    defined = [p for p in markup["controlPoints"] if p.get("positionStatus", "defined") == "defined"]
    points = np.array([p["position"] for p in defined], dtype=np.float64).reshape(-1, 3) * sign
    return Landmarks(tuple(str(p.get("label", n)) for n, p in enumerate(defined)), torch.from_numpy(points))


def _from_csv(text: str) -> Landmarks:
    """`name,x,y,z` with or without a header; Slicer's .fcsv (id,x,y,z,...,label) with its CoordinateSystem line."""
    header = [line for line in text.splitlines() if line.startswith("#")]
    slicer = any("columns" in line for line in header)
    lps = slicer and not any(re.search(r"CoordinateSystem\s*=\s*(RAS|0)", line) for line in header)
    names, rows = [], []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split(",")]
        if line.startswith("#") or len(cells) < 4:
            continue
        try:
            rows.append([float(cell) for cell in cells[1:4]])
        except ValueError:
            if rows or any(re.match(r"[-+.\d]", cell) for cell in cells[1:4]):
                raise  # a point with a coordinate missing is no heading
            continue
        names.append(cells[11] if slicer and len(cells) > 11 else cells[0])
    points = np.array(rows, dtype=np.float64).reshape(-1, 3) * ([-1.0, -1.0, 1.0] if lps else [1.0, 1.0, 1.0])
    return Landmarks(tuple(names), torch.from_numpy(points))


def _from_tag(text: str) -> list[Landmarks]:
    volumes = int(re.search(r"Volumes\s*=\s*(\d)", text)[1])
    body = text[text.index("Points") :].split("=", 1)[1].rstrip().rstrip(";")
    rows = [line.split() for line in body.strip().splitlines() if line.strip()]
    values = np.array([[float(v) for v in row[: 3 * volumes]] for row in rows]).reshape(len(rows), volumes, 3)
    names = tuple(row[-1].strip('"') if row[-1].startswith('"') else str(n + 1) for n, row in enumerate(rows))
    return [Landmarks(names, torch.from_numpy(values[:, v].copy())) for v in range(volumes)]
