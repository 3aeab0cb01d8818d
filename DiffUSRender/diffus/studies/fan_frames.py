"""Real frames with the probe that made them: geometry and pose from the fan in the pixels, not from drawn lines."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from ..errors import InputError
from ..geometry.pose import require_rigid
from ..probe.fan import Fan, estimate_fan
from ..probe.probe import pixel_centres
from ..sweep.from_volume import sweep_from_volume
from ..sweep.probe_sweep import beam_of, frame_grid, probe_of_sweep, rigid_poses, to_pixels
from ..sweep.sweep import TrackedSweep, choose_frames

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

    from ..probe import Probe

MIN_AGREEMENT = 0.7  # of a slice's bright pixels and the fan found in it: intersection over union
SEARCH_PIXELS = 96  # how large a slice is while its fan's direction is sought
MIN_OPENING_DEG = 15.0  # of a sector; a wobbly rectangle may look like a narrower one
TURNS_DEG = (15.0, 5.0, 2.0)  # steps of that search; the first goes all the way round


@dataclass(frozen=True)
class FanFrames:
    """Frames of one probe.

    frames: (K, rows, columns) in [0, 1]. mask: (K, rows, columns) bool, pixels in the fan. probe: as the fan shows it.
    pixel_to_probe: (4, 4) float64, pixel centre (column, row, 0, 1) to probe mm. probe_to_ras: (K, 4, 4) float64.
    """

    frames: Float[Tensor, "k rows columns"]
    mask: Bool[Tensor, "k rows columns"]
    probe: Probe
    pixel_to_probe: Float[Tensor, "4 4"]
    probe_to_ras: Float[Tensor, "k 4 4"]

    def __len__(self) -> int:
        return self.frames.shape[0]

    def pixels_ras(self, index: int) -> Float[Tensor, "rows columns 3"]:
        """RAS mm of every pixel centre of one frame, (rows, columns, 3), float64."""
        pose = self.probe_to_ras[index]
        return pixel_centres(*self.frames.shape[1:], self.pixel_to_probe) @ pose[:3, :2].T + pose[:3, 3]

    def from_polar(self, polar: Float[Tensor, "rays samples"]) -> Float[Tensor, "rows columns"]:
        """A polar image of the probe on the pixels of the frames; off the fan its rim repeats."""
        return to_pixels(polar[None], frame_grid(self.probe, self.pixel_to_probe, *self.frames.shape[1:]))[0]


def frames_of_sweep(
    sweep: TrackedSweep,
    mri_to_reference: Float[Tensor, "4 4"],
    *,
    count: int = 24,
    probe: Probe | None = None,
    frequency_mhz: float = 5.0,
) -> FanFrames:
    """Frames of a tracked sweep in the world of the MRI, with the fan that all frames show together.

    Args:
        sweep: The frames.
        mri_to_reference: (4, 4) rigid, MRI RAS to the sweep's reference.
        count: How many frames at most, spread over the poses.
        probe: Replaces what the fan does not show: frequency, focus, rays and samples.
        frequency_mhz: Of the probe where `probe` is not given.

    Raises:
        InputError: No fan can be seen, or the matrix is not rigid.
    """
    found, pixel_to_probe = probe_of_sweep(sweep, frequency_mhz=frequency_mhz)
    if probe is not None:
        found = replace(found, **beam_of(probe, sampling=True))
    require_rigid(mri_to_reference, "mri_to_reference")
    chosen = sweep.subset(choose_frames(sweep, count))
    poses = torch.linalg.inv(mri_to_reference.double()) @ rigid_poses(chosen, pixel_to_probe)
    mask = chosen.mask.expand(len(chosen), -1, -1)
    return FanFrames(chosen.frames, mask, found, pixel_to_probe, poses)


def frames_of_volume(
    volume: np.ndarray,
    ijk_to_ras: np.ndarray,
    *,
    slices: int = 12,
    probe: Probe | None = None,
    frequency_mhz: float = 5.0,
) -> list[FanFrames]:
    """Slices of a reconstructed 3-D ultrasound, each with the fan found in it.

    Which axis the probe swept along and where it pointed are searched for: of the directions whose fan agrees with the
    bright pixels of the largest slice, the one that opens widest. Every slice is then turned until its fan points down.

    Args:
        volume: (K, J, I), zero where no beam was.
        ijk_to_ras: (4, 4).
        slices: How many at most.
        probe: As in `frames_of_sweep`.
        frequency_mhz: As in `frames_of_sweep`.

    Returns:
        `FanFrames` of one frame for every slice that shows a fan.

    Raises:
        InputError: None does; a linear array's rectangle does not tell where the probe was.
    """
    if np.ndim(volume) == 3 and min(np.shape(volume)) < 32:
        raise InputError(f"The 3-D ultrasound is {np.shape(volume)} voxels; a fan needs at least 32 along every axis.")
    candidates = []
    for axis in (0, 1, 2):
        sweep = sweep_from_volume(volume, ijk_to_ras, slices=slices, axis=axis)
        found = _direction(sweep)
        if found is not None:
            candidates.append((*found, sweep))
    views = []
    if candidates:
        _, turn, sweep = max(candidates, key=lambda found: found[0])
        views = [view for n in range(len(sweep)) if (view := _turned_view(sweep, n, turn, frequency_mhz))]
    if not views:
        raise InputError(
            "No ultrasound fan can be seen in the slices of the 3-D ultrasound; give the tracked sweep it was made of."
        )
    if probe is None:
        return views
    beam = beam_of(probe, sampling=True)
    return [replace(view, probe=replace(view.probe, **beam)) for view in views]


def _direction(sweep: TrackedSweep) -> tuple[float, float] | None:
    """Opening angle of the fan in the largest slice, and the turn that lets it point down, both in degrees."""
    bright = (sweep.frames > 0).numpy()
    largest = bright[bright.sum((1, 2)).argmax()]
    step = max(1, min(largest.shape) // SEARCH_PIXELS)
    small = largest[::step, ::step]
    pixel_mm = sweep.pixel_mm[0].item() * step
    turn, reach, best, angle = 0.0, 180.0, MIN_AGREEMENT, None
    for degrees in TURNS_DEG:
        for tried in np.arange(turn - reach, turn + reach, degrees):
            fan, agreement = _fan(_turn(small, tried)[0], pixel_mm)
            if agreement > best:
                turn, best, angle = float(tried), agreement, fan.probe.fov_deg
        reach = degrees
    return None if angle is None else (angle, turn)


def _fan(bright: np.ndarray, mm_per_pixel: float, frequency_mhz: float = 5.0) -> tuple[Fan | None, float]:
    """The sector in a slice, bright above 0.5, and the intersection over union of both; (None, 0) without one."""
    bright = bright > 0.5
    try:
        fan = estimate_fan(bright.astype(np.float32), mm_per_pixel, frequency_mhz=frequency_mhz)
    except InputError:
        return None, 0.0
    if getattr(fan.probe, "fov_deg", 0.0) < MIN_OPENING_DEG:
        return None, 0.0
    inside, filled = fan.mask.numpy(), ndimage.binary_fill_holes(bright)
    return fan, float((inside & filled).sum() / (inside | filled).sum())


def _turn(image: np.ndarray, degrees: float) -> tuple[np.ndarray, np.ndarray]:
    """The image turned about its middle on a square that holds all of it, and turned_to_image (4, 4), in pixels."""
    rows, columns = image.shape
    side = math.ceil(math.hypot(rows, columns)) + 8
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    matrix = np.eye(4)
    matrix[:2, :2] = [[c, -s], [s, c]]  # of (column, row)
    matrix[:2, 3] = [(columns - 1) / 2, (rows - 1) / 2] - matrix[:2, :2] @ np.full(2, (side - 1) / 2)
    by_row, offset = matrix[1::-1, 1::-1], matrix[1::-1, 3]
    turned = ndimage.affine_transform(image.astype(np.float32), by_row, offset, output_shape=(side, side), order=1)
    return turned, matrix


def _turned_view(sweep: TrackedSweep, index: int, degrees: float, frequency_mhz: float) -> FanFrames | None:
    """One slice turned so that its fan points down, or None where no fan shows in it."""
    frame = sweep.frames[index].numpy()
    bright, turned_to_image = _turn(frame > 0, degrees)
    image_to_reference = sweep.image_to_reference[index : index + 1] @ torch.from_numpy(turned_to_image)
    fan, agreement = _fan(bright, image_to_reference[0, :3, 0].norm().item(), frequency_mhz)
    if fan is None or agreement < MIN_AGREEMENT:
        return None
    image = torch.from_numpy(_turn(frame, degrees)[0]).clamp(0, 1)[None]
    turned = replace(sweep.subset([index]), frames=image, mask=fan.mask[None], image_to_reference=image_to_reference)
    return FanFrames(image, fan.mask[None], fan.probe, fan.pixel_to_probe, rigid_poses(turned, fan.pixel_to_probe))
