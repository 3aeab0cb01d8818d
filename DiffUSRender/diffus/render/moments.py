"""The complex echo's mean and mean power at every sample: boundaries and scatterers under the pulse and the beam."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .blur import blur_across, blur_along
from .clutter import clutter_power
from .rays import ray_echoes

if TYPE_CHECKING:
    from jaxtyping import Float

    from ..medium.medium import Samplable
    from .plan import FramePlan


def boundary_echo(plan: FramePlan, reflection: Float[Tensor, "b s rays samples"]) -> Float[Tensor, "b rays samples"]:
    """The boundaries' part of the complex echo, which is real, before the beam and the pulse: (B, rays, samples)."""
    return _weighed(reflection, plan.weights * plan.reflection_scale)


def echo_moments(
    plan: FramePlan, medium: Samplable, points: Float[Tensor, "b s rays samples 3"]
) -> tuple[Float[Tensor, "b rays samples"], Float[Tensor, "b rays samples"]]:
    """The boundaries' echo a, an amplitude, and the scatterers' mean power s^2, each (B, rays, samples).

    The complex echo is a + s n with speckle n of unit power. Scatterers are independent, so that the pulse and the
    beam act on their power with the squares of their profiles, and so do the sub-rays.
    """
    reflection, strength = ray_echoes(plan, medium, points)
    coherent, power = boundary_echo(plan, reflection), _layer_power(plan, strength)
    if plan.lateral_factors is None:
        return coherent, power
    both = torch.stack([blur_along(coherent, plan.pulse_taps), blur_along(power, plan.power_taps)], 1)
    coherent, power = blur_across(both, plan.lateral_factors).unbind(1)
    power = power.clamp(min=0.0)
    if plan.clutter is not None:
        echo, spacing = power + coherent.square(), plan.probe.sample_spacing_mm
        power = power + clutter_power(echo, plan.clutter, plan.clutter_level, spacing)
    return coherent, power


def _layer_power(plan: FramePlan, strength: Float[Tensor, "b s rays samples"]) -> Float[Tensor, "b rays samples"]:
    """Mean power of the sub-rays' scatterers."""
    weights = plan.weights.square() / plan.weights.square().sum()
    return _weighed(strength.square(), weights)


def _weighed(
    values: Float[Tensor, "b s rays samples"], weights: Float[Tensor, " s"]
) -> Float[Tensor, "b rays samples"]:
    """Sum over the sub-rays; of one of them alone without a copy."""
    weighed = values * weights[:, None, None]
    return weighed[:, 0] if len(weights) == 1 else weighed.sum(1)
