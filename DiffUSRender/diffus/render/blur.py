"""Pulse and beam as Gaussian blurs of polar maps, along the rays and across them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from ..geometry.filters import convolve, gaussian_kernel
from .scatter import quick_size

if TYPE_CHECKING:
    from jaxtyping import Float

REACH_SIGMAS = 3.5
FEW_TAPS = 8  # on each side: so many shifted sums are quicker than a convolution
LEAST_SHARE = 1e-3  # of a kernel's neighbours, below which it changes nothing


def pulse_kernel(sigma_mm: Float[Tensor, ""], spacing_mm: float) -> Float[Tensor, " taps"] | None:
    """What a Gaussian along the rays still has to do where samples `spacing_mm` apart are joined by straight lines."""
    rest = sigma_mm.square() - spacing_mm**2 / 6
    if rest.detach() <= 0:
        return None
    sigma = rest.sqrt()
    # A kernel between samples has no width: what reaches the next ones is its area beyond half a sample.
    if math.erfc(spacing_mm / 2 / math.sqrt(2) / sigma.item()) < LEAST_SHARE:
        return None
    return gaussian_kernel(sigma, math.ceil(REACH_SIGMAS * sigma.item() / spacing_mm), spacing_mm)


def blur_along(signal: Float[Tensor, "*batch samples"], taps: Float[Tensor, " taps"] | None) -> Tensor:
    """Convolved along the samples, with nothing beyond the ends; shape is kept."""
    if taps is None:
        return signal
    half = len(taps) // 2
    if half > FEW_TAPS:
        return convolve(signal, taps, "constant")
    padded, n = F.pad(signal, (half, half)), signal.shape[-1]
    total = padded[..., :n] * taps[0]
    for shift in range(1, len(taps)):
        total.add_(padded[..., shift : shift + n] * taps[shift])
    return total


def lateral_factors(
    sigma_mm: Float[Tensor, " samples"], spacing_mm: Float[Tensor, " samples"], rays: int
) -> Float[Tensor, "2 frequencies samples"]:
    """The beam's factors of every frequency across padded rays: of amplitude, and of power (its profile squared)."""
    pad = int((REACH_SIGMAS * sigma_mm.detach() / spacing_mm.clamp(min=1e-9)).ceil().clamp(max=rays // 4 + 1).max())
    padded = quick_size(rays + 2 * pad)
    frequency = 2 * math.pi * torch.fft.rfftfreq(padded, dtype=sigma_mm.dtype)[:, None]
    width = sigma_mm / spacing_mm.clamp(min=1e-6)
    return torch.stack([_sampled_gaussian(width * part, frequency) for part in (1.0, math.sqrt(0.5))])


def _sampled_gaussian(width: Float[Tensor, " samples"], frequency: Float[Tensor, "frequencies 1"]) -> Tensor:
    """Factor of every frequency, rad, of a Gaussian sampled at whole numbers, of unit sum: (frequencies, samples).

    Sampled and never negative: the Gaussian of frequencies itself would ring beside bright walls where it is narrow.
    """
    narrow, sum_narrow = torch.ones_like(width * frequency), torch.ones_like(width)
    for n in range(1, 5):
        tap = 2 * torch.exp(-0.5 * (n / width.clamp(0.05, 1.0)) ** 2)
        narrow, sum_narrow = narrow + tap * torch.cos(n * frequency), sum_narrow + tap
    # The same as a sum over the repeats of the spectrum, which are few where the kernel is wide.
    spectrum = [torch.exp(-0.5 * (width * (frequency + 2 * math.pi * n)) ** 2) for n in (-1, 0, 1)]
    return torch.where(
        width < 0.8, narrow / sum_narrow, sum(spectrum) / (1 + 2 * torch.exp(-0.5 * (2 * math.pi * width) ** 2))
    )


def in_parts(numbers: Float[Tensor, "*n"], dtype: torch.dtype) -> Float[Tensor, "2 *n"]:
    """Numbers as a sum of two that a type of lower precision can hold."""
    rounded = numbers.to(dtype).to(numbers.dtype)
    return torch.stack([rounded, numbers - rounded])


def blur_across(
    signals: Float[Tensor, "b 2 rays samples"], factors: Float[Tensor, "parts 2 frequencies samples"]
) -> Float[Tensor, "b 2 rays samples"]:
    """An amplitude and a power blurred across the rays; what the outer rays show goes on beyond them.

    The power in double precision where there is one: what single precision rounds of a bright wall's power, 70 dB below
    it, would stand as an arc over all rays; of its amplitude it lies at -140 dB. So the factors come as a sum of
    numbers of the plan's precision, of `in_parts`.
    """
    amplitude, power = signals.unbind(1)
    double = power.dtype if power.device.type == "mps" else torch.float64
    factor = factors[0, 1].to(double)
    for part in factors[1:, 1]:
        factor = factor + part
    return torch.stack([_filtered(amplitude, factors[0, 0]), _filtered(power.to(double), factor).to(power.dtype)], 1)


def _filtered(signal: Float[Tensor, "b rays samples"], factor: Float[Tensor, "frequencies samples"]) -> Tensor:
    """The signal with every frequency across its padded rays times a factor."""
    rays, padded = signal.shape[-2], 2 * (len(factor) - 1)
    before = (padded - rays) // 2
    first, last = signal[:, :1].expand(-1, before, -1), signal[:, -1:].expand(-1, padded - rays - before, -1)
    spectrum = torch.fft.rfft(torch.cat([first, signal, last], 1), dim=1)
    return torch.fft.irfft(spectrum * factor, n=padded, dim=1)[:, before : before + rays]
