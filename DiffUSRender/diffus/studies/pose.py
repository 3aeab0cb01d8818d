"""Where a single frame was taken: position and direction of the probe by gradient, through the renderer.

The frame is compared with the expected brightness of the pose (`expected`), for its speckle cannot be known. Gain, time
gain, dynamic range, noise and frequency of the frame need not be known either: at the coarse levels a constant and a
linear and a quadratic trend in depth are taken out of both images and the rest is correlated; at the fine ones they
are fitted together with the pose.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from ..fit.objective import SAMPLES_PER_CELL, TYPICAL_RANGE_DB
from ..fit.parameters import OF_PROBE, Unknowns, acquisition_parameters
from ..geometry.filters import gaussian_blur
from ..geometry.pose import place_samples, require_rigid, twist_to_matrix
from ..metrics.images import ncc
from ..render.expected import SPECKLE_DB, expected_polar, require_expectable
from ..render.plan import plan_frame
from ..render.renderer import require_overlap
from ..render.settings import RenderSettings
from ..sweep.probe_sweep import polar_sweep
from ..sweep.sweep import TrackedSweep

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

    from ..medium import AcousticMedium
    from ..probe import Probe
    from ..render.plan import FramePlan

DISPLAY = ("tgc_db_per_cm", "tgc_reach", "gain_db", "dynamic_range_db", "noise_db", "frequency_mhz")


@dataclass(frozen=True)
class PoseLevel:
    """One resolution of the recovery.

    A thicker slice at the coarse levels blurs the anatomy across the image plane as smoothing does within it.

    Args:
        rays: of the polar grid, with `samples` along each.
        smoothing_mm: standard deviation of the Gaussian that smooths both images.
        thickness_mm: of the rendered slice, in `layers`; 0 keeps the probe's own.
        steps: of the descent.
        display: whether the display is fitted together with the pose.
    """

    rays: int
    samples: int
    smoothing_mm: float
    thickness_mm: float
    layers: int
    steps: int
    display: bool = False


LEVELS = (
    PoseLevel(32, 64, 5.0, 8.0, 5, 6),
    PoseLevel(48, 96, 2.5, 4.0, 3, 6),
    PoseLevel(96, 192, 1.0, 0.0, 1, 10, True),
    PoseLevel(160, 320, 0.4, 0.0, 1, 10, True),
)
ITERATIONS = 4  # of L-BFGS in a step


@dataclass(frozen=True)
class PoseState:
    """Progress of a recovery.

    Args:
        step: from 1, of `steps`.
        similarity: correlation at the present resolution, -1 to 1.
        probe_to_ras: the pose now, (4, 4), float64.
    """

    step: int
    steps: int
    similarity: float
    probe_to_ras: Float[Tensor, "4 4"]


class PoseRecovery:
    """Iterate over it (stop asking to cancel); the last `PoseState` has the pose. Deterministic: no speckle is drawn.

    Args:
        medium: the patient.
        frame: brightness 0 to 1, (rows, columns).
        probe: its geometry and beam.
        initial: probe_to_ras (4, 4) to start from.
        pixel_to_probe: (4, 4), where the probe lies in the frame; None for a frame on the probe's own slice.
        mask: where the beam reached, (rows, columns); found in the frame if None.
        settings: of the renderer; those of the display are only where their fit begins.
        levels: resolutions, from coarse to fine.

    Raises:
        InputError: a frame that does not fit the probe, a pose that is not rigid, or settings without an expectation.
    """

    def __init__(
        self,
        medium: AcousticMedium,
        frame: Float[Tensor, "rows columns"],
        probe: Probe,
        initial: Float[Tensor, "4 4"],
        *,
        pixel_to_probe: Float[Tensor, "4 4"] | None = None,
        mask: Bool[np.ndarray | Tensor, "rows columns"] | None = None,
        settings: RenderSettings | None = None,
        levels: tuple[PoseLevel, ...] = LEVELS,
    ):
        self.settings = settings or RenderSettings()
        require_expectable(self.settings)
        if not levels:
            raise InputError("A pose needs at least one level of resolution.")
        self.medium, self.probe, self.levels = medium, probe, levels
        self.initial = require_rigid(torch.as_tensor(initial).double(), "The initial pose")
        geometry = probe.slice_geometry()
        if pixel_to_probe is None and tuple(frame.shape) != (geometry.rows, geometry.columns):
            raise InputError(
                f"The frame has {frame.shape[1]} x {frame.shape[0]} pixels and the probe's slice {geometry.columns} x "
                f"{geometry.rows}; say where the probe lies in the frame."
            )
        self.pixel_to_probe = geometry.pixel_to_probe if pixel_to_probe is None else pixel_to_probe
        self.sweep = TrackedSweep.from_arrays(
            torch.as_tensor(frame).cpu()[None], (self.initial @ self.pixel_to_probe)[None], mask=mask
        )

    def __iter__(self) -> Iterator[PoseState]:
        pose, done, total = self.initial, 0, sum(level.steps for level in self.levels)
        display = Unknowns(acquisition_parameters(DISPLAY, self.probe, self.settings), {})
        for level in self.levels:
            view = _View(self, level)
            if done == 0:  # later the descent may look outside for a moment: there is nothing to see there
                require_overlap(self.medium, view.points(pose, view.plan))
            start, xi = pose, torch.zeros(6, dtype=torch.float64, requires_grad=True)
            moved = [xi, display.t] if level.display else [xi]
            optimizer = torch.optim.LBFGS(moved, max_iter=ITERATIONS, history_size=16, line_search_fn="strong_wolfe")

            def closure(view=view, start=start, xi=xi, optimizer=optimizer) -> Tensor:
                with torch.enable_grad():
                    optimizer.zero_grad()
                    loss = view.loss(self._moved(start, xi), display)
                    if loss.requires_grad:  # a line search may reach where the fan sees nothing at all
                        loss.backward()
                return loss

            for _ in range(level.steps):
                optimizer.step(closure)
                pose = self._moved(start, xi.detach())
                done += 1
                yield PoseState(done, total, view.similarity(pose, display), pose)

    def _moved(self, pose: Tensor, xi_mm: Tensor) -> Tensor:
        """The pose after a small motion about the fan's middle, six mm: translation, and arcs at half of the depth."""
        reach = 0.5 * self.probe.depth_mm
        scale = xi_mm.new_tensor([1.0, 1.0, 1.0, 1 / reach, 1 / reach, 1 / reach])
        centre = torch.eye(4, dtype=xi_mm.dtype)
        centre[1, 3] = reach
        return pose @ centre @ twist_to_matrix(xi_mm * scale) @ torch.linalg.inv(centre)


class _View:
    """The frame at one resolution, and how far the expectation of a pose is from it."""

    def __init__(self, recovery: PoseRecovery, level: PoseLevel):
        self.medium, self.settings, self.level = recovery.medium, recovery.settings.replace(speckle=False), level
        probe, like = recovery.probe, {"dtype": self.medium.dtype, "device": self.medium.device}
        rays, samples = min(level.rays, probe.rays), min(level.samples, probe.samples)
        thick = {"elevation_layers": level.layers, "elevation_mm": level.thickness_mm} if level.thickness_mm else {}
        # No slice is made: its pixels are as coarse as is allowed.
        self.probe = replace(probe, rays=rays, samples=samples, mm_per_pixel=probe.depth_mm / 16, **thick)
        self.plan = plan_frame(self.probe, self.settings, **like)
        seen = polar_sweep(recovery.sweep, self.probe, recovery.pixel_to_probe, rays=rays, samples=samples)
        self.inside, self.target = seen.inside.to(**like), seen.brightness.to(**like)
        self.sigma = tuple(
            level.smoothing_mm / mm
            for mm in (self.probe.lateral_spacing_mm().mean().item(), self.probe.sample_spacing_mm)
        )
        self.total = gaussian_blur(self.inside, self.sigma).clamp(min=1e-3)
        trend = torch.linspace(-1, 1, samples, **like)
        self.trends = _orthonormal(torch.stack([torch.ones_like(trend), trend, trend**2]), self.inside)
        self.evidence = float(self.inside.sum()) / SAMPLES_PER_CELL

    def loss(self, pose: Float[Tensor, "4 4"], display: Unknowns) -> Tensor:
        """1 - correlation without depth trends, or, where the display is fitted too, squared difference and prior."""
        if not self.level.display:
            return 1 - self._correlation(self._expected(pose, self.plan)).double()
        values = display.acquisition()
        of_probe = {name: value for name, value in values.items() if name in OF_PROBE}
        rest = {name: value for name, value in values.items() if name not in OF_PROBE}
        plan = plan_frame(
            replace(self.probe, **of_probe), self.settings.replace(**rest), self.medium.dtype, self.medium.device
        )
        difference = self._smoothed(self._expected(pose, plan) - self.target)
        misfit = difference.square().sum() / self.inside.sum() / (SPECKLE_DB / TYPICAL_RANGE_DB) ** 2
        return 0.5 * misfit.double() + display.penalty() / self.evidence

    @torch.no_grad()
    def similarity(self, pose: Float[Tensor, "4 4"], display: Unknowns) -> float:
        """The correlation without depth trends, with the display as it was given."""
        return self._correlation(self._expected(pose, self.plan)).item()

    def _expected(self, pose: Tensor, plan: FramePlan) -> Float[Tensor, "1 rays samples"]:
        return expected_polar(plan, self.medium, self.points(pose, plan))

    def points(self, pose: Tensor, plan: FramePlan) -> Float[Tensor, "1 s rays samples 3"]:
        """The samples of a plan at a pose, mm of the medium's world."""
        return place_samples(pose.to(plan.points)[None], plan.points)

    def _smoothed(self, image: Tensor) -> Tensor:
        return gaussian_blur(image * self.inside, self.sigma) / self.total * self.inside

    def _correlation(self, expected: Tensor) -> Tensor:
        both = []
        for image in (expected, self.target):
            flat = self._smoothed(image)
            both.append(flat - torch.einsum("n,nrs->rs", (self.trends * flat).sum((1, 2)), self.trends))
        return ncc(*both, self.inside)[0]


def _orthonormal(profiles: Float[Tensor, "n samples"], inside: Float[Tensor, "1 rays samples"]) -> Tensor:
    """The profiles over depth as images (n, rays, samples) that are orthonormal within the fan."""
    images = profiles[:, None] * inside
    q, _ = torch.linalg.qr(images.flatten(1).T.double())
    return q.T.reshape(images.shape).to(images)


def displaced_pose(
    probe_to_ras: Float[Tensor, "4 4"], probe: Probe, mm: float, degrees: float, seed: int
) -> Float[Tensor, "4 4"]:
    """A start for the recovery: the pose moved by these amounts in random directions.

    It turns about the middle of the fan: about the face, a turn would shift the anatomy further than `mm` says.

    Args:
        probe_to_ras: the pose to move, (4, 4).
        probe: whose fan it is.
        mm: length of the shift.
        degrees: of the turn.
        seed: of the directions.
    """
    direction = np.random.default_rng(seed).standard_normal((2, 3))
    shift, turn = direction / np.linalg.norm(direction, axis=1, keepdims=True)
    twist = torch.from_numpy(np.concatenate([mm * shift, np.radians(degrees) * turn]))
    middle = torch.eye(4, dtype=torch.float64)
    middle[1, 3] = probe.depth_mm / 2
    return probe_to_ras.double() @ middle @ twist_to_matrix(twist) @ torch.linalg.inv(middle)


def pose_error(found: Float[Tensor, "4 4"], true: Float[Tensor, "4 4"]) -> tuple[float, float]:
    """Distance of the centres of two probes' faces in mm, and the angle between the probes in degrees."""
    difference = torch.linalg.inv(true) @ found
    cosine = ((difference[:3, :3].trace() - 1) / 2).clamp(-1, 1)
    return difference[:3, 3].norm().item(), torch.rad2deg(torch.acos(cosine)).item()
