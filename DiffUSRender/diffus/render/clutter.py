"""Clutter: side lobes and reverberation haze, a second, wide and weak beam that fills what should be black."""

from __future__ import annotations

import math
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


def clutter_beam(
    probe: Probe, settings: RenderSettings, depth: Float[Tensor, " samples"]
) -> tuple[Float[Tensor, "rays rays"], Float[Tensor, " samples"]]:
    """The wide beam on the grid of rays: weights of every ray for every ray, and the amplitude at depths in mm.

    Neighbours come in with random signs, as side lobes alternate: what is summed has the grain of speckle, and the mean
    power of the surroundings. Rays share one realisation, as the side lobes of one array do.
    """
    at_focus = torch.as_tensor(probe.focus_mm, dtype=torch.float64).detach().cpu()
    spacing = float(probe.lateral_spacing_mm()[(probe.depths_mm() - at_focus).abs().argmin()])
    lag = torch.arange(1 - probe.rays, probe.rays, dtype=torch.float64)
    weights = torch.exp(-0.25 * (lag * spacing / WIDTH_MM) ** 2)
    generator = torch.Generator().manual_seed(settings.seed)
    kernel = weights * torch.randint(0, 2, lag.shape, generator=generator).mul(2).sub(1)
    ray = torch.arange(probe.rays)
    matrix = kernel[ray[:, None] - ray + probe.rays - 1]
    matrix = matrix / matrix.square().sum(1, keepdim=True).sqrt()  # at the edges too
    matrix = matrix.to(depth)
    # Neighbouring rays share scatterers: the sum's power is taken with the speckle's own correlation across.
    sigma, rays_mm = probe.beam.lateral_sigma_mm(depth), probe.lateral_spacing_mm().to(depth)
    correlation = torch.exp(-0.25 * (ray.to(depth)[:, None] * (rays_mm / sigma)) ** 2)  # (rays, samples)
    # Power of a row: the matrix' own correlation at every lag, of the middle ray, which has all its neighbours.
    middle = matrix[probe.rays // 2]
    own = torch.stack([(middle[: probe.rays - n] * middle[n:]).sum() for n in range(probe.rays)])
    power = own[0] + 2 * (own[1:, None] * correlation[1:]).sum(0)
    level = 10 ** (torch.as_tensor(settings.clutter_db, dtype=depth.dtype, device=depth.device) / 20)
    return matrix, level * power.clamp(min=0.1).rsqrt()


def add_clutter(
    iq: Float[Tensor, "batch 2 rays samples"],
    matrix: Float[Tensor, "rays rays"],
    level: Float[Tensor, " samples"],
    spacing_mm: float,
) -> Float[Tensor, "batch 2 rays samples"]:
    """The complex echo with its clutter, of `clutter_beam`; `spacing_mm` of the samples."""
    return iq + level * (matrix @ _later(iq, spacing_mm, [math.sqrt(power) for power in HAZE_POWER]))


def clutter_power(
    power: Float[Tensor, "*batch rays samples"],
    matrix: Float[Tensor, "rays rays"],
    level: Float[Tensor, " samples"],
    spacing_mm: float,
) -> Float[Tensor, "*batch rays samples"]:
    """Mean power of the clutter of an echo of this mean power."""
    return level**2 * (matrix**2 @ _later(power, spacing_mm, HAZE_POWER))


def _later(signal: Tensor, spacing_mm: float, weights: tuple[float, ...] | list[float]) -> Tensor:
    """Sum of the signal (..., samples) at later and later arrivals."""
    total = weights[0] * signal
    for delay, weight in zip(HAZE_MM[1:], weights[1:]):
        shift = round(delay / spacing_mm)
        if shift < signal.shape[-1]:
            total = total + weight * F.pad(signal[..., : signal.shape[-1] - shift], (shift, 0))
    return total
