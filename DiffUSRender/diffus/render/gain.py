"""What a scanner does over depth: receiver noise under the beam, and a time gain that stops where noise would show."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Float

    from ..probe import Probe
    from .settings import RenderSettings

TGC_DB_CM_MHZ = 0.6  # one way; the mean of brain, and a little above other soft tissue
BEND_DB = 2.0  # over which the time gain goes over from compensation to its limit


def time_gain_db_per_cm(probe: Probe, settings: RenderSettings) -> float | Tensor:
    """The two-way time gain: that of the settings, or what compensates the usual tissue at the probe's frequency."""
    if settings.tgc_db_per_cm is not None:
        return settings.tgc_db_per_cm
    return 2 * TGC_DB_CM_MHZ * probe.frequency_mhz if settings.attenuation else 0.0


def beam_gain_db(probe: Probe, settings: RenderSettings, depth: Float[Tensor, " samples"]) -> Float[Tensor, " samples"]:
    """Level of speckle under the beam against the transmit focus, at depths in mm; nothing without a beam."""
    return probe.beam.gain_db(depth) if settings.psf else torch.zeros_like(depth)


def noise_level(probe: Probe, settings: RenderSettings, depth: Float[Tensor, " samples"]) -> Float[Tensor, " samples"]:
    """Amplitude of the electronic noise at depths in mm, where speckle without attenuation is 1 at every depth.

    The receiver's noise is the same at all times; what the beam gathers is not, and the echo is kept at unit level.
    """
    if settings.noise_db is None:
        return torch.zeros_like(depth)
    return 10 ** ((settings.noise_db - beam_gain_db(probe, settings, depth)) / 20)


def display_gain_db(
    probe: Probe, settings: RenderSettings, depth: Float[Tensor, " samples"]
) -> Float[Tensor, " samples"]:
    """Gain of the display at depths in mm: overall gain, time gain, and what is left of the beam's focal gain.

    The time gain compensates from the start depth on, since coupling loses nothing. It rises down to `tgc_reach` of the
    image, and bends earlier where it would lift noise closer than `tgc_margin_db` to the level of white matter: from
    there on, tissue sinks into black.
    """
    beam = beam_gain_db(probe, settings, depth)
    start, reach = settings.start_depth_mm, settings.tgc_reach
    wanted = _compensation_db(probe, settings, depth, beam)
    limits = []
    timed = settings.attenuation or settings.tgc_db_per_cm is not None  # else there is no time gain that could end
    if timed and (isinstance(reach, Tensor) or reach < 1):
        last = start + torch.as_tensor(reach, dtype=depth.dtype, device=depth.device).reshape(1) * (
            probe.depth_mm - start
        )
        there = beam_gain_db(probe, settings, last)
        # The echo is kept at unit level under the beam: a gain that stays does not make up for its spread either.
        spread = torch.where(depth > last, (beam - there).clamp(max=0), torch.zeros_like(beam))
        limits.append(_compensation_db(probe, settings, last, there) + spread)
    if settings.noise_db is not None and settings.tgc_margin_db is not None:
        limits.append(beam - settings.noise_db - settings.tgc_margin_db)
    for limit in limits:
        wanted = wanted - BEND_DB * torch.nn.functional.softplus((wanted - limit) / BEND_DB)
    return settings.gain_db + wanted


def _compensation_db(
    probe: Probe, settings: RenderSettings, depth: Float[Tensor, " n"], beam: Float[Tensor, " n"]
) -> Float[Tensor, " n"]:
    """Time gain at depths in mm that compensates without end."""
    below = (depth - settings.start_depth_mm).clamp(min=0)
    return 0.1 * below * time_gain_db_per_cm(probe, settings) + settings.focal_gain * beam
