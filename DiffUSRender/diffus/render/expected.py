"""The image that speckle makes on average: what a sweep can be compared with, whose scatterers nobody knows.

At a sample the echo is z = a + s n: a the boundaries' coherent part, n complex circular Gaussian of unit power, s^2 the
mean power of the scatterers under the pulse and the beam, and of the electronic noise. What is shown is a clipped
logarithm of |z|^2. Its mean is taken by quadrature over n, so that clipping and boundaries are in it.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from ..probe.beam import blur_axial, blur_lateral
from .display import POWER_FLOOR, REFERENCE_BRIGHTNESS
from .renderer import boundary_iq, ray_echoes

if TYPE_CHECKING:
    from jaxtyping import Float

    from ..medium.medium import Samplable
    from .renderer import FramePlan
    from .settings import RenderSettings

RINGS, ANGLES = 6, 3
SPECKLE_DB = 5.57  # standard deviation of the level of fully developed speckle, dB: 10/ln 10 * pi/sqrt 6


def require_expectable(settings: RenderSettings) -> None:
    """Raises InputError for settings whose mean image is not known: another display, or image-space artefacts."""
    if settings.compression != "log" or settings.artefacts is not None:
        raise InputError("Fitting needs the logarithmic display without the paper's artefacts; use the default preset.")
    if not (settings.speckle and settings.psf):
        raise InputError("Fitting is to real ultrasound, which has speckle and blur; leave both switched on.")


def expected_polar(
    plan: FramePlan, medium: Samplable, points: Float[Tensor, "b s rays samples 3"]
) -> Float[Tensor, "b rays samples"]:
    """Mean brightness (B, rays, samples) over all speckle, at points (B, S, rays, samples, 3) in the medium's world.

    Differentiable to the medium, the points and the plan's probe and settings.
    """
    reflection, strength = ray_echoes(plan, medium, points)
    coherent, power = boundary_iq(plan, reflection), _layer_power(plan, strength)
    if plan.axial_taps is not None:
        coherent = blur_lateral(blur_axial(coherent, plan.axial_taps), plan.lateral_taps)
        power = blur_lateral(blur_axial(power, _squared(plan.axial_taps)), _squared(plan.lateral_taps))
    if plan.settings.noise_db is not None:
        power = power + 10 ** (plan.settings.noise_db / 10)
    return _mean_brightness(coherent, power, plan.gain_db, plan.settings.dynamic_range_db)


def _layer_power(plan: FramePlan, strength: Float[Tensor, "b s rays samples"]) -> Float[Tensor, "b rays samples"]:
    """Mean power of the sub-rays' scatterers; they are independent, so weights are squared."""
    weights = plan.weights.square() / plan.weights.square().sum()
    return (strength.square() * weights[:, None, None]).sum(1)


def _squared(taps: Float[Tensor, "*n taps"]) -> Float[Tensor, "*n taps"]:
    """Kernels of power: the squares of those of amplitude, of unit sum (the renderer keeps speckle at unit power)."""
    return taps.square() / taps.square().sum(-1, keepdim=True)


def _mean_brightness(coherent: Tensor, power: Tensor, gain_db: Tensor, range_db: float | Tensor) -> Tensor:
    radii, cosines = _nodes()
    amplitude = (power + POWER_FLOOR).sqrt()
    square, cross = coherent.square(), 2 * coherent * amplitude
    offset = REFERENCE_BRIGHTNESS + gain_db / range_db
    total = torch.zeros_like(coherent)
    for radius in radii:
        for cosine in cosines:
            # The square completed: never negative by rounding.
            mixed = square + cross * (radius * cosine) + (power + POWER_FLOOR) * radius**2
            level = 10 * torch.log10(mixed.clamp(min=POWER_FLOOR)) / range_db
            total = total + (offset + level).clamp(0, 1)
    return total / (len(radii) * len(cosines))


@lru_cache(maxsize=1)
def _nodes() -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Radii of rings of equal probability, at their mean logarithm, and the cosines of even angles."""
    shares = (np.arange(RINGS * 4096) + 0.5) / (RINGS * 4096)
    logs = np.log(-np.log1p(-shares)).reshape(RINGS, -1).mean(1)
    angles = (np.arange(ANGLES) + 0.5) * np.pi / ANGLES
    return tuple(np.exp(0.5 * logs).tolist()), tuple(np.cos(angles).tolist())
