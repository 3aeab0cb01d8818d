"""What rays meet in the tissue: echoes of boundaries and amplitudes of scatterers, before the beam and the pulse."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .echo import echo

if TYPE_CHECKING:
    from jaxtyping import Float

    from ..medium.medium import Samplable
    from .plan import FramePlan


def ray_echoes(
    plan: FramePlan, medium: Samplable, points: Float[Tensor, "b s rays samples 3"]
) -> tuple[Tensor, Tensor]:
    """Echo of the boundaries and amplitude of the scatterers, each (B, S, rays, samples), at points (..., 3).

    Before the beam and the pulse, per unit of reflection and of fully developed white-matter speckle at the face.
    """
    settings, probe = plan.settings, plan.probe
    impedance, attenuation, exponent, scattering = medium.sample(points)[:4]
    if settings.start_depth_mm > 0:
        impedance, attenuation, scattering = _start_at_depth(plan, impedance, attenuation, scattering)
    loss = None
    if settings.attenuation:
        loss = attenuation * torch.as_tensor(probe.frequency_mhz, dtype=points.dtype, device=points.device) ** exponent
    reflection, transmission = echo(settings.echo, impedance, loss, probe.sample_spacing_mm)
    if isinstance(settings.specular_exponent, Tensor) or settings.specular_exponent > 0:
        reflection = reflection * _specular_lobe(medium, points, settings.specular_exponent)
    return reflection, transmission * scattering


def _start_at_depth(plan: FramePlan, impedance: Tensor, attenuation: Tensor, scattering: Tensor) -> tuple[Tensor, ...]:
    """Replaces what lies nearer than the start depth by coupling that matches the first tissue (no mirror)."""
    probe = plan.probe
    first = min(probe.samples - 1, math.ceil(plan.settings.start_depth_mm / probe.sample_spacing_mm))
    near = torch.arange(probe.samples, device=impedance.device) < first
    impedance = torch.where(near, impedance[..., first : first + 1], impedance)
    return impedance, attenuation.masked_fill(near, 0.0), scattering.masked_fill(near, 0.0)


def _specular_lobe(medium: Samplable, points: Tensor, exponent: float | Tensor) -> Tensor:
    """|n.d|^m between the impedance gradient and the beam at points (B, S, rays, samples, 3); 1 where there is none."""
    step = 0.5
    offsets = step * torch.eye(3, dtype=points.dtype, device=points.device)
    gradient = torch.stack(
        [medium.sample(points + offset)[0] - medium.sample(points - offset)[0] for offset in offsets], -1
    )
    direction = torch.nn.functional.normalize(points[..., -1:, :] - points[..., :1, :], dim=-1)
    square = (gradient * gradient).sum(-1)
    cosine_square = (gradient * direction).sum(-1) ** 2 / (square + 1e-10)
    lobe = (cosine_square + 1e-12) ** (exponent / 2)
    flat = 1e-8 / (square + 1e-8)
    return lobe * (1 - flat) + flat
