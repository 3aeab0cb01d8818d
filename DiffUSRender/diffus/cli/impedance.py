"""`train-impedance`: the network from MRI intensity to impedance."""

from __future__ import annotations

import click

from ..io.atomic import replacing
from ..io.tables import read_number_pairs
from ..medium.impedance import save_impedance
from ..medium.impedance import train_impedance as training_steps
from .common import progress
from .inputs import require_files


@click.command("train-impedance")
@click.option("--output", required=True, metavar="FILE.pt", help="The trained weights, for --weights of render.")
@click.option("--points", metavar="FILE.csv", help="Rows of normalised intensity (CSF 0, grey 0.6, white 1) and MRayl.")
@click.option("--epochs", type=int, default=1500, help="Of training.")
@click.option("--seed", type=int, default=0, help="The same seed gives the same weights.")
def train_impedance(output: str, points: str | None, epochs: int, seed: int) -> None:
    """Trains the network from MRI intensity to impedance on tissue reference points."""
    require_files({"points": points}, (output, (".pt",)))
    reference = None if points is None else read_number_pairs(points)
    with progress() as bar:
        task = bar.add_task("training", total=epochs)
        for step in training_steps(reference, epochs=epochs, seed=seed):
            bar.update(task, completed=step.epoch, description=f"training, error {step.loss**0.5:.5f} MRayl")
    with replacing(output) as temporary:
        save_impedance(step.model, temporary)
    click.echo(f"{output}: error {step.loss**0.5:.5f} MRayl (root mean square) after {step.epoch} epochs")
