"""The separable point-spread function: axial pulse and lateral beam, as Gaussians of the amplitude."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Float

FWHM_PER_SIGMA = 2 * math.sqrt(2 * math.log(2))


def axial_sigma_mm(wavelength_mm: float | Tensor, cycles: float | Tensor) -> float | Tensor:
    """Standard deviation of the pulse along the ray, mm: FWHM is half of `cycles` wavelengths."""
    return 0.5 * cycles * wavelength_mm / FWHM_PER_SIGMA


@dataclass(frozen=True)
class Beam:
    """The two-way beam of an array as Gaussians of the amplitude, laterally and in elevation.

    A uniform aperture's focal width, 1.2 wavelengths F# (FWHM), is taken for that of a Gaussian beam. An element sees
    little of what lies far off its normal, sinc(w sin t / wavelength) cos t, about exp(-t^2 / (2 acceptance^2)); on a
    curved array the normals spread, so that its elements narrow the aperture the more, the deeper the focus.

    Args:
        wavelength_mm: at the centre frequency.
        focus_mm: depth of the transmit focus.
        transmit_f_number, receive_f_number: of the two apertures, as far as the array allows.
        elevation_mm: FWHM of the two-way beam in elevation at its focus.
        elevation_focus_mm: depth of the lens' focus.
        aperture_mm: the largest active aperture. radius_mm: of the array's curvature.
        acceptance_rad: standard deviation of an element's directivity.
    """

    wavelength_mm: float | Tensor
    focus_mm: float | Tensor
    transmit_f_number: float | Tensor
    receive_f_number: float | Tensor
    elevation_mm: float | Tensor = 3.0
    elevation_focus_mm: float | Tensor = 30.0
    aperture_mm: float | Tensor = math.inf
    radius_mm: float = math.inf
    acceptance_rad: float = math.inf

    def transmit_sigma_mm(self, depth_mm: Float[Tensor, " samples"]) -> Float[Tensor, " samples"]:
        """Standard deviation of the transmit beam at each depth, mm: a Gaussian beam with its waist at the focus."""
        focus = torch.as_tensor(self.focus_mm, dtype=depth_mm.dtype, device=depth_mm.device)
        waist = self._focused_sigma_mm(focus, self.transmit_f_number)
        return waist * _spread(depth_mm - focus, waist, self.wavelength_mm)

    def receive_sigma_mm(self, depth_mm: Float[Tensor, " samples"]) -> Float[Tensor, " samples"]:
        """Standard deviation of the receive beam, focused at every depth, mm."""
        return self._focused_sigma_mm(depth_mm, self.receive_f_number)

    def lateral_sigma_mm(self, depth_mm: Float[Tensor, " samples"]) -> Float[Tensor, " samples"]:
        """Standard deviation of the two-way beam at each depth, mm: the amplitudes multiply, so 1/sigma^2 adds."""
        transmit, receive = self.transmit_sigma_mm(depth_mm), self.receive_sigma_mm(depth_mm)
        return (1 / (transmit**-2 + receive**-2)) ** 0.5

    def elevation_sigma_mm(self, depth_mm: Float[Tensor, " samples"]) -> Float[Tensor, " samples"]:
        """Standard deviation of the two-way beam in elevation at each depth, mm; one lens serves both ways."""
        focal = self.elevation_mm / FWHM_PER_SIGMA
        return focal * _spread(depth_mm - self.elevation_focus_mm, focal * math.sqrt(2), self.wavelength_mm)

    def gain_db(self, depth_mm: Float[Tensor, " samples"]) -> Float[Tensor, " samples"]:
        """Level of speckle, without attenuation, against that at the transmit focus, dB; receiver noise stays.

        A beam's energy stays as it spreads, so its amplitude on the axis goes with sigma^-1/2 in either direction, on
        transmit and, by reciprocity, on receive (sum over the elements, divided by the root of their number). The
        scatterers under the two-way beam add in power: 1 / (sqrt(sigma_tx^2 + sigma_rx^2) sigma_elevation).
        """
        focus = torch.as_tensor(self.focus_mm, dtype=depth_mm.dtype, device=depth_mm.device)

        def spread(depth: Tensor) -> Tensor:
            lateral = self.transmit_sigma_mm(depth).square() + self.receive_sigma_mm(depth).square()
            return lateral.sqrt() * self.elevation_sigma_mm(depth)

        return 10 * torch.log10(spread(focus.reshape(1)) / spread(depth_mm))

    def _focused_sigma_mm(self, depth_mm: Tensor, f_number: float | Tensor) -> Tensor:
        """Focused at a depth (any shape) with an f-number, or what the array's aperture and elements allow there."""
        wanted = torch.as_tensor(f_number, dtype=depth_mm.dtype, device=depth_mm.device)
        aperture = 1.2 * self.wavelength_mm * torch.maximum(depth_mm / self.aperture_mm, wanted) / FWHM_PER_SIGMA
        elements = self.wavelength_mm * (1 + depth_mm / self.radius_mm) / (2 * math.pi * self.acceptance_rad)
        return (aperture**2 + elements**2) ** 0.5


def _spread(from_focus_mm: Tensor, waist_mm: float | Tensor, wavelength_mm: float | Tensor) -> Tensor:
    """By how much a Gaussian beam is wider than its waist (standard deviation of the amplitude)."""
    return (1 + (from_focus_mm * wavelength_mm / (2 * math.pi * waist_mm**2)) ** 2) ** 0.5


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
