"""A-mode: the echo of one line against depth and time, as the first ultrasound devices showed it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from ..errors import InputError, _
from ..geometry.pose import require_rigid
from ..probe.probe import SPEED_OF_SOUND_MM_PER_US
from .renderer import render_iq, require_overlap

if TYPE_CHECKING:
    from jaxtyping import Float

    from ..medium import AcousticMedium
    from ..probe import Probe
    from .renderer import UltrasoundRenderer

FLOOR_DB = -160.0  # of silence, whose logarithm there is none of


class AMode(NamedTuple):
    """The echo of one line, each (samples,).

    Args:
        depth_mm: along the line, from the transducer's face.
        time_us: from the pulse to the echo, two-way at 1.54 mm/us, microseconds.
        level_db: amplitude of the echo, dB relative to white-matter speckle at the face.
    """

    depth_mm: Tensor
    time_us: Tensor
    level_db: Tensor


def a_mode(
    renderer: UltrasoundRenderer,
    medium: AcousticMedium,
    probe_to_ras: Float[Tensor, "4 4"],
    lateral_mm: float = 0.0,
    *,
    ray: int | None = None,
) -> AMode:
    """The echo's amplitude along one line of the image, before noise, gain and compression.

    Args:
        renderer: with the probe and the settings.
        medium: what is met.
        probe_to_ras: the pose, mm.
        lateral_mm: the line is the ray that passes nearest to it at the depth of the focus (linear: at every depth).
        ray: number of the ray from 0, in place of lateral_mm.

    Raises:
        InputError: a pose that is not rigid, a fan outside of the volume, a line outside of the fan.
    """
    probe = renderer.probe
    number = _ray_at(probe, lateral_mm) if ray is None else ray
    if not 0 <= number <= probe.rays - 1:
        raise InputError(
            _("The A-mode line lies outside of the fan: choose a ray from 0 to {last}, or a smaller lateral position."),
            last=probe.rays - 1,
        )
    pose = require_rigid(probe_to_ras, "The probe's pose").to(medium.device)
    points = renderer.points_ras(pose[None], medium.dtype)
    require_overlap(medium, points)
    echo = render_iq(renderer.plan(medium.dtype, medium.device), medium, points)[0, :, number]
    level = 10 * torch.log10(echo.square().sum(0).clamp(min=10 ** (FLOOR_DB / 10)))
    depth = probe.depths_mm().to(level)
    return AMode(depth, 2 * depth / SPEED_OF_SOUND_MM_PER_US, level)


def _ray_at(probe: Probe, lateral_mm: float) -> int:
    """The ray that passes nearest to a lateral position at the depth of the focus; -1 outside of the fan."""
    xy = torch.tensor([lateral_mm, float(probe.focus_mm)], dtype=torch.float64)
    place = probe.polar_coordinates(xy)[0].item()
    return round(place) if -1e-6 <= place <= probe.rays - 1 + 1e-6 else -1
