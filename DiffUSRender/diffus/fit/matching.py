"""Settings that make simulated frames look like a real sweep of another patient: a search without alignment.

Compared are grey levels in bands of depth, and the width of speckle. Frequency, pulse length and f-numbers need a new
rendering and are tried one by one; gain, time gain and dynamic range act on what is rendered, by a simplex.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import minimize
from torch import Tensor

from ..geometry.pose import place_samples
from ..metrics.frames import frame_statistics
from ..metrics.images import histogram_distance
from ..render.display import log_compress
from ..render.gain import time_gain_db_per_cm
from ..render.plan import plan_frame
from ..render.renderer import noise_iq, render_iq, require_overlap
from ..render.settings import RenderSettings
from ..sweep.probe_sweep import frame_grid

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jaxtyping import Bool, Float

    from ..medium import AcousticMedium
    from ..probe import Probe
    from ..sweep.probe_sweep import PolarSweep

FREQUENCIES_MHZ = (2.0, 2.8, 3.5, 4.5)
CYCLES = (1.0, 2.0)
APERTURES = (1.0, 1.7)  # factors of the f-numbers
BANDS = 6  # of depth, whose grey levels are compared
THIN = 23  # of so many pixels one: histograms need no more
WIDTH_WEIGHT = 0.05  # of a ratio e of the speckle's widths, in grey levels of full scale
SIMPLEX = (-0.2, 0.02, -0.3)  # first steps: gain and time gain by the range, logarithm of the range
LIMITS = {"gain_db": (-40.0, 40.0), "tgc_db_per_cm": (0.0, 12.0), "dynamic_range_db": (30.0, 80.0)}


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
        frequencies_mhz, cycles, apertures: that are tried; apertures are factors of the f-numbers.
        dynamic_range_db: of the statistics of both.
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
        frequencies_mhz: tuple[float, ...] = FREQUENCIES_MHZ,
        cycles: tuple[float, ...] = CYCLES,
        apertures: tuple[float, ...] = APERTURES,
        dynamic_range_db: float = 60.0,
    ) -> None:
        self._mask, self._views, self._medium, self._poses = mask, views, medium, poses
        self._settings = settings or RenderSettings()
        self._tried = list(product(frequencies_mhz, cycles, apertures))
        self._range_db = dynamic_range_db
        grid = frame_grid(views.probe, views.pixel_to_probe, *mask.shape)
        row, column = (part[::THIN] for part in torch.nonzero(mask, as_tuple=True))
        # Sorted by depth, so that bands of it are parts of the list.
        order = grid[row, column, 0].argsort()
        self._pixels = grid[row, column][order][None, None].float()
        self._target = real[:, row[order], column[order]].tensor_split(BANDS, 1)
        statistics = frame_statistics(real, mask, views.pixel_to_probe, dynamic_range_db=dynamic_range_db)
        self._widths = (statistics.axial_width_mm, statistics.lateral_width_mm)
        self.best: MatchState | None = None

    @torch.no_grad()
    def __iter__(self) -> Iterator[MatchState]:
        shape = self._views.probe
        for step, (frequency, cycles, aperture) in enumerate(self._tried):
            f_numbers = {name: aperture * getattr(shape, name) for name in ("f_number", "transmit_f_number")}
            probe = replace(shape, frequency_mhz=frequency, cycles=cycles, **f_numbers)
            state = MatchState(step + 1, len(self._tried), probe, *self._displayed(probe))
            if self.best is None or state.cost < self.best.cost:
                self.best = state
            yield state

    def _displayed(self, probe: Probe) -> tuple[RenderSettings, float]:
        """The best display of one rendering, and its cost."""
        settings = self._settings.replace(tgc_db_per_cm=0.0)
        plan = plan_frame(probe, settings)
        points = place_samples(self._poses, probe.sample_points()[0]).float()
        require_overlap(self._medium, points)
        iq = torch.cat([render_iq(plan, self._medium, part[None]) for part in points])
        if plan.noise is not None:
            iq = iq + noise_iq(plan, 0, len(iq))
        depth_cm = probe.depths_mm().float() / 10

        def shown(display: tuple[float, ...]) -> Tensor:
            gain, rate, dynamic_range = display
            return log_compress(iq, gain + rate * depth_cm, dynamic_range)

        def cost(x: np.ndarray) -> float:
            display = _display(x)
            off = sum(max(0.0, low - v, v - high) for v, (low, high) in zip(display, LIMITS.values()))
            pixels = self._pixels.expand(len(iq), -1, -1, -1)
            few = F.grid_sample(shown(_within(display))[:, None], pixels, padding_mode="border", align_corners=True)
            bands = few[:, 0, 0].tensor_split(BANDS, 1)
            return 0.1 * off + sum(float(histogram_distance(a, b)) for a, b in zip(self._target, bands)) / BANDS

        # In fractions of the range shown, which change the picture independently of the range itself.
        rate = float(time_gain_db_per_cm(probe, RenderSettings()))
        start = np.array([0.0, rate / 60.0, math.log(60.0)])
        options = {"maxfev": 120, "xatol": 1e-3, "fatol": 1e-4}
        options["initial_simplex"] = np.vstack([start, start + np.diag(SIMPLEX)])
        found = minimize(cost, start, method="Nelder-Mead", options=options)
        display = dict(zip(LIMITS, _within(_display(found.x))))
        image = self._views.in_frame(shown(tuple(display.values())), *self._mask.shape)
        widths = frame_statistics(image, self._mask, self._views.pixel_to_probe, dynamic_range_db=self._range_db)
        ratio = [abs(math.log(a / b)) for a, b in zip((widths.axial_width_mm, widths.lateral_width_mm), self._widths)]
        return self._settings.replace(**display), float(found.fun) + WIDTH_WEIGHT * sum(ratio)


def rocked(pose: Float[Tensor, "4 4"], count: int, degrees: float = 8.0) -> Float[Tensor, "n 4 4"]:
    """`count` poses that rock the probe about its face by up to `degrees` to both sides, (n, 4, 4)."""
    turns = torch.eye(4, dtype=torch.float64).repeat(count, 1, 1)
    angles = torch.deg2rad(torch.linspace(-degrees, degrees, count, dtype=torch.float64)) if count > 1 else None
    if angles is not None:
        turns[:, 1, 1] = turns[:, 2, 2] = angles.cos()
        turns[:, 1, 2], turns[:, 2, 1] = -angles.sin(), angles.sin()
    return pose @ turns


def _display(x: np.ndarray) -> tuple[float, float, float]:
    """Gain, time gain and dynamic range of what is searched."""
    dynamic_range = math.exp(min(max(x[2], 0.0), 6.0))
    return x[0] * dynamic_range, x[1] * dynamic_range, dynamic_range


def _within(display) -> tuple[float, ...]:
    return tuple(min(max(float(v), low), high) for v, (low, high) in zip(display, LIMITS.values()))
