"""`benchmark`: sweeps with known truth, registered from many starts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np
import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..errors import InputError
from ..geometry.pose import require_rigid, transform_points
from ..io.atomic import replacing
from ..io.tables import write_csv
from ..register.extent import sweep_extent
from ..register.landmarks import target_errors
from ..register.registration import RegistrationResult, RigidRegistration
from ..register.search import PoseSpace
from ..register.verdict import Verdict
from ..sweep.sweep import TrackedSweep, read_sweep
from .common import options, progress, torch_device
from .inputs import require_files
from .register import COLOURS, SEARCH, VOLUME, plain_report, read_registered, search_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor


COLUMNS = ("sweep", "start", "start_mm", "error_mm", "verdict", "expected_mm", "worst_mm", "similarity", "seconds")


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@options(VOLUME)
@click.option("--pattern", default="*", help="Which sweeps of the folder: mni152_*, say.")
@click.option("--starts", type=click.IntRange(1), default=3, help="Starts for each sweep.")
@click.option("--off-mm", type=click.FloatRange(0, 100), default=20.0, help="How far they are off, at most.")
@click.option("--off-deg", type=click.FloatRange(0, 60), default=15.0, help="The same in degrees.")
@click.option("--output", required=True, metavar="FILE.csv", help="A row for each run.")
@options(SEARCH)
def benchmark(
    folder: Path,
    volume_path: str,
    kind: str,
    labels_table: str | None,
    pattern: str,
    starts: int,
    off_mm: float,
    off_deg: float,
    output: str,
    method: str,
    seed: int,
    device: str,
    **bounds: float | None,
) -> None:
    """Registers every sweep of FOLDER (NAME.igs.mha) to the volume and compares it with its truth (NAME.truth.json).

    The truth holds `mri_to_reference` (4x4) and `targets_mri_ras` (points, mm). Starts are seeded, uniform up to the
    bounds.
    """
    require_files({"volume_path": volume_path, "labels_table": labels_table}, (output, (".csv",)))
    choices = {"kind": kind, "method": method, "seed": seed, "device": torch_device(device)}
    choices["settings"] = search_settings(**bounds)
    cases = _cases(folder, pattern)
    voxels, ijk_to_ras, choices["medium"] = read_registered(volume_path, kind, labels_table, choices["device"])
    rows = []
    with progress() as bar:
        task = bar.add_task("registering", total=len(cases) * starts)
        for order, (name, sweep, truth, targets) in enumerate(cases):
            guesses = _starts(sweep, truth, starts, off_mm, off_deg, seed + order)
            for number, initial in enumerate(guesses):
                registration = RigidRegistration(voxels, ijk_to_ras, sweep, initial=initial.numpy(), **choices)
                done = len(rows)
                for state in registration:
                    text = f"{name}, start {number}: {state.stage}"
                    bar.update(task, completed=done + state.progress, description=text)
                rows.append(_row(name, number, registration.result, initial, truth, targets))
    with replacing(output) as temporary:
        write_csv(temporary, list(COLUMNS), rows)
    _print_benchmark(rows)
    click.echo(f"{output} written.")


def _cases(folder: Path, pattern: str) -> list[tuple[str, TrackedSweep, Tensor, Tensor]]:
    """(name, sweep, mri_to_reference, targets) of every sweep that matches and has its truth beside it."""
    cases = []
    for path in sorted(folder.glob(f"{pattern}.igs.mha")) if folder.is_dir() else ():
        name = path.name.removesuffix(".igs.mha")
        beside = path.with_name(f"{name}.truth.json")
        try:
            truth = json.loads(beside.read_text())
            matrix = torch.tensor(truth["mri_to_reference"], dtype=torch.float64)
            targets = torch.tensor(truth["targets_mri_ras"], dtype=torch.float64).reshape(-1, 3)
        except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
            raise InputError(f"{beside} must hold mri_to_reference (4x4) and targets_mri_ras (points).") from error
        cases.append((name, read_sweep(path), require_rigid(matrix, str(beside)), targets))
    if not cases:
        raise InputError(f"There is no {pattern}.igs.mha in {folder}; check the folder and --pattern.")
    return cases


def _starts(sweep: TrackedSweep, truth: Tensor, count: int, mm: float, deg: float, seed: int) -> Iterator[Tensor]:
    """First guesses, mri_to_reference, off by up to `mm` and `deg` about the middle of the sweep."""
    centre, radius, _ = sweep_extent(sweep)
    around = PoseSpace(torch.linalg.inv(truth), centre, radius, mm, deg)
    yield from torch.linalg.inv(around.sample(count + 1, seed)[1:])  # the first is the truth itself


def _row(name: str, number: int, result: RegistrationResult, initial: Tensor, truth: Tensor, targets: Tensor) -> list:
    true = transform_points(truth, targets)
    start, end = (float(target_errors(m, targets, true).mean()) for m in (initial, result.mri_to_reference))
    report = plain_report(result)
    expected = (report["expected_error_mm"], report["expected_error_worst_mm"])
    return [name, number, start, end, report["verdict"], *expected, result.similarity, result.seconds]


def _print_benchmark(rows: list[list]) -> None:
    table = Table(*COLUMNS, box=None, pad_edge=False)
    for row in rows:
        cells = ("–" if cell is None else f"{cell:.2f}" if isinstance(cell, float) else str(cell) for cell in row)
        table.add_row(*map(escape, cells))
    console = Console(width=120, highlight=False)
    console.print(table)
    errors, verdicts = np.array([row[3] for row in rows]), [row[4] for row in rows]
    wrong = sum(error > 3 for error, verdict in zip(errors, verdicts) if verdict == Verdict.TRUSTED)
    counts = ", ".join(f"{verdicts.count(name)} {name}" for name in COLOURS)
    console.print(
        f"{len(rows)} runs: median {np.median(errors):.2f} mm, {np.mean(errors < 2):.0%} under 2 mm; {counts}; "
        f"{wrong} trusted but worse than 3 mm"
    )
