"""Speckle: the scatterers' complex Gaussian field as the pulse and the beam see it, locked to the tissue.

The scatterers are fixed random plane waves in the tissue's world, a stationary complex Gaussian field without lattice
or period. The pulse, the beam across the slice and the scatterers' own size weight each wave, so that what a frame sees
of them is exact at any pose and smooth in it. In the plane of a frame the waves are summed on a grid of frequencies
(a non-uniform Fourier transform, Greengard & Lee 2004), sampled on fine lines of the fan and blurred across these
by the lateral beam.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..settings import SEED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Float

WAVES = 8192  # that a frame takes part of: the beam across the slice removes most
MOST_WAVES = 1 << 18  # of the tissue, from which a frame takes its own
WINDOW_REACH = 2.45  # where the beam's window in elevation ends, in inverse standard deviations of its Gaussian
SPREAD = 3  # nodes of the frequency grid in each direction that a wave is spread over
OVERSAMPLING = 1.25  # of the frequency grid: its period against the plane's extent
SIDE_REACH = 3.2  # where the beam across the rays ends, in inverse standard deviations
SIDE_FADING = 0.3  # of that, over which waves fade: they come and go without a jump
LEAST_LINEAR = 0.5  # what linear interpolation leaves of a wave, below which it is not made good
SPREAD_SHAPE = 1.65  # of the Kaiser-Bessel kernel, per node
GRAIN_STEPS = 8  # a halving of the grain's size in so many steps


def scatterer_waves(seed: int, count: int) -> tuple[Float[Tensor, "waves 3"], Float[Tensor, " waves"]]:
    """Directions of the tissue's waves, (waves, 3) standard normal, and their phases, (waves,).

    A larger count begins with the same waves.

    Raises:
        InputError: for a seed that is not a whole number from 0 to 2^63 - 1.
    """
    SEED.check("seed", seed)
    generator = torch.Generator().manual_seed(seed)
    numbers = torch.randn(count, 4, generator=generator)
    return numbers[:, :3].contiguous(), numbers[:, 3] * (1000 * math.pi)


def grain_of(sigma_mm: float, finest_mm: float = 0.0) -> float:
    """Size of the tissue's waves for a pulse: the next lower step, so that a fitted frequency keeps its scatterers."""
    step = math.floor(math.log2(max(sigma_mm, 1e-6)) * GRAIN_STEPS) / GRAIN_STEPS
    return max(2.0**step, finest_mm)


def speckle_correlation(distance_mm: Tensor, sigma_mm: float | Tensor) -> Tensor:
    """Correlation at `distance_mm` (any shape) of white noise blurred by a Gaussian of `sigma_mm`."""
    return torch.exp(-0.25 * (distance_mm / sigma_mm) ** 2)


class PlaneGrid(NamedTuple):
    """The frequency grid of a plane: what the waves of a frame are summed on.

    centre: of the plane's points, mm. period: mm. size: nodes along x and y, which lie period / size apart.
    """

    centre: tuple[float, float]
    period: tuple[float, float]
    size: tuple[int, int]

    @property
    def spacing(self) -> tuple[float, float]:
        """Distance of the nodes along x and y, mm."""
        return self.period[0] / self.size[0], self.period[1] / self.size[1]


def plane_grid(low: Sequence[float], high: Sequence[float], spacing_mm: float) -> PlaneGrid:
    """The grid of a plane from corner `low` to `high` (x, y), mm, with nodes at most `spacing_mm` apart."""
    centre = tuple((a + b) / 2 for a, b in zip(low, high))
    period = tuple(OVERSAMPLING * (b - a) + 4 * spacing_mm for a, b in zip(low, high))
    size = tuple(quick_size(math.ceil(length / spacing_mm)) for length in period)
    return PlaneGrid(centre, period, size)


def quick_size(least: int) -> int:
    """The next even number without prime factors above 5, which Fourier transforms are quick at."""
    number = max(4, least + least % 2)
    while True:
        rest = number
        for factor in (2, 3, 5):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return number
        number += 2


class PlaneWaves(NamedTuple):
    """Waves of the tissue as a plane sees them.

    vectors: in the plane, rad/mm. phases: at its origin. across: along its normal, rad/mm. damping: by the blur within
    and by the beam.
    """

    vectors: Float[Tensor, "b n 2"]
    phases: Float[Tensor, "b n"]
    across: Float[Tensor, "b n"]
    damping: Float[Tensor, "b n"]


def plane_waves(
    waves: Float[Tensor, "3 waves"],
    phases: Float[Tensor, " waves"],
    frames: Float[Tensor, "b 3 3"],
    blur: Float[Tensor, ""],
    sides: Float[Tensor, "2 2"],
    ends: Float[Tensor, "2"],
    taken: int,
) -> PlaneWaves:
    """The waves that a fan in a plane sees.

    Args:
        waves, phases: of the tissue, rad/mm and rad.
        frames: the plane's x and y axes and its origin in the tissue's world, as columns, (B, 3, 3).
        blur: variance of the blur within the plane beyond the waves' own, mm^2.
        sides: across the first and the last ray, unit vectors of the plane.
        ends: of what the beam keeps of waves, along the plane's normal and across any ray of the fan, rad/mm.
        taken: so many waves, those farthest from these ends.
    """
    x, y, _origin = frames.unbind(-1)
    normal = F.normalize(torch.linalg.cross(x, y), dim=-1)
    # Of all waves at once along the axes, the origin and the normal: one product is quicker than to gather vectors.
    along = torch.cat([frames, normal[..., None]], -1).transpose(1, 2) @ waves
    with torch.no_grad():
        # The beam takes the waves that run across every ray of the fan.
        share = torch.maximum(along[:, 3].abs() / ends[0], _beyond(along[:, 0], along[:, 1], sides) / ends[1])
        chosen = torch.topk(share, taken, largest=False, sorted=False).indices
    x, y, phase, across = along.gather(2, chosen[:, None].expand(-1, 4, -1)).unbind(1)
    fading = ((1 - _beyond(x, y, sides) / ends[1]) / SIDE_FADING).clamp(0, 1)
    damping = torch.exp(-0.5 * blur * (x * x + y * y)) * fading.square() * (3 - 2 * fading)
    return PlaneWaves(torch.stack([x, y], 1).transpose(1, 2), phases[chosen] + phase, across, damping)


def _beyond(x: Float[Tensor, "b n"], y: Float[Tensor, "b n"], sides: Float[Tensor, "2 2"]) -> Float[Tensor, "b n"]:
    """How fast waves run across the ray of the fan that they run along most, rad/mm."""
    first, last = (x * side[0] + y * side[1] for side in sides)
    return torch.minimum(first.abs(), last.abs()) * (first * last > 0)


def elevation_window(across: Float[Tensor, "*#n"], end: Float[Tensor, "*#n"]) -> Float[Tensor, "*n"]:
    """What the beam across the slice leaves of waves `across` it, rad/mm: nearly a Gaussian of WINDOW_REACH / end mm.

    It ends: waves come and go with amplitude zero, so that a moving probe sees no jumps.
    """
    return 0.5 + 0.5 * torch.cos(math.pi * (across / end).clamp(-1, 1))


def wave_amplitudes(waves: PlaneWaves, window_end: Float[Tensor, ""], grid: PlaneGrid) -> Float[Tensor, "b n"]:
    """Amplitudes for a beam across the slice, of a grid that will be looked up linearly, which damps short waves."""
    amplitude = elevation_window(waves.across, window_end) * waves.damping
    for part, spacing in zip(waves.vectors.unbind(-1), grid.spacing):
        # sin x / x is several times as fast as torch.sinc; what is added keeps x from zero.
        angle = part * (0.5 * spacing) + 1e-20
        amplitude = amplitude / (torch.sin(angle) / angle).square().clamp(min=LEAST_LINEAR)
    return amplitude


def sum_waves(
    vectors: Float[Tensor, "b n 2"], phases: Float[Tensor, "b n"], amplitudes: Float[Tensor, "b n"], grid: PlaneGrid
) -> Float[Tensor, "b 2 ny nx"]:
    """Sum of a exp(i (k . p + phase)) at the grid's nodes p, but for `spread_loss`: (B, 2, ny, nx)."""
    batch, (columns, rows) = vectors.shape[0], grid.size
    x, y = vectors.unbind(-1)
    phase = torch.add(phases, x, alpha=grid.centre[0]).add(y, alpha=grid.centre[1])
    row, row_weight, row_sign = _nodes(y * (grid.period[1] / (2 * math.pi)), rows)
    column, column_weight, column_sign = _nodes(x * (grid.period[0] / (2 * math.pi)), columns)
    where = ((row * columns)[:, :, None] + column[:, None]).long()
    if batch > 1:
        where = where + torch.arange(batch, device=where.device)[:, None, None, None] * (rows * columns)
    # In real parts, the waves along the last axis: many times as fast as complex numbers node by node.
    weight = row_weight[:, :, None] * column_weight[:, None]
    size = amplitudes * (row_sign * column_sign)
    real, imaginary = ((size * part)[:, None, None] * weight for part in (torch.cos(phase), torch.sin(phase)))
    value = torch.complex(real, imaginary).flatten()
    spectrum = value.new_zeros(batch * rows * columns).index_add_(0, where.flatten(), value)
    field = torch.fft.ifft2(spectrum.view(batch, rows, columns), norm="forward")
    return torch.view_as_real(field).permute(0, 3, 1, 2)


def _nodes(place: Float[Tensor, "b n"], size: int) -> tuple[Tensor, Tensor, Tensor]:
    """The nodes of an axis over which waves are spread and their weights, (B, SPREAD, n); and each wave's sign, (B, n).

    The plane begins at minus half a period, which is a sign for every other frequency.
    """
    first = torch.floor(place.detach() - (0.5 * SPREAD - 1))
    offset = torch.arange(SPREAD, dtype=place.dtype, device=place.device)[:, None]
    weight = _spread((place - first)[:, None] - offset) * (1 - 2 * (offset % 2))
    node = first[:, None] + offset
    return node - size * torch.floor(node / size), weight, 1 - 4 * (0.5 * first - torch.floor(0.5 * first))


def spread_loss(place: Float[Tensor, " points"]) -> Float[Tensor, " points"]:
    """What spreading makes of a field along one axis at places -1/2 to 1/2 of the plane's period: a factor."""
    nodes = torch.linspace(-1, 1, 257, dtype=place.dtype, device=place.device) * (SPREAD / 2)
    return (_spread(nodes) * torch.cos(2 * math.pi * place[:, None] * nodes)).sum(-1) * (SPREAD / 256)


def _spread(distance: Tensor) -> Tensor:
    """The spreading kernel at up to SPREAD / 2 nodes: Kaiser-Bessel less its rim, as a polynomial that is quick.

    It ends at zero: with a step the sum's derivative to a wave would not be the derivative of the sum.
    """
    square = (distance * (2 / SPREAD)).square()
    highest, *others = _kernel_polynomial()
    result = torch.full_like(square, highest)
    if square.requires_grad:
        for coefficient in others:
            result = result * square + coefficient
    else:  # in place: twice as fast
        for coefficient in others:
            result.mul_(square).add_(coefficient)
    return result


_POLYNOMIAL: list[float] = []


def _kernel_polynomial() -> list[float]:
    """Coefficients of the Kaiser-Bessel kernel in the squared distance, highest power first."""
    if not _POLYNOMIAL:
        beta = SPREAD_SHAPE * SPREAD
        t = 0.5 - 0.5 * np.cos(np.linspace(0, np.pi, 400))
        kernel = (np.i0(beta * np.sqrt(1 - t)) - 1) / (np.i0(beta) - 1)
        fitted = np.polynomial.Polynomial.fit(t, kernel, 5, domain=[0, 1], window=[0, 1]).coef
        fitted[0] -= fitted.sum()
        _POLYNOMIAL.extend(fitted[::-1].tolist())
    return _POLYNOMIAL
