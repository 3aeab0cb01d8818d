"""Settings that make simulated frames look like a real sweep of another patient: a search without alignment.

Compared are grey levels in bands of depth, the width of speckle, and patches. Frequency, pulse length and f-numbers
need a new rendering and are tried one by one; gain, time gain and how deep it rises, dynamic range and noise act on the
level of what is rendered, by a simplex. Black is the darkest grey of the real fan. Frames that the search does not see
decide in the end whether what was found is better than the start.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from ..metrics.frames import frame_statistics
from ..metrics.images import histogram_distance
from ..metrics.wasserstein import patch_wasserstein
from ..render.display import REFERENCE_BRIGHTNESS, log_compress
from ..render.expected import require_expectable
from ..render.gain import display_gain_db, noise_level, time_gain_db_per_cm
from ..render.renderer import UltrasoundRenderer
from ..render.settings import RenderSettings
from ..sweep.probe_sweep import frame_grid

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jaxtyping import Bool, Float

    from ..medium import AcousticMedium
    from ..probe import Probe
    from ..sweep.probe_sweep import PolarSweep

FREQUENCIES = (0.57, 0.8, 1.0, 1.29)  # factors of the probe's
CYCLES = (2.0, 4.0)
APERTURES = (1.0, 1.7)  # factors of the f-numbers
BANDS = 6  # of depth, whose grey levels are compared
THIN = 23  # of so many pixels one: histograms need no more
WIDTH_WEIGHT = 0.05  # of a ratio e of the speckle's widths, in grey levels of full scale
BLACK_QUANTILE = 0.002  # of the fan's pixels, which is its black
HELD_OUT = 3  # every third frame is not searched by
LEVEL_RANGE_DB = 160.0  # of a rendering from which levels are read: nothing is clipped
LIMITS = {
    "gain_db": (-40.0, 40.0),
    "tgc_db_per_cm": (0.0, 12.0),
    "dynamic_range_db": (30.0, 90.0),
    "noise_db": (-120.0, -20.0),
    "tgc_reach": (0.05, 1.0),
}
STEPS = (-0.2, 0.3, -0.3, 0.15, 0.15)  # first ones, in the units of `_searched`


@dataclass(frozen=True)
class MatchState:
    """One combination tried: its probe and settings, its cost, and the number of combinations in all."""

    step: int
    steps: int
    probe: Probe
    settings: RenderSettings
    cost: float


class AppearanceMatch:
    """Iterate to try every combination (`MatchState`); `best` is the one of least cost so far.

    Args:
        real: (K, h, w), real frames in [0, 1].
        mask: (h, w), their fan.
        views: their geometry, whose brightness is that of the real frames.
        medium: of another patient.
        poses: (n, 4, 4), probe_to_ras of the simulated frames in the medium's world.
        settings: what is not searched for.
        frequencies_mhz, cycles, apertures: that are tried; apertures are factors of the f-numbers. None: `FREQUENCIES`
            times that of the views' probe.
        dynamic_range_db: of the statistics of both.

    Raises:
        InputError: settings whose levels cannot be told from the picture: linear, or with the paper's artefacts.
    """

    def __init__(
        self,
        real: Float[Tensor, "k h w"],
        mask: Bool[Tensor, "h w"],
        views: PolarSweep,
        medium: AcousticMedium,
        poses: Float[Tensor, "n 4 4"],
        settings: RenderSettings | None = None,
        *,
        frequencies_mhz: tuple[float, ...] | None = None,
        cycles: tuple[float, ...] = CYCLES,
        apertures: tuple[float, ...] = APERTURES,
        dynamic_range_db: float = 60.0,
    ) -> None:
        self._mask, self._views, self._medium, self._poses = mask, views, medium, poses
        self._start = settings or RenderSettings()
        require_expectable(self._start)
        own = float(views.probe.frequency_mhz)
        frequencies_mhz = frequencies_mhz or tuple(factor * own for factor in FREQUENCIES)
        self._tried = list(product(frequencies_mhz, cycles, apertures))
        self._range_db = dynamic_range_db
        self._grid = frame_grid(views.probe, views.pixel_to_probe, *mask.shape)
        row, column = (part[::THIN] for part in torch.nonzero(mask, as_tuple=True))
        # Sorted by depth, so that bands of it are parts of the list.
        order = self._grid[row, column, 0].argsort()
        self._rows, self._columns = row[order], column[order]
        self._depth = (self._grid[self._rows, self._columns, 0] + 1) / 2 * views.probe.depth_mm
        index = torch.arange(len(real))
        held = index % HELD_OUT == HELD_OUT - 1
        self._kept = kept = real[~held] if held.any() else real
        self._targets, self._held = self._bands(kept), self._bands(real[held] if held.any() else real)
        inside = kept[:, mask].flatten()
        black = inside.kthvalue(max(1, round(BLACK_QUANTILE * inside.numel()))).values.item()
        self._black = min(black, 0.5)
        statistics = frame_statistics(kept, mask, views.pixel_to_probe, dynamic_range_db=dynamic_range_db)
        self._widths = (statistics.axial_width_mm, statistics.lateral_width_mm)
        self._noise = torch.randn(2, len(self._rows), generator=torch.Generator().manual_seed(0))
        self.best: MatchState | None = None

    @torch.no_grad()
    def __iter__(self) -> Iterator[MatchState]:
        shape, steps = self._views.probe, len(self._tried)
        before = self._cost_of(self._frames(shape, self._start), self._held)
        for step, (frequency, cycles, aperture) in enumerate(self._tried, 1):
            f_numbers = {name: aperture * getattr(shape, name) for name in ("f_number", "transmit_f_number")}
            probe = replace(shape, frequency_mhz=frequency, cycles=cycles, **f_numbers)
            state = MatchState(step, steps, probe, *self._displayed(probe))
            if self.best is None or state.cost < self.best.cost:
                self.best = state
            if step == steps:
                after = self._cost_of(self._frames(self.best.probe, self.best.settings), self._held)
                if after > before:  # what is worse on frames that were not searched by is no match
                    self.best = replace(self.best, probe=shape, settings=self._start, cost=before)
            yield state

    def _bands(self, frames: Float[Tensor, "n h w"]) -> tuple[Tensor, ...]:
        """The thinned pixels by depth."""
        return frames[:, self._rows, self._columns].tensor_split(BANDS, 1)

    def _cost_of(self, frames: Float[Tensor, "n h w"], targets: tuple[Tensor, ...]) -> float:
        """Mean distance of grey levels over the bands of depth."""
        return sum(float(histogram_distance(a, b)) for a, b in zip(targets, self._bands(frames))) / BANDS

    def _frames(self, probe: Probe, settings: RenderSettings) -> Float[Tensor, "n h w"]:
        """Slices at all poses on the real pixels."""
        renderer = UltrasoundRenderer(probe, **vars(settings))
        pixels = renderer.plan(self._medium.dtype, self._medium.device).pixels_at(self._grid, self._mask)
        points = (renderer.points_ras(pose[None], self._medium.dtype) for pose in self._poses)
        return torch.cat([renderer.slices(self._medium, one, n, pixels) for n, one in enumerate(points)]).cpu()

    def _displayed(self, probe: Probe) -> tuple[RenderSettings, float]:
        """The best display of one rendering, and its cost."""
        plain = {"tgc_db_per_cm": 0.0, "tgc_margin_db": None, "tgc_reach": 1.0, "focal_gain": 0.0, "noise_db": None}
        plain |= {"gain_db": 0.0, "grey_contrast": 1.0, "edge_enhancement": 0.0, "black_level": 0.0}
        shown = self._frames(probe, self._start.replace(dynamic_range_db=LEVEL_RANGE_DB, **plain))
        level_db = (shown[:, self._rows, self._columns] - REFERENCE_BRIGHTNESS) * LEVEL_RANGE_DB
        amplitude = 10 ** (level_db / 20)

        def cost(x: np.ndarray) -> float:
            found, off = self._settings(x)
            noise = noise_level(probe, found, self._depth).float() * math.sqrt(0.5) * self._noise
            # Of the echo only the amplitude is known; its phase is as random as the noise's.
            iq = torch.stack([amplitude + noise[0], noise[1].expand_as(amplitude)], 1)[:, :, None]
            gain = display_gain_db(probe, found, self._depth).float()
            few = log_compress(iq, gain, found.dynamic_range_db, found.grey_contrast, found.black_level)[:, 0]
            bands = few.tensor_split(BANDS, 1)
            return 0.1 * off + sum(float(histogram_distance(a, b)) for a, b in zip(self._targets, bands)) / BANDS

        start = self._searched(probe)
        options = {"maxfev": 240, "xatol": 1e-3, "fatol": 1e-4}
        options["initial_simplex"] = np.vstack([start, start + np.diag(STEPS)])
        found = minimize(cost, start, method="Nelder-Mead", options=options)
        settings = self._settings(found.x)[0]
        image = self._frames(probe, settings)
        widths = frame_statistics(image, self._mask, self._views.pixel_to_probe, dynamic_range_db=self._range_db)
        ratio = [abs(math.log(a / b)) for a, b in zip((widths.axial_width_mm, widths.lateral_width_mm), self._widths)]
        patches = patch_wasserstein(self._kept, image, self._mask).grey.mean().item()
        return settings, float(found.fun) + WIDTH_WEIGHT * sum(ratio) + patches

    def _searched(self, probe: Probe) -> np.ndarray:
        """Where the search starts: gain, time gain and noise by the range shown, its logarithm, and the reach."""
        start = self._start
        dynamic_range = float(start.dynamic_range_db)
        noise = -65.0 if start.noise_db is None else float(start.noise_db)
        rate = float(time_gain_db_per_cm(probe, start)) * probe.depth_mm / 10
        numbers = [float(start.gain_db) / dynamic_range, rate / dynamic_range, math.log(dynamic_range)]
        return np.array([*numbers, noise / dynamic_range, float(start.tgc_reach)])

    def _settings(self, x: np.ndarray) -> tuple[RenderSettings, float]:
        """The settings of what is searched, and how far beyond their limits it lies."""
        dynamic_range = math.exp(min(max(x[2], 0.0), 6.0))
        rate = x[1] * dynamic_range * 10 / self._views.probe.depth_mm
        values = (x[0] * dynamic_range, rate, dynamic_range, x[3] * dynamic_range, x[4])
        off = sum(max(0.0, low - v, v - high) for v, (low, high) in zip(values, LIMITS.values()))
        within = {
            name: min(max(float(v), low), high) for (name, (low, high)), v in zip(LIMITS.items(), values, strict=True)
        }
        return self._start.replace(black_level=self._black, **within), off


def rocked(pose: Float[Tensor, "4 4"], count: int, degrees: float = 8.0) -> Float[Tensor, "n 4 4"]:
    """`count` poses that rock the probe about its face by up to `degrees` to both sides, (n, 4, 4)."""
    turns = torch.eye(4, dtype=torch.float64).repeat(count, 1, 1)
    angles = torch.deg2rad(torch.linspace(-degrees, degrees, count, dtype=torch.float64)) if count > 1 else None
    if angles is not None:
        turns[:, 1, 1] = turns[:, 2, 2] = angles.cos()
        turns[:, 1, 2], turns[:, 2, 1] = -angles.sin(), angles.sin()
    return pose @ turns
