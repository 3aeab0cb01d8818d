"""`cases`: what a data set of ultrasound with MRI holds, and its scans as files that the other commands read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table

from ...errors import InputError
from ...io.atomic import making_folder, require_new_folder, require_writable_parent
from ...io.volumes import write_volume
from ...studies.cases import Case, find_cases, read_scan
from ..common import progress

if TYPE_CHECKING:
    from collections.abc import Iterator

SUFFIX = ".nrrd"


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--case", "names", multiple=True, metavar="NAME", help="Only this one; may be given more than once.")
@click.option("--output", metavar="FOLDER", help=f"A new folder for the scans as <case>_<what>{SUFFIX}.")
def cases(folder: Path, names: tuple[str, ...], output: str | None) -> None:
    """Lists the cases of FOLDER, and writes their scans for the other commands.

    FOLDER is in the form of ReMIND2Reg, has a Learn2Reg JSON, or is ReMIND as The Cancer Imaging Archive ships it.
    """
    if output:
        require_new_folder(require_writable_parent(output))
    found, unusable = find_cases(folder)
    for name in names:
        if name not in [case.name for case in found]:
            raise InputError(f"{folder} has no case {name}; it has {', '.join(case.name for case in found)}.")
    chosen = [case for case in found if case.name in names or not names]
    _print(chosen, unusable)
    if output:
        click.echo(f"{output}: {_write(chosen, output)} volumes written.")


def _scans(case: Case) -> Iterator[tuple[str, Path]]:
    """Name and place of everything that a case holds."""
    for part in (case.ultrasound, case.mri, case.segmentations):
        yield from part.items()


def _write(chosen: list[Case], output: str) -> int:
    """Writes the folder, whole or not at all; returns how many scans are in it."""
    scans = [(f"{case.name}_{what}{SUFFIX}", path) for case in chosen for what, path in _scans(case)]
    with progress() as bar, making_folder(output) as temporary:
        task = bar.add_task("writing", total=len(scans))
        for name, path in scans:
            bar.update(task, description=name)
            scan = read_scan(path)
            write_volume(temporary / name, scan.array, scan.ijk_to_ras)
            bar.advance(task)
    return len(scans)


def _print(chosen: list[Case], unusable: list[str]) -> None:
    table = Table("case", "ultrasound", "MRI", "segmentations", box=None, pad_edge=False)
    for case in chosen:
        table.add_row(case.name, *(", ".join(part) for part in (case.ultrasound, case.mri, case.segmentations)))
    Console(width=100, highlight=False).print(table)
    for name in unusable:
        click.echo(f"{name}: no ultrasound, or no MRI to simulate from.")
