"""The command line: `python -m diffus_register`, or `diffus-register`, on files."""

from __future__ import annotations

import csv
import json
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np
import torch
from diffus_render import files
from diffus_render.commands.common import Commands, label_table, options, progress, torch_device
from diffus_render.errors import InputError
from diffus_render.medium import AcousticMedium
from diffus_render.pose import require_rigid, transform_points
from diffus_render.sweep import TrackedSweep, read_image_to_probe, read_sweep, sweep_from_volume
from rich.console import Console
from rich.table import Table

from .landmarks import match_landmarks, pair_names, read_landmarks, rigid_from_landmarks, target_errors
from .methods import METHODS
from .registration import KINDS, RegistrationResult, RigidRegistration, Settings, sweep_extent
from .search import PoseSpace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

REJECTED = 3  # exit status; 2 is input that cannot be used
COLOURS = {"trusted": "green", "check": "yellow", "rejected": "red"}


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.version_option(package_name="diffus")
def main() -> None:
    """Registers tracked ultrasound to MRI or CT and says how far to trust it. Not for clinical decisions."""


# --- register

VOLUME = (
    click.option("--volume", "volume_path", required=True, metavar="FILE", help="MRI, CT, labels or 3-D ultrasound."),
    click.option("--kind", type=click.Choice(KINDS), required=True, help="What the volume holds."),
    click.option(
        "--labels-table",
        metavar="NAME|FILE",
        help="Names of the labels (labels); without it those of a .seg.nrrd file, else TotalSegmentator's.",
    ),
)
FILES = (
    click.option(
        "--sweep", "sweep_path", required=True, metavar="FILE", help="Tracked frames: .igs.mha, .seq.nrrd ..."
    ),
    click.option("--output", required=True, metavar="FILE.tfm", help="mri_to_reference, as 3D Slicer reads it."),
    click.option("--initial", metavar="FILE.tfm", help="The first guess of it; without one it is the identity."),
    click.option("--image-to-probe", metavar="FILE", help="Calibration: a transform, or a PLUS configuration (.xml)."),
    click.option("--from-volume", is_flag=True, help="The sweep is a 3-D ultrasound volume: cut it into slices."),
    click.option("--report", "report_path", metavar="FILE.json", help="Everything that is known about the result."),
)
SEARCH = (
    click.option("--method", type=click.Choice(METHODS), default="lc2", help="How the images are compared."),
    click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, help="The same seed gives the same result."),
    click.option("--device", default="cpu", help="Where torch computes: cpu, cuda, cuda:1, mps."),
    click.option("--within-mm", type=click.FloatRange(1, 200), help="How far the start may be off.  [default: 25]"),
    click.option("--within-deg", type=click.FloatRange(1, 90), help="The same in degrees.  [default: 18]"),
    click.option("--samples", type=click.IntRange(64), help="Poses tried in the search.  [default: 16384]"),
)


@main.command()
@options(VOLUME)
@options(FILES)
@options(SEARCH)
def register(
    volume_path: str,
    kind: str,
    labels_table: str | None,
    sweep_path: str,
    output: str,
    initial: str | None,
    image_to_probe: str | None,
    from_volume: bool,
    report_path: str | None,
    method: str,
    seed: int,
    device: str,
    **bounds: float | None,
) -> None:
    """Finds the transform that brings the MRI onto the ultrasound.

    Loaded in 3D Slicer and set as the MRI's parent, the output moves the MRI into the tracker's reference frame.
    Exit status: 0 for `trusted` and `check`, 3 for `rejected` (no transform is written), 2 for unusable input.
    """
    files.require_writable(output, files.TRANSFORM_SUFFIXES)
    if report_path:
        files.require_writable(report_path, (".json",))
    files.require_not_input((output, report_path), (volume_path, sweep_path, initial, image_to_probe, labels_table))
    place, start = torch_device(device), None if initial is None else files.read_transform(initial)
    with progress() as bar:
        task = bar.add_task("reading", total=1.0)
        sweep = _sweep(sweep_path, image_to_probe, from_volume)
        voxels, ijk_to_ras, medium = _volume(volume_path, kind, labels_table, place)
        registration = RigidRegistration(
            voxels,
            ijk_to_ras,
            sweep,
            initial=start,
            kind=kind,
            method=method,
            seed=seed,
            device=place,
            settings=_settings(**bounds),
            medium=medium,
        )
        for state in registration:
            text = f"{state.stage}, similarity {state.similarity:.3f}"
            bar.update(task, completed=state.progress, description=text)
    result = registration.result
    rejected = result.verdict.verdict == "rejected"
    written = _write(result, None if rejected else output, report_path)
    _summary(result, sweep.report.notes)
    click.echo(f"{' and '.join(written)} written." if written else "Nothing was written.")
    if rejected:
        if Path(output).exists():
            click.echo(f"{output} is of an earlier run.")
        click.get_current_context().exit(REJECTED)


def _settings(within_mm: float | None, within_deg: float | None, samples: int | None) -> Settings:
    settings = Settings()
    search = settings.search if samples is None else replace(settings.search, samples=samples)
    return replace(
        settings,
        translation_mm=within_mm or settings.translation_mm,
        rotation_deg=within_deg or settings.rotation_deg,
        search=search,
    )


def _sweep(path: str, image_to_probe: str | None, from_volume: bool) -> TrackedSweep:
    if from_volume:
        if image_to_probe is not None:
            raise InputError("--image-to-probe is for tracked frames; a 3-D volume needs none.")
        volume = files.read_volume(path)
        return sweep_from_volume(volume.array, volume.ijk_to_ras)
    return read_sweep(path, None if image_to_probe is None else read_image_to_probe(image_to_probe))


def _volume(
    path: str, kind: str, labels_table: str | None, device: torch.device
) -> tuple[np.ndarray, np.ndarray, AcousticMedium | None]:
    """Voxels, ijk_to_ras, and of labels the medium that they name; their voxels become its impedance."""
    if labels_table is not None and kind != "labels":
        raise InputError(f"--labels-table is for --kind labels, not {kind}.")
    volume = files.read_volume(path)
    if kind != "labels":
        return volume.array, volume.ijk_to_ras, None
    medium = AcousticMedium.from_labels(volume.array, label_table(volume, labels_table), volume.ijk_to_ras)
    return medium.maps[0].numpy(), volume.ijk_to_ras, medium.to(device)


def _write(result: RegistrationResult, output: str | None, report_path: str | None) -> list[str]:
    """Writes both files, or none; returns their names."""
    written = [path for path in (output, report_path) if path]
    with ExitStack() as both:
        if report_path:
            temporary = both.enter_context(files.replacing(report_path))
            temporary.write_text(json.dumps(_report(result), indent=2) + "\n")
        if output:
            files.write_transform(output, result.mri_to_reference.numpy())
    return written


def _report(result: RegistrationResult) -> dict:
    """The result's report. JSON has no NaN: such numbers are None."""
    return _finite(result.report())


def _finite(value):
    """The same dictionaries, lists and values, with None for every number that is NaN or infinite."""
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _summary(result: RegistrationResult, notes: tuple[str, ...]) -> None:
    verdict, console = result.verdict, Console(width=100, highlight=False)
    report = result.report()
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim")
    table.add_column()
    colour = COLOURS[verdict.verdict]
    table.add_row("verdict", f"[bold {colour}]{verdict.verdict}[/]: {'; '.join(verdict.reasons)}")
    if verdict.verdict != "rejected":
        expected = f"{verdict.expected_error_mm:.2f} mm, at worst {verdict.expected_error_worst_mm:.2f} mm"
        table.add_row("expected error", f"{expected}, assuming {report['assumptions']}")
    else:
        table.add_row("expected error", "not known")
    table.add_row("", f"calibrated on {verdict.calibrated_on}")
    table.add_row("similarity", f"{result.similarity:.4f} ({result.method})")
    table.add_row("frames", f"{result.frames_used} used, {result.frames_skipped} skipped in the file")
    table.add_row("seconds", f"{result.seconds:.1f}")
    for note in notes:
        table.add_row("note", note)
    console.print(table)


# --- evaluate


@main.command()
@click.argument("first", metavar="FIRST")
@click.argument("second", metavar="[SECOND]", required=False)
@click.option("--transform", metavar="FILE.tfm", help="Brings FIRST onto SECOND when set as its parent in 3D Slicer.")
@click.option("--output", metavar="FILE.csv", help="The errors of every landmark.")
@click.option("--fit", metavar="FILE.tfm", help="Write the rigid transform of least squares: a start for --initial.")
def evaluate(first: str, second: str | None, transform: str | None, output: str | None, fit: str | None) -> None:
    """Target registration error at landmarks: FIRST (of the MRI, say) and SECOND (of the ultrasound).

    Lists are .mrk.json, .fcsv, .csv (name,x,y,z; RAS) or .tag; a .tag file with two lists needs no SECOND.
    """
    if output:
        files.require_writable(output, (".csv",))
    if fit:
        files.require_writable(fit, files.TRANSFORM_SUFFIXES)
    files.require_not_input((output, fit), (first, second, transform))
    lists = [found for path in (first, second) if path for found in read_landmarks(path)]
    if len(lists) != 2:
        raise InputError(f"Two lists of landmarks are needed, but the files hold {len(lists)}; give FIRST and SECOND.")
    names = [lists[0].names[row] for row, _ in pair_names(lists[0].names, lists[1].names)]
    a, b = match_landmarks(*lists)
    columns = {"initial_mm": target_errors(torch.eye(4, dtype=a.dtype), a, b)}
    if transform:
        columns["transformed_mm"] = target_errors(torch.from_numpy(files.read_transform(transform)), a, b)
    best = _rigid_fit(a, b, required=bool(fit))
    if best is not None:
        columns["rigid_fit_mm"] = target_errors(best, a, b)
    rows = [[name, *(float(errors[n]) for errors in columns.values())] for n, name in enumerate(names)]
    with ExitStack() as both:
        if output:
            _write_csv(both.enter_context(files.replacing(output)), ["landmark", *columns], rows)
        if fit:
            files.write_transform(fit, best.numpy())
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
        table.add_row(name, *(f"{error:.2f}" for error in errors))
    table.add_section()
    for name, value in (
        ("mean", lambda errors: errors.mean()),
        ("sd", lambda errors: errors.std(correction=min(1, len(errors) - 1))),
        ("max", lambda errors: errors.max()),
    ):
        table.add_row(name, *(f"{float(value(errors)):.2f}" for errors in columns.values()))
    Console(width=100, highlight=False).print(table)


def _write_csv(path: Path, header: list[str], rows: list[list]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows([f"{cell:.4f}" if isinstance(cell, float) else cell for cell in row] for row in rows)


# --- benchmark

COLUMNS = ("sweep", "start", "start_mm", "error_mm", "verdict", "expected_mm", "worst_mm", "similarity", "seconds")


@main.command()
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
    files.require_writable(output, (".csv",))
    files.require_not_input((output,), (volume_path, labels_table))
    place, settings = torch_device(device), _settings(**bounds)
    cases = _cases(folder, pattern)
    voxels, ijk_to_ras, medium = _volume(volume_path, kind, labels_table, place)
    choices = {"kind": kind, "method": method, "seed": seed, "device": place, "settings": settings, "medium": medium}
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
    with files.replacing(output) as temporary:
        _write_csv(temporary, list(COLUMNS), rows)
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
    place = transform_points(truth, targets)
    start, end = (float(target_errors(m, targets, place).mean()) for m in (initial, result.mri_to_reference))
    verdict, report = result.verdict, _report(result)
    expected = (report["expected_error_mm"], report["expected_error_worst_mm"])
    return [name, number, start, end, verdict.verdict, *expected, result.similarity, result.seconds]


def _print_benchmark(rows: list[list]) -> None:
    table = Table(*COLUMNS, box=None, pad_edge=False)
    for row in rows:
        cells = ("–" if cell is None else f"{cell:.2f}" if isinstance(cell, float) else str(cell) for cell in row)
        table.add_row(*cells)
    console = Console(width=120, highlight=False)
    console.print(table)
    errors, verdicts = np.array([row[3] for row in rows]), [row[4] for row in rows]
    wrong = sum(error > 3 for error, verdict in zip(errors, verdicts) if verdict == "trusted")
    counts = ", ".join(f"{verdicts.count(name)} {name}" for name in COLOURS)
    console.print(
        f"{len(rows)} runs: median {np.median(errors):.2f} mm, {np.mean(errors < 2):.0%} under 2 mm; {counts}; "
        f"{wrong} trusted but worse than 3 mm"
    )


if __name__ == "__main__":
    main()
