"""What a frame needs of probe and settings alone: sample points, kernels, speckle, noise, gain, the slice's grid."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..errors import InputError, _
from ..probe.beam import (
    FWHM_PER_SIGMA,
    LATERAL_REACH,
    axial_sigma_mm,
    gaussian_taps,
    noise_power,
)
from .clutter import clutter_beam
from .gain import display_gain_db, noise_level
from .scan_conversion import scan_grid
from .scatter import speckle_correlation, speckle_texture

if TYPE_CHECKING:
    from jaxtyping import Float

    from ..probe import Probe
    from .settings import RenderSettings


class FramePlan(nn.Module):
    """What a frame needs of probe and settings alone, on one device and dtype; reused from frame to frame.

    The tensors are buffers, which follow `.to()`; none is saved, since they follow from probe and settings.

    Args:
        probe, settings: what the plan was made of.
        grain_mm: of the scatterers.
        points: sub-ray samples (S, rays, samples, 3), probe-frame mm.
        weights: of the sub-rays, (S,).
        reflection_scale: 0-d, of a boundary's R at a sample.
        axial_taps: (T,), or None. lateral_taps: (samples, T), or None.
        speckle_scale: (S, rays, samples), or None. texture: (2, G, G, G), or None.
        noise: (2, rays, samples), or None. noise_level: its amplitude over depth, (samples,).
        clutter: the wide beam (rays, rays), or None. clutter_level: its amplitude over depth, (samples,), or None.
        gain_db: (samples,).
        grid, inside: of the scan conversion.
    """

    points: Tensor
    weights: Tensor
    reflection_scale: Tensor
    axial_taps: Tensor | None
    lateral_taps: Tensor | None
    speckle_scale: Tensor | None
    texture: Tensor | None
    noise: Tensor | None
    noise_level: Tensor
    clutter: Tensor | None
    clutter_level: Tensor | None
    gain_db: Tensor
    grid: Tensor
    inside: Tensor

    def __init__(self, probe: Probe, settings: RenderSettings, grain_mm: float, **constants: Tensor | None) -> None:
        super().__init__()
        self.probe, self.settings, self.grain_mm = probe, settings, grain_mm
        for name, constant in constants.items():
            self.register_buffer(name, constant, persistent=False)

    def with_constants(self, **constants: Tensor | None) -> FramePlan:
        """The same plan with some of its tensors in place of its own."""
        return FramePlan(self.probe, self.settings, self.grain_mm, **{**self._buffers, **constants})


def plan_frame(
    probe: Probe,
    settings: RenderSettings,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> FramePlan:
    """Everything that does not depend on medium or pose; differentiable to the probe's and settings' tensors.

    Args:
        probe: the array.
        settings: of the frame.
        dtype, device: of the plan's tensors.

    Raises:
        InputError: the start depth lies below the image.
    """
    if settings.start_depth_mm >= probe.depth_mm:
        raise InputError(
            _(
                "The start depth of {start_depth_mm:g} mm lies below the image, which is {depth_mm:g} mm "
                "deep; lower it."
            ),
            start_depth_mm=settings.start_depth_mm,
            depth_mm=probe.depth_mm,
        )
    points, weights = (part.to(dtype).to(device) for part in probe.sample_points(settings.seed))
    depth = probe.depths_mm().to(dtype).to(device)
    spacing = probe.sample_spacing_mm
    sigma_axial = torch.as_tensor(axial_sigma_mm(probe.wavelength_mm, probe.cycles), dtype=dtype, device=device)
    grain = settings.grain_mm or 0.5 * FWHM_PER_SIGMA * float(sigma_axial.detach())
    axial = lateral = texture = speckle_scale = noise = None
    if settings.psf:
        axial = gaussian_taps(sigma_axial[None], depth.new_full((1,), spacing), probe.samples // 2)
        lateral = lateral_taps(probe, depth)
    if settings.speckle:
        texture = speckle_texture(settings.seed).to(device, dtype)
        speckle_scale = _speckle_scale(probe, points, weights, axial, lateral, grain)
    if settings.noise_db is not None:
        generator = torch.Generator().manual_seed(settings.seed + 1)
        white = torch.randn(2, probe.rays, probe.samples, generator=generator).to(device, dtype)
        noise = white * (math.sqrt(0.5) * noise_level(probe, settings, depth))
    clutter, clutter_level = None, None
    if settings.psf and settings.clutter_db is not None:
        clutter, clutter_level = clutter_beam(probe, settings, depth)
    # A boundary's R is spread over the samples it crosses: R per mm, times the pulse's equivalent length,
    # so that a sharp boundary of R = 1 shows as reflection_db whatever the number of samples.
    pulse_mm = sigma_axial * math.sqrt(2 * math.pi)
    level = 10 ** (torch.as_tensor(settings.reflection_db, dtype=dtype, device=device) / 20)
    grid, inside = scan_grid(probe)
    return FramePlan(
        probe=probe,
        settings=settings,
        points=points,
        weights=weights,
        reflection_scale=level * pulse_mm / spacing,
        axial_taps=None if axial is None else axial[0],
        lateral_taps=lateral,
        speckle_scale=speckle_scale,
        texture=texture,
        grain_mm=grain,
        noise=noise,
        noise_level=noise_level(probe, settings, depth),
        clutter=clutter,
        clutter_level=clutter_level,
        gain_db=display_gain_db(probe, settings, depth),
        grid=grid.to(dtype).to(device),
        inside=inside.to(device),
    )


def lateral_taps(probe: Probe, depth: Float[Tensor, " samples"]) -> Float[Tensor, "samples taps"]:
    """The beam's lateral kernel at every depth on the probe's grid of rays."""
    most = max(1, round(LATERAL_REACH * probe.rays))
    return gaussian_taps(probe.beam.lateral_sigma_mm(depth), probe.lateral_spacing_mm().to(depth), most)


def _speckle_scale(
    probe: Probe,
    points: Tensor,
    weights: Tensor,
    axial: Tensor | None,
    lateral: Tensor | None,
    grain_mm: float,
) -> Tensor:
    """Weight of each sub-ray's scatterers (S, rays, samples) that gives unit power after the beam and the kernels."""

    def kept(taps: Tensor | None, spacing: Tensor) -> Tensor:
        if taps is None:
            return torch.ones_like(spacing)
        lag = torch.arange(taps.shape[-1], dtype=taps.dtype, device=taps.device) * spacing[:, None]
        return noise_power(taps, speckle_correlation(lag, grain_mm))

    along = kept(axial, points.new_full((1,), probe.sample_spacing_mm))
    across = kept(lateral, probe.lateral_spacing_mm().to(points))
    start = points[:, :, 0].transpose(0, 1)  # sub-rays run parallel, so their distance at the face is their distance
    together = speckle_correlation(torch.cdist(start, start), grain_mm)
    layers = torch.einsum("s,t,rst->r", weights, weights, together)
    return weights[:, None, None] * (layers[:, None] * (along * across)).rsqrt()
