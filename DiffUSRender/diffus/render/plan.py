"""What a frame needs of probe and settings alone: sample points, kernels, speckle, noise, gain, the slice's pixels."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..errors import InputError, _
from ..probe.beam import FWHM_PER_SIGMA, axial_sigma_mm
from ..settings import declared
from .blur import in_parts, lateral_factors, pulse_kernel
from .clutter import clutter_beam, clutter_level
from .gain import display_gain_db, noise_level
from .lookup import Lookup, lookup
from .noise import noise_lines
from .scan_conversion import Pixels, scan_grid
from .scatter import grain_of
from .speckle import FanLines, SpeckleField, fan_lines, shortest_pulse_mm, speckle_field

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaxtyping import Bool, Float

    from ..probe import Probe
    from .settings import RenderSettings

PLANE_STRIDE = 16  # a plane is fitted to one of so many rays and samples


class FramePlan(nn.Module):
    """What a frame needs of probe and settings alone, on one device and dtype; reused from frame to frame.

    The tensors are buffers, which follow `.to()`; none is saved, since they follow from probe and settings.

    Args:
        probe, settings: what the plan was made of.
        lines: on which speckle and noise are made.
        parts: field: the speckle, or None. pixels: of the slice, or None where samples are detected.
        constants: points: sub-ray samples (S, rays, samples, 3), probe-frame mm. weights: of the sub-rays, (S,).
            plane: (3, points), fits a plane's axes and origin to some of the points. reflection_scale: 0-d, of a
            boundary's R at a sample. pulse_taps, power_taps: (T,), or None. lateral_factors: (2, 2, frequencies,
            samples), or None. noise: of unit power, (2, samples, lines) of `lines`, or None. noise_level: its
            amplitude, (samples,). clutter: the wide beam's power (rays, rays), or None. clutter_level: (samples,), or
            None. gain_db: (samples,). grid, inside: of the slice.
    """

    field: SpeckleField | None
    pixels: Pixels | None
    points: Tensor
    weights: Tensor
    plane: Tensor
    reflection_scale: Tensor
    pulse_taps: Tensor | None
    power_taps: Tensor | None
    lateral_factors: Tensor | None
    noise: Tensor | None
    noise_level: Tensor
    clutter: Tensor | None
    clutter_level: Tensor | None
    gain_db: Tensor
    grid: Tensor
    inside: Tensor

    def __init__(
        self,
        probe: Probe,
        settings: RenderSettings,
        lines: FanLines,
        parts: dict[str, nn.Module | None],
        **constants: Tensor | None,
    ) -> None:
        super().__init__()
        self.probe, self.settings, self.lines = probe, settings, lines
        for name, part in parts.items():
            self.add_module(name, part)
        for name, constant in constants.items():
            self.register_buffer(name, constant, persistent=False)

    def with_constants(self, **constants: Tensor | None) -> FramePlan:
        """The same plan with some of its tensors in place of its own."""
        return FramePlan(self.probe, self.settings, self.lines, dict(self._modules), **{**self._buffers, **constants})

    @property
    def at_samples(self) -> Lookup:
        """Where the probe's samples lie on the lines: made when it is asked for, since slices do without."""
        if "samples" not in self._modules:
            probe = _on_host(self.probe)
            with torch.inference_mode(False):
                found = _lookup_at(_every_sample(probe), probe, _on_host(self.settings), self.lines)
                self.add_module("samples", found.to(self.points.device, self.points.dtype))
        return self.samples

    def pixels_at(self, grid: Float[Tensor, "rows columns 2"], inside: Bool[Tensor, "rows columns"]) -> Pixels:
        """Pixels at the places of a `polar_grid`, of which those `inside` of the fan are shown."""
        over_depth = torch.stack([self.gain_db, self.noise_level]).double().cpu()
        pixels = make_pixels(self.probe, self.settings, self.lines, over_depth, grid.cpu(), inside.cpu())
        return pixels.to(self.points.device, self.points.dtype)


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
    given, given_settings = probe, settings
    probe, settings = _on_host(probe), _on_host(settings)
    points, weights = probe.sample_points(settings.seed)
    depth, spacing = probe.depths_mm(), probe.sample_spacing_mm
    pulse, grain, beam = _pulse_mm(probe), _grain_mm(probe, settings), _beam(probe, settings)
    lines = _lines(probe, grain.detach(), beam)
    pulse_taps = power_taps = across = noise = field = clutter = clutter_over_depth = None
    if settings.psf:
        pulse_taps, power_taps = pulse_kernel(pulse, spacing), pulse_kernel(pulse / math.sqrt(2), spacing)
        across = in_parts(lateral_factors(beam(depth), probe.lateral_spacing_mm(), probe.rays), dtype)
    if settings.speckle:
        field = speckle_field(probe, lines, settings.seed, grain, beam, probe.beam.elevation_sigma_mm)
    if settings.psf and settings.clutter_db is not None:
        clutter, clutter_over_depth = clutter_beam(probe), clutter_level(probe, settings, depth)
    if settings.noise_db is not None:
        filtered = grain_of(grain.item())  # in steps as the scatterers, that a fitted frequency keeps the noise
        noise = noise_lines(lines.samples, lines.lines, lines.spacing_mm, filtered, settings.seed)
    # A boundary's R is spread over the samples it crosses: R per mm, times the pulse's equivalent length,
    # so that a sharp boundary of R = 1 shows as reflection_db whatever the number of samples; where these lie further
    # apart than that, the straight lines between them are its pulse.
    level = 10 ** (torch.as_tensor(settings.reflection_db, dtype=torch.float64) / 20)
    over_depth = torch.stack([display_gain_db(probe, settings, depth), noise_level(probe, settings, depth)])
    grid, inside = scan_grid(probe)
    parts = {
        "field": field,
        "pixels": make_pixels(probe, settings, lines, over_depth, grid, inside)
        if detects_at_pixels(settings)
        else None,
    }
    plan = FramePlan(
        given,
        given_settings,
        lines,
        parts,
        points=points,
        weights=weights,
        plane=_plane_fit(points),
        reflection_scale=level * (pulse * math.sqrt(2 * math.pi) / spacing).clamp(min=1.0),
        pulse_taps=pulse_taps,
        power_taps=power_taps,
        lateral_factors=across,
        noise=noise,
        noise_level=over_depth[1],
        clutter=clutter,
        clutter_level=clutter_over_depth,
        gain_db=over_depth[0],
        grid=grid,
        inside=inside,
    )
    return plan.to(device, dtype)


def detects_at_pixels(settings: RenderSettings) -> bool:
    """Whether the complex echo is carried to the pixels. Without a beam it is not smooth enough to lie between samples;
    and the paper's artefacts are of polar images."""
    return settings.psf and settings.artefacts is None


def make_pixels(
    probe: Probe, settings: RenderSettings, lines: FanLines, over_depth: Tensor, grid: Tensor, inside: Tensor
) -> Pixels:
    """Pixels at the places of a `polar_grid` (rows, columns, 2), of which those `inside` are shown; float64.

    `over_depth`: gain, dB, and amplitude of the noise, (2, samples).
    """
    probe, settings = _on_host(probe), _on_host(settings)
    where = grid[inside].double()
    last = where.new_tensor([probe.samples - 1, probe.rays - 1])
    indices = ((where + 1) / 2 * last).clamp(min=0)
    found = _lookup_at(indices.flip(-1), probe, settings, lines)
    sample = indices[:, 0]
    first = sample.long().clamp(max=probe.samples - 2)
    gain_db, level = torch.lerp(over_depth[:, first], over_depth[:, first + 1], sample - first)
    found.noise = found.noise * level
    index = inside.flatten().nonzero()[:, 0]
    return Pixels(found, inside=inside, where=where[None, None], index=index, gain_db=gain_db)


def _lookup_at(indices: Float[Tensor, "points 2"], probe: Probe, settings: RenderSettings, lines: FanLines) -> Lookup:
    """Points at fractional (ray, sample) indices of the probe, on the lines."""
    return lookup(lines, probe, indices, _grain_mm(probe, settings), _beam(probe, settings))


def _pulse_mm(probe: Probe) -> Float[Tensor, ""]:
    """Standard deviation of the pulse along the rays, float64."""
    return torch.as_tensor(axial_sigma_mm(probe.wavelength_mm, probe.cycles), dtype=torch.float64)


def _beam(probe: Probe, settings: RenderSettings) -> Callable[[Tensor], Tensor] | None:
    """Standard deviation of the two-way beam across the rays at depths, mm; None without a beam."""
    return probe.beam.lateral_sigma_mm if settings.psf else None


def _grain_mm(probe: Probe, settings: RenderSettings) -> Float[Tensor, ""]:
    """Standard deviation of speckle along the rays, of pulse and scatterers together."""
    grain = _pulse_mm(probe)
    if settings.grain_mm is not None:
        own = settings.grain_mm / FWHM_PER_SIGMA
        grain = (grain.square() + own**2).sqrt() if settings.psf else torch.as_tensor(own, dtype=torch.float64)
    return grain.clamp(min=shortest_pulse_mm(probe))


def _lines(probe: Probe, width: Float[Tensor, ""], beam: Callable[[Tensor], Tensor] | None) -> FanLines:
    """The lines for speckle of a width along the rays, and under the beam if there is one."""

    def across(depth: Tensor) -> Tensor:
        return torch.full_like(depth, width.item()) if beam is None else beam(depth).detach().clamp(min=width)

    return fan_lines(probe, width.item(), across)


def _every_sample(probe: Probe) -> Float[Tensor, "points 2"]:
    """(ray, sample) of every sample of the polar image, rays first."""
    ray, sample = torch.arange(probe.rays, dtype=torch.float64), torch.arange(probe.samples, dtype=torch.float64)
    return torch.cartesian_prod(ray, sample)


def _plane_fit(points: Float[Tensor, "s rays samples 3"]) -> Float[Tensor, "3 points"]:
    """What fits x axis, y axis and origin of the probe's plane to `plane_samples` of its points, by least squares."""
    flat = plane_samples(points[None])[0]
    ones = torch.ones_like(flat[:, :1])
    return torch.linalg.pinv(torch.cat([flat[:, :2], ones], -1))


def plane_samples(points: Float[Tensor, "b s rays samples 3"]) -> Float[Tensor, "b points 3"]:
    """Some points of the plane in the middle of the sub-rays."""
    rays, samples = (max(1, min(PLANE_STRIDE, (n - 1) // 2)) for n in points.shape[2:4])
    return points[:, :, ::rays, ::samples].mean(1).flatten(1, 2)


def _on_host(values):
    """Probe or settings with their tensors on the CPU, where the plan is made."""
    tensors = {name: getattr(values, name) for name in declared(type(values))}
    tensors = {name: value.cpu() for name, value in tensors.items() if isinstance(value, Tensor) and value.is_cuda}
    return replace(values, **tensors) if tensors else values
