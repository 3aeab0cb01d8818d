"""What is exported: simulated slices with a pose and a time each, and the probe and settings that they are of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..errors import InputError, _
from ..render.scan_conversion import scan_grid
from ..sweep.frames import rising_times
from ..sweep.probe_sweep import probe_of_sweep, rigid_poses, shows_slices_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jaxtyping import Bool, Float, UInt8
    from torch import Tensor

    from ..medium import AcousticMedium
    from ..probe import Probe
    from ..render.display import Persistence
    from ..render.renderer import UltrasoundRenderer
    from ..render.settings import RenderSettings
    from ..sweep.sweep import TrackedSweep

FRAMES_PER_S = 12.0  # of frames that have no times
MIN_STEP_S = 0.002  # 3D Slicer reads times to 0.001, and takes two that are less apart for one


@dataclass(frozen=True)
class SimulatedFrames:
    """Slices of one probe: pixels (K, rows, columns) uint8 in `probe.slice_geometry()`.

    probe_to_reference: (K, 4, 4) float64, rigid, mm. timestamps: (K,) seconds. settings: what they were rendered with.
    provenance: of `io.provenance`, for the headers.

    Raises:
        InputError: The shapes do not fit.
    """

    pixels: UInt8[np.ndarray, "k rows columns"]
    probe_to_reference: Float[np.ndarray, "k 4 4"]
    timestamps: Float[np.ndarray, " k"]
    probe: Probe
    settings: RenderSettings
    provenance: Mapping[str, object] | None = None

    def __post_init__(self) -> None:
        geometry = self.probe.slice_geometry()
        count = len(self.pixels)
        if not count or self.pixels.shape[1:] != (geometry.rows, geometry.columns) or self.pixels.dtype != np.uint8:
            raise InputError(
                _("Frames of {rows} x {columns} 8-bit pixels are needed, but theirs is {shape} of {dtype}."),
                rows=geometry.rows,
                columns=geometry.columns,
                shape=self.pixels.shape,
                dtype=self.pixels.dtype,
            )
        if self.probe_to_reference.shape != (count, 4, 4) or self.timestamps.shape != (count,):
            raise InputError(_("{count} frames need as many 4x4 poses and times."), count=count)

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def pixel_to_probe(self) -> Float[np.ndarray, "4 4"]:
        """Pixel centre (column, row, 0, 1) to probe mm, (4, 4)."""
        return self.probe.slice_geometry().pixel_to_probe.numpy()

    @property
    def image_to_reference(self) -> Float[np.ndarray, "k 4 4"]:
        """Pixel centre (column, row, 0, 1) of every frame to reference mm, (K, 4, 4)."""
        return self.probe_to_reference @ self.pixel_to_probe

    @property
    def inside(self) -> Bool[np.ndarray, "rows columns"]:
        """The pixels of the fan, (rows, columns) bool."""
        return scan_grid(self.probe)[1].numpy()

    @property
    def index_times(self) -> list[str]:
        """The times in s as text, one for every frame and rising so that 3D Slicer tells them apart."""
        times, _ = rising_times(self.timestamps, MIN_STEP_S)
        return [str(n) for n in range(len(self))] if times is None else [f"{time:.6f}" for time in times]

    @property
    def intervals_s(self) -> Float[np.ndarray, " k"]:
        """How long every frame is shown, (K,) s; the usual rate where the times say nothing."""
        times, _ = rising_times(self.timestamps, MIN_STEP_S)
        if times is None or len(self) == 1:
            return np.full(len(self), 1 / FRAMES_PER_S)
        steps = np.diff(times)
        return np.append(steps, np.median(steps))

    @property
    def frames_per_second(self) -> float:
        """The mean rate, kept between 0.5 and 120."""
        return float(np.clip(1 / self.intervals_s.mean(), 0.5, 120.0))


def render_frame(
    renderer: UltrasoundRenderer,
    medium: AcousticMedium,
    probe_to_medium: Float[Tensor | np.ndarray, "4 4"],
    number: int = 0,
    persistence: Persistence | None = None,
) -> UInt8[np.ndarray, "rows columns"]:
    """One slice, (rows, columns) uint8, at a pose (4, 4) in the medium's world.

    Args:
        number: of the frame in its sweep: each has noise of its own.
        persistence: averages it with the frames that went through it before.
    """
    with torch.inference_mode():
        image = renderer(medium, torch.as_tensor(probe_to_medium), number)
        image = image if persistence is None else persistence(image)
    return image[0].mul(255.0).round_().to("cpu", torch.uint8).numpy()


def probe_poses(sweep: TrackedSweep, probe: Probe | None = None) -> tuple[Probe, Float[np.ndarray, "k 4 4"]]:
    """Where the probe was at every frame of a recorded sweep.

    Args:
        sweep: Frames that have the very size and pixels of `probe`'s slice are taken as its own; else the fan that
            they show says where the probe was.
        probe: To simulate; without it, that of the fan.

    Returns:
        The probe, and probe_to_reference (K, 4, 4), rigid.

    Raises:
        InputError: No fan can be seen.
    """
    if probe is not None and shows_slices_of(sweep, probe):
        return probe, rigid_poses(sweep, probe.slice_geometry().pixel_to_probe).numpy()
    found, pixel_to_probe = probe_of_sweep(sweep)
    return probe or found, rigid_poses(sweep, pixel_to_probe).numpy()
