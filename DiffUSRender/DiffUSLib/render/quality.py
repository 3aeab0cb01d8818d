"""How much work a frame may be while the probe moves, and which settings make it so."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import replace

from .parameters import ProbeSettings, RenderParameters

TARGET_FRAMES_PER_SECOND = 20.0
RENDER_FRACTION = 0.7  # of a frame's time; the rest is for the application to draw it
FRACTIONS = tuple(0.5**n for n in range(8))
MEASURED_FRAMES = 3
MIN_RAYS, MIN_SAMPLES = 48, 100  # fewer do not show anatomy


class AdaptiveQuality:
    """Chooses the fraction of a full frame's work, 1 at best, that keeps the rate, from the time that frames took."""

    def __init__(self, budget: float = RENDER_FRACTION / TARGET_FRAMES_PER_SECOND) -> None:
        self._budget = budget
        self._setLevel(0)

    @property
    def fraction(self) -> float:
        """The fraction of the work to be done for the next frame of a moving probe."""
        return FRACTIONS[self._level]

    def measured(self, fraction: float, seconds: float) -> None:
        """Takes note of how long a frame of this fraction took.

        Time is taken as proportional to work. That is pessimistic for an increase, so the fraction does not oscillate.
        """
        if fraction == 1.0 and seconds <= self._budget:
            if self._level:
                self._setLevel(0)  # a frame at rest that was quick enough for a moving probe
            return
        if fraction != self.fraction:
            return
        if self._first:  # it also made what the later ones use again
            self._first = False
            return
        self._seconds.append(seconds)
        if min(self._seconds) > self._budget:
            self._setLevel(self._levelWithin(min(self._seconds)))
        elif len(self._seconds) == MEASURED_FRAMES and max(self._seconds) * 2 <= self._budget:
            self._setLevel(max(0, self._level - 1))

    def _levelWithin(self, seconds: float) -> int:
        level = self._level
        while level + 1 < len(FRACTIONS) and seconds * FRACTIONS[level] / self.fraction > self._budget:
            level += 1
        return level

    def _setLevel(self, level: int) -> None:
        self._level, self._first = level, True
        self._seconds: deque[float] = deque(maxlen=MEASURED_FRAMES)


def reduced(probe: ProbeSettings, fraction: float) -> ProbeSettings:
    """The same probe with about this fraction of the work of a frame: fewer sub-rays first, then lines and samples.

    Its fan, and so the slice's pixels and where they lie, stay as they are.
    """
    rest = fraction
    perLine = max(1, math.floor(probe.raysPerLine * rest))
    rest = min(1.0, rest * probe.raysPerLine / perLine)
    layers = max(1, math.floor(probe.elevationLayers * rest))
    rest = min(1.0, rest * probe.elevationLayers / layers)
    return replace(
        probe,
        raysPerLine=perLine,
        elevationLayers=layers,
        rays=min(probe.rays, max(MIN_RAYS, round(probe.rays * math.sqrt(rest)))),
        samples=min(probe.samples, max(MIN_SAMPLES, round(probe.samples * math.sqrt(rest)))),
    )


def reducedFrame(parameters: RenderParameters, fraction: float) -> RenderParameters:
    """The same frame with about this fraction of its work: fewer looks of a compounded image first, then `reduced`."""
    looks = max(1, math.floor(parameters.image.compounding * fraction))
    rest = min(1.0, fraction * parameters.image.compounding / looks)
    image = replace(parameters.image, compounding=looks)
    return replace(parameters, image=image, probe=reduced(parameters.probe, rest))
