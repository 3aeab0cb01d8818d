"""The separable point-spread function: axial pulse and lateral beam, as Gaussians of the amplitude."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from ..geometry.filters import convolve, gaussian_kernel

if TYPE_CHECKING:
    from jaxtyping import Float

FWHM_PER_SIGMA = 2 * math.sqrt(2 * math.log(2))
MOST_LATERAL_TAPS = 24  # on each side; more only where rays crowd near a phased array's apex
REACH_SIGMAS = 3.5


def axial_sigma_mm(wavelength_mm: float | Tensor, cycles: float | Tensor) -> float | Tensor:
    """Standard deviation of the pulse along the ray, mm: FWHM is half of `cycles` wavelengths."""
    return 0.5 * cycles * wavelength_mm / FWHM_PER_SIGMA


def lateral_sigma_mm(
    depth_mm: Float[Tensor, " samples"] | float,
    wavelength_mm: float | Tensor,
    focus_mm: float | Tensor,
    transmit_f_number: float | Tensor,
    receive_f_number: float | Tensor,
) -> Float[Tensor, " samples"] | float:
    """Standard deviation of the two-way beam at each depth, mm.

    Transmit: a Gaussian beam with waist 1.2 lambda F# (FWHM) at the focus; receive: focused at every depth with a
    constant F#. The two amplitudes multiply, so 1/sigma^2 adds.

    Args:
        depth_mm: (samples,), or one depth.
        wavelength_mm: at the centre frequency.
        focus_mm: depth of the transmit focus.
        transmit_f_number, receive_f_number: of the two apertures.
    """
    waist = 1.2 * wavelength_mm * transmit_f_number / FWHM_PER_SIGMA
    rayleigh_mm = 2 * math.pi * waist**2 / wavelength_mm
    transmit_squared = waist**2 * (1 + ((depth_mm - focus_mm) / rayleigh_mm) ** 2)
    receive_squared = (1.2 * wavelength_mm * receive_f_number / FWHM_PER_SIGMA) ** 2
    return (1 / (1 / transmit_squared + 1 / receive_squared)) ** 0.5


def gaussian_taps(sigma_mm: Float[Tensor, " n"], spacing_mm: Float[Tensor, " n"], most: int) -> Float[Tensor, "n taps"]:
    """Unit-sum Gaussian kernels (n, 2h+1) for grids of `spacing_mm`, h wide enough for all of them, at most `most`."""
    reach = REACH_SIGMAS * sigma_mm.detach() / spacing_mm.clamp(min=1e-9)
    return gaussian_kernel(sigma_mm, int(min(most, max(1, math.ceil(float(reach.max()))))), spacing_mm)


def noise_power(taps: Float[Tensor, "n taps"], correlation: Float[Tensor, "n taps"]) -> Float[Tensor, " n"]:
    """Power that unit-power noise keeps after each kernel: sum of w_i w_j rho(|i-j|).

    Args:
        taps: (n, 2h+1), the kernels.
        correlation: (n, 2h+1), of the noise at lags 0 to 2h.
    """
    n = taps.shape[-1]
    lags = torch.stack([(taps[:, : n - lag] * taps[:, lag:]).sum(-1) for lag in range(n)], -1)
    return lags[:, 0] * correlation[:, 0] + 2 * (lags[:, 1:] * correlation[:, 1:]).sum(-1)


def blur_axial(signal: Float[Tensor, "*batch rays samples"], taps: Float[Tensor, " taps"]) -> Tensor:
    """Convolves along the samples, ends repeated; shape (..., rays, samples) is kept."""
    return convolve(signal, taps, "replicate")


def blur_lateral(
    signal: Float[Tensor, "*batch rays samples"], taps: Float[Tensor, "samples taps"], ends: str = "reflect"
) -> Float[Tensor, "*batch rays samples"]:
    """Convolves along the rays with the kernel of each sample's depth; shape is kept.

    Args:
        signal: (..., rays, samples).
        taps: (samples, 2h + 1).
        ends: what lies beyond the first and last ray: "reflect" (mirrored) or "constant" (nothing).
    """
    rays, samples = signal.shape[-2:]
    half = min(taps.shape[-1] // 2, rays - 1)
    middle = taps.shape[-1] // 2
    kernel = taps[:, middle - half : middle + half + 1]
    columns = F.pad(signal.reshape(-1, rays, samples).transpose(-1, -2), (half, half), mode=ends)
    return F.conv1d(columns, kernel[:, None], groups=samples).transpose(-1, -2).reshape(signal.shape)
