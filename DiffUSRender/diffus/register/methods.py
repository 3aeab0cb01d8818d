"""Refinement by a similarity of whole images: intensities resliced at the frames, or what the renderer says of them.

The search is always by patch LC2. A method then refines and ranks its candidates by gradient; the verdict rests on the
evidence of patch LC2 whatever the method. Its limits were set on the method lc2; others get no more than check.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError
from ..medium import AcousticMedium
from ..probe.fan import estimate_fan
from ..render.echo import transmission
from ..sweep.sweep import TrackedSweep
from .channels import ChannelVolume
from .patches import reduce_frames
from .search import PoseSpace
from .similarity import lc2, mind_ssc, mutual_information, ncc, ngf, patch_ncc

if TYPE_CHECKING:
    from jaxtyping import Float, Int

METHODS = ("lc2", "rendered", "ncc", "mind", "ngf", "mi")
RENDERED_KINDS = ("mri", "mri-t2", "ct", "labels")
Objective = Callable[["Float[Tensor, 'b 4 4']"], "Float[Tensor, ' b']"]

RAYS = 64  # of the rendered channels
REFLECTION_DB = 57.0  # of the renderer's default settings, above white-matter speckle
PULSE_MM = 0.3  # length over which a boundary's reflection is seen
BRIGHTNESS_FLOOR = 1e-4  # power: nothing darker than -40 dB differs
MI_BINS = 20  # a coarser joint histogram than the usual 32: half the time, the same optimum
STEP_MM = 0.6  # of the first gradient step in each of the six unknowns


def needs_medium(method: str, kind: str) -> bool:
    """Whether a method renders a volume of this kind. Raises InputError where it must and cannot."""
    if method not in METHODS:
        raise InputError(f"There is no method {method!r}; choose one of {', '.join(METHODS)}.")
    if method == "rendered" and kind not in RENDERED_KINDS:
        raise InputError(f"A volume of kind {kind} cannot be rendered; choose mri, ct or labels, or another method.")
    return method == "rendered" or (method == "ncc" and kind in RENDERED_KINDS)


def intensity_objective(
    method: str, sweep: TrackedSweep, frames: Int[Tensor, " f"], pixel_mm: float, volume: ChannelVolume
) -> Objective:
    """Mean similarity of the frames and the volume's intensities there, of poses reference_to_ras (B, 4, 4)."""
    images, share, points = reduce_frames(sweep, frames, pixel_mm)
    device, dtype = volume.table.device, volume.table.dtype
    images, mask = images.to(device, dtype), (share > 0.5).to(device, dtype)
    points = points.permute(0, 2, 3, 1).to(device, dtype)
    brightest = torch.quantile(volume.table[::97, 0], 0.995).clamp_min(1e-6)
    compare = {"mind": mind_ssc, "ngf": ngf, "mi": partial(mutual_information, bins=MI_BINS), "ncc": _both_ncc}[method]

    def value(pose: Tensor) -> Tensor:
        matrix = pose.to(dtype)[:, None, None]
        places = (matrix[..., None, :3, :3] @ points[None, ..., None])[..., 0] + matrix[..., None, :3, 3]
        resliced = volume.sample(places)[..., 0] / brightest
        return compare(images.expand_as(resliced), resliced, mask.expand_as(resliced)).mean(-1)

    return value


def rendered_objective(
    method: str, sweep: TrackedSweep, frames: Int[Tensor, " f"], pixel_mm: float, medium: AcousticMedium
) -> Objective:
    """Similarity of the frames, along the rays of their own fan, to what the renderer says of poses (B, 4, 4).

    `rendered`: LC2 on expected brightness (with shadow and attenuation along the true beam), boundary echo and
    impedance. `ncc`: correlation with the expected brightness. Without speckle: its expectation is what is smooth.
    """
    spacing = sweep.image_to_reference[:, :3, :2].norm(dim=1).mean(0)
    if (spacing[0] / spacing[1] - 1).abs() > 0.02:
        raise InputError("The pixels of this sweep are not square, so its fan cannot be rendered; use method lc2.")
    shown = (sweep.frames * sweep.mask)[:: max(1, len(sweep) // 24)].mul(255).byte().numpy()
    fan = estimate_fan(shown, float(spacing.mean()))
    probe = replace(fan.probe, rays=RAYS, samples=max(32, round(fan.probe.depth_mm / pixel_mm)))
    points = torch.nn.functional.pad(probe.sample_points()[0][0], (0, 1), value=1.0)
    pixels = points @ torch.linalg.inv(fan.pixel_to_probe).T
    reference = torch.einsum("fij,rnj->frni", sweep.image_to_reference[frames][:, :3], pixels)
    reference = reference.to(medium.device, medium.dtype)
    target, mask = _along_rays(sweep, frames, pixels, pixel_mm, medium)
    dr = probe.sample_spacing_mm

    def value(pose: Tensor) -> Tensor:
        matrix = pose.to(medium.dtype)[:, None, None]
        places = (matrix[..., None, :3, :3] @ reference[None, ..., None])[..., 0] + matrix[..., None, :3, 3]
        impedance, loss, exponent, scattering = medium.sample(places)
        echo = transmission(impedance, loss * probe.frequency_mhz**exponent, dr)
        boundary = echo.reflection * (10 ** (REFLECTION_DB / 20) * PULSE_MM / dr)
        gain = torch.arange(probe.samples, device=medium.device) * (0.1 * dr * probe.frequency_mhz)
        power = ((scattering * echo.transmission) ** 2 + boundary**2) * 10 ** (gain / 10)
        brightness = _smooth(torch.log10(power + BRIGHTNESS_FLOOR))
        image, valid = target.expand_as(brightness), mask.expand_as(brightness)
        if method == "ncc":
            return _both_ncc(image, brightness, valid).mean(-1)
        edge = _smooth(torch.log10(boundary**2 + BRIGHTNESS_FLOOR))
        channels = torch.stack([brightness, edge, (impedance - 1.55) / 0.05], -3)
        return lc2(image, channels, valid).mean(-1)

    return value


def refine_images(
    space: PoseSpace, objective: Objective, pose: Float[Tensor, "b 4 4"], steps: int
) -> tuple[Float[Tensor, "b 4 4"], Float[Tensor, " b"]]:
    """Adam on the six unknowns of each pose, (B, 4, 4); the best of its path within the space, and its value."""
    xi = torch.zeros(len(pose), 6, dtype=torch.float64, device=pose.device, requires_grad=True)
    adam = torch.optim.Adam([xi], lr=STEP_MM)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps, eta_min=0.02 * STEP_MM)
    best, best_value = pose.clone(), torch.full((len(pose),), -torch.inf, dtype=torch.float64, device=pose.device)
    for _ in range(steps):
        adam.zero_grad()
        with torch.enable_grad():
            here = space.step(pose, xi)
            value = objective(here)
            (-value.sum()).backward()
        won = (value.detach() > best_value) & space.inside(here.detach())
        best = torch.where(won[:, None, None], here.detach(), best)
        best_value = torch.where(won, value.detach().to(best_value), best_value)
        adam.step()
        schedule.step()
    return best, best_value


def _both_ncc(a: Tensor, b: Tensor, mask: Tensor) -> Tensor:
    return 0.5 * (ncc(a, b, mask) + patch_ncc(a, b, mask))


def _smooth(image: Float[Tensor, "*b rays samples"]) -> Float[Tensor, "*b rays samples"]:
    flat = image.reshape(-1, 1, *image.shape[-2:])
    return F.avg_pool2d(flat, 3, 1, 1, count_include_pad=False).reshape(image.shape)


def _along_rays(
    sweep: TrackedSweep, frames: Tensor, pixels: Tensor, pixel_mm: float, medium: AcousticMedium
) -> tuple[Float[Tensor, "f rays samples"], Float[Tensor, "f rays samples"]]:
    """Frames, averaged to about `pixel_mm`, at (column, row) of the rays' samples, and 1 where they lie in the mask."""
    images = sweep.frames[frames]
    mask = sweep.mask.expand(len(sweep), -1, -1)[frames].to(images.dtype)
    size = 2 * round(0.5 * pixel_mm / float(sweep.image_to_reference[0, :3, 0].norm())) + 1
    stack = torch.stack([images * mask, mask], 1)
    mean = F.avg_pool2d(stack, size, 1, size // 2, count_include_pad=True)
    limits = pixels.new_tensor([images.shape[2] - 1, images.shape[1] - 1])
    grid = (2 * pixels[..., :2] / limits - 1).to(images.dtype).expand(len(frames), -1, -1, -1)
    total, share = F.grid_sample(mean, grid, align_corners=True).unbind(1)
    valid = (share > 0.5).to(images.dtype)
    target = total / share.clamp_min(1e-6) * valid
    return target.to(medium.device, medium.dtype), valid.to(medium.device, medium.dtype)
