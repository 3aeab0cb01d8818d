"""Envelope, time gain compensation and compression: from the complex echo to brightness in [0, 1]."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Float

POWER_FLOOR = 1e-14  # -140 dB: keeps the logarithm and its gradient finite where nothing echoes
REFERENCE_BRIGHTNESS = 0.6  # of unit echo power (0 dB: white-matter speckle without attenuation) at 0 dB gain


def log_compress(
    iq: Float[Tensor, "batch 2 rays samples"],
    gain_db: Float[Tensor, " samples"] | float | Tensor,
    dynamic_range_db: float | Tensor,
) -> Float[Tensor, "batch rays samples"]:
    """Brightness of the complex echo: 20 log10 |x| + gain over the dynamic range, clipped to [0, 1].

    Args:
        iq: (B, 2, rays, samples), real and imaginary part; |x| = 1 (0 dB) shows as `REFERENCE_BRIGHTNESS`.
        gain_db: one number, or one per sample (time gain compensation).
        dynamic_range_db: of the display.
    """
    power = (iq * iq).sum(-3)
    level_db = 10 * torch.log10(power + POWER_FLOOR) + gain_db
    return (REFERENCE_BRIGHTNESS + level_db / dynamic_range_db).clamp(0, 1)


def linear_brightness(
    iq: Float[Tensor, "batch 2 rays samples"], gain_db: Float[Tensor, " samples"] | float | Tensor
) -> Float[Tensor, "batch rays samples"]:
    """Brightness proportional to the envelope, |x| 10^(gain/20), clipped to [0, 1] (the display of DiffUS 2508.06768).

    Args:
        iq: (B, 2, rays, samples), real and imaginary part.
        gain_db: one number, or one per sample.
    """
    envelope = ((iq * iq).sum(-3) + POWER_FLOOR).sqrt()
    gain = torch.as_tensor(gain_db, dtype=iq.dtype, device=iq.device)
    return (envelope * 10 ** (gain / 20)).clamp(0, 1)
