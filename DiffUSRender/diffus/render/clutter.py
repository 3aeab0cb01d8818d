"""Clutter: side lobes and reverberation haze, a second, wide and weak beam that fills what should be black."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Float

    from ..probe import Probe
    from .settings import RenderSettings

WIDTH_MM = 10.0  # standard deviation of the wide beam's power at the transmit focus, the same angle elsewhere
HAZE_MM = (0.0, 1.9, 4.7, 9.2)  # later arrivals: what bounced on its way; uneven, so that no line repeats evenly
HAZE_POWER = (0.55, 0.25, 0.13, 0.07)


def clutter_beam(probe: Probe) -> Float[Tensor, "rays rays"]:
    """Fraction of the clutter's power that every ray, in rows, gathers from every ray, in columns: float64."""
    at_focus = torch.as_tensor(probe.focus_mm, dtype=torch.float64).detach().cpu()
    spacing = float(probe.lateral_spacing_mm()[(probe.depths_mm() - at_focus).abs().argmin()])
    ray = torch.arange(probe.rays, dtype=torch.float64)
    weights = torch.exp(-0.5 * ((ray[:, None] - ray) * spacing / WIDTH_MM) ** 2)
    return weights / weights.sum(1, keepdim=True)


def clutter_level(
    probe: Probe, settings: RenderSettings, depth: Float[Tensor, " samples"]
) -> Float[Tensor, " samples"]:
    """Power of the clutter against that of the tissue around, at depths in mm: `clutter_db` at the transmit focus.

    Elsewhere the transmit beam is wide and lights what the receive beam's side lobes see: in proportion to its width.
    """
    focus = torch.as_tensor(probe.focus_mm, dtype=depth.dtype, device=depth.device).reshape(1)
    wider = probe.beam.transmit_sigma_mm(depth) / probe.beam.transmit_sigma_mm(focus)
    return 10 ** (settings.clutter_db / 10) * wider**2


def clutter_power(
    power: Float[Tensor, "*batch rays samples"],
    beam: Float[Tensor, "rays rays"],
    level: Float[Tensor, " samples"],
    spacing_mm: float,
) -> Float[Tensor, "*batch rays samples"]:
    """Mean power of the clutter of an echo of this mean power.

    Side lobes alternate in sign from scatterer to scatterer, so that what they gather is speckle of the mean power.

    Args:
        power: (..., rays, samples).
        beam, level: of `clutter_beam` and `clutter_level`.
        spacing_mm: of the samples.
    """
    return level * (beam @ _later(power, spacing_mm, HAZE_POWER))


def _later(signal: Tensor, spacing_mm: float, weights: tuple[float, ...]) -> Tensor:
    """Sum of the signal (..., samples) at later and later arrivals."""
    total, samples = weights[0] * signal, signal.shape[-1]
    for delay, weight in zip(HAZE_MM[1:], weights[1:]):
        shift = round(delay / spacing_mm)
        if shift < samples:
            total[..., shift:].add_(signal[..., : samples - shift], alpha=weight)
    return total
