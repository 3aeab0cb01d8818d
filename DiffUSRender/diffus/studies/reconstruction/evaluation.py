"""How well a volume predicts frames that it was not made from: reconstructed by physics, or compounded."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from ...errors import InputError
from ...geometry.filters import gaussian_blur
from ...metrics.images import ncc
from ...sweep.probe_sweep import polar_sweep, probe_of_sweep
from .compounding import compound
from .grid import grid_around
from .inversion import ReconstructionState, VolumeReconstruction, medium_on_grid, uniform_maps

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jaxtyping import Float, Int

    from ...medium import AcousticMedium
    from ...sweep.probe_sweep import PolarSweep
    from ...sweep.sweep import TrackedSweep
    from .grid import VoxelGrid

VOXELS_DEEP = 64  # voxels along the depth of the image, by default
METHODS = ("start", "reconstructed", "compounded")


@dataclass(frozen=True)
class HeldOutScores:
    """How well every method predicted the frames held out.

    Args:
        frames: {method: NCC in the fan with each frame, (n,)}. Speckle cannot be predicted: the ceiling is below 1, and
            the same for every method.
        smoothed: the same with the frames smoothed.
        images: {method: the predicted frames, (n, h, w)}.
    """

    frames: dict[str, Float[Tensor, " n"]]
    smoothed: dict[str, Float[Tensor, " n"]]
    images: dict[str, Float[Tensor, "n h w"]]


class HeldOutExperiment:
    """Iterate to reconstruct a volume from a part of a sweep (`ReconstructionState` each); then ask for `scores`.

    Args:
        sweep: tracked frames.
        medium: what the reconstruction starts from, or None for soft tissue everywhere.
        reference_to_ras: the sweep's reference to the medium's world, (4, 4).
        every: of so many frames, `block` are held out (`held_out_frames`); 0 holds out none.
        block: how many.
        voxel_mm: edge of a voxel; by default a 64th of the depth.
        smoothing_mm: of the frames; by default half a voxel.
        frequency_mhz: of the probe.
        steps: of the optimisation.
        seed: of the order of the frames.

    Raises:
        InputError: no fan can be seen in the frames, or the sweep is too short or outside of the medium.
    """

    def __init__(
        self,
        sweep: TrackedSweep,
        medium: AcousticMedium | None = None,
        reference_to_ras: Float[Tensor, "4 4"] | None = None,
        *,
        every: int = 5,
        block: int = 1,
        voxel_mm: float | None = None,
        smoothing_mm: float | None = None,
        frequency_mhz: float = 5.0,
        steps: int = 80,
        seed: int = 0,
    ) -> None:
        probe, pixel_to_probe = probe_of_sweep(sweep, frequency_mhz=frequency_mhz)
        voxel_mm = voxel_mm or round(probe.depth_mm / VOXELS_DEEP, 1)
        self.smoothing_mm = 0.5 * voxel_mm if smoothing_mm is None else smoothing_mm
        if every:
            self.kept, self.held = held_out_frames(len(sweep), every, block)
        else:
            self.kept, self.held = torch.arange(len(sweep)), torch.arange(0)
        self._sweep = sweep
        self._frames = polar_sweep(sweep, probe, pixel_to_probe, smoothing_mm=self.smoothing_mm)
        seen = _chosen(self._frames, self.kept)
        self.grid = grid_around(seen.points(slice(None)), voxel_mm, 2 * voxel_mm)
        world = torch.eye(4, dtype=torch.float64) if reference_to_ras is None else reference_to_ras
        start = uniform_maps(self.grid) if medium is None else medium_on_grid(medium, self.grid, world)
        middle = (self.grid.centres().double().mean((0, 1, 2)) @ world[:3, :3].T + world[:3, 3])[None]
        if medium is not None and not medium.contains(middle).all():
            raise InputError("The sweep lies outside of the volume that it starts from; give its transform.")
        self.reconstruction = VolumeReconstruction(
            seen, self.grid, start, steps=steps, smoothing_mm=self.smoothing_mm, seed=seed
        )
        self._at_start: Tensor | None = None

    def __iter__(self) -> Iterator[ReconstructionState]:
        self.reconstruction.match_gain()
        self._at_start = self._predict()
        yield from self.reconstruction

    def compounded(self) -> Float[Tensor, "k j i"]:
        """The frames kept, compounded on the same grid, (K, J, I)."""
        return compound(self._sweep.subset(self.kept), self.grid)

    def scores(self) -> HeldOutScores:
        """What the volumes predict of the frames held out: at the start, reconstructed, and compounded."""
        if not len(self.held):
            raise InputError("No frame was held out, so there is nothing to predict.")
        held = self._sweep.subset(self.held)
        mask = held.mask.expand(len(held), -1, -1)
        sigma = self.smoothing_mm / held.pixel_mm[0].item()
        weights = [gaussian_blur(m[None].float(), sigma).clamp(min=1e-3) for m in mask]
        local = [gaussian_blur((f * m)[None], sigma) / w for f, m, w in zip(held.frames, mask, weights)]
        images = {
            "start": self._at_start,
            "reconstructed": self._predict(),
            "compounded": resliced(self.compounded(), self.grid, held),
        }
        images = {name: image * mask for name, image in images.items() if image is not None}
        return HeldOutScores(
            {name: ncc(image, held.frames, mask) for name, image in images.items()},
            {name: ncc(image, torch.cat(local), mask) for name, image in images.items()},
            images,
        )

    def _predict(self) -> Tensor | None:
        if not len(self.held):
            return None
        frames = _chosen(self._frames, self.held)
        return frames.in_frame(self.reconstruction.render(frames), *self._sweep.frames.shape[1:])


def held_out_frames(count: int, every: int, block: int = 1) -> tuple[Int[Tensor, " kept"], Int[Tensor, " held"]]:
    """Indices of the frames kept and held out: of every `every` frames the `block` in the middle.

    Args:
        count: frames of the sweep.
        every: length of a period.
        block: held out of each.

    Raises:
        InputError: nothing would be left to reconstruct from, or nothing held out.
    """
    if not 0 < block < every:
        raise InputError(f"Of every {every} frames {block} cannot be held out; choose fewer, and at least one.")
    index = torch.arange(count)
    first = (every - block + 1) // 2
    held = (index % every >= first) & (index % every < first + block)
    if not held.all():
        # A stretch that is cut off at the sweep's end would be a prediction of what lies beyond it.
        held &= index < int(index[~held][-1])
    if not held.any() or (~held).sum() < 2:
        raise InputError(f"A sweep of {count} frames is too short to hold out {block} of every {every}.")
    return index[~held], index[held]


def resliced(volume: Float[Tensor, "k j i"], grid: VoxelGrid, sweep: TrackedSweep) -> Float[Tensor, "n h w"]:
    """A volume at the pixels of a sweep's frames, trilinearly.

    Args:
        volume: (K, J, I).
        grid: of the volume, in the sweep's reference frame.
        sweep: whose pixels.

    Returns:
        (n, h, w).
    """
    rows, columns = (torch.arange(size, dtype=torch.float64) for size in sweep.frames.shape[1:])
    row, column = torch.meshgrid(rows, columns, indexing="ij")
    matrix = torch.linalg.inv(grid.ijk_to_ras) @ sweep.image_to_reference
    last = matrix.new_tensor([max(length - 1, 1) for length in reversed(grid.shape)])
    images = []
    for m in matrix:
        ijk = column[..., None] * m[:3, 0] + row[..., None] * m[:3, 1] + m[:3, 3]
        where = (2 * ijk / last - 1).float()[None, None]
        images.append(F.grid_sample(volume[None, None], where, padding_mode="border", align_corners=True)[0, 0, 0])
    return torch.stack(images)


def _chosen(frames: PolarSweep, index: Int[Tensor, " n"]) -> PolarSweep:
    return replace(
        frames,
        brightness=frames.brightness[index],
        inside=frames.inside[index],
        probe_to_reference=frames.probe_to_reference[index],
    )
