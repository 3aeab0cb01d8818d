"""`ablation`: what each step of the simulation adds, against the real frames of a sweep or of a data set."""

from __future__ import annotations

import functools
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from ...errors import InputError
from ...io.atomic import replacing
from ...io.tables import write_csv
from ...io.volumes import read_volume
from ...medium import AcousticMedium
from ...render.settings import RenderSettings
from ...studies.ablation import METRICS, Ablation, AblationResult, intensity_medium
from ...studies.cases import MODALITIES, SIMULATED, STAGES, Case, find_cases, read_scan
from ...studies.fan_frames import FanFrames, frames_of_sweep, frames_of_volume
from ...sweep.sweep import read_sweep
from ..common import KIND_OF, MEDIUM, options, progress, read_mask, read_medium
from ..figures import pyplot
from ..inputs import (
    BEAM,
    FIGURE_SUFFIXES,
    FREQUENCY,
    FROM_VOLUME,
    INITIAL,
    START_DEPTH,
    beam_probe,
    medium_options,
    read_rigid,
    require_files,
    seed_option,
    sweep_options,
    volume_options,
)
from .figures import SHOWN, save_images, spread

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...io.volumes import Volume
    from ...probe import Probe

COLUMNS = [f"{name}{after}" for after in ("", "_shifted") for name in METRICS] + ["shift_px"]
HEADER = ["case", "row", "frames", "fan_percent_of_pixels", "volume_percent_of_fan"]
HEADER += [part for name in COLUMNS for part in (name, f"{name}_sd")]

INPUT = (
    *volume_options(required=False, kind_required=False, kind="mri"),
    *sweep_options(required=False),
    INITIAL,
    FROM_VOLUME,
    click.option(
        "--cases",
        "folder",
        metavar="FOLDER",
        help="Every case of a data set, instead of one sweep: ReMIND2Reg, a Learn2Reg JSON, or ReMIND's DICOM.",
    ),
    click.option(
        "--modality",
        type=click.Choice(SIMULATED),
        help=f"Which MRI of --cases.  [default: the first that there is of {', '.join(SIMULATED)}]",
    ),
    click.option(
        "--segmentations",
        is_flag=True,
        help="Lay the tumour, ventricles and cavities that --cases has segmented over the MRI.",
    ),
    click.option(
        "--stage",
        type=click.Choice(STAGES),
        help=f"Which ultrasound of --cases.  [default: the first that there is of {', '.join(STAGES)}]",
    ),
)
FRAMES = (
    click.option("--frames", "count", type=click.IntRange(1, 1000), default=24, help="Most frames of a sweep."),
    BEAM,
    FREQUENCY,
    START_DEPTH,
    seed_option("Of speckle, noise and artefacts."),
)
OUTPUT = (
    click.option("--output", required=True, metavar="FILE.csv", help="The table."),
    click.option("--figure", metavar="FILE.png", help="Real frames and every row's image of them, side by side."),
    click.option(
        "--pictures",
        metavar="FILE.png",
        help="The paper's figure 3: the volume's slice, simulated slices (the paper's preset, the default), the frame.",
    ),
)


@click.command()
@options(INPUT)
@options(FRAMES)
@options(MEDIUM)
@options(OUTPUT)
def ablation(output: str, figure: str | None, pictures: str | None, folder: str | None, **given: object) -> None:
    """What mapping, propagation and artefacts add, measured against real frames.

    Rows: the volume's slice; its impedance; reflection along the rays; artefacts; the same without the impedance
    mapping; the default renderer. Each row, and the real frames, are displayed from their 1st to their 99th percentile.
    """
    require_files(given, (output, (".csv",)), (figure, FIGURE_SUFFIXES), (pictures, FIGURE_SUFFIXES))
    if figure or pictures:
        pyplot()
    given["pictured"] = spread if pictures else None
    if folder is not None:
        own = {"volume_path", "sweep_path", "initial", "image_to_probe", "from_volume", "mask", *KIND_OF} - {"weights"}
        for name in sorted(own):
            if given[name]:
                raise InputError(f"--{name.removesuffix('_path').replace('_', '-')} does not go with --cases.")
        if given["kind"] != "mri":
            raise InputError(f"--cases holds MRI, not {given['kind']}.")
        results, notes = _every_case(folder, given)
    else:
        for name in ("modality", "stage", "segmentations"):
            if given[name]:
                raise InputError(f"--{name} chooses among the scans of --cases; leave it out with --volume.")
        results, notes = {Path(given["sweep_path"] or "").name: _one_sweep(given)}, []
    table = _table(results)
    with ExitStack() as both:
        write_csv(both.enter_context(replacing(output)), HEADER, table)
        if figure:
            _draw(both.enter_context(replacing(figure)), results)
        if pictures:
            _draw_pictures(both.enter_context(replacing(pictures)), results)
    _print(table, results, notes)
    click.echo(f"{' and '.join(filter(None, (output, figure, pictures)))} written.")


def _one_sweep(given: dict) -> AblationResult:
    """The result of --volume and --sweep."""
    for name in ("volume", "sweep"):
        if given[f"{name}_path"] is None:
            raise InputError(f"--{name} is missing; give --volume and --sweep, or --cases with a folder.")
    probe = beam_probe(given)
    to_reference = read_rigid(given["initial"])
    chosen = medium_options(given)
    with progress() as bar:
        task = bar.add_task("looking for the fan", total=None)
        views = _views(given, probe, to_reference)
        volume = read_volume(given["volume_path"])
        mask = None if given["mask"] is None else read_mask(given["mask"], volume)
        return _run(views, volume, given["kind"], mask, chosen, given, lambda **state: bar.update(task, **state))


def _views(given: dict, probe: Probe | None, mri_to_reference: torch.Tensor) -> list[FanFrames]:
    same = {"probe": probe, "frequency_mhz": given["frequency_mhz"]}
    if not given["from_volume"]:
        sweep = read_sweep(given["sweep_path"], given["image_to_probe"])
        return [frames_of_sweep(sweep, mri_to_reference, count=given["count"], **same)]
    if given["image_to_probe"] is not None:
        raise InputError("--image-to-probe is for tracked frames; a 3-D volume needs none.")
    scan = read_volume(given["sweep_path"])
    to_ras = np.linalg.inv(mri_to_reference.numpy()) @ scan.ijk_to_ras
    return frames_of_volume(scan.array, to_ras, slices=given["count"], **same)


def _every_case(folder: str, given: dict) -> tuple[dict[str, AblationResult], list[str]]:
    """The results of every usable case, and sentences about the others."""
    cases, unusable = find_cases(folder)
    notes = [f"{name}: no ultrasound, or no MRI to simulate from." for name in unusable]
    probe, results = beam_probe(given), {}
    with progress() as bar:
        for case in cases:
            task = bar.add_task(case.name, total=None)
            mri, stage = case.choose(given["modality"]), case.choose_stage(given["stage"])
            if mri is None or stage is None:
                notes.append(f"{case.name}: no {given['modality'] if mri is None else given['stage']}.")
                continue
            try:
                report = functools.partial(bar.update, task)
                result = _run_case(case, mri, stage, probe, given, report)
            except InputError as error:
                notes.append(f"{case.name}: {error}")
            else:
                results[f"{case.name} {mri}" + ("" if stage == STAGES[-1] else f" {stage}")] = result
            bar.remove_task(task)
    if not results:
        raise InputError(f"No case of {folder} could be used; {notes[0]}")
    return results, notes


def _run_case(case: Case, mri: str, stage: str, probe: Probe | None, given: dict, report) -> AblationResult:
    scan = read_scan(case.ultrasound[stage])
    same = {"probe": probe, "frequency_mhz": given["frequency_mhz"]}
    views = frames_of_volume(scan.array, scan.ijk_to_ras, slices=given["count"], **same)
    del scan
    chosen = {"contrast": MODALITIES[mri]}
    if given["weights"] is not None:
        chosen["weights"] = given["weights"]
    volume = read_scan(case.mri[mri])
    over = case.segmented(volume) if given["segmentations"] else None
    return _run(views, volume, "mri", None, chosen, given, report, over)


def _run(
    views: list[FanFrames],
    volume: Volume,
    kind: str,
    mask: np.ndarray | None,
    chosen: dict,
    given: dict,
    report: Callable,
    over: tuple[np.ndarray, dict[int, str]] | None = None,
) -> AblationResult:
    """Runs the ablation of one volume; `report` shows its progress, `over` is a segmentation laid over an MRI."""
    intensities = None if kind == "labels" else lambda: intensity_medium(volume.array, volume.ijk_to_ras)
    settings = RenderSettings(seed=given["seed"], start_depth_mm=given["start_depth_mm"])

    def medium() -> AcousticMedium:
        if over is None:
            return read_medium(kind, volume, mask, dict(chosen))
        return read_medium(kind, volume, mask, dict(chosen), from_mri=segmented_mri)

    def segmented_mri(*voxels: object, **options: object) -> AcousticMedium:
        return AcousticMedium.from_mri(*voxels, **{**options, "segmentation": over})

    run = Ablation(views, medium, intensities, settings, given["pictured"])
    for state in run:
        report(completed=state.done, total=state.total, description=state.row)
    return run.result


def _table(results: dict[str, AblationResult]) -> list[list[object]]:
    """Case, row, frames, percentages of fan and volume, then mean and standard deviation of every score over frames."""
    table = []
    everything = {**results, **({"all cases": None} if len(results) > 1 else {})}
    for case, result in everything.items():
        several = list(results.values()) if result is None else [result]
        for number, row in enumerate(several[0].rows):
            scores = {name: np.concatenate([each.rows[number].scores[name] for each in several]) for name in COLUMNS}
            cells: list[object] = [case, row.row.name, len(scores["mse"])]
            cells += [100 * np.mean([each.fan_fraction for each in several])]
            cells += [100 * np.mean([each.volume_fraction for each in several])]
            for name in COLUMNS:
                cells += [scores[name].mean(), scores[name].std(ddof=min(1, len(scores[name]) - 1))]
            table.append(cells)
    return table


def _print(table: list[list[object]], results: dict[str, AblationResult], notes: list[str]) -> None:
    console = Console(width=150, highlight=False)
    last = table[-1][0]
    for after, title in (("", "as posed"), ("_shifted", "after phase correlation")):
        shown = Table(title=f"{last}, {title}: mean (sd) over frames", box=None, pad_edge=False)
        names = [f"{name}{after}" for name in METRICS] + (["shift_px"] if after else [])
        for name in ("row", "frames", *(name.removesuffix("_shifted").upper() for name in names)):
            shown.add_column(name)
        for cells in (line for line in table if line[0] == last):
            _, row, frames, *_ = cells
            start = [5 + 2 * COLUMNS.index(name) for name in names]
            shown.add_row(row, str(frames), *(f"{cells[n]:.3f} ({cells[n + 1]:.3f})" for n in start))
        console.print(shown)
    for case, result in results.items():
        left = f", {result.frames_left_out} frames outside of the volume left out" if result.frames_left_out else ""
        covered = f"{result.fan_fraction:.0%} of the pixels, {result.volume_fraction:.0%} of it in the volume"
        console.print(f"{case}: fan mask {covered}{left}")
    for note in notes:
        console.print(f"left out: {note}")


def _draw(path: Path, results: dict[str, AblationResult]) -> None:
    """Real frames in the first column, every row's image of them in the others, cut to what is compared."""
    chosen = []
    for number in spread(len(results)):
        case, result = list(results.items())[number]
        each = SHOWN if len(results) == 1 else 1
        chosen += [(f"{case}\nframe {n}", result, n) for n in spread(len(result.real), each)]
    rows = next(iter(results.values())).rows
    images, captions = [], []
    for _, result, n in chosen:
        inside = result.masks[n].numpy()
        cut = tuple(slice(seen[0], seen[-1] + 1) for seen in map(np.flatnonzero, (inside.any(1), inside.any(0))))
        images.append([image.numpy()[cut] for image in (result.real[n], *(row.images[n] for row in result.rows))])
        scores = [row.scores for row in result.rows]
        captions.append(["", *(f"NCC {s['ncc'][n]:.2f}, SSIM {s['ssim'][n]:.2f}" for s in scores)])
    titles = ["frame", *(row.row.name.replace(" + ", "\n+ ").replace(" (", "\n(") for row in rows)]
    save_images(path, images, names=[name for name, *_ in chosen], titles=titles, captions=captions, inch=1.7)


def _draw_pictures(path: Path, results: dict[str, AblationResult]) -> None:
    """The paper's figure 3: a line for each frame; the volume's slice, two simulated slices, and the frame."""
    images, names = [], []
    for case, result in results.items():
        for picture in result.pictures[: SHOWN if len(results) == 1 else 1]:
            mapped = [row.images[picture.number].numpy() for row in result.rows[:1]]
            shown = [*mapped, *(each.numpy() for each in (picture.paper, picture.simulated, picture.real))]
            images.append([_on_black(image) for image in shown])
            names.append(f"{case}\nframe {picture.number}")
    volume = "impedance" if next(iter(results.values())).rows[0].row.mapped else "slice of the volume"
    titles = (volume, "simulated as in the paper", "simulated by default", "frame of the ultrasound")
    save_images(path, images, names=names, titles=titles)


def _on_black(image: np.ndarray) -> np.ndarray:
    """An image cut to what is not black, which is its fan."""
    seen = image > 0
    rows, columns = (np.flatnonzero(seen.any(axis)) for axis in (1, 0))
    return image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] if len(rows) else image
