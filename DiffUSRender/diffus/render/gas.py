"""Behind gas: lines repeated between its surface and the transducer (A-lines), and the haze of a dirty shadow."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .echo import BOUNDARY_MM

if TYPE_CHECKING:
    from jaxtyping import Float

    from .plan import FramePlan

GAS_MRAYL = (0.6, 1.2)  # surely gas (lung is 0.37), surely none (fat is 1.31)
REPEATS = 4  # A-lines beyond the surface itself; later ones lie below the picture or in the noise
HAZE_MM = 15.0  # depth over which the haze falls by a factor of e, besides the attenuation


def gas_echoes(
    plan: FramePlan,
    impedance: Float[Tensor, "b s rays samples"],
    reflection: Float[Tensor, "b s rays samples"],
    strength: Float[Tensor, "b s rays samples"],
) -> tuple[Tensor, Tensor]:
    """Reflection and strength with what gas adds to the primaries.

    A surface of gas at depth d whose echo is a sends a line to 2d, 3d, ..., of a^n F^(n-1), F what the face returns
    (`a_line_db`). What is thrown to and fro between bubbles and the tissue before them arrives late, as haze behind the
    surface (`dirty_shadow_db`); bone has none. Differentiable, and exactly nothing where no gas is.

    Args:
        plan: of the frame.
        impedance: MRayl.
        reflection, strength: of the primaries, as `ray_echoes` has them.
    """
    settings, spacing = plan.settings, plan.probe.sample_spacing_mm
    # On a CPU to look first is cheaper than to add zeros; elsewhere the host would have to wait.
    if impedance.device.type == "cpu" and impedance.detach().min() >= GAS_MRAYL[1]:
        return reflection, strength
    ahead = max(1, round(BOUNDARY_MM / spacing))
    behind = torch.cat([impedance[..., ahead:], impedance[..., -1:].expand(*impedance.shape[:-1], ahead)], -1)
    gas = ((GAS_MRAYL[1] - behind) / (GAS_MRAYL[1] - GAS_MRAYL[0])).clamp(0, 1)
    surface = (-reflection).clamp(min=0) * gas  # of falls in impedance only: a bone's far side has none
    depth = torch.arange(plan.probe.samples, dtype=surface.dtype, device=surface.device) * spacing
    total = surface.sum(-1, keepdim=True)
    weight = surface.square()
    place = (weight * depth).sum(-1, keepdim=True) / (weight.sum(-1, keepdim=True) + 1e-20)
    echo = total.clamp(max=1.0)
    fall = 1 / HAZE_MM - torch.log(echo + 1e-12) / place.clamp(min=1.0)
    haze = torch.exp(-(depth - place).clamp(min=0) * fall) * torch.cumsum(surface, -1)
    haze = haze * 10 ** (settings.dirty_shadow_db / 20)
    return _with_lines(plan, reflection, echo, place / spacing), strength + haze


def _with_lines(plan: FramePlan, reflection: Tensor, echo: Tensor, sample: Tensor) -> Tensor:
    """Adds echo^n F^(n-1) at n times the sample of the surface; echo and sample are (..., 1)."""
    samples = reflection.shape[-1]
    order = torch.arange(2, REPEATS + 2, dtype=echo.dtype, device=echo.device)
    level = echo**order * (10 ** (plan.settings.a_line_db / 20)) ** (order - 1)
    position = order * sample
    first = position.detach().floor()
    level = level * (first < samples - 1)
    index = first.clamp(max=samples - 2).long()
    # Between two samples an echo is shared, so that lines move smoothly with the pose.
    later = position - first
    reflection = torch.scatter_add(reflection, -1, index, level * (1 - later))
    return torch.scatter_add(reflection, -1, index + 1, level * later)
