"""Real frames with the probe that made them: geometry and pose from the fan in the pixels, not from drawn lines."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

from ..errors import InputError
from ..geometry.pose import require_rigid
from ..probe.fan import Fan, estimate_fan
from ..probe.probe import pixel_centres
from ..sweep.from_volume import sweep_from_volume
from ..sweep.probe_sweep import beam_of, probe_of_sweep, rigid_poses
from ..sweep.sweep import TrackedSweep, choose_frames

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

    from ..probe import Probe

LEAST_AGREEMENT = 0.7  # of a slice's lit pixels and the fan found in it: intersection over union
SEARCH_PIXELS = 96  # how large a slice is while its fan's direction is sought
LEAST_OPENING_DEG = 15.0  # of a sector; a wobbly rectangle may look like a narrower one
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

    def pixels_in_plane(self) -> Float[Tensor, "rows columns 2"]:
        """Probe-plane (x, y) mm of every pixel centre, (rows, columns, 2), float64."""
        return pixel_centres(*self.frames.shape[1:], self.pixel_to_probe)

    def pixels_ras(self, index: int) -> Float[Tensor, "rows columns 3"]:
        """RAS mm of every pixel centre of one frame, (rows, columns, 3), float64."""
        pose = self.probe_to_ras[index]
        return self.pixels_in_plane() @ pose[:3, :2].T + pose[:3, 3]

    def from_polar(self, polar: Float[Tensor, "rays samples"]) -> Float[Tensor, "rows columns"]:
        """A polar image (rays, samples) of the probe on the pixels of the frames, (rows, columns), zero off the fan."""
        place = self.probe.polar_coordinates(self.pixels_in_plane())
        last = place.new_tensor([self.probe.rays - 1, self.probe.samples - 1])
        inside = ((place >= -0.5) & (place <= last + 0.5)).all(-1)
        grid = (2 * place / last - 1).flip(-1).to(polar)
        image = F.grid_sample(polar[None, None], grid[None], padding_mode="border", align_corners=True)
        return image[0, 0] * inside


def frames_of_sweep(
    sweep: TrackedSweep,
    mri_to_reference: Float[Tensor, "4 4"],
    *,
    count: int = 24,
    probe: Probe | None = None,
    frequency_mhz: float = 5.0,
) -> FanFrames:
    """At most `count` frames of a tracked sweep in the world of the MRI, spread over its poses.

    mri_to_reference: (4, 4) rigid, MRI RAS to the sweep's reference. The fan is found in all frames together; `probe`
    replaces what it says of frequency, focus, rays and samples. Raises InputError where no fan can be seen.
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
    """Slices of a reconstructed 3-D ultrasound (K, J, I), zero where no beam was, each with the fan found in it.

    Which axis the probe swept along and where it pointed are searched for: of the directions whose fan agrees with the
    lit pixels of the largest slice, the one that opens widest. Every slice is then turned until its fan points down.
    One `FanFrames` of one frame for every slice that shows a fan. Raises InputError where none does; a linear array's
    rectangle does not tell where the probe was.
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
    lit = (sweep.frames > 0).numpy()
    largest = lit[lit.sum((1, 2)).argmax()]
    step = max(1, min(largest.shape) // SEARCH_PIXELS)
    small = largest[::step, ::step]
    pixel = sweep.image_to_reference[0, :3, 0].norm().item() * step
    turn, reach, best, angle = 0.0, 180.0, LEAST_AGREEMENT, None
    for degrees in TURNS_DEG:
        for tried in np.arange(turn - reach, turn + reach, degrees):
            fan, agreement = _fan(_turn(small, tried)[0], pixel)
            if agreement > best:
                turn, best, angle = float(tried), agreement, fan.probe.fov_deg
        reach = degrees
    return None if angle is None else (angle, turn)


def _fan(lit: np.ndarray, mm_per_pixel: float, frequency_mhz: float = 5.0) -> tuple[Fan | None, float]:
    """The sector in a slice, lit where above 0.5, and the intersection over union of both; (None, 0) without one."""
    lit = lit > 0.5
    try:
        fan = estimate_fan(lit.astype(np.float32), mm_per_pixel, frequency_mhz=frequency_mhz)
    except InputError:
        return None, 0.0
    if getattr(fan.probe, "fov_deg", 0.0) < LEAST_OPENING_DEG:
        return None, 0.0
    inside, filled = fan.mask.numpy(), ndimage.binary_fill_holes(lit)
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
    lit, turned_to_image = _turn(frame > 0, degrees)
    image_to_reference = sweep.image_to_reference[index : index + 1] @ torch.from_numpy(turned_to_image)
    fan, agreement = _fan(lit, image_to_reference[0, :3, 0].norm().item(), frequency_mhz)
    if fan is None or agreement < LEAST_AGREEMENT:
        return None
    image = torch.from_numpy(_turn(frame, degrees)[0]).clamp(0, 1)[None]
    turned = replace(sweep.subset([index]), frames=image, mask=fan.mask[None], image_to_reference=image_to_reference)
    return FanFrames(image, fan.mask[None], fan.probe, fan.pixel_to_probe, rigid_poses(turned, fan.pixel_to_probe))
