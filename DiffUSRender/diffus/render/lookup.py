"""Speckle and noise of the lines at the points of an image, at unit power wherever these lie."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .scatter import grain_of, speckle_correlation
from .speckle import MARGIN, spacing_at

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaxtyping import Float

    from ..probe import Probe
    from .speckle import FanLines

TABLE = 33  # places between two nodes
CUBIC = -0.75  # of torch's bicubic `grid_sample`


class Lookup(nn.Module):
    """Where on the lines the points of an image lie, and what keeps speckle and noise at unit power between the lines.

    Args:
        constants: where: (1, 1, points, 2). speckle, noise: factors, (points,).
    """

    where: Tensor
    speckle: Tensor
    noise: Tensor

    def __init__(self, **constants: Tensor) -> None:
        super().__init__()
        for name, constant in constants.items():
            self.register_buffer(name, constant, persistent=False)

    def speckle_at(self, lines: Float[Tensor, "b 2 depths lines"]) -> Float[Tensor, "b 2 points"]:
        """Speckle between the lines, cubic."""
        where = self.where.expand(len(lines), -1, -1, -1)
        found = F.grid_sample(lines, where, mode="bicubic", padding_mode="border", align_corners=True)
        return found[:, :, 0] * self.speckle

    def noise_at(self, lines: Float[Tensor, "b 2 depths lines"]) -> Float[Tensor, "b 2 points"]:
        """Noise between the lines, linear."""
        where = self.where.expand(len(lines), -1, -1, -1)
        found = F.grid_sample(lines, where, padding_mode="border", align_corners=True)
        return found[:, :, 0] * self.noise


def lookup(
    lines: FanLines,
    probe: Probe,
    indices: Float[Tensor, "points 2"],
    pulse: Float[Tensor, ""],
    beam_mm: Callable[[Tensor], Tensor] | None,
) -> Lookup:
    """The points at fractional (ray, sample) indices of the probe; pulse and beam as in `speckle_field`."""
    line = indices[:, 0] / lines.pitch + lines.pad
    sample = indices[:, 1] * (probe.sample_spacing_mm / lines.spacing_mm) + MARGIN
    where = torch.stack([2 * line / (lines.lines - 1) - 1, 2 * sample / (lines.samples - 1) - 1], -1)
    # What is kept is smooth in depth and in the place between nodes: tables of both are looked up.
    part = torch.linspace(0, 1, TABLE, dtype=torch.float64)
    depth = lines.depths_mm()
    beam = pulse if beam_mm is None else beam_mm(depth.clamp(min=0.0))
    apart = spacing_at(probe, depth) * lines.pitch / beam
    speckle = _looked_up(_cubic_power(part, apart[:, None]).rsqrt(), line, sample)
    along = _cubic_power(part, lines.spacing_mm / pulse).rsqrt()
    next_sample = speckle_correlation(torch.tensor(lines.spacing_mm).double(), grain_of(pulse.detach().item()))
    across, up = line - line.floor(), sample - sample.floor()
    speckle = speckle * _looked_up(along[None], sample, torch.zeros_like(sample))
    noise = (1 - 2 * across * (1 - across)) * (1 - 2 * up * (1 - up) * (1 - next_sample))
    return Lookup(where=where[None, None], speckle=speckle, noise=noise.rsqrt())


def _looked_up(table: Float[Tensor, "rows parts"], place: Tensor, row: Tensor) -> Tensor:
    """A table's values at fractional rows, and at fractions of places between whole numbers."""
    x = 2 * (place - place.floor()) - 1
    y = 2 * row / max(1, len(table) - 1) - 1
    where = torch.stack([x, y], -1)[None, None]
    return F.grid_sample(table[None, None], where, padding_mode="border", align_corners=True)[0, 0, 0]


def _cubic_power(part: Tensor, step: Tensor) -> Tensor:
    """Power that cubic interpolation leaves at a fraction between nodes `step` standard deviations apart."""
    a = CUBIC

    def near(x: Tensor) -> Tensor:
        return ((a + 2) * x - (a + 3)) * x * x + 1

    def far(x: Tensor) -> Tensor:
        return ((a * x - 5 * a) * x + 8 * a) * x - 4 * a

    taps = (far(part + 1), near(part), near(1 - part), far(2 - part))
    power = sum(tap * tap for tap in taps)
    for lag in (1, 2, 3):
        pairs = sum(taps[n] * taps[n + lag] for n in range(4 - lag))
        power = power + 2 * pairs * speckle_correlation(lag * step, 1.0)
    return power
