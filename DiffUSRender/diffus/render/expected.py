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

from ..errors import InputError, _
from .display import POWER_FLOOR, REFERENCE_BRIGHTNESS, grey_map
from .moments import echo_moments

if TYPE_CHECKING:
    from jaxtyping import Float

    from ..medium.medium import Samplable
    from .plan import FramePlan
    from .settings import RenderSettings

NODES = (6, 3)  # of the quadrature: rings and angles of the complex plane
SPECKLE_DB = 5.57  # standard deviation of the level of fully developed speckle, dB: 10/ln 10 * pi/sqrt 6


def require_expectable(settings: RenderSettings) -> None:
    """Raises InputError for settings whose mean image is not known: another display, or image-space artefacts."""
    if settings.compression != "log" or settings.artefacts is not None:
        raise InputError(
            _("Fitting needs the logarithmic display without the paper's artefacts; use the default preset.")
        )
    if not (settings.speckle and settings.psf):
        raise InputError(_("Fitting is to real ultrasound, which has speckle and blur; leave both switched on."))


def expected_polar(
    plan: FramePlan, medium: Samplable, points: Float[Tensor, "b s rays samples 3"], nodes: tuple[int, int] = NODES
) -> Float[Tensor, "b rays samples"]:
    """Mean brightness over all speckle; differentiable to the medium, the points and the plan's probe and settings.

    Args:
        plan: of the frame.
        medium: in the world of the points.
        points: (B, S, rays, samples, 3) mm, of S sub-rays and layers.
        nodes: radii and angles of the quadrature over the speckle.

    Returns:
        (B, rays, samples) in [0, 1].
    """
    coherent, power = expected_echo(plan, medium, points)
    return mean_brightness(plan, coherent, power, nodes)


def expected_echo(
    plan: FramePlan, medium: Samplable, points: Float[Tensor, "b s rays samples 3"]
) -> tuple[Float[Tensor, "b rays samples"], Float[Tensor, "b rays samples"]]:
    """The boundaries' echo a, an amplitude, and the mean power s^2 of all that is random: each (B, rays, samples)."""
    coherent, power = echo_moments(plan, medium, points)
    return coherent, power + plan.noise_level**2


def mean_brightness(
    plan: FramePlan,
    coherent: Float[Tensor, "b rays samples"],
    power: Float[Tensor, "b rays samples"],
    nodes: tuple[int, int] = NODES,
) -> Float[Tensor, "b rays samples"]:
    """Mean of the clipped logarithm of |a + s n|^2 over n, with the plan's gain and dynamic range.

    A compounded image shows the mean of independent envelopes: they vary about theirs by so much less, to which the
    nodes are drawn. That its looks see walls and shadows at other angles is left out.
    """
    radii, cosines = _quadrature(*nodes)
    range_db = plan.settings.dynamic_range_db
    amplitude = (power + POWER_FLOOR).sqrt()
    square, cross = coherent.square(), 2 * coherent * amplitude
    offset = REFERENCE_BRIGHTNESS + plan.gain_db / range_db
    # The square completed: never negative by rounding.
    powers = [
        (square + cross * (radius * cosine) + (power + POWER_FLOOR) * radius**2).clamp(min=POWER_FLOOR)
        for radius in radii
        for cosine in cosines
    ]
    if (looks := plan.settings.compounding) > 1:
        envelopes = [each.sqrt() for each in powers]
        middle = sum(envelopes) / len(envelopes)
        powers = [(middle + (each - middle) * looks**-0.5).square() for each in envelopes]
    total = torch.zeros_like(coherent)
    for each in powers:
        shown = (offset + 10 * torch.log10(each) / range_db).clamp(0, 1)
        total = total + grey_map(shown, plan.settings.grey_contrast, plan.settings.black_level)
    return total / len(powers)


@lru_cache(maxsize=4)
def _quadrature(rings: int, angles: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Radii of rings of equal probability, at their mean logarithm, and the cosines of even angles."""
    probability = (np.arange(rings * 4096) + 0.5) / (rings * 4096)
    logs = np.log(-np.log1p(-probability)).reshape(rings, -1).mean(1)
    directions = (np.arange(angles) + 0.5) * np.pi / angles
    return tuple(np.exp(0.5 * logs).tolist()), tuple(np.cos(directions).tolist())
