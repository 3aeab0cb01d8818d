"""The receiver's noise on the lines of a fan, anew for every frame."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Float


def noise_lines(
    samples: int, lines: int, spacing_mm: float, pulse_mm: float, seed: int
) -> Float[Tensor, "2 depths lines"]:
    """Complex noise of unit power, (2, samples, lines): lines are independent, along them the receiver's filter rules.

    It goes on at its ends as at its beginning, so that `shifted_noise` can turn it.

    Args:
        samples, lines: of the fan's lines.
        spacing_mm: of their samples.
        pulse_mm: standard deviation of the pulse, which the receiver's filter passes.
        seed: of the noise.
    """
    generator = torch.Generator().manual_seed(seed + 1)
    white = torch.randn(samples, lines, 2, generator=generator).double()
    frequency = 2 * math.pi * torch.fft.fftfreq(samples, spacing_mm, dtype=torch.float64)[:, None]
    passed = torch.exp(-0.5 * (frequency * pulse_mm) ** 2)
    passed = passed * passed.square().mean().rsqrt()
    filtered = torch.fft.ifft(torch.fft.fft(torch.view_as_complex(white), dim=0) * passed, dim=0)
    return torch.view_as_real(filtered).permute(2, 0, 1) * math.sqrt(0.5)


def frame_noise(
    noise: Float[Tensor, "2 depths lines"], seed: int, frame: int, count: int
) -> Float[Tensor, "b 2 depths lines"]:
    """The noise of frames `frame`, `frame` + 1, ...: the same numbers, shifted and turned from frame to frame.

    Args:
        noise: of `noise_lines`.
        seed: of the settings.
        frame: number of the first frame.
        count: of frames.
    """
    return torch.stack([_shifted(noise, np.random.default_rng((seed, frame + n))) for n in range(count)])


def _shifted(noise: Tensor, chance: np.random.Generator) -> Tensor:
    depths, lines = noise.shape[1:]
    down, aside = int(chance.integers(depths)), int(chance.integers(lines))
    turned, flipped = (int(number) for number in chance.integers(2, size=2))
    part = torch.arange(2, device=noise.device) ^ turned
    row = (torch.arange(depths, device=noise.device) - down) % depths
    # Rows and parts in one copy, then the lines.
    return torch.roll(noise[part[:, None], row.flip(0) if flipped else row], aside, 2)
