"""What a fit tells: while it goes on, and at its end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..medium.impedance import ImpedanceMLP
from ..medium.tissue import Tissue
from ..render.settings import RenderSettings

if TYPE_CHECKING:
    from ..probe import Probe


@dataclass(frozen=True)
class FitState:
    """Where a fit stands.

    Args:
        step: from 1 to `steps`.
        steps: of the whole fit.
        loss: the objective, half the misfit of an independent measurement.
        values: of the acquisition, by name.
    """

    step: int
    steps: int
    loss: float
    values: dict[str, float]


@dataclass(frozen=True)
class Fitted:
    """One number that was fitted.

    Args:
        name: of the parameter.
        tissue: whose it is, or empty.
        start, value: before and after.
        learned: what part of its prior variance the frames removed, 0 to 1.
    """

    name: str
    tissue: str
    start: float
    value: float
    learned: float


@dataclass(frozen=True)
class Score:
    """Mean NCC of the held-out frames and their renderings in the fan: as they are, and both smoothed over 2 mm."""

    ncc: float
    ncc_smoothed: float


@dataclass(frozen=True)
class FitResult:
    """Probe and settings in plain numbers, tissues, network (None where none is in the medium), and the evidence."""

    probe: Probe
    settings: RenderSettings
    tissues: tuple[Tissue, ...]
    mapping: ImpedanceMLP | None
    numbers: tuple[Fitted, ...]
    before: Score
    after: Score
    fitted_frames: tuple[int, ...]
    held_out_frames: tuple[int, ...]
