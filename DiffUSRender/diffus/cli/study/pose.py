"""`pose`: how well the pose of one frame is found by gradient, from starts that are off by a known amount."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

import click
import numpy as np
import torch

from ...errors import InputError
from ...io.atomic import replacing
from ...io.tables import write_csv
from ...render.settings import RenderSettings
from ...studies.pose import PoseRecovery, displaced_pose, pose_error
from ...sweep.probe_sweep import beam_of, probe_of_sweep, rigid_poses
from ...sweep.sweep import read_sweep
from ..common import MEDIUM, options, progress
from ..figures import pyplot, save_small
from ..inputs import (
    BEAM,
    FIGURE_SUFFIXES,
    FREQUENCY,
    START_DEPTH,
    beam_probe,
    medium_of,
    read_rigid,
    require_files,
    seed_option,
    sweep_options,
    volume_options,
)

if TYPE_CHECKING:
    from pathlib import Path

    from ...probe import Probe
    from ...sweep.sweep import TrackedSweep

HEADER = ("seed", "start_mm", "start_deg", "end_mm", "end_deg", "similarity")

TRUTH = click.option(
    "--volume-to-reference",
    required=True,
    metavar="FILE.tfm",
    help="The true mri_to_reference: the frame's pose by it is what has to be found.",
)
STARTS = (
    click.option("--frame", "number", type=click.IntRange(min=0), help="Of the sweep, from 0.  [default: the middle]"),
    click.option("--off-mm", type=click.FloatRange(0, 50), default=5.0, help="Shift of the starts."),
    click.option("--off-deg", type=click.FloatRange(0, 45), default=5.0, help="Turn of the starts."),
    click.option("--starts", "count", type=click.IntRange(1, 100), default=3, help="How many, in random directions."),
    seed_option("Of the first start; the next have the next numbers."),
    START_DEPTH,
)
OUTPUT = (
    click.option("--output", required=True, metavar="FILE.csv", help="A row for each start."),
    click.option("--figure", metavar="FILE.png", help="Error over the steps of every start."),
)


@click.command()
@options(volume_options())
@options(sweep_options())
@TRUTH
@options(STARTS)
@options((BEAM, FREQUENCY))
@options(MEDIUM)
@options(OUTPUT)
def pose(output: str, figure: str | None, off_mm: float, off_deg: float, count: int, **given: object) -> None:
    """How well the pose of one frame is found by gradient through the renderer.

    Starts are off the true pose by --off-mm and --off-deg in random directions. An error is the distance of the
    probe's face from where it was, and the angle that the probe is turned by.
    """
    require_files(given, (output, (".csv",)), (figure, FIGURE_SUFFIXES))
    if figure:
        pyplot()
    with progress() as bar:
        task = bar.add_task("reading", total=None)
        sweep = read_sweep(given["sweep_path"], given["image_to_probe"])
        frame, probe, pixel_to_probe, true = _frame(sweep, given)
        medium = medium_of(given)
        errors, similarities = {}, {}
        for seed in range(given["seed"], given["seed"] + count):
            start = displaced_pose(true, probe, off_mm, off_deg, seed)
            errors[seed] = [pose_error(start, true)]
            recovery = PoseRecovery(
                medium,
                frame.frames[0],
                probe,
                start,
                pixel_to_probe=pixel_to_probe,
                mask=frame.mask[0],
                settings=RenderSettings(start_depth_mm=given["start_depth_mm"], tgc_reach=1.0),
            )
            for state in recovery:
                errors[seed].append(pose_error(state.probe_to_ras, true))
                similarities[seed] = state.similarity
                text = f"start {len(errors)} of {count}, {errors[seed][-1][0]:.2f} mm off"
                bar.update(task, total=state.steps, completed=state.step, description=text)
    rows = [[seed, *path[0], *path[-1], similarities[seed]] for seed, path in errors.items()]
    with ExitStack() as both:
        write_csv(both.enter_context(replacing(output)), HEADER, rows)
        if figure:
            _draw(both.enter_context(replacing(figure)), errors)
    _print(rows)
    click.echo(f"{' and '.join(filter(None, (output, figure)))} written.")


def _frame(sweep: TrackedSweep, given: dict) -> tuple[TrackedSweep, Probe, torch.Tensor, torch.Tensor]:
    """The frame as a sweep of one, the probe that the sweep shows, pixel_to_probe, and the true probe_to_ras."""
    number = len(sweep) // 2 if given["number"] is None else given["number"]
    if number >= len(sweep):
        raise InputError(f"There is no frame {number}: the sweep has {len(sweep)}, from 0; choose another --frame.")
    found, pixel_to_probe = probe_of_sweep(sweep, frequency_mhz=given["frequency_mhz"])
    if (beam := beam_probe(given)) is not None:
        found = replace(found, **beam_of(beam, sampling=True))
    frame = sweep.subset([number])
    true = torch.linalg.inv(read_rigid(given["volume_to_reference"])) @ rigid_poses(frame, pixel_to_probe)[0]
    return frame, found, pixel_to_probe, true


def _draw(path: Path, errors: dict[int, list[tuple[float, float]]]) -> None:
    """Error in mm and in degrees over the steps, a line for each start."""
    figure, axes = pyplot().subplots(1, 2, figsize=(8, 3.2), layout="constrained")
    for axis, column, unit in zip(axes, (0, 1), ("mm", "degrees")):
        for seed, path_of_start in errors.items():
            axis.semilogy(np.array(path_of_start)[:, column].clip(min=1e-3), label=f"start {seed}")
        axis.set(xlabel="step", ylabel=f"error, {unit}")
    axes[0].legend(fontsize=7)
    save_small(figure, path)


def _print(rows: list[list]) -> None:
    for seed, start_mm, start_deg, end_mm, end_deg, similarity in rows:
        click.echo(
            f"start {seed}: {start_mm:.2f} mm, {start_deg:.2f} degrees off -> {end_mm:.2f} mm, {end_deg:.2f} degrees; "
            f"similarity {similarity:.3f}"
        )
    end_mm, end_deg = np.median(np.array(rows)[:, 3:5], axis=0)
    click.echo(f"median of {len(rows)} starts: {end_mm:.2f} mm, {end_deg:.2f} degrees")
