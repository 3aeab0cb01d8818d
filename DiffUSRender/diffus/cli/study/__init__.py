"""`study`: the experiments behind the figures of the documentation."""

import click

from .ablation import ablation
from .cases import cases
from .pose import pose
from .realism import realism
from .reconstruct import reconstruct


@click.group()
def study() -> None:
    """Experiments on real and simulated sweeps: what each step adds, and how near it comes."""


for command in (ablation, cases, realism, reconstruct, pose):
    study.add_command(command)
