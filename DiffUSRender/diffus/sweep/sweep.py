"""A tracked ultrasound sweep: frames with a pose each, from arrays or a file; choose frames, write."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError, _
from ..geometry.pose import require_image_matrix
from ..io.sweeps import SweepReport, read_image_to_probe, read_sweep_file, write_sweep_file
from ..probe.fan_mask import beam_mask
from .frames import grey_scale, require_fan_size, rising_times

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

MIN_STEP_S = 1e-6  # of two frames' times, as files hold them
MIN_PIXELS = 8  # of a frame's side


@dataclass(frozen=True)
class TrackedSweep:
    """Ultrasound frames with a pose each.

    frames (K, rows, columns) float32 in [0, 1]; image_to_reference (K, 4, 4) float64, from (column, row, 0, 1) at pixel
    centres to reference mm; mask (1 or K, rows, columns) bool, true where the beam reached; timestamps (K,) seconds.
    """

    frames: Float[Tensor, "k rows columns"]
    image_to_reference: Float[Tensor, "k 4 4"]
    mask: Bool[Tensor, "m rows columns"]
    timestamps: Float[Tensor, " k"]
    report: SweepReport = field(default_factory=lambda: SweepReport(0))

    def __len__(self) -> int:
        return self.frames.shape[0]

    @property
    def pixel_mm(self) -> Float[Tensor, "2"]:
        """Width and height of a pixel of the first frame, (2,), mm."""
        return self.image_to_reference[0, :3, :2].norm(dim=0)

    @classmethod
    def from_arrays(
        cls, frames, image_to_reference, *, mask=None, timestamps=None, report=None, limits=None
    ) -> TrackedSweep:
        """Makes a checked sweep of raw frames, wherever they come from.

        Args:
            frames: (K, rows, columns), any real type; `grey_scale` says how it becomes brightness.
            image_to_reference: (K, 4, 4), rigid but for the size of a pixel and a shear below 5 %.
            mask: (rows, columns) or (1 or K, rows, columns), where the beam reached; without it, found in the pixels.
            timestamps: (K,) s; those that do not rise are moved apart, which the report notes. Without them, numbers.
            report: What to tell people of the reading.
            limits: Black and white of the whole sweep, where these are some of its frames; see `grey_scale`.

        Raises:
            InputError: Shapes that do not fit, frames that hold no picture, or a matrix that no image has.
        """
        pixels = np.asarray(frames)
        _require_frames(pixels)
        poses = np.asarray(image_to_reference).astype(np.float64)
        if poses.shape != (len(pixels), 4, 4):
            raise InputError(
                _("{count} frames need as many 4x4 poses, but the poses' shape is {shape}."),
                count=len(pixels),
                shape=poses.shape,
            )
        require_image_matrix(torch.from_numpy(poses), "ImageToReference")
        found = beam_mask(pixels)[None] if mask is None else np.asarray(mask, dtype=bool)
        found = found[None] if found.ndim == 2 else found
        if found.shape[1:] != pixels.shape[1:] or found.shape[0] not in (1, len(pixels)):
            raise InputError(
                _("The fan mask's shape {shape} does not fit frames of shape {other}."),
                shape=found.shape,
                other=pixels.shape,
            )
        if not found.any():
            raise InputError(_("The frames are empty: no pixel lies in the ultrasound fan."))
        require_fan_size(found.any(0), poses)
        report = report or SweepReport(len(pixels))
        numbers = np.arange(len(pixels), dtype=np.float64)
        times = numbers if timestamps is None else np.asarray(timestamps, np.float64)
        if times.shape != (len(pixels),):
            raise InputError(
                _("{count} frames need as many times, but the times' shape is {shape}."),
                count=len(pixels),
                shape=times.shape,
            )
        times, note = rising_times(times, MIN_STEP_S)
        return cls(
            torch.from_numpy(grey_scale(pixels, limits)),
            torch.from_numpy(poses),
            torch.from_numpy(np.ascontiguousarray(found)),
            torch.from_numpy(numbers if times is None else times),
            replace(report, notes=(*report.notes, note)) if note else report,
        )

    def subset(self, indices) -> TrackedSweep:
        """The sweep with only these frames, in this order (integers, (n,))."""
        index = torch.as_tensor(indices, dtype=torch.long)
        mask = self.mask if self.mask.shape[0] == 1 else self.mask[index]
        return replace(
            self,
            frames=self.frames[index],
            image_to_reference=self.image_to_reference[index],
            mask=mask,
            timestamps=self.timestamps[index],
        )


def read_sweep(path: str | os.PathLike, image_to_probe=None) -> TrackedSweep:
    """Reads a tracked sequence file.

    Args:
        path: As `read_sweep_file` takes it.
        image_to_probe: Calibration that replaces or supplies the one in the file: a matrix (4, 4), or a file of one.

    Raises:
        InputError: A file cannot be read, nothing is tracked, no valid frame is left, or a matrix is not what it
            should be.
    """
    if isinstance(image_to_probe, (str, os.PathLike)):
        image_to_probe = read_image_to_probe(image_to_probe)
    file = read_sweep_file(path, image_to_probe)
    return TrackedSweep.from_arrays(
        file.pixels, file.image_to_reference, timestamps=file.timestamps, report=file.report
    )


def write_sweep(sweep: TrackedSweep, path: str | os.PathLike) -> None:
    """Writes a sweep as `.mha` or `.nrrd`, 8 bit; `read_sweep` reads it back. Raises InputError where that fails."""
    pixels = (sweep.frames.cpu().numpy() * 255).round().astype(np.uint8)
    write_sweep_file(path, pixels, sweep.image_to_reference.cpu().numpy(), sweep.timestamps.cpu().numpy())


def choose_frames(sweep: TrackedSweep, count: int) -> Int[Tensor, " n"]:
    """Chooses frames that are spread over the poses, preferring those with strong gradients.

    Greedy farthest-point choice on the four corners of each frame in mm, distance weighted by the square root of the
    frame's gradient energy relative to the median frame's.

    Returns:
        Their indices, (count,), rising; all of them where there are fewer.
    """
    total = len(sweep)
    if total <= count:
        return torch.arange(total)
    rows, columns = sweep.frames.shape[1:]
    corners = torch.tensor(
        [[0, 0, 0, 1], [columns, 0, 0, 1], [0, rows, 0, 1], [columns, rows, 0, 1]], dtype=torch.float64
    )
    corner_mm = (sweep.image_to_reference @ corners.T)[:, :3].reshape(total, -1) / 2  # norm: RMS over the corners
    small = torch.nn.functional.avg_pool2d((sweep.frames * sweep.mask)[:, None], max(1, min(rows, columns) // 48))[:, 0]
    energy = small.diff(dim=1).square().mean((1, 2)) + small.diff(dim=2).square().mean((1, 2))
    weight = (energy.double() / energy.double().median().clamp_min(1e-12)).clamp(0.05, 4.0).sqrt()
    distance = torch.full((total,), torch.inf, dtype=torch.float64)
    chosen = [int(weight.argmax())]
    while len(chosen) < count:
        distance = torch.minimum(distance, (corner_mm - corner_mm[chosen[-1]]).norm(dim=1))
        score = distance * weight
        score[chosen] = -1.0
        chosen.append(int(score.argmax()))
    return torch.tensor(sorted(chosen))


def _require_frames(pixels: np.ndarray) -> None:
    """Raises InputError unless an array holds finite grey frames, (K, rows, columns)."""
    if pixels.ndim != 3 or 0 in pixels.shape:
        raise InputError(
            _("Frames must have the shape (frames, rows, columns), but it is {shape}."), shape=pixels.shape
        )
    if min(pixels.shape[1:]) < MIN_PIXELS:
        raise InputError(
            _("Frames of {shape} x {other} pixels are too small to be ultrasound."),
            shape=pixels.shape[2],
            other=pixels.shape[1],
        )
    if pixels.dtype.kind not in "biuf":
        raise InputError(_("The frames must hold grey values, but they hold {dtype}."), dtype=pixels.dtype)
    if not np.isfinite(pixels).all():
        raise InputError(_("The frames hold NaN or infinite pixels; export the sequence again."))
