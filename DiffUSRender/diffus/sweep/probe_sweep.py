"""A sweep in the geometry of its probe: where pixels lie in polar images and back, and the probe's rigid poses."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError, _
from ..geometry.filters import gaussian_blur
from ..geometry.pose import image_pose, place_samples
from ..probe.fan import estimate_fan
from ..probe.probe import pixel_centres

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

    from ..probe import Probe
    from ..probe.fan import Fan
    from .sweep import TrackedSweep

SQUARE = 0.02  # how far rows and columns may differ in size for a fan to be estimated
SAME_PIXEL = 1e-3  # relative
RIM = 1e-9  # of the grid: rounding of what lies on the fan's outline
BEAM = ("frequency_mhz", "focus_mm", "f_number", "transmit_f_number", "cycles", "elevation_layers", "elevation_mm")
SAMPLING = ("rays", "samples", "rays_per_line")


# --- polar <-> pixels


def polar_grid(probe: Probe, xy: Float[Tensor, "*points 2"]) -> Float[Tensor, "*points 2"]:
    """Where points of the probe's plane, (..., 2) mm, lie in its polar image: (sample, ray), -1 to 1 in the fan.

    As `grid_sample` with aligned corners wants it, for polar images of (rays, samples).
    """
    last = xy.new_tensor([probe.rays - 1, probe.samples - 1])
    return (2 * probe.polar_coordinates(xy) / last - 1).flip(-1)


def frame_grid(
    probe: Probe, pixel_to_probe: Float[Tensor, "4 4"], rows: int, columns: int
) -> Float[Tensor, "rows columns 2"]:
    """`polar_grid` of the pixel centres of a frame, float64."""
    return polar_grid(probe, pixel_centres(rows, columns, pixel_to_probe))


def ray_grid(
    probe: Probe, pixel_to_probe: Float[Tensor, "4 4"], rows: int, columns: int
) -> Float[Tensor, "rays samples 2"]:
    """Where the samples of the rays lie in a frame, (column, row) from -1 to 1; the inverse of `frame_grid`, float64.

    As `grid_sample` with aligned corners wants it, for frames of (rows, columns).
    """
    points = probe.sample_points()[0][0, ..., :2]
    to_pixel = torch.linalg.inv(pixel_to_probe)
    pixel = points @ to_pixel[:2, :2].T + to_pixel[:2, 3]
    return 2 * pixel / pixel.new_tensor([columns - 1, rows - 1]) - 1


def inside_fan(grid: Float[Tensor, "*points 2"]) -> Bool[Tensor, "*points"]:
    """Which points of a `polar_grid` lie between the probe's first and last ray, face and depth."""
    return (grid.abs() <= 1 + RIM).all(-1)


def in_fan(probe: Probe, pixel_to_probe: Float[Tensor, "4 4"], rows: int, columns: int) -> Bool[Tensor, "rows columns"]:
    """Which pixels of a frame lie in the probe's fan."""
    return inside_fan(frame_grid(probe, pixel_to_probe, rows, columns))


def to_pixels(
    polar: Float[Tensor, "batch rays samples"], grid: Float[Tensor, "rows columns 2"]
) -> Float[Tensor, "batch rows columns"]:
    """Polar images on the points of a `polar_grid`, bilinear; outside of the fan its rim repeats."""
    where = grid.to(polar).expand(polar.shape[0], *grid.shape)
    return F.grid_sample(polar[:, None], where, padding_mode="border", align_corners=True)[:, 0]


# --- frames along the rays


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
        return to_pixels(polar, frame_grid(self.probe, self.pixel_to_probe, rows, columns))


def polar_sweep(
    sweep: TrackedSweep,
    probe: Probe,
    pixel_to_probe: Float[Tensor, "4 4"],
    *,
    rays: int = 96,
    samples: int = 192,
    smoothing_mm: float = 0.0,
) -> PolarSweep:
    """Samples the frames along the rays of a probe.

    Smoothing works on the displayed brightness, the logarithm of the envelope, within the sweep's mask.

    Args:
        sweep: The frames.
        probe: Whose rays; its own counts of rays and samples give way to `rays` and `samples`.
        pixel_to_probe: (4, 4), pixel centre (column, row, 0, 1) to probe mm.
        rays: Of the polar images.
        samples: Along each ray.
        smoothing_mm: Standard deviation of a Gaussian that the frames are convolved with before, mm.
    """
    probe = replace(probe, rays=rays, samples=samples)
    mask = sweep.mask.to(sweep.frames)
    frames = sweep.frames * mask
    if smoothing_mm > 0:
        sigma = smoothing_mm / sweep.pixel_mm[0].item()
        weight = gaussian_blur(mask, sigma).clamp(min=1e-3)
        frames = torch.cat([gaussian_blur(frame[None], sigma) for frame in frames]) / weight
    grid = ray_grid(probe, pixel_to_probe, *sweep.frames.shape[1:]).to(frames)

    def sampled(images: Tensor) -> Tensor:
        where = grid.expand(images.shape[0], *grid.shape)
        return F.grid_sample(images[:, None], where, align_corners=True)[:, 0]

    inside = (sampled(mask) > 0.99).expand(len(sweep), -1, -1)
    return PolarSweep(probe, sampled(frames), inside, rigid_poses(sweep, pixel_to_probe), pixel_to_probe)


# --- the probe of a sweep


def fan_of_sweep(sweep: TrackedSweep, *, frequency_mhz: float = 5.0, depth_mm: float | None = None) -> Fan:
    """The fan that the frames show together.

    Args:
        sweep: Frames of one fan.
        frequency_mhz: Of the probe; it cannot be seen.
        depth_mm: Of the fan from the probe's face, where it is known; else what the frames show.

    Raises:
        InputError: The pixels are not square, or no fan shows.
    """
    size = sweep.pixel_mm
    if (size[0] - size[1]).abs() > SQUARE * size.mean():
        raise InputError(_("The sweep's pixels are not square; resample its frames before a fan is looked for."))
    mean = sweep.frames.mean(0, dtype=torch.float64)
    return estimate_fan(255 * mean, size.mean().item(), frequency_mhz=frequency_mhz, depth_mm=depth_mm)


def probe_of_sweep(
    sweep: TrackedSweep, *, frequency_mhz: float = 5.0, depth_mm: float | None = None
) -> tuple[Probe, Float[Tensor, "4 4"]]:
    """The probe and pixel_to_probe (4, 4) float64 of `fan_of_sweep`; raises InputError where no fan shows."""
    fan = fan_of_sweep(sweep, frequency_mhz=frequency_mhz, depth_mm=depth_mm)
    return fan.probe, fan.pixel_to_probe


def shows_slices_of(sweep: TrackedSweep, probe: Probe) -> bool:
    """Whether the frames have the very size and pixels of the probe's slice: those that were rendered with it."""
    geometry = probe.slice_geometry()
    same = tuple(sweep.frames.shape[1:]) == (geometry.rows, geometry.columns)
    return same and bool(((sweep.pixel_mm / geometry.mm_per_pixel - 1).abs() < SAME_PIXEL).all())


def beam_of(probe: Probe, *, sampling: bool = False) -> dict[str, object]:
    """What a fan in pixels does not tell, by name: frequency, beam and elevation; also rays and samples if asked."""
    return {name: getattr(probe, name) for name in (*BEAM, *(SAMPLING if sampling else ()))}


def rigid_poses(sweep: TrackedSweep, pixel_to_probe: Float[Tensor, "4 4"]) -> Float[Tensor, "k 4 4"]:
    """probe_to_reference (K, 4, 4) float64 of the frames, rigid: `image_pose` with the probe's face as origin."""
    return image_pose(sweep.image_to_reference, pixel_to_probe)[0]
