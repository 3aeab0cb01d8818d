"""Impedance and scattering of a volume from posed frames, by back-propagation through the renderer.

Speckle is random: no scatterer can be found from it, and a loss on single pixels would ask for just that. What is
compared is its expectation (`render.expected`): the mean brightness over all speckle, against frames that are
smoothed as displayed, in the logarithm, where a local mean estimates that expectation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from ...errors import InputError
from ...geometry.filters import gaussian_blur
from ...medium import AcousticMedium
from ...medium.tissue import tissue_table
from ...render.expected import expected_polar, require_expectable
from ...render.plan import plan_frame
from ...render.settings import RenderSettings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jaxtyping import Float

    from ...sweep.probe_sweep import PolarSweep
    from .grid import VoxelGrid

GAIN_KNOTS = 8
BYTES_PER_VOXEL = 250
PYRAMID = (1, 2, 4, 8)
FLOOR_DB = -45.0  # scattering that a start may have at least: what is zero has no logarithm
SEED_NEPERS = 2e-4  # of a uniform start's impedance: an even one is a saddle point, power is quadratic in R


@dataclass(frozen=True)
class ReconstructionState:
    """Progress: `step`, from 1, of `steps`; `loss` is the mean squared difference of smoothed brightness."""

    step: int
    steps: int
    loss: float


class VolumeReconstruction:
    """Iterate to reconstruct (`ReconstructionState` each); stop asking to cancel.

    Impedance and scattering are exponentials of what is optimised, so positive. A time gain over the depth is fitted
    too, for a scanner's is not known: scattering is found up to one factor per depth for all frames.

    Args:
        frames: the smoothed polar frames to explain.
        grid: the voxels.
        start: maps on it, (4, K, J, I), of `uniform_maps` or `medium_on_grid`; attenuation and its exponent stay.
        settings: of the renderer.
        steps: of Adam.
        batch: frames per step.
        smoothness: weight of the total variation (nepers per mm) of log-scattering.
        impedance_smoothness: the same of log-impedance.
        smoothing_mm: of the frames along the rays.
        seed: of the order of the frames.

    Raises:
        InputError: a start of another shape, fewer than two frames, or settings without an expectation.
    """

    def __init__(
        self,
        frames: PolarSweep,
        grid: VoxelGrid,
        start: Float[Tensor, "4 k j i"],
        *,
        settings: RenderSettings | None = None,
        steps: int = 80,
        batch: int = 6,
        smoothness: float = 5e-3,
        impedance_smoothness: float = 0.2,
        smoothing_mm: float = 0.0,
        seed: int = 0,
    ) -> None:
        if tuple(start.shape) != (4, *grid.shape):
            raise InputError(f"The start's maps are {tuple(start.shape)}, the grid (4, K, J, I) of {grid.shape}.")
        if len(frames) < 2:
            raise InputError("A volume needs at least two frames; give a sweep.")
        self.frames, self.grid, self.steps, self.batch = frames, grid, steps, min(batch, len(frames))
        settings = settings or RenderSettings(tgc_reach=1.0)  # what starts in black has no gradient
        require_expectable(settings)
        self._plan = plan_frame(frames.probe, settings)
        self._sigma = smoothing_mm / frames.probe.sample_spacing_mm
        self._weights = (smoothness, impedance_smoothness)
        self._generator = torch.Generator().manual_seed(seed)
        start = start.detach().float()
        self._fixed = start[1:3]
        ripple = SEED_NEPERS * torch.randn(grid.shape, generator=self._generator)
        even = bool((start[0] == start[0, 0, 0, 0]).all())
        self._log_impedance = start[0].log() + (ripple if even else 0.0)
        self._log_scattering = start[3].clamp(min=10 ** (FLOOR_DB / 20)).log()
        self._impedance_change, self._scattering_change = (pyramid(grid.shape) for _ in range(2))
        self.gain_db = torch.zeros(GAIN_KNOTS, requires_grad=True)

    @property
    def memory_bytes(self) -> int:
        """At the peak of a step, as measured: parameters, their moments, and what the gradient keeps of the maps."""
        return BYTES_PER_VOXEL * math.prod(self.grid.shape)

    def __iter__(self) -> Iterator[ReconstructionState]:
        self.match_gain()
        optimiser = torch.optim.Adam(
            [
                {"params": self._scattering_change, "lr": 0.05},
                {"params": self._impedance_change, "lr": 0.001},
                {"params": [self.gain_db], "lr": 0.3},
            ],
            betas=(0.9, 0.98),
        )
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, self.steps, eta_min=0.0)
        for step in range(self.steps):
            chosen = torch.randperm(len(self.frames), generator=self._generator)[: self.batch]
            optimiser.zero_grad()
            logarithms = self._logarithms()
            data = self._misfit(chosen, logarithms)
            smoothness, impedance_smoothness = self._weights
            penalty = smoothness * total_variation(logarithms[1], self.grid.spacing_mm)
            penalty = penalty + impedance_smoothness * total_variation(logarithms[0], self.grid.spacing_mm)
            (data + penalty).backward()
            optimiser.step()
            schedule.step()
            yield ReconstructionState(step + 1, self.steps, data.item())

    def maps(self) -> Float[Tensor, "4 k j i"]:
        """The maps as they are now, (4, K, J, I), without a graph."""
        with torch.no_grad():
            return self._maps(*self._logarithms())

    def medium(self) -> AcousticMedium:
        """The medium as it is now, without a graph."""
        return AcousticMedium(self.maps(), self.grid.ijk_to_ras)

    def expected(self, medium: AcousticMedium, points: Float[Tensor, "n s rays samples 3"]) -> Tensor:
        """Expected brightness of frames.

        Args:
            medium: in the reference frame.
            points: samples of the rays, mm, (n, S, rays, samples, 3).

        Returns:
            0 to 1, (n, rays, samples).
        """
        knots = F.interpolate(self.gain_db[None, None], self._plan.probe.samples, mode="linear", align_corners=True)
        plan = self._plan.with_constants(gain_db=self._plan.gain_db + knots[0, 0])
        brightness = expected_polar(plan, medium, points)
        return gaussian_blur(brightness, (0.0, self._sigma), ends="replicate") if self._sigma > 0.3 else brightness

    @torch.no_grad()
    def render(self, frames: PolarSweep) -> Float[Tensor, "k rays samples"]:
        """Expected brightness of frames (K, rays, samples) in [0, 1], at their poses; they share the probe."""
        medium = self.medium()
        images = [self.expected(medium, frames.points(slice(n, n + 1))) for n in range(len(frames))]
        return torch.cat(images)

    def _logarithms(self) -> tuple[Tensor, Tensor]:
        """Log-impedance and log-scattering, (K, J, I) each."""
        shape = self.grid.shape
        impedance = self._log_impedance + from_pyramid(self._impedance_change, shape)
        return impedance, self._log_scattering + from_pyramid(self._scattering_change, shape)

    def _maps(self, log_impedance: Tensor, log_scattering: Tensor) -> Tensor:
        return torch.stack([log_impedance.exp(), *self._fixed, log_scattering.exp()])

    def _misfit(self, chosen: Tensor, logarithms: tuple[Tensor, Tensor]) -> Tensor:
        medium = AcousticMedium(self._maps(*logarithms), self.grid.ijk_to_ras)
        shown = self.expected(medium, self.frames.points(chosen))
        inside = self.frames.inside[chosen]
        return ((shown - self.frames.brightness[chosen]) ** 2 * inside).sum() / inside.sum().clamp(min=1)

    @torch.no_grad()
    def match_gain(self) -> None:
        """Starts the time gain where every depth has the mean brightness of the frames."""
        step = max(1, len(self.frames) // 8)
        index = torch.arange(0, len(self.frames), step)
        shown = self.expected(self.medium(), self.frames.points(index))
        inside = self.frames.inside[index]
        difference = ((self.frames.brightness[index] - shown) * inside).sum((0, 1)) / inside.sum((0, 1)).clamp(min=1)
        curve = F.adaptive_avg_pool1d(difference[None], GAIN_KNOTS)[0]
        self.gain_db += self._plan.settings.dynamic_range_db * curve


def pyramid(shape: tuple[int, int, int]) -> list[Tensor]:
    """Zeros to be optimised, on a grid of `shape` and on grids coarser by 2, 4 and 8: voxels without a pixel follow."""
    sizes = [tuple(max(1, math.ceil(length / step)) for length in shape) for step in PYRAMID]
    return [torch.zeros(1, 1, *size, requires_grad=True) for size in sizes]


def from_pyramid(levels: list[Tensor], shape: tuple[int, int, int]) -> Float[Tensor, "k j i"]:
    """The sum of the levels, each interpolated trilinearly to (K, J, I)."""
    return sum(F.interpolate(level, size=shape, mode="trilinear", align_corners=False) for level in levels)[0, 0]


def total_variation(volume: Float[Tensor, "k j i"], spacing_mm: float) -> Tensor:
    """Mean over the voxels of the gradient's length per mm, rounded off near zero to stay differentiable."""
    ends = [(0, 1) if axis == dim else (0, 0) for dim in range(3) for axis in (2, 1, 0)]
    steps = []
    for dim in range(3):
        padding = [end for pair in ends[3 * dim : 3 * dim + 3] for end in pair]
        steps.append(F.pad(volume.diff(dim=dim), padding) / spacing_mm)
    return (steps[0] ** 2 + steps[1] ** 2 + steps[2] ** 2 + 1e-8).sqrt().mean()


def uniform_maps(grid: VoxelGrid, tissue: str = "soft tissue") -> Float[Tensor, "4 k j i"]:
    """Maps (4, K, J, I) of one tissue everywhere."""
    properties = torch.tensor(tissue_table().require(tissue).properties)
    return properties[:, None, None, None].repeat(1, *grid.shape)


def medium_on_grid(
    medium: AcousticMedium, grid: VoxelGrid, reference_to_ras: Float[Tensor, "4 4"]
) -> Float[Tensor, "4 k j i"]:
    """A medium's maps on a grid, (4, K, J, I); `reference_to_ras` maps the grid's world to the medium's."""
    matrix = reference_to_ras.to(torch.float32)
    slabs = [medium.sample(slab @ matrix[:3, :3].T + matrix[:3, 3]) for slab in grid.centres()]
    return torch.stack(slabs, 1).float()
