"""What can be fitted, how it stays physical, and what is believed of it before.

Every number is moved in units of its own prior's standard deviation, t, from its start at t = 0, along a tanh between
its bounds: a step of one means equally much for all of them, and none can leave its range. Quantities that are
positive by nature (frequency, focus, dynamic range, attenuation) are moved in their logarithm.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..errors import InputError, _
from ..render.gain import time_gain_db_per_cm

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Float

    from ..medium.tissue import Tissue
    from ..probe import Probe
    from ..render.settings import RenderSettings

ACQUISITION = ("tgc_db_per_cm", "tgc_reach", "gain_db", "dynamic_range_db", "noise_db", "focus_mm", "frequency_mhz")
TISSUE_CHANNELS = ("impedance_mrayl", "attenuation_db_cm_mhz", "scattering_db")
NETWORK = "network"
GROUPS = {"acquisition": ACQUISITION, "tissues": TISSUE_CHANNELS, "impedance": (NETWORK,)}
OF_PROBE = ("focus_mm", "frequency_mhz")
MIN_ATTENUATION = 0.02  # dB/(cm MHz), where the logarithm of a smaller number starts


@dataclass(frozen=True)
class Bounded:
    """A number to be fitted, and what is believed of it before.

    Args:
        name: as in the settings, the probe or the tissue table.
        start, low, high: where it starts, and its range.
        sd: standard deviation of the belief, in its units, or relative.
        logarithmic: moved as its logarithm; `sd` is then relative.
    """

    name: str
    start: float
    low: float
    high: float
    sd: float
    logarithmic: bool = False

    def value(self, t: Tensor) -> Tensor:
        """The number at t standard deviations from its start, never outside of its range."""
        low, start, high = (math.log(v) if self.logarithmic else v for v in (self.low, self.start, self.high))
        middle, half = (low + high) / 2, (high - low) / 2
        relative = min(max((start - middle) / half, -0.98), 0.98)
        slope = half * (1 - relative**2)
        moved = middle + half * torch.tanh(math.atanh(relative) + self.sd * t / slope)
        return moved.exp() if self.logarithmic else moved


def chosen_parameters(names: Sequence[str]) -> tuple[str, ...]:
    """The single parameters that names of groups or of parameters mean.

    Raises:
        InputError: for an unknown name, or none.
    """
    known = [*GROUPS, *ACQUISITION, *TISSUE_CHANNELS]
    found: list[str] = []
    for name in names:
        if name not in known:
            raise InputError(
                _("There is no parameter '{name}' to fit; choose from {names}."), name=name, names=", ".join(known)
            )
        found += [one for one in GROUPS.get(name, (name,)) if one not in found]
    if not found:
        raise InputError(_("Nothing to fit was named; choose from {names}."), names=", ".join(known))
    return tuple(found)


def acquisition_parameters(names: Sequence[str], probe: Probe, settings: RenderSettings) -> list[Bounded]:
    """Those of `ACQUISITION` that are named, from the probe's and settings' values on."""
    frequency, rate = float(probe.frequency_mhz), float(time_gain_db_per_cm(probe, settings))
    depth, focus = probe.depth_mm, float(probe.focus_mm)
    every = {
        "tgc_db_per_cm": Bounded("tgc_db_per_cm", rate, 0.0, 40.0, 3.0),
        "tgc_reach": Bounded("tgc_reach", float(settings.tgc_reach), 0.02, 1.0, 0.2),
        "gain_db": Bounded("gain_db", float(settings.gain_db), -80.0, 80.0, 10.0),
        "dynamic_range_db": Bounded("dynamic_range_db", float(settings.dynamic_range_db), 20.0, 140.0, 0.25, True),
        "focus_mm": Bounded("focus_mm", focus, min(3.0, 0.5 * focus), max(1.5 * depth, 1.1 * focus), 0.5, True),
        "frequency_mhz": Bounded(
            "frequency_mhz", frequency, max(0.5, 0.4 * frequency), min(40.0, 2.5 * frequency), 0.25, True
        ),
    }
    if settings.noise_db is not None:
        every["noise_db"] = Bounded("noise_db", float(settings.noise_db), -120.0, 0.0, 10.0)
    return [every[name] for name in ACQUISITION if name in names and name in every]


def tissue_parameters(channel: str, tissues: Sequence[Tissue], held: int | None) -> list[Bounded | None]:
    """One number per tissue for a channel; None for what is not fitted.

    Impedance within 10 % of the table (1 % for bone and air is as little known as for the rest), sd 2 %; attenuation
    within a factor of 6, sd 60 %; scattering within 25 dB, sd 6 dB.

    Args:
        channel: of `TISSUE_CHANNELS`.
        tissues: of the medium.
        held: index of the tissue that keeps its value, if any; what is zero keeps it too.
    """
    found: list[Bounded | None] = []
    for index, tissue in enumerate(tissues):
        number = None
        if index != held:
            if channel == "impedance_mrayl":
                z = tissue.impedance_mrayl
                number = Bounded(channel, z, z / 1.1, 1.1 * z, 0.02, True)
            elif channel == "attenuation_db_cm_mhz":
                a = max(tissue.attenuation_db_cm_mhz, MIN_ATTENUATION)
                number = Bounded(channel, a, a / 6, 6 * a, 0.6, True)
            elif math.isfinite(tissue.scattering_db):
                s = tissue.scattering_db
                number = Bounded(channel, s, s - 25.0, s + 25.0, 6.0)
        found.append(number)
    return found


class Unknowns:
    """All numbers of a fit as one vector t (n,), zero at the start.

    Args:
        acquisition: of probe and display.
        tissues: {channel: one number or None per tissue}.
    """

    def __init__(self, acquisition: Sequence[Bounded], tissues: dict[str, list[Bounded | None]]):
        self.numbers = list(acquisition)
        self.tissues: list[int | None] = [None] * len(self.numbers)
        for numbers in tissues.values():
            for index, number in enumerate(numbers):
                if number is not None:
                    self.numbers.append(number)
                    self.tissues.append(index)
        self.t = torch.zeros(len(self.numbers), dtype=torch.float64, requires_grad=True)

    def acquisition(self) -> dict[str, Tensor]:
        """The acquisition's parameters by name, 0-d float64 tensors."""
        return {n.name: n.value(t) for n, of, t in zip(self.numbers, self.tissues, self.t) if of is None}

    def table(self, start: Float[Tensor, "c 4"]) -> Float[Tensor, "c 4"]:
        """The tissues' channel values, (C, 4), with the fitted ones in place of the start's."""
        cells = {(index, column): start[index, column] for index in range(len(start)) for column in range(4)}
        columns = {"impedance_mrayl": 0, "attenuation_db_cm_mhz": 1, "scattering_db": 3}
        for number, tissue, t in zip(self.numbers, self.tissues, self.t):
            if tissue is not None:
                value = number.value(t)
                cells[tissue, columns[number.name]] = 10 ** (value / 20) if number.name == "scattering_db" else value
        return torch.stack([torch.stack([cells[i, c] for c in range(4)]) for i in range(len(start))])

    def penalty(self) -> Tensor:
        """Half of the sum of squares: the negative logarithm of the Gaussian priors."""
        return 0.5 * self.t.square().sum()
