"""`reconstruct`: impedance and scattering of a volume from a tracked sweep, and how well they predict other frames."""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import TYPE_CHECKING

import click
import numpy as np
import torch

from ...errors import InputError
from ...io.atomic import replacing, require_writable
from ...io.tables import write_csv
from ...io.volumes import write_volume
from ...studies.reconstruction import METHODS, HeldOutExperiment
from ...sweep.sweep import read_sweep
from ..common import KIND_OF, MEDIUM, options, progress
from ..figures import pyplot
from ..inputs import (
    FIGURE_SUFFIXES,
    FREQUENCY,
    INITIAL,
    medium_of,
    read_rigid,
    require_files,
    seed_option,
    sweep_options,
    volume_options,
)
from .figures import save_images, spread

if TYPE_CHECKING:
    from pathlib import Path

    from ...medium import AcousticMedium
    from ...studies.reconstruction import HeldOutScores
    from ...sweep.sweep import TrackedSweep

VOLUME_SUFFIXES = (".nrrd", ".nii.gz", ".mha")
PARTS = ("impedance", "scattering", "compounded")

INPUT = (*sweep_options(), *volume_options(required=False, kind_required=False), INITIAL)
HOW = (
    click.option("--hold-out", "every", type=click.IntRange(min=0), default=5, help="Of so many frames; 0: none."),
    click.option("--block", type=click.IntRange(min=1), default=1, help="How many of them, one after the other."),
    click.option("--step", type=click.IntRange(min=1), default=1, help="Take every so many frames of the sweep."),
    click.option("--voxel-mm", type=click.FloatRange(0.1, 20), help="Size of a voxel; else a 64th of the depth."),
    click.option("--smoothing-mm", type=click.FloatRange(0, 20), help="Of the frames; else half a voxel."),
    FREQUENCY,
    click.option("--steps", type=click.IntRange(1, 10000), default=80, help="Of the optimisation."),
    seed_option("Of the order of the frames."),
)
OUTPUT = (
    click.option(
        "--output",
        required=True,
        metavar="FILE.nrrd",
        help="Beside it, in the reference frame: FILE_impedance (MRayl), FILE_scattering (dB), FILE_compounded.",
    ),
    click.option("--report", metavar="FILE.json|csv", help="NCC with the frames held out, frame by frame."),
    click.option("--figure", metavar="FILE.png", help="Frames held out, and what is predicted of them."),
)


@click.command()
@options(INPUT)
@options(MEDIUM)
@options(HOW)
@options(OUTPUT)
def reconstruct(output: str, report: str | None, figure: str | None, every: int, step: int, **given: object) -> None:
    """Reconstructs a volume from posed frames by back-propagation, and compares it with compounding.

    Scattering is in dB relative to white matter, up to a time gain that is found too. Frames held out are predicted
    from both volumes; speckle cannot be, so their correlation stays below 1, and is given for smoothed frames as well.
    """
    volumes = _volumes(output)
    written = [(path, VOLUME_SUFFIXES) for path in volumes.values()]
    require_files(given, *written, (report, (".json", ".csv")), (figure, FIGURE_SUFFIXES))
    if (report or figure) and not every:
        raise InputError("--report and --figure are about frames held out; give --hold-out more than 0.")
    if figure:
        pyplot()
    names = ("block", "voxel_mm", "smoothing_mm", "frequency_mhz", "steps", "seed")
    with progress() as bar:
        task = bar.add_task("reading", total=given["steps"])
        sweep = read_sweep(given["sweep_path"], given["image_to_probe"])
        sweep = sweep.subset(range(0, len(sweep), step))
        medium, to_ras = _start(given)
        experiment = HeldOutExperiment(sweep, medium, to_ras, every=every, **{n: given[n] for n in names})
        for state in experiment:
            bar.update(task, completed=state.step, description=f"reconstructing, error {state.loss**0.5:.4f}")
        bar.update(task, description="compounding")
        scores = experiment.scores() if every else None
        arrays = _arrays(experiment)
    matrix = experiment.grid.ijk_to_ras.numpy()
    with ExitStack() as all_files:
        for part, path in volumes.items():
            write_volume(all_files.enter_context(replacing(path)), arrays[part], matrix)
        if report:
            _write_report(all_files.enter_context(replacing(report)), experiment, scores)
        if figure:
            draw_held_out(all_files.enter_context(replacing(figure)), sweep, experiment, scores)
    _print(experiment, scores, [*volumes.values(), *filter(None, (report, figure))])


def _volumes(output: str) -> dict[str, Path]:
    """{part: the file it is written to}, beside `output`."""
    path = require_writable(output, VOLUME_SUFFIXES)
    suffix = ".nii.gz" if path.name.lower().endswith(".nii.gz") else path.suffix
    return {part: path.with_name(f"{path.name.removesuffix(suffix)}_{part}{suffix}") for part in PARTS}


def _start(given: dict) -> tuple[AcousticMedium | None, torch.Tensor | None]:
    """The medium to start from and reference_to_ras, or None and None."""
    if given["volume_path"] is None:
        for name in ("kind", "initial", "mask", *KIND_OF):
            if given[name] is not None:
                raise InputError(f"--{name.replace('_', '-')} says how --volume is used; give --volume too.")
        return None, None
    if given["kind"] is None:
        raise InputError("--kind is missing: say whether --volume is mri, ct or labels.")
    reference_to_ras = torch.linalg.inv(read_rigid(given["initial"]))
    return medium_of(given), reference_to_ras


def _arrays(experiment: HeldOutExperiment) -> dict[str, np.ndarray]:
    maps = experiment.reconstruction.maps()
    compounded = (experiment.compounded().clamp(0, 1) * 255).round().to(torch.uint8)
    return {
        "impedance": maps[0].numpy(),
        "scattering": (20 * maps[3].log10()).numpy(),
        "compounded": compounded.numpy(),
    }


def summary(experiment: HeldOutExperiment, scores: HeldOutScores) -> dict[str, object]:
    """Means and standard deviations over the frames held out, and what they were measured with."""
    methods = {
        name: {
            key: [round(values[name].mean().item(), 4), round(values[name].std(correction=0).item(), 4)]
            for key, values in (("ncc", scores.frames), ("ncc_smoothed", scores.smoothed))
        }
        for name in METHODS
    }
    return {
        "frames_kept": len(experiment.kept),
        "frames_held_out": len(experiment.held),
        "voxel_mm": experiment.grid.spacing_mm,
        "voxels_kji": list(experiment.grid.shape),
        "smoothing_mm": experiment.smoothing_mm,
        "mean_and_sd": methods,
    }


def _write_report(path: Path, experiment: HeldOutExperiment, scores: HeldOutScores) -> None:
    header = ["frame", *(f"{kind}_{name}" for kind in ("ncc", "ncc_smoothed") for name in METHODS)]
    columns = [values[name].tolist() for values in (scores.frames, scores.smoothed) for name in METHODS]
    rows = [[frame, *(round(v, 4) for v in line)] for frame, *line in zip(experiment.held.tolist(), *columns)]
    if path.name.lower().endswith(".csv"):
        write_csv(path, header, rows)
    else:
        frames = [dict(zip(header, row)) for row in rows]
        path.write_text(json.dumps(summary(experiment, scores) | {"frames": frames}, indent=1), encoding="utf-8")


def draw_held_out(path: Path, sweep: TrackedSweep, experiment: HeldOutExperiment, scores: HeldOutScores) -> None:
    """Frames held out in the first column; the predictions of every method beside them."""
    chosen = spread(len(experiment.held))
    frames = experiment.held[chosen].tolist()
    images = [[sweep.frames[n].numpy() for n in frames]]
    captions = [["" for _ in frames]]
    for name in METHODS:
        images.append([scores.images[name][n].numpy() for n in chosen])
        raw, smoothed = scores.frames[name], scores.smoothed[name]
        captions.append([f"NCC {raw[n]:.3f}, smoothed {smoothed[n]:.3f}" for n in chosen])
    save_images(
        path,
        list(zip(*images)),
        names=[f"frame {n}" for n in frames],
        titles=("frame held out", "start", "reconstructed through the renderer", "compounded"),
        captions=list(zip(*captions)),
    )


def _print(experiment: HeldOutExperiment, scores: HeldOutScores | None, written: list[str | Path]) -> None:
    k, j, i = experiment.grid.shape
    megabytes = experiment.reconstruction.memory_bytes / 1e6
    click.echo(f"{i} x {j} x {k} voxels of {experiment.grid.spacing_mm:g} mm, {megabytes:.0f} MB while optimised")
    if scores is not None:
        click.echo(f"{len(experiment.held)} frames held out: NCC with the frames, and with the smoothed frames")
        for name, values in summary(experiment, scores)["mean_and_sd"].items():
            (raw, raw_sd), (smoothed, smoothed_sd) = values["ncc"], values["ncc_smoothed"]
            click.echo(f"{name:14} {raw:.3f} (sd {raw_sd:.3f})   {smoothed:.3f} (sd {smoothed_sd:.3f})")
    click.echo(f"{', '.join(map(str, written))} written.")
