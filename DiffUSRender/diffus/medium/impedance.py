"""Impedance of brain tissue from MRI intensity: a small network, its training and its weights."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import InputError, _
from .curves import piecewise_linear
from .tissue import tissue_table

if TYPE_CHECKING:
    from jaxtyping import Float

TISSUES = ("csf", "grey matter", "white matter")
# Normalised intensity of these tissues. Grey matter at 0.6 is where it is in T1-weighted heads anyway (0.59 in the
# MNI152 2009a average, 0.60 in Colin27), so that for T1 the scale is nearly a straight line.
LEVELS = (0.0, 0.6, 1.0)

# The network is trained on this range of normalised intensity, and level beyond it.
LEVEL_RANGE = (-0.5, 1.5)
MIN_IMPEDANCE_MRAYL = 4e-4  # air's: a network that learned air undershoots it
WEIGHTS = "impedance_mlp.pt"


class ImpedanceMLP(nn.Module):
    """Impedance in MRayl from normalised intensity: 1-32-32-1, as in the reference code of DiffUS (2508.06768)."""

    def __init__(self, hidden: int = 32):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(1, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, 1)
        )
        # Impedance = offset + scale * network, so that the network works on numbers around one.
        self.register_buffer("offset", torch.tensor(1.57))
        self.register_buffer("scale", torch.tensor(0.05))

    def forward(self, level: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Normalised intensity of any shape to impedance in MRayl; level beyond `LEVEL_RANGE`."""
        impedance = self.offset + self.scale * self.layers(level.clamp(*LEVEL_RANGE)[..., None])[..., 0]
        return impedance.clamp(min=MIN_IMPEDANCE_MRAYL)


@dataclass(frozen=True)
class TrainingStep:
    """One epoch of `train_impedance`.

    Args:
        epoch: its number, from 1 to `epochs`.
        epochs: how many there are.
        loss: mean squared error, MRayl^2.
        model: the network, which is trained on from epoch to epoch.
    """

    epoch: int
    epochs: int
    loss: float
    model: ImpedanceMLP


def reference_points() -> list[tuple[float, float]]:
    """What the network learns by default: (normalised intensity, MRayl) of the tissues in the table."""
    return [(level, tissue_table()[name].impedance_mrayl) for level, name in zip(LEVELS, TISSUES)]


def train_impedance(
    points: Sequence[tuple[float, float]] | None = None,
    *,
    epochs: int = 1500,
    seed: int = 0,
    learning_rate: float = 0.01,
) -> Iterator[TrainingStep]:
    """Trains `ImpedanceMLP` on tissue reference points, one epoch per step.

    Between two points a voxel is a mixture of both tissues and its impedance lies in between in proportion; beyond the
    outer points it stays as it is there. Each epoch sees 256 intensities drawn from `LEVEL_RANGE`, and every point 16
    times.

    Args:
        points: at least two (normalised intensity, impedance in MRayl); None takes `reference_points`.
        epochs: at least one.
        seed: the same seed gives the same weights.
        learning_rate: of Adam, at the start of a cosine schedule.

    Raises:
        InputError: for too few points, numbers that are no impedances, or no epochs.
    """
    knots, values = _checked_points(reference_points() if points is None else points)
    if epochs < 1:
        raise InputError(_("The number of epochs must be at least 1, not {epochs}."), epochs=epochs)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = ImpedanceMLP()
    with torch.no_grad():
        model.offset.fill_(sum(values) / len(values))
        model.scale.fill_(max(max(values) - min(values), 1e-3))
    draw = torch.Generator().manual_seed(seed)
    low, high = LEVEL_RANGE
    often = torch.tensor(knots).repeat(16)
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for epoch in range(1, epochs + 1):
        level = torch.cat([low + (high - low) * torch.rand(256, generator=draw), often])
        target = piecewise_linear(level.clamp(knots[0], knots[-1]), knots, values)
        with torch.enable_grad():
            loss = (model(level) - target).square().mean()
            optimizer.zero_grad()
            (loss / model.scale**2).backward()
        optimizer.step()
        schedule.step()
        yield TrainingStep(epoch, epochs, loss.item(), model)


def save_impedance(model: ImpedanceMLP, path: str | Path) -> None:
    """Writes the weights (a state dict) to a file; raises OSError where the disk is full, which torch would not."""
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    Path(path).write_bytes(buffer.getvalue())


def load_impedance(path: str | Path | None = None) -> ImpedanceMLP:
    """The network with the weights of a file.

    Args:
        path: a state dict as `save_impedance` writes it; None takes the weights shipped.

    Raises:
        InputError: if the file does not exist or holds no such weights.
    """
    name = WEIGHTS if path is None else str(path)
    try:
        source = resources.files("diffus.data").joinpath(WEIGHTS) if path is None else Path(path)
        state = torch.load(io.BytesIO(source.read_bytes()), map_location="cpu", weights_only=True)
        model = ImpedanceMLP()
        model.load_state_dict(state)
    except FileNotFoundError as error:
        raise InputError(_("The impedance weights {name} do not exist; choose another file."), name=name) from error
    except Exception as error:  # a damaged file can fail in any layer of the reader
        raise InputError(
            _("{name} does not hold the weights of an impedance network; train one with train-impedance."), name=name
        ) from error
    if not all(torch.isfinite(value).all() for value in model.state_dict().values()):
        raise InputError(_("The impedance weights {name} hold NaN or infinite numbers; train them again."), name=name)
    return model.requires_grad_(False).eval()


def impedance_of_levels(
    mapping: Callable[[Tensor], Tensor], levels: Float[Tensor, "*shape"]
) -> Float[Tensor, "*shape"]:
    """Impedance in MRayl of normalised intensities by a network or another function; differentiable to both.

    Raises:
        InputError: if the function returns another shape.
    """
    impedance = mapping(levels.to(mapping.offset) if isinstance(mapping, ImpedanceMLP) else levels)
    if not isinstance(impedance, Tensor) or impedance.shape != levels.shape:
        raise InputError(_("The mapping from intensity to impedance must return a tensor of the same shape."))
    return impedance.to(levels)


def _checked_points(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    pairs = sorted((float(level), float(impedance)) for level, impedance in points)
    if len({level for level, _ in pairs}) < max(2, len(pairs)):
        raise InputError(_("Training needs at least two reference points at different intensities."))
    if not all(np.isfinite(pair).all() and pair[1] > 0 for pair in pairs):
        raise InputError(_("Reference points must be finite numbers with a positive impedance in MRayl."))
    return [level for level, _ in pairs], [impedance for _, impedance in pairs]
