"""What pulse and beam make of the scatterers on the lines of a fan: complex speckle of unit power, for any pose."""

from __future__ import annotations

import itertools
import math
from dataclasses import fields, replace
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .scatter import (
    GRAIN_STEPS,
    MOST_WAVES,
    SIDE_REACH,
    WAVES,
    WINDOW_REACH,
    PlaneGrid,
    PlaneWaves,
    elevation_window,
    grain_of,
    plane_grid,
    plane_waves,
    quick_size,
    scatterer_waves,
    speckle_correlation,
    spread_loss,
    sum_waves,
    wave_amplitudes,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaxtyping import Float

    from ..probe import Probe

NODE_SIGMAS = 1.5  # distance of the plane's nodes, in standard deviations of the scatterers' grain
LINE_SIGMAS = 1.5  # distance of lines and of their samples, in those of the beam and the pulse: 0.64 of the width
ZONES = 2  # of depth at least
ZONE_CHANGE = 0.4  # of the logarithm of the slice's thickness within a zone
MOST_ZONES = 8
ZONE_OVERLAP = 0.2  # of a zone
MARGIN = 2  # samples before the first and beyond the last, for the cubic between them
MOST_NODES, MOST_SAMPLES, MOST_LINES = 1536, 2048, 1024


def plain(probe: Probe) -> Probe:
    """The probe with numbers in place of its tensors: what can be compared, for what depends on its shape alone."""
    tensors = {one.name: getattr(probe, one.name) for one in fields(probe)}
    return replace(probe, **{name: value.item() for name, value in tensors.items() if isinstance(value, Tensor)})


class FanLines(NamedTuple):
    """The lines of a fan on which speckle and noise are made, whatever the rays and samples of the probe.

    Line j lies at ray (j - pad) * pitch of the probe, its sample i at depth (i - MARGIN) * spacing_mm; the pulse and
    the beam alone say how many there are. `pad` lines on either side are for the beam's flanks.
    """

    lines: int
    samples: int
    pad: int
    pitch: float
    spacing_mm: float

    def depths_mm(self) -> Float[Tensor, " samples"]:
        return (torch.arange(self.samples, dtype=torch.float64) - MARGIN) * self.spacing_mm


def shortest_pulse_mm(probe: Probe) -> float:
    """Standard deviation of the shortest pulse whose speckle the plane's nodes and the lines' samples can hold."""
    size = probe.slice_geometry()
    extent = max(size.rows, size.columns) * size.mm_per_pixel
    nodes = 1.3 * extent / MOST_NODES / NODE_SIGMAS
    return max(nodes, probe.depth_mm / (MOST_SAMPLES - 1) / LINE_SIGMAS)


def fan_lines(probe: Probe, pulse_mm: float, beam_mm: Callable[[Tensor], Tensor]) -> FanLines:
    """The lines for a pulse of a standard deviation, mm, and a beam of that of each depth."""
    samples = max(math.ceil(probe.depth_mm / (LINE_SIGMAS * pulse_mm)) + 1, 8)
    spacing = probe.depth_mm / (samples - 1)
    pitch_mm, sigma = probe.lateral_spacing_mm(), beam_mm(probe.depths_mm())
    widest = (pitch_mm / sigma).max().item()
    count = min(max(math.ceil((probe.rays - 1) * widest / LINE_SIGMAS) + 1, 8), MOST_LINES)
    pitch = (probe.rays - 1) / (count - 1)
    reach = (3.5 * sigma / (pitch * pitch_mm).clamp(min=1e-9)).ceil().clamp(max=count // 8 + 2)
    pad = int(reach.max())
    lines = quick_size(count + 2 * pad)
    return FanLines(lines, samples + 2 * MARGIN, (lines - count) // 2, pitch, spacing)


class Zone(nn.Module):
    """A stretch of the fan's depth whose speckle is summed in a plane of its own, with one thickness of the slice.

    The parts of a fan are smaller than the box around it, and the slice is as thick as it is at their depth.

    Args:
        first: row of the lines at which it begins.
        grid: of its plane.
        constants: window_end: 0-d, of the beam across the slice, rad/mm. where: the fine lines on the plane's nodes,
            (1, rows, fine lines, 2). scale: what makes them its part of speckle of unit power, (rows, fine lines).
    """

    window_end: Tensor
    where: Tensor
    scale: Tensor

    def __init__(self, first: int, grid: PlaneGrid, **constants: Tensor) -> None:
        super().__init__()
        self.first, self.grid = first, grid
        for name, constant in constants.items():
            self.register_buffer(name, constant, persistent=False)

    def add_to(self, fine: Float[Tensor, "b 2 samples fine"], waves: PlaneWaves) -> None:
        """Adds its part of the fine lines."""
        amplitudes = wave_amplitudes(waves, self.window_end, self.grid)
        plane = sum_waves(waves.vectors, waves.phases, amplitudes, self.grid)
        found = F.grid_sample(plane, self.where.expand(len(plane), -1, -1, -1), align_corners=True)
        fine[:, :, self.first : self.first + len(self.scale)].addcmul_(found, self.scale)


class SpeckleField(nn.Module):
    """Speckle on the lines of a fan as a function of its place in the tissue alone.

    Args:
        lines: where it is made.
        taken: of the waves.
        zones: of the depth, which pass into one another.
        constants: waves, phases: of the tissue, (3, waves) and (waves,). blur: 0-d, variance that the waves lack.
            sides: across the first and the last ray, (2, 2). beam_ends: of the beam across the slice and the rays,
            (2,), rad/mm. lateral: the beam's factor of every frequency across the lines, (samples, lines), or None.
    """

    waves: Tensor
    phases: Tensor
    blur: Tensor
    sides: Tensor
    beam_ends: Tensor
    lateral: Tensor | None

    def __init__(self, lines: FanLines, taken: int, zones: list[Zone], **constants: Tensor | None) -> None:
        super().__init__()
        self.lines, self.taken, self.zones = lines, taken, nn.ModuleList(zones)
        for name, constant in constants.items():
            self.register_buffer(name, constant, persistent=False)

    def forward(self, frames: Float[Tensor, "b 3 3"]) -> Float[Tensor, "b 2 depths lines"]:
        """Real and imaginary part, of unit power, for the plane's x and y axes and origin in the tissue's world."""
        waves = plane_waves(self.waves, self.phases, frames, self.blur, self.sides, self.beam_ends, self.taken)
        fine = frames.new_zeros(len(frames), 2, self.lines.samples, self.zones[0].scale.shape[1])
        for zone in self.zones:
            zone.add_to(fine, waves)
        return fine if self.lateral is None else _across(fine, self.lateral)


def _across(fine: Float[Tensor, "b 2 samples fine"], factor: Float[Tensor, "samples lines"]) -> Tensor:
    """Fine lines blurred across and thinned out to the lines: (B, 2, samples, lines)."""
    spectrum = torch.fft.fft(torch.complex(fine[:, 0], fine[:, 1]))
    half = factor.shape[-1] // 2
    kept = torch.cat([spectrum[..., :half], spectrum[..., -half:]], -1)
    return torch.view_as_real(torch.fft.ifft(kept * factor)).permute(0, 3, 1, 2)


def speckle_field(
    probe: Probe,
    lines: FanLines,
    seed: int,
    pulse: Float[Tensor, ""],
    beam_mm: Callable[[Tensor], Tensor] | None,
    elevation_mm: Callable[[Tensor], Tensor],
) -> SpeckleField:
    """The field of a probe, float64, differentiable to pulse and beam.

    Args:
        probe: whose fan.
        lines: of the fan.
        seed: of the scatterers.
        pulse: standard deviation of the pulse along the ray, mm.
        beam_mm: that of the beam across the rays at depths; None for none.
        elevation_mm: that of the beam across the slice.
    """
    grain = grain_of(pulse.detach().item())
    depth = lines.depths_mm()
    pitch = spacing_at(probe, depth) * lines.pitch
    across = None if beam_mm is None else beam_mm(depth.clamp(min=0.0))
    fold = 1 if across is None else _fold(pitch, across.detach(), grain)

    thickness = elevation_mm(depth.clamp(min=0.0))
    thickness = (thickness.square() - grain**2).clamp(min=(0.5 * grain) ** 2).sqrt()  # the waves have the grain's own
    parts = _zone_rows(probe, lines)
    ends = [WINDOW_REACH / thickness[rows].log().mean().exp() for rows in parts]
    count = _wave_count(max(end.item() for end in ends), grain)
    scales = _zone_scales(parts, torch.stack(ends), grain) * (pulse / grain / math.sqrt(count))
    reach = 3.5 * (pulse if across is None else across).detach().max().item()
    # In steps, so that a fitted number does not move the nodes.
    reach = 4 * grain * math.ceil(reach / (4 * grain))
    zones = []
    for rows, end, scale in zip(parts, ends, scales):
        grid, where, loss = _zone_plane(probe, lines, rows, fold, reach, grain)
        scale = scale[rows, None] / loss
        zones.append(Zone(rows.start, grid, window_end=end, where=where[None], scale=scale))
    waves, phases = _tissue(seed, count)
    waves = waves.double() / (math.sqrt(2) * grain)
    sides, beam_ends = _sides(probe), torch.stack([torch.stack(ends).max(), _side_end(across, pulse)])
    lateral = None if across is None else _lateral_factor(pitch, across, pulse, lines.lines, fold)
    return SpeckleField(
        lines,
        _waves_within(waves, sides, beam_ends.detach()),
        zones,
        waves=waves.T.contiguous(),
        sides=sides,
        beam_ends=beam_ends,
        phases=phases.double(),
        blur=pulse.square() - grain**2,
        lateral=lateral,
    )


def _zone_rows(probe: Probe, lines: FanLines) -> list[slice]:
    """The rows of the lines in each zone, in which the slice is about equally thick; neighbours share some.

    The thickness is that at the probe's rounded numbers, so that zones stay where they are as one is fitted.
    """
    steady = plain(probe)
    steady = replace(steady, **{name: float(f"{getattr(steady, name):.1g}") for name in ("frequency_mhz", "focus_mm")})
    thickness = steady.beam.elevation_sigma_mm(lines.depths_mm().clamp(min=0.0)).log().numpy()
    change = np.cumsum(np.abs(np.diff(thickness, prepend=thickness[0])) / ZONE_CHANGE + (ZONES - 1) / lines.samples)
    count = min(MOST_ZONES, math.ceil(change[-1]))
    ends = [0, *np.searchsorted(change, change[-1] * np.arange(1, count) / count).tolist(), lines.samples]
    rows = []
    for a, b in itertools.pairwise(ends):
        shared = max(1, round(ZONE_OVERLAP * (b - a) / 2))
        rows.append((a, b, shared))
    starts = [0] + [a - min(before[2], here[2]) for before, here in itertools.pairwise(rows) for a in (here[0],)]
    stops = [b + min(here[2], after[2]) for here, after in itertools.pairwise(rows) for b in (here[1],)]
    return [slice(*ends) for ends in zip(starts, [*stops, lines.samples])]


def _zone_scales(rows: list[slice], ends: Float[Tensor, " zones"], grain: float) -> Float[Tensor, "zones samples"]:
    """Share of each zone's window in every row, such that one wave of the tissue gives unit power."""
    shares = torch.zeros(len(rows), rows[-1].stop, dtype=torch.float64)
    for n, zone in enumerate(rows):
        shares[n, zone] = 1.0
        if n:
            both = slice(zone.start, rows[n - 1].stop)
            ramp = (torch.arange(both.stop - both.start, dtype=torch.float64) + 0.5) / (both.stop - both.start)
            shares[n, both], shares[n - 1, both] = ramp, 1 - ramp
    spread = 1 / (math.sqrt(2) * grain)
    across = torch.linspace(-1, 1, 2001, dtype=torch.float64) * (1.2 * ends.detach().max())
    density = torch.exp(-0.5 * (across / spread) ** 2) / (spread * math.sqrt(2 * math.pi)) * (across[1] - across[0])
    window = elevation_window(across, ends[:, None])
    power = torch.einsum("jn,kn,jk->n", shares, shares, (window * density) @ window.T)
    return shares / power.sqrt()


def _wave_count(end: float, grain: float) -> int:
    """Waves of the tissue of which about `WAVES` lie within a window's end; in steps, as `grain_of`."""
    count = 2 ** (math.ceil(math.log2(WAVES / math.erf(end * grain)) * GRAIN_STEPS) / GRAIN_STEPS)
    return min(MOST_WAVES, math.ceil(count))


def _waves_within(
    waves: Float[Tensor, "waves 3"], sides: Float[Tensor, "2 2"], ends: Float[Tensor, "2"], trials: int = 4
) -> int:
    """So many of the tissue's waves a frame sees, as good as certainly: of some planes, since it hardly varies."""
    generator = torch.Generator().manual_seed(0)
    turns = torch.linalg.qr(torch.randn(trials, 3, 3, generator=generator, dtype=torch.float64))[0]
    x, y, across = (waves @ turns).unbind(-1)
    first, last = (x * side[0] + y * side[1] for side in sides)
    beyond = torch.minimum(first.abs(), last.abs()) * (first * last > 0)
    seen = ((across.abs() < ends[0]) & (beyond < ends[1])).sum(-1).max().item()
    return min(len(waves), math.ceil(seen + 6 * math.sqrt(seen)))


def _sides(probe: Probe) -> Float[Tensor, "2 2"]:
    """Unit vectors of the plane across the first and the last ray."""
    directions = probe.ray_geometry()[1][[0, -1], :2]
    return torch.stack([directions[:, 1], -directions[:, 0]], -1)


def _side_end(across: Tensor | None, pulse: Tensor) -> Tensor:
    """Waves that run across the rays by more, rad/mm, the beam does not let through."""
    if across is None:
        return torch.full_like(pulse, 1e6)
    kernel = (across.square().min() - pulse.square()).clamp(min=1e-6)
    return SIDE_REACH / kernel.sqrt()


@lru_cache(maxsize=16)
def _plane_of(
    probe: Probe, lines: FanLines, first: int, last: int, fold: int, reach: float, grain: float
) -> tuple[PlaneGrid, Tensor, Tensor]:
    """As `_zone_plane`, of a probe without tensors."""
    ray = (torch.arange(lines.lines * fold, dtype=torch.float64) / fold - lines.pad) * lines.pitch
    depth = lines.depths_mm()[first:last] / probe.sample_spacing_mm
    place = probe.plane_points(*torch.meshgrid(ray, depth, indexing="xy"))
    fan = place[:, (ray >= 0) & (ray <= probe.rays - 1)].flatten(0, 1)
    low, high = fan.amin(0) - reach, fan.amax(0) + reach
    # Beyond the beam's reach nothing is seen, so that there the plane's rim may go on.
    place = torch.minimum(torch.maximum(place, low), high)
    grid = plane_grid(low.tolist(), high.tolist(), NODE_SIGMAS * grain)
    loss, where = _on_nodes(place, grid)
    return grid, where, loss


def _zone_plane(
    probe: Probe, lines: FanLines, rows: slice, fold: int, reach: float, grain: float
) -> tuple[PlaneGrid, Tensor, Tensor]:
    """Plane of a zone, where its fine lines lie on the nodes, (rows, fine lines, 2), and what spreading leaves."""
    return _plane_of(plain(probe), lines, rows.start, rows.stop, fold, reach, grain)


@lru_cache(maxsize=4)
def _tissue(seed: int, count: int) -> tuple[Tensor, Tensor]:
    return scatterer_waves(seed, count)


def spacing_at(probe: Probe, depth: Float[Tensor, " samples"]) -> Float[Tensor, " samples"]:
    """Distance of neighbouring rays at any depths, mm."""
    first, second = (
        probe.plane_points(torch.full_like(depth, ray), depth / probe.sample_spacing_mm) for ray in (0.0, 1.0)
    )
    return (second - first).norm(dim=-1)


def _fold(pitch: Tensor, across: Tensor, grain: float) -> int:
    """So many fine lines a line that no wave which the beam would remove is mistaken for one that it keeps."""
    needed = 2 * math.pi / (2.1 / grain + 2 / across)
    return max(1, math.ceil((pitch / needed).max().item()))


def _on_nodes(place: Tensor, grid: PlaneGrid) -> tuple[Tensor, Tensor]:
    """What spreading leaves at places of the plane, mm, and where they lie on its nodes, -1 to 1."""
    left, where = 1.0, []
    # The loss is smooth, so that a table serves.
    loss = spread_loss(torch.linspace(-0.5, 0.5, 257, dtype=torch.float64))
    for axis in (0, 1):
        share = (place[..., axis] - grid.centre[axis]) / grid.period[axis] + 0.5
        low = (share * 256).long().clamp(0, 255)
        left = left * torch.lerp(loss[low], loss[low + 1], share * 256 - low)
        nodes = grid.size[axis]
        where.append(2 * share * nodes / (nodes - 1) - 1)
    return left, torch.stack(where, -1)


def _lateral_factor(pitch: Tensor, across: Tensor, pulse: Tensor, lines: int, fold: int) -> Tensor:
    """Factor of every frequency across the lines, (samples, lines), that blurs to the beam at unit power."""
    count = lines * fold
    kernel = (across.square() - pulse.square()).clamp(min=0.0)
    pitch = (pitch / fold).clamp(min=1e-6)[:, None]
    index = torch.fft.fftfreq(lines, 1 / lines, dtype=torch.float64)
    gauss = torch.exp(-0.5 * kernel[:, None] * (2 * math.pi * index / (count * pitch)) ** 2)
    lag = torch.fft.fftfreq(count, 1 / count, dtype=torch.float64)
    correlation = torch.fft.fft(speckle_correlation(lag * pitch, pulse)).real
    half = lines // 2
    correlation = torch.cat([correlation[:, :half], correlation[:, -half:]], -1)
    power = (correlation * gauss.square()).sum(-1, keepdim=True) / count
    return gauss * power.rsqrt() / fold
