"""`evaluate`: target registration error at landmarks."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import click
import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..errors import InputError
from ..io.atomic import replacing
from ..io.landmarks import read_landmarks
from ..io.tables import write_csv
from ..io.transforms import TRANSFORM_SUFFIXES, read_transform, write_transform
from ..register.landmarks import match_landmarks, pair_names, rigid_from_landmarks, target_errors
from .inputs import require_files

if TYPE_CHECKING:
    from torch import Tensor


@click.command()
@click.argument("first", metavar="FIRST")
@click.argument("second", metavar="[SECOND]", required=False)
@click.option("--transform", metavar="FILE.tfm", help="Brings FIRST onto SECOND when set as its parent in 3D Slicer.")
@click.option("--output", metavar="FILE.csv", help="The errors of every landmark.")
@click.option("--fit", metavar="FILE.tfm", help="Write the rigid transform of least squares: a start for --initial.")
def evaluate(first: str, second: str | None, transform: str | None, output: str | None, fit: str | None) -> None:
    """Target registration error at landmarks: FIRST (of the MRI, say) and SECOND (of the ultrasound).

    Lists are .mrk.json, .fcsv, .csv (name,x,y,z; RAS) or .tag; a .tag file with two lists needs no SECOND.
    """
    read = {"first": first, "second": second, "transform": transform}
    require_files(read, (output, (".csv",)), (fit, TRANSFORM_SUFFIXES))
    lists = [found for path in (first, second) if path for found in read_landmarks(path)]
    if len(lists) != 2:
        raise InputError(f"Two lists of landmarks are needed, but the files hold {len(lists)}; give FIRST and SECOND.")
    names = [lists[0].names[row] for row, _ in pair_names(lists[0].names, lists[1].names)]
    a, b = match_landmarks(*lists)
    columns = {"initial_mm": target_errors(torch.eye(4, dtype=a.dtype), a, b)}
    if transform:
        columns["transformed_mm"] = target_errors(torch.from_numpy(read_transform(transform)), a, b)
    best = _rigid_fit(a, b, required=bool(fit))
    if best is not None:
        columns["rigid_fit_mm"] = target_errors(best, a, b)
    rows = [[name, *(float(errors[n]) for errors in columns.values())] for n, name in enumerate(names)]
    with ExitStack() as both:
        if output:
            write_csv(both.enter_context(replacing(output)), ["landmark", *columns], rows)
        if fit:
            write_transform(fit, best.numpy())
    _print_errors(columns, rows)


def _rigid_fit(a: Tensor, b: Tensor, required: bool) -> Tensor | None:
    """The rigid map of least squares; None where the points do not determine one, which is an error if `required`."""
    try:
        return rigid_from_landmarks(a, b)
    except InputError:
        if required:
            raise
        return None


def _print_errors(columns: dict[str, Tensor], rows: list[list]) -> None:
    titles = {"initial_mm": "initial", "transformed_mm": "transformed", "rigid_fit_mm": "best rigid fit"}
    table = Table("landmark", *(f"{titles[name]}, mm" for name in columns), box=None, pad_edge=False)
    for name, *errors in rows:
        table.add_row(escape(name), *(f"{error:.2f}" for error in errors))
    table.add_section()
    for name, value in (
        ("mean", lambda errors: errors.mean()),
        ("sd", lambda errors: errors.std(correction=min(1, len(errors) - 1))),
        ("max", lambda errors: errors.max()),
    ):
        table.add_row(name, *(f"{float(value(errors)):.2f}" for errors in columns.values()))
    Console(width=100, highlight=False).print(table)
