"""Tables and settings as files: label names, pairs of numbers, settings by name, CSV."""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
from typing import TYPE_CHECKING

from ..errors import InputError, _
from .atomic import existing_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def read_label_names(path: str | os.PathLike) -> dict[int, str]:
    """Reads the names of labels, {value: name}.

    Args:
        path: JSON ({"1": "liver"} or {"liver": 1}), CSV (value, name), or a Slicer .ctbl.

    Raises:
        InputError: Missing, another format, or nothing in it; names the file.
    """
    path = existing_file(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix.lower() == ".json":
            rows = list(json.loads(text).items())
        elif path.suffix.lower() == ".ctbl":
            rows = [shlex.split(line)[:2] for line in text.splitlines() if line and not line.startswith("#")]
        else:
            rows = list(csv.reader(text.splitlines()))
    except (ValueError, AttributeError, RecursionError, csv.Error) as error:
        raise InputError(
            _("{path} is not a label table; give JSON, CSV (value, name) or a Slicer .ctbl."), path=path
        ) from error
    names = dict(pair for pair in map(_label_and_name, rows) if pair)
    if not names:
        raise InputError(_("{path} names no label; every row needs a whole number and a name."), path=path)
    return names


def read_settings(path: str | os.PathLike) -> dict[str, object]:
    """Reads settings by name from a JSON file, also of one that `fit` wrote.

    Raises:
        InputError: Missing, or not a JSON object; names the file.
    """
    settings = _read_object(path)
    settings = settings.get("settings", settings)
    if not isinstance(settings, dict):
        raise InputError(_("{path} must hold settings by name, as fit writes them."), path=path)
    return settings


def read_tissues_of_settings(path: str | os.PathLike) -> str | None:
    """The name of the tissue table that `fit` wrote beside the settings, or None; errors as `read_settings`."""
    name = _read_object(path).get("tissues")
    return name if isinstance(name, str) else None


def _read_object(path: str | os.PathLike) -> dict[str, object]:
    path = existing_file(path)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(_("{path} is not valid JSON: {error}."), path=path, error=error) from error
    if not isinstance(found, dict):
        raise InputError(_("{path} must hold settings by name, as fit writes them."), path=path)
    return found


def read_number_pairs(path: str | os.PathLike) -> list[tuple[float, float]]:
    """Reads the rows of a CSV with two numbers each; a heading is skipped.

    Raises:
        InputError: Missing, or a row of anything else; names the file.
    """
    path = existing_file(path)
    try:
        rows = [row for row in csv.reader(path.read_text(encoding="utf-8-sig").splitlines()) if row]
        if rows and not re.match(r"[-+.\d]", rows[0][0].strip()):
            rows = rows[1:]
        return [(float(first), float(second)) for first, second in rows]
    except (ValueError, csv.Error) as error:
        raise InputError(_("{path} must hold two numbers in every row, separated by a comma."), path=path) from error


def write_csv(path: str | os.PathLike, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Writes a table, a header and rows, as CSV; floating point numbers with four decimals."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows([f"{cell:.4f}" if isinstance(cell, float) else cell for cell in row] for row in rows)


def _label_and_name(row: Sequence) -> tuple[int, str] | None:
    """The first whole number of a row and the first text beside it; None for a heading."""
    cells = [str(cell).strip() for cell in row]
    numbers = [cell for cell in cells if cell.isdecimal()]
    texts = [cell for cell in cells if cell and not re.fullmatch(r"[\d.]+", cell)]
    return (int(numbers[0]), texts[0]) if numbers and texts else None
