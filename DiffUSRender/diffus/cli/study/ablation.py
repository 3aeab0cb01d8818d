"""`ablation`: what each step of the simulation adds, against the real frames of a sweep or of a data set."""

from __future__ import annotations

import csv
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from ...errors import InputError
from ...geometry.pose import require_rigid
from ...io.atomic import replacing, require_not_input, require_writable
from ...io.transforms import read_transform
from ...io.volumes import read_volume
from ...render.settings import RenderSettings
from ...studies.ablation import METRICS, Ablation, AblationResult, intensity_medium
from ...studies.fan_frames import FanFrames, frames_of_sweep, frames_of_volume
from ...studies.remind2reg import MODALITIES, Case, find_cases
from ...sweep.sweep import read_image_to_probe, read_sweep
from ..common import KIND_OF, MEDIUM, options, progress, read_mask, read_medium, read_probe
from .figures import pyplot, save_small

if TYPE_CHECKING:
    from ...io.volumes import Volume
    from ...probe import Probe

FIGURE_FRAMES = 3
COLUMNS = [f"{name}{after}" for after in ("", "_shifted") for name in METRICS] + ["shift_px"]

INPUT = (
    click.option("--volume", "volume_path", metavar="FILE", help="MRI, CT or label volume."),
    click.option("--kind", type=click.Choice(["mri", "ct", "labels"]), default="mri", help="What the volume holds."),
    click.option("--sweep", "sweep_path", metavar="FILE", help="Tracked frames: .igs.mha, .seq.nrrd ..."),
    click.option("--initial", metavar="FILE.tfm", help="mri_to_reference; without one it is the identity."),
    click.option("--image-to-probe", metavar="FILE", help="Calibration: a transform, or a PLUS configuration (.xml)."),
    click.option("--from-volume", is_flag=True, help="The sweep is a 3-D ultrasound volume: cut it into slices."),
    click.option(
        "--remind2reg", "folder", metavar="FOLDER", help="Every case of a ReMIND2Reg folder, instead of one sweep."
    ),
    click.option(
        "--modality",
        type=click.Choice(list(MODALITIES)),
        help="Which MRI of --remind2reg.  [default: ceT1, or T2 where there is no ceT1]",
    ),
)
FRAMES = (
    click.option("--frames", "count", type=click.IntRange(1, 1000), default=24, help="Most frames of a sweep."),
    click.option(
        "--probe", "probe_name", metavar="NAME|FILE.json", help="Frequency and beam; its shape is that of the fan."
    ),
    click.option("--frequency-mhz", type=click.FloatRange(0.5, 40), default=5.0, help="Of the probe, without --probe."),
    click.option("--start-depth", "start_depth_mm", type=float, default=0.0, help="mm; all nearer is coupling."),
    click.option("--seed", type=click.IntRange(min=0), default=0, help="Of speckle, noise and artefacts."),
)
OUTPUT = (
    click.option("--output", required=True, metavar="FILE.csv", help="The table."),
    click.option("--figure", metavar="FILE.png", help="Real frames and every row's image of them, side by side."),
)


@click.command()
@options(INPUT)
@options(FRAMES)
@options(MEDIUM)
@options(OUTPUT)
def ablation(output: str, figure: str | None, folder: str | None, modality: str | None, **given: object) -> None:
    """What mapping, propagation and artefacts add, measured against real frames.

    Rows: the volume's slice; its impedance; reflection along the rays; artefacts; the same without the impedance
    mapping; the default renderer. Each row, and the real frames, are displayed from their 1st to their 99th percentile.
    """
    require_writable(output, (".csv",))
    if figure:
        require_writable(figure, (".png",))
        pyplot()
    written = (output, figure)
    read = [given[n] for n in ("volume_path", "sweep_path", "initial", "image_to_probe", "mask", "weights", "tissues")]
    require_not_input(written, [*read, given["labels_table"], given["probe_name"]])
    if folder is not None:
        own = {"volume_path", "sweep_path", "initial", "image_to_probe", "from_volume", "mask", *KIND_OF} - {"weights"}
        for name in sorted(own):
            if given[name]:
                raise InputError(f"--{name.removesuffix('_path').replace('_', '-')} does not go with --remind2reg.")
        if given["kind"] != "mri":
            raise InputError(f"--remind2reg holds MRI, not {given['kind']}.")
        results, notes = _every_case(folder, modality, given)
    else:
        if modality is not None:
            raise InputError("--modality chooses an MRI of --remind2reg; leave it out with --volume.")
        results, notes = {Path(given["sweep_path"] or "").name: _one_sweep(given)}, []
    table = _table(results)
    with ExitStack() as both:
        _write_csv(both.enter_context(replacing(output)), table)
        if figure:
            _draw(both.enter_context(replacing(figure)), results)
    _print(table, results, notes)
    click.echo(f"{' and '.join(filter(None, written))} written.")


def _one_sweep(given: dict) -> AblationResult:
    """The result of --volume and --sweep."""
    for name in ("volume", "sweep"):
        if given[f"{name}_path"] is None:
            raise InputError(f"--{name} is missing; give --volume and --sweep, or --remind2reg with a folder.")
    probe = _probe(given)
    to_reference = torch.eye(4, dtype=torch.float64)
    if given["initial"] is not None:
        to_reference = require_rigid(torch.from_numpy(read_transform(given["initial"])), given["initial"])
    chosen = {name: given[name] for name in KIND_OF if given[name] is not None}
    with progress() as bar:
        task = bar.add_task("looking for the fan", total=None)
        views = _views(given, probe, to_reference)
        volume = read_volume(given["volume_path"])
        mask = None if given["mask"] is None else read_mask(given["mask"], volume)
        return _run(views, volume, given["kind"], mask, chosen, given, lambda **state: bar.update(task, **state))


def _views(given: dict, probe: Probe | None, mri_to_reference: torch.Tensor) -> list[FanFrames]:
    same = {"probe": probe, "frequency_mhz": given["frequency_mhz"]}
    if not given["from_volume"]:
        calibration = given["image_to_probe"]
        sweep = read_sweep(given["sweep_path"], None if calibration is None else read_image_to_probe(calibration))
        return [frames_of_sweep(sweep, mri_to_reference, count=given["count"], **same)]
    if given["image_to_probe"] is not None:
        raise InputError("--image-to-probe is for tracked frames; a 3-D volume needs none.")
    scan = read_volume(given["sweep_path"])
    to_ras = np.linalg.inv(mri_to_reference.numpy()) @ scan.ijk_to_ras
    return frames_of_volume(scan.array, to_ras, slices=given["count"], **same)


def _every_case(folder: str, modality: str | None, given: dict) -> tuple[dict[str, AblationResult], list[str]]:
    """The results of every usable case, and sentences about the others."""
    cases, unusable = find_cases(folder)
    notes = [f"{name}: no ultrasound, or no MRI." for name in unusable]
    probe, results = _probe(given), {}
    with progress() as bar:
        for case in cases:
            task = bar.add_task(case.name, total=None)
            mri = case.choose(modality)
            if mri is None:
                notes.append(f"{case.name}: no {modality}.")
                continue
            try:
                result = _run_case(case, mri, probe, given, lambda task=task, **state: bar.update(task, **state))
            except InputError as error:
                notes.append(f"{case.name}: {error}")
            else:
                results[f"{case.name} {mri}"] = result
            bar.remove_task(task)
    if not results:
        raise InputError(f"No case of {folder} could be used; {notes[0]}")
    return results, notes


def _run_case(case: Case, mri: str, probe: Probe | None, given: dict, report) -> AblationResult:
    scan = read_volume(case.ultrasound)
    same = {"probe": probe, "frequency_mhz": given["frequency_mhz"]}
    views = frames_of_volume(scan.array, scan.ijk_to_ras, slices=given["count"], **same)
    del scan
    chosen = {"contrast": "t2" if mri == "T2" else "t1"}
    if given["weights"] is not None:
        chosen["weights"] = given["weights"]
    return _run(views, read_volume(case.mri[mri]), "mri", None, chosen, given, report)


def _run(
    views: list[FanFrames], volume: Volume, kind: str, mask: np.ndarray | None, chosen: dict, given: dict, report
) -> AblationResult:
    """Runs the ablation of one volume; `report` shows its progress."""
    intensities = None if kind == "labels" else lambda: intensity_medium(volume.array, volume.ijk_to_ras)
    settings = RenderSettings(seed=given["seed"], start_depth_mm=given["start_depth_mm"])
    run = Ablation(views, lambda: read_medium(kind, volume, mask, dict(chosen)), intensities, settings)
    for state in run:
        report(completed=state.done, total=state.total, description=state.row)
    return run.result


def _probe(given: dict) -> Probe | None:
    return None if given["probe_name"] is None else read_probe(given["probe_name"])


def _table(results: dict[str, AblationResult]) -> list[list[object]]:
    """Rows: case, row, frames, shares in per cent, then mean and standard deviation over the frames of every score."""
    table = []
    everything = {**results, **({"all cases": None} if len(results) > 1 else {})}
    for case, result in everything.items():
        several = list(results.values()) if result is None else [result]
        for number, row in enumerate(several[0].rows):
            scores = {name: np.concatenate([each.rows[number].scores[name] for each in several]) for name in COLUMNS}
            cells: list[object] = [case, row.row.name, len(scores["mse"])]
            cells += [100 * np.mean([each.fan_share for each in several])]
            cells += [100 * np.mean([each.volume_share for each in several])]
            for name in COLUMNS:
                cells += [scores[name].mean(), scores[name].std(ddof=min(1, len(scores[name]) - 1))]
            table.append(cells)
    return table


def _write_csv(path: Path, table: list[list[object]]) -> None:
    header = ["case", "row", "frames", "fan_percent_of_pixels", "volume_percent_of_fan"]
    header += [part for name in COLUMNS for part in (name, f"{name}_sd")]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows([f"{cell:.4f}" if isinstance(cell, float) else cell for cell in row] for row in table)


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
        share = f"{result.fan_share:.0%} of the pixels, {result.volume_share:.0%} of it in the volume"
        console.print(f"{case}: fan mask {share}{left}")
    for note in notes:
        console.print(f"left out: {note}")


def _draw(path: Path, results: dict[str, AblationResult]) -> None:
    """Real frames in the first column, every row's image of them in the others."""
    plt = pyplot()
    chosen = []
    cases = list(results.items())
    for number in np.unique(np.linspace(0, len(cases) - 1, min(FIGURE_FRAMES, len(cases))).round().astype(int)):
        case, result = cases[number]
        each = FIGURE_FRAMES if len(cases) == 1 else 1
        where = np.linspace(0, len(result.real) - 1, each + 2)[1:-1].round().astype(int)
        chosen += [(case, result, n) for n in np.unique(where)]
    rows = cases[0][1].rows
    figure, axes = plt.subplots(
        len(chosen), 1 + len(rows), figsize=(1.7 * (1 + len(rows)), 1.7 * len(chosen) + 0.5), squeeze=False
    )
    for line, (case, result, n) in zip(axes, chosen):
        images = [result.real[n], *(row.images[n] for row in result.rows)]
        inside = result.masks[n].numpy()
        down, across = (
            slice(np.flatnonzero(lit)[0], np.flatnonzero(lit)[-1] + 1) for lit in (inside.any(1), inside.any(0))
        )
        for place, image in zip(line, images):
            place.imshow(image.numpy()[down, across], cmap="gray", vmin=0, vmax=1)
            place.set(xticks=[], yticks=[])
        line[0].set_ylabel(f"{case}\nframe {n}", fontsize=6)
        for place, row in zip(line[1:], result.rows):
            place.set_xlabel(f"NCC {row.scores['ncc'][n]:.2f}, SSIM {row.scores['ssim'][n]:.2f}", fontsize=6)
    names = ["frame", *(row.row.name.replace(" + ", "\n+ ").replace(" (", "\n(") for row in rows)]
    for place, name in zip(axes[0], names):
        place.set_title(name, fontsize=7)
    figure.tight_layout(pad=0.4)
    save_small(figure, path)
