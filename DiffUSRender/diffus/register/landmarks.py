"""Landmarks: read them, measure target registration error, register by least squares."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from ..geometry.pose import transform_points

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Float


@dataclass(frozen=True)
class Landmarks:
    """Named points, (n, 3) mm RAS."""

    names: tuple[str, ...]
    points: Float[Tensor, "n 3"]


def read_landmarks(path: str | Path) -> list[Landmarks]:
    """Point lists in a file, RAS mm: one from `.mrk.json`, `.fcsv` or `.csv` (name,x,y,z), one or two from MNI `.tag`.

    Markups in LPS are turned to RAS; `.tag` and `.csv` hold RAS.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"There is no file {path}.")
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix == ".json":
            lists = [_from_markups(json.loads(text))]
        elif path.suffix == ".tag":
            lists = _from_tag(text)
        else:
            lists = [_from_csv(text)]
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path.name} holds no list of points that can be read (.mrk.json, .fcsv, .csv, .tag)."
        ) from error
    if not lists or any(len(found.names) == 0 for found in lists):
        raise InputError(f"{path.name} holds no points.")
    if not all(torch.isfinite(found.points).all() for found in lists):
        raise InputError(f"{path.name} holds NaN or infinite coordinates; place those points again or remove them.")
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


def match_landmarks(first: Landmarks, second: Landmarks) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n 3"]]:
    """The points of the pairs of `pair_names`, in the first list's order."""
    rows = list(zip(*pair_names(first.names, second.names)))
    return first.points[list(rows[0])], second.points[list(rows[1])]


def pair_names(first: Sequence[str], second: Sequence[str]) -> list[tuple[int, int]]:
    """Which of the first list belongs to which of the second, (index, index), in the first list's order.

    Equal names are pairs; of the others those that end in the same number ("F-3", "U-3"); where neither holds for any,
    the order tells it, if the lists are of one length. Raises InputError where that is ambiguous, or where only some of
    the shorter list have a partner: an error over those alone would mislead.
    """
    if not first or not second:
        raise InputError("A list of landmarks is empty; place the same points in both lists.")
    pairs = _pair_keys(dict(enumerate(first)), dict(enumerate(second)))
    done = [set(side) for side in zip(*pairs)] or [set(), set()]
    rest = [
        {n: _number(name) for n, name in enumerate(names) if n not in used}
        for names, used in zip((first, second), done)
    ]
    pairs += _pair_keys(*rest)
    if not pairs:
        if len(first) != len(second):
            raise InputError(
                "The two landmark lists have no names in common and differ in length "
                f"({len(first)} and {len(second)}); give pairs the same names."
            )
        return [(n, n) for n in range(len(first))]
    if len(pairs) < min(len(first), len(second)):
        lonely = next(name for n, name in enumerate(first) if n not in dict(pairs))
        raise InputError(f"Only {len(pairs)} landmarks have a partner of the same name (not '{lonely}'); rename them.")
    return sorted(pairs)


def _pair_keys(first: dict[int, str], second: dict[int, str]) -> list[tuple[int, int]]:
    """Pairs of indices with the same key; empty keys have none. Raises InputError for a key that stands twice."""
    common = set(first.values()) & set(second.values()) - {""}
    for name in sorted(common):
        if list(first.values()).count(name) > 1 or list(second.values()).count(name) > 1:
            raise InputError(
                f"'{name}' stands for more than one landmark of a list; give every pair a name of its own."
            )
    place = {name: n for n, name in second.items()}
    return [(n, place[name]) for n, name in first.items() if name in common]


def _number(name: str) -> str:
    """The number that a name ends in, without leading zeros, or an empty string."""
    found = re.search(r"(\d+)$", name)
    return str(int(found[1])) if found else ""


def target_errors(
    a_to_b: Float[Tensor, "4 4"], points_a: Float[Tensor, "n 3"], points_b: Float[Tensor, "n 3"]
) -> Float[Tensor, " n"]:
    """Distance in mm of every mapped point of a from its partner in b (target registration error)."""
    return (transform_points(a_to_b, points_a) - points_b).norm(dim=-1)


def rigid_from_landmarks(points_a: Float[Tensor, "n 3"], points_b: Float[Tensor, "n 3"]) -> Float[Tensor, "4 4"]:
    """a_to_b, the rigid map of least squares between three or more pairs (Arun 1987; no reflection: Umeyama 1991)."""
    if points_a.shape != points_b.shape or len(points_a) < 3:
        raise InputError("A landmark registration needs three or more pairs of points.")
    a, b = points_a.double(), points_b.double()
    centred = a - a.mean(0)
    if torch.linalg.svdvals(centred)[1] < 1e-3 * torch.linalg.svdvals(centred)[0].clamp_min(1e-9):
        raise InputError("The landmarks lie on one line; add a point beside it.")
    u, _, vh = torch.linalg.svd(centred.T @ (b - b.mean(0)))
    flip = torch.ones(3, dtype=torch.float64, device=a.device)
    flip[2] = torch.sign(torch.linalg.det(u) * torch.linalg.det(vh))
    rotation = (vh.T * flip) @ u.T
    matrix = torch.eye(4, dtype=torch.float64, device=a.device)
    matrix[:3, :3] = rotation
    matrix[:3, 3] = b.mean(0) - rotation @ a.mean(0)
    return matrix
