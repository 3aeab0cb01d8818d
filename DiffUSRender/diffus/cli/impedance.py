"""`train-impedance`: the network from MRI intensity to impedance."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import click
import numpy as np
import torch

from ..errors import InputError
from ..io.atomic import replacing
from ..io.tables import read_number_pairs
from ..medium.impedance import LEVEL_RANGE, save_impedance
from ..medium.impedance import train_impedance as training_steps
from ..medium.tissue import TISSUE_TABLES, named_tissues
from ..medium.training_points import POINT_LISTS, ReferencePoint, reference_list
from .common import progress
from .figures import pyplot, save_small
from .inputs import FIGURE_SUFFIXES, require_files

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes

    from ..medium import ImpedanceMLP

SPREAD = 1.0  # MRayl between the points beyond which a second panel shows soft tissue alone
SOFT_TISSUE = (1.25, 1.85)  # MRayl, from fat to muscle


@click.command("train-impedance")
@click.option("--output", required=True, metavar="FILE.pt", help="The trained weights, for --weights of render.")
@click.option(
    "--points",
    metavar="NAME|FILE.csv",
    default=POINT_LISTS[0],
    help="What is learned: brain (fluid 0, grey 0.6, white 1), seed (the DiffUS paper's tissues, where fluid is "
    "bright), or rows of normalised intensity and MRayl.",
)
@click.option(
    "--tissues",
    metavar="NAME|FILE.csv",
    help=f"Impedances of the tissues of a named list: {', '.join(TISSUE_TABLES)}, or a file as fit writes.",
)
@click.option("--figure", metavar="FILE.png", help="Intensity against impedance: the points, and what was learned.")
@click.option("--epochs", type=int, default=1500, help="Of training.")
@click.option("--seed", type=int, default=0, help="The same seed gives the same weights.")
def train_impedance(output: str, points: str, tissues: str | None, figure: str | None, epochs: int, seed: int) -> None:
    """Trains the network from MRI intensity to impedance on tissue reference points."""
    named = points in POINT_LISTS
    require_files(
        {"points": None if named else points, "tissues": tissues}, (output, (".pt",)), (figure, FIGURE_SUFFIXES)
    )
    if figure:
        pyplot()
    learned = _points(points, tissues)
    with progress() as bar:
        task = bar.add_task("training", total=epochs)
        for step in training_steps([(p.level, p.impedance_mrayl) for p in learned], epochs=epochs, seed=seed):
            bar.update(task, completed=step.epoch, description=f"training, error {step.loss**0.5:.5f} MRayl")
    with ExitStack() as both:
        save_impedance(step.model, both.enter_context(replacing(output)))
        if figure:
            _draw(both.enter_context(replacing(figure)), step.model, learned)
    written = " and ".join(filter(None, (output, figure)))
    values = _curve(step.model, [p.level for p in learned])
    error = np.sqrt(np.mean((values - [p.impedance_mrayl for p in learned]) ** 2))
    click.echo(f"{written}: error {error:.5f} MRayl (root mean square at the points) after {step.epoch} epochs")
    if named:
        for point, value in zip(learned, values):
            click.echo(f"{point.tissue:13} {point.level:6.3f}: {value:.4f} MRayl for {point.impedance_mrayl:g}")


def _points(points: str, tissues: str | None) -> list[ReferencePoint]:
    """The points of --points and --tissues."""
    if points in POINT_LISTS:
        return reference_list(points, None if tissues is None else named_tissues(tissues))
    if tissues is not None:
        raise InputError("--tissues is for a list by name; the rows of --points have impedances of their own.")
    return [ReferencePoint("", level, impedance) for level, impedance in read_number_pairs(points)]


def _curve(model: ImpedanceMLP, levels: list[float] | np.ndarray) -> np.ndarray:
    """The network's impedance in MRayl at these levels."""
    with torch.inference_mode():
        return model(torch.as_tensor(levels, dtype=torch.float32)).numpy()


def _draw(path: Path, model: ImpedanceMLP, points: list[ReferencePoint]) -> None:
    """The figure 1 of the DiffUS paper: reference points with their names, and the network's curve through them."""
    values = [point.impedance_mrayl for point in points]
    soft = [point for point in points if SOFT_TISSUE[0] < point.impedance_mrayl < SOFT_TISSUE[1]]
    panels = {"": points}
    if max(values) - min(values) > SPREAD:
        panels = {"all tissues": [point for point in points if point not in soft], "soft tissue": soft}
    figure, axes = pyplot().subplots(1, len(panels), figsize=(5.5 * len(panels), 3.8), layout="constrained")
    first, last = min(p.level for p in points), max(p.level for p in points)
    levels = np.linspace(1.1 * first - 0.1 * last, 1.1 * last - 0.1 * first, 600).clip(*LEVEL_RANGE)
    for axis, (title, named) in zip(np.atleast_1d(axes), panels.items()):
        axis.plot(levels, _curve(model, levels), color="tab:blue", label="network")
        axis.plot([point.level for point in points], values, "o", color="tab:red", label="reference points")
        axis.margins(y=0.12)
        axis.set(xlabel="normalised T1 intensity", ylabel="acoustic impedance, MRayl", title=title)
        axis.grid(alpha=0.3)
        for number, point in enumerate(named):
            _name(axis, point, number)
        if named is soft:
            axis.set(ylim=SOFT_TISSUE)
    axis.legend(fontsize=8, loc="lower right")
    save_small(figure, path, dpi=110)


def _name(axis: Axes, point: ReferencePoint, number: int) -> None:
    """Writes a tissue beside its point, on another side than its neighbours'."""
    right, above = number % 4 < 2, number % 2 == 0
    axis.annotate(
        point.tissue,
        (point.level, point.impedance_mrayl),
        xytext=(4 if right else -4, 5 if above else -5),
        textcoords="offset points",
        ha="left" if right else "right",
        va="bottom" if above else "top",
        fontsize=8,
    )
