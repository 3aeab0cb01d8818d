"""A tracked sweep in the geometry of its probe: polar images and rigid poses, as the renderer makes them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError
from ..geometry.filters import gaussian_blur
from ..geometry.pose import place_samples
from ..probe.fan import estimate_fan
from ..probe.probe import pixel_centres

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

    from ..probe import Probe
    from .sweep import TrackedSweep

SQUARE = 0.02  # how far rows and columns may differ in size for a fan to be estimated
SAME_PIXEL = 1e-3  # relative
BEAM = ("frequency_mhz", "focus_mm", "f_number", "transmit_f_number", "cycles", "elevation_layers", "elevation_mm")
SAMPLING = ("rays", "samples", "rays_per_line")


@dataclass(frozen=True)
class PolarSweep:
    """Frames along the rays of a probe.

    probe: whose rays and samples these are. brightness: (K, rays, samples) in [0, 1], as displayed. inside:
    (K, rays, samples) bool, where the frame shows ultrasound. probe_to_reference: (K, 4, 4) float64, rigid.
    pixel_to_probe: (4, 4) float64, of the frames that these are from.
    """

    probe: Probe
    brightness: Float[Tensor, "k rays samples"]
    inside: Bool[Tensor, "k rays samples"]
    probe_to_reference: Float[Tensor, "k 4 4"]
    pixel_to_probe: Float[Tensor, "4 4"]

    def __len__(self) -> int:
        return self.brightness.shape[0]

    def points(self, index: Tensor | slice, dtype: torch.dtype = torch.float32) -> Float[Tensor, "n s rays samples 3"]:
        """Reference mm of the samples of some frames, (n, S, rays, samples, 3), elevation layers included."""
        return place_samples(self.probe_to_reference[index], self.probe.sample_points()[0]).to(dtype)

    def in_frame(self, polar: Float[Tensor, "n rays samples"], rows: int, columns: int) -> Tensor:
        """Polar images (n, rays, samples) on the pixels of the frames, (n, rows, columns); the fan's rim repeats."""
        grid = frame_grid(self.probe, self.pixel_to_probe, rows, columns).to(polar)
        where = grid.expand(polar.shape[0], *grid.shape)
        return F.grid_sample(polar[:, None], where, padding_mode="border", align_corners=True)[:, 0]


def probe_of_sweep(sweep: TrackedSweep, *, frequency_mhz: float = 5.0) -> tuple[Probe, Float[Tensor, "4 4"]]:
    """The probe whose fan the frames show, and pixel_to_probe (4, 4) float64; raises InputError where none shows."""
    size = sweep.image_to_reference[0, :3, :2].norm(dim=0)
    if (size[0] - size[1]).abs() > SQUARE * size.mean():
        raise InputError("The sweep's pixels are not square; resample its frames before a fan is looked for.")
    step = max(1, len(sweep) // 32)
    fan = estimate_fan((sweep.frames[::step] * 255).numpy(), size.mean().item(), frequency_mhz=frequency_mhz)
    return fan.probe, fan.pixel_to_probe


def shows_slices_of(sweep: TrackedSweep, probe: Probe) -> bool:
    """Whether the frames have the very size and pixels of the probe's slice: those that were rendered with it."""
    geometry = probe.slice_geometry()
    size = sweep.image_to_reference[0, :3, :2].norm(dim=0)
    same = tuple(sweep.frames.shape[1:]) == (geometry.rows, geometry.columns)
    return same and bool(((size / geometry.mm_per_pixel - 1).abs() < SAME_PIXEL).all())


def beam_of(probe: Probe, *, sampling: bool = False) -> dict[str, object]:
    """What a fan in pixels does not tell, by name: frequency, beam and elevation; also rays and samples if asked."""
    return {name: getattr(probe, name) for name in (*BEAM, *(SAMPLING if sampling else ()))}


def polar_sweep(
    sweep: TrackedSweep,
    probe: Probe,
    pixel_to_probe: Float[Tensor, "4 4"],
    *,
    rays: int = 96,
    samples: int = 192,
    smoothing_mm: float = 0.0,
) -> PolarSweep:
    """The frames sampled along `rays` x `samples` of the probe, smoothed before by a Gaussian of `smoothing_mm`.

    Smoothing works on the displayed brightness, the logarithm of the envelope, within the sweep's mask.
    """
    probe = replace(probe, rays=rays, samples=samples)
    mask = sweep.mask.to(sweep.frames)
    frames = sweep.frames * mask
    if smoothing_mm > 0:
        sigma = smoothing_mm / sweep.image_to_reference[0, :3, 0].norm().item()
        weight = gaussian_blur(mask, sigma).clamp(min=1e-3)
        frames = torch.cat([gaussian_blur(frame[None], sigma) for frame in frames]) / weight
    points = probe.sample_points()[0][0, ..., :2]
    to_pixel = torch.linalg.inv(pixel_to_probe)
    pixel = points @ to_pixel[:2, :2].T + to_pixel[:2, 3]
    size = pixel.new_tensor([sweep.frames.shape[2] - 1, sweep.frames.shape[1] - 1])
    grid = (2 * pixel / size - 1).to(frames)

    def sampled(images: Tensor) -> Tensor:
        where = grid.expand(images.shape[0], *grid.shape)
        return F.grid_sample(images[:, None], where, align_corners=True)[:, 0]

    inside = (sampled(mask) > 0.99).expand(len(sweep), -1, -1)
    return PolarSweep(probe, sampled(frames), inside, rigid_poses(sweep, pixel_to_probe), pixel_to_probe)


def rigid_poses(sweep: TrackedSweep, pixel_to_probe: Float[Tensor, "4 4"]) -> Float[Tensor, "k 4 4"]:
    """probe_to_reference (K, 4, 4) float64 of the frames: their axes without the size of a pixel."""
    image = sweep.image_to_reference
    x = F.normalize(image[:, :3, 0], dim=1)
    y = image[:, :3, 1] - (image[:, :3, 1] * x).sum(1, keepdim=True) * x
    y = F.normalize(y, dim=1)
    probe_in_pixels = torch.linalg.inv(pixel_to_probe)[:, 3]
    poses = torch.eye(4, dtype=torch.float64).repeat(len(sweep), 1, 1)
    poses[:, :3, :3] = torch.stack([x, y, torch.linalg.cross(x, y)], -1)
    poses[:, :3, 3] = image[:, :3, :2] @ probe_in_pixels[:2] + image[:, :3, 3]
    return poses


def in_fan(probe: Probe, pixel_to_probe: Float[Tensor, "4 4"], rows: int, columns: int) -> Bool[Tensor, "rows columns"]:
    """Which pixels of a frame, (rows, columns) bool, lie between the probe's first and last ray, face and depth."""
    return (frame_grid(probe, pixel_to_probe, rows, columns).abs() <= 1).all(-1)


def frame_grid(probe: Probe, pixel_to_probe: Tensor, rows: int, columns: int) -> Float[Tensor, "rows columns 2"]:
    """Where the pixels of a frame lie in a polar image, (rows, columns, 2) float64, as `grid_sample` wants it."""
    polar = probe.polar_coordinates(pixel_centres(rows, columns, pixel_to_probe))
    scale = polar.new_tensor([2 / (probe.rays - 1), 2 / (probe.samples - 1)])
    return (polar * scale - 1).flip(-1)
