"""Clutter: side lobes and reverberation haze, a second, wide and weak beam that fills what should be black."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Float

    from ..probe import Probe
    from .settings import RenderSettings

WIDTH_MM = 10.0  # standard deviation of the wide beam's power at the transmit focus, the same angle elsewhere
HAZE_MM = (0.0, 1.9, 4.7, 9.2)  # later arrivals: what bounced on its way; uneven, so that no line repeats evenly
HAZE_POWER = (0.55, 0.25, 0.13, 0.07)


def clutter_beam(probe: Probe, settings: RenderSettings) -> Float[Tensor, "rays rays"]:
    """Power that every ray of the grid, in columns, sends to every ray, in rows: float64, `clutter_db` in all."""
    at_focus = torch.as_tensor(probe.focus_mm, dtype=torch.float64).detach().cpu()
    spacing = float(probe.lateral_spacing_mm()[(probe.depths_mm() - at_focus).abs().argmin()])
    ray = torch.arange(probe.rays, dtype=torch.float64)
    weights = torch.exp(-0.5 * ((ray[:, None] - ray) * spacing / WIDTH_MM) ** 2)
    level = 10 ** (torch.as_tensor(settings.clutter_db, dtype=torch.float64) / 10)
    return level * weights / weights.sum(1, keepdim=True)


def clutter_power(
    power: Float[Tensor, "*batch rays samples"], beam: Float[Tensor, "rays rays"], spacing_mm: float
) -> Float[Tensor, "*batch rays samples"]:
    """Mean power of the clutter of an echo of this mean power, of `clutter_beam`; `spacing_mm` of the samples.

    Side lobes alternate in sign from scatterer to scatterer, so that what they gather is speckle of the mean power.
    """
    return beam @ _later(power, spacing_mm, HAZE_POWER)


def _later(signal: Tensor, spacing_mm: float, weights: tuple[float, ...]) -> Tensor:
    """Sum of the signal (..., samples) at later and later arrivals."""
    total = weights[0] * signal
    for delay, weight in zip(HAZE_MM[1:], weights[1:]):
        shift = round(delay / spacing_mm)
        if shift < signal.shape[-1]:
            total = total + weight * F.pad(signal[..., : signal.shape[-1] - shift], (shift, 0))
    return total
