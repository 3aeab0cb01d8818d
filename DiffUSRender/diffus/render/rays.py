"""What rays meet in the tissue: echoes of boundaries and amplitudes of scatterers, before the beam and the pulse."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .echo import echo, window_sum
from .gas import gas_echoes
from .specular import SHEET_STEP_MM, sheet_shape, specular_lobe, spread_between_rays, wall_slopes

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
    impedance, attenuation, exponent, scattering, *sheets = medium.sample(points)
    if settings.start_depth_mm > 0:
        impedance, attenuation, scattering, *level = _start_at_depth(
            plan, impedance, attenuation, scattering, *sheets[1:]
        )
        sheets = [*sheets[:1], *level]
    loss = None
    if settings.attenuation:
        # f^b through the exponential, which is many times as fast as a power on a CPU.
        frequency = torch.as_tensor(probe.frequency_mhz, dtype=points.dtype, device=points.device)
        loss = attenuation * torch.exp(exponent * torch.log(frequency))
    reflection, transmission = echo(settings.echo, impedance, loss, probe.sample_spacing_mm)
    strength = transmission * scattering
    lobed = isinstance(settings.specular_exponent, Tensor) or settings.specular_exponent > 0
    if lobed:
        cosine_square, slope_mm = wall_slopes(plan, impedance)
        reflection = reflection * specular_lobe(cosine_square, settings.specular_exponent, settings.diffuse_db)
        reflection = spread_between_rays(plan, reflection, slope_mm)
    if sheets and settings.sheet_db is not None:
        distance, level = sheets
        profile, cosine_square = sheet_shape(distance, probe.sample_spacing_mm)
        amplitude = transmission * level * profile
        if lobed:
            amplitude = amplitude * specular_lobe(cosine_square, settings.specular_exponent, settings.sheet_diffuse_db)
        reflection, strength = _with_sheets(plan, reflection, strength, amplitude)
    if settings.echo == "transmission":
        reflection, strength = gas_echoes(plan, impedance, reflection, strength)
    return reflection, strength


def _with_sheets(plan: FramePlan, reflection: Tensor, strength: Tensor, amplitude: Tensor) -> tuple[Tensor, Tensor]:
    """Adds the echo of sheets, whose power is partly coherent, a smooth line, and partly random, its grain."""
    settings = plan.settings
    amplitude = amplitude * 10 ** (settings.sheet_db / 20)
    coherent = settings.sheet_coherence
    # On a wall where impedance falls the sheet's echo is negative too: it must not put out the wall's.
    reach = max(1, round(SHEET_STEP_MM / plan.probe.sample_spacing_mm))
    sign = 1 - 2 * (window_sum(reflection.detach(), reach) < -1e-3).to(reflection)
    # The renderer weighs a reflection by reflection_scale, which a sheet's level has nothing to do with.
    reflection = reflection + sign * amplitude * (coherent**0.5 / plan.reflection_scale)
    power = strength.square() + amplitude.square() * (1 - coherent)
    return reflection, (power + 1e-20).sqrt()


def _start_at_depth(plan: FramePlan, impedance: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
    """Replaces what lies nearer than the start depth by coupling that matches the first tissue (no mirror).

    Impedance continues upwards; attenuation, scattering and the level of sheets are zero there.
    """
    probe = plan.probe
    first = min(probe.samples - 1, math.ceil(plan.settings.start_depth_mm / probe.sample_spacing_mm))
    near = torch.arange(probe.samples, device=impedance.device) < first
    impedance = torch.where(near, impedance[..., first : first + 1], impedance)
    return impedance, *(other.masked_fill(near, 0.0) for other in others)
