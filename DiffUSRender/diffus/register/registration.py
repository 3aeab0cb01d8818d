"""Rigid registration of a tracked sweep to a volume, as an iterator: search, refine over resolutions, judge."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from ..geometry.pose import require_rigid, transform_points
from ..medium import AcousticMedium
from ..settings import SEARCH_SEED, SearchBounds, check_settings
from ..sweep.sweep import TrackedSweep, choose_frames
from .channels import ChannelVolume, crop_around, intensity_and_gradient, prepare_volume
from .evidence import Evidence, gather
from .mapping import global_fit
from .methods import intensity_objective, needs_medium, refine_images, rendered_objective
from .patches import PatchSet, make_patches
from .search import PoseSpace, SearchSettings, distinct, refine, sample_search
from .verdict import Verdict, judge

if TYPE_CHECKING:
    from jaxtyping import Float

# Share of the 99th percentile below which an MRI shows air: no echo comes from there.
AIR = 0.06

# What the methods of whole images look at; joint histograms cost most.
IMAGE_FRAMES = {"mi": 12}
USUAL_IMAGE_FRAMES = 24
IMAGE_STEPS = 25  # their gradient steps at each resolution

APART_MM = 0.5  # frames nearer to each other than this look at the same place

MRI = ("mri", "mri-t2")  # T1-weighted or alike (dark fluid), and with bright fluid
KINDS = (*MRI, "ct", "labels", "us", "generic")


@dataclass(frozen=True)
class Level:
    """One resolution: pixel size and smoothing in mm (scaled with the fan), and what is looked at there."""

    pixel_mm: float
    sigma_mm: float
    side: int  # pixels of a patch's edge
    frames: int
    patches: int  # at most, evenly taken
    steps: int
    keep: int  # candidates that go on


@dataclass(frozen=True)
class Settings(SearchBounds):
    """How far and how finely to look; the defaults are those that were measured."""

    search: SearchSettings = field(default_factory=SearchSettings)
    levels: tuple[Level, ...] = (
        Level(1.8, 1.0, 9, 8, 150, 10, 8),
        Level(1.2, 0.8, 9, 16, 500, 10, 2),
        Level(0.9, 0.5, 11, 48, 1200, 10, 1),
    )

    def __post_init__(self) -> None:
        check_settings(self)


@dataclass(frozen=True)
class RegistrationState:
    """Where the work stands: stage in words, progress 0..1, the best similarity and pose so far."""

    stage: str
    progress: float
    similarity: float
    mri_to_reference: Float[Tensor, "4 4"]


@dataclass(frozen=True)
class RegistrationResult:
    """The pose, how good it is, and what it rests on."""

    mri_to_reference: Float[Tensor, "4 4"]
    similarity: float
    verdict: Verdict
    evidence: Evidence | None
    similarity_per_frame: dict[int, float]
    seconds: float
    frames_used: int
    frames_skipped: int
    method: str
    seed: int
    notes: tuple[str, ...]

    def report(self) -> dict:
        """Everything that REPORT.json holds, as plain numbers, strings and lists."""
        return {
            "verdict": self.verdict.verdict,
            "reasons": list(self.verdict.reasons),
            "expected_error_mm": self.verdict.expected_error_mm,
            "expected_error_worst_mm": self.verdict.expected_error_worst_mm,
            "assumptions": "no calibration error and no brain shift beyond what the sweep itself shows",
            "calibrated_on": self.verdict.calibrated_on,
            "similarity": self.similarity,
            "similarity_per_frame": {str(k): v for k, v in self.similarity_per_frame.items()},
            "evidence": {} if self.evidence is None else self.evidence.as_dict(),
            "seconds": self.seconds,
            "frames_used": self.frames_used,
            "frames_skipped": self.frames_skipped,
            "method": self.method,
            "seed": self.seed,
            "notes": list(self.notes),
            "mri_to_reference": self.mri_to_reference.tolist(),
        }


class RigidRegistration:
    """Registers a sweep to a volume; iterate over it, then read `result`.

    volume (K, J, I) array, ijk_to_ras (4, 4); initial: a first mri_to_reference (4, 4), identity if None. The search is
    by patch LC2 whatever the method; the others refine what it found (see `methods`). medium: what the methods that
    render need; made from the volume for kind mri and ct.
    The same seed gives the same result to the last digit on one machine with one number of threads.
    """

    def __init__(
        self,
        volume,
        ijk_to_ras,
        sweep: TrackedSweep,
        *,
        initial=None,
        kind: str = "mri",
        method: str = "lc2",
        seed: int = 0,
        device: str | torch.device = "cpu",
        settings: Settings | None = None,
        medium: AcousticMedium | None = None,
    ):
        if kind not in KINDS:
            raise InputError(f"The kind of volume must be one of {', '.join(KINDS)}, not {kind}.")
        SEARCH_SEED.check("seed", seed)
        self.medium = medium
        if needs_medium(method, kind) and medium is None:
            if kind == "labels":
                raise InputError("Labels are rendered through a medium that knows their tissues; give one.")
            if kind == "ct":
                self.medium = AcousticMedium.from_ct(volume, ijk_to_ras).to(device)
            else:
                contrast = "t2" if kind == "mri-t2" else "t1"
                self.medium = AcousticMedium.from_mri(volume, ijk_to_ras, contrast=contrast).to(device)
        self.data, self.matrix = prepare_volume(volume, ijk_to_ras, kind)
        self.air = AIR * float(np.percentile(self.data, 99)) if kind in MRI else -np.inf
        guess = torch.eye(4, dtype=torch.float64) if initial is None else torch.as_tensor(np.array(initial, np.float64))
        self.initial = torch.linalg.inv(require_rigid(guess, "The initial transform"))
        self.kind = kind
        self.sweep, self.method, self.seed, self.device = sweep, method, seed, torch.device(device)
        self.settings = settings or Settings()
        self.result: RegistrationResult | None = None

    def __iter__(self) -> Iterator[RegistrationState]:
        """Yields the state several times a second; stop asking to cancel. After the last one `result` is set."""
        started = time.perf_counter()
        self.result = None
        s = self.settings
        centre, radius, corners = sweep_extent(self.sweep)
        initial = self.initial.to(self.device)
        space = PoseSpace(initial, centre.to(self.device), radius, s.translation_mm, s.rotation_deg)
        margin = 1.2 * s.translation_mm + 1.5 * radius * np.radians(s.rotation_deg) + 5
        cropped = crop_around(self.data, self.matrix, transform_points(self.initial, corners).numpy(), margin)
        if cropped is None:
            self.result = self._finish(initial, 0.0, None, {}, started)
            yield self._state("nothing overlaps", 1.0, 0.0, initial)
            return
        coarse = patches, volume = self._level(s.levels[0], cropped)
        population = torch.zeros(0)
        for progress, poses, scores in sample_search(space, patches, volume, s.search, self.seed):
            population = scores if len(scores) >= len(population) else population  # all of the random poses
            best = int(scores.argmax())
            yield self._state("searching", 0.45 * progress, scores[best], poses[best])
        ends = []
        for number, level in enumerate(s.levels):
            patches, volume = coarse if number == 0 else self._level(level, cropped)
            if number and self.method != "lc2":
                poses, merit = refine_images(space, self._objective(level, volume), poses, IMAGE_STEPS)
                value, kept = merit, distinct(space, poses, merit, 0.5, level.keep)
                poses = poses[kept]
                yield self._state(f"refining, level {number + 1}", 0.45 + 0.13 * number, value[kept[0]], poses[0])
                continue
            parts = []
            for batch in poses.split(4):
                parts.append(refine(space, patches, volume, batch, level.steps))
                top = max(parts, key=lambda part: float(part.value.max()))
                best = int(top.value.argmax())
                done = (number + len(parts) * 4 / max(4, len(poses))) / len(s.levels)
                yield self._state(
                    f"refining, level {number + 1}", 0.45 + 0.4 * min(1.0, done), top.value[best], top.pose[best]
                )
            pose, value = torch.cat([p.pose for p in parts]), torch.cat([p.value for p in parts])
            merit = value + 2 * value.new_tensor([global_fit(patches, volume, one) for one in pose])
            ends.append((pose, merit))
            kept = distinct(space, pose, merit, 0.5, level.keep)
            poses = pose[kept]
        pose, value = poses[0], float(value[kept[0]])
        yield self._state("judging", 0.86, value, pose)
        wide = self._patches(replace(s.levels[0], frames=s.levels[-1].frames, patches=600)), coarse[1]
        work = gather(space, pose, ends[0], population, coarse, wide, (patches, volume))
        evidence, per_frame = yield from self._judging(work, value, pose)
        evidence = replace(evidence, frames=frames_apart(self.sweep.subset(sorted(per_frame))))
        self.result = self._finish(pose, value, evidence, per_frame, started)
        yield self._state(self.result.verdict.verdict, 1.0, value, pose)

    def _judging(self, work, value: float, pose: Tensor):
        while True:
            try:
                progress = next(work)
            except StopIteration as end:
                return end.value
            yield self._state("judging", 0.86 + 0.13 * progress, value, pose)

    def _level(self, level: Level, cropped) -> tuple[PatchSet, ChannelVolume]:
        sigma = level.sigma_mm * field_scale(self.sweep)
        spread = float(self.data.std())
        return self._patches(level), intensity_and_gradient(*cropped, sigma, spread, self.device, self.air)

    def _patches(self, level: Level) -> PatchSet:
        frames = choose_frames(self.sweep, level.frames)
        pixel_mm = level.pixel_mm * field_scale(self.sweep)
        return make_patches(self.sweep, frames, pixel_mm, level.side, device=self.device).thinned(level.patches)

    def _objective(self, level: Level, volume: ChannelVolume):
        """The chosen method's similarity of poses, on this level's frames and pixels."""
        frames = choose_frames(self.sweep, min(level.frames, IMAGE_FRAMES.get(self.method, USUAL_IMAGE_FRAMES)))
        pixel_mm = level.pixel_mm * field_scale(self.sweep)
        if needs_medium(self.method, self.kind):
            return rendered_objective(self.method, self.sweep, frames, pixel_mm, self.medium)
        return intensity_objective(self.method, self.sweep, frames, pixel_mm, volume)

    def _state(self, stage: str, progress: float, similarity, pose: Tensor) -> RegistrationState:
        return RegistrationState(stage, float(progress), float(similarity), torch.linalg.inv(pose).cpu())

    def _uncalibrated(self) -> str:
        """What of this run the verdict's limits were not set on, in words, or an empty string."""
        if self.kind != "mri":
            return f"volumes of kind {self.kind}"
        if self.sweep.report.from_volume:
            return "3-D ultrasound volumes"
        if self.method != "lc2":
            return f"the method {self.method}"
        return "" if self.settings == Settings() else "a search other than the standard one"

    def _finish(self, pose, value, evidence, per_frame, started) -> RegistrationResult:
        report = self.sweep.report
        return RegistrationResult(
            torch.linalg.inv(pose).cpu(),
            value,
            judge(evidence, self._uncalibrated()),
            evidence,
            per_frame,
            time.perf_counter() - started,
            len(per_frame),
            report.frames_skipped,
            self.method,
            self.seed,
            report.notes,
        )


def sweep_extent(sweep: TrackedSweep) -> tuple[Float[Tensor, "3"], float, Float[Tensor, "n 3"]]:
    """Centre of the fan's pixels over all frames, their RMS distance to it in mm, and a sparse set of them."""
    points = []
    for number in range(len(sweep)):
        mask = sweep.mask[0 if sweep.mask.shape[0] == 1 else number]
        pixels = torch.nonzero(mask)[:: max(1, int(mask.sum()) // 200)].double()
        flat = torch.cat([pixels.flip(1), torch.zeros(len(pixels), 1), torch.ones(len(pixels), 1)], 1).double()
        points.append((flat @ sweep.image_to_reference[number].T)[:, :3])
    cloud = torch.cat(points)
    centre = cloud.mean(0)
    return centre, float((cloud - centre).square().sum(1).mean().sqrt()), cloud


def frames_apart(sweep: TrackedSweep) -> int:
    """How many frames lie at least APART_MM (RMS over the image's corners) from each other: a still probe adds none."""
    right, bottom = sweep.frames.shape[2] - 1.0, sweep.frames.shape[1] - 1.0
    corners = torch.tensor([[x, y, 0.0, 1.0] for x in (0.0, right) for y in (0.0, bottom)], dtype=torch.float64)
    kept: list[Tensor] = []
    for pose in sweep.image_to_reference.double().cpu():
        place = (corners @ pose.T)[:, :3]
        if all((place - other).square().sum(1).mean().sqrt() >= APART_MM for other in kept):
            kept.append(place)
    return len(kept)


def field_scale(sweep: TrackedSweep) -> float:
    """Size of the fan relative to one of 3500 mm2 (a neurosurgical one, 72 mm deep), within what the levels bear."""
    pixel = sweep.image_to_reference[0, :3, :2].norm(dim=0).prod()
    area = float(sweep.mask.float().sum((1, 2)).mean() * pixel)
    return float(np.clip(np.sqrt(area / 3500.0), 0.35, 2.0))


def register(volume, ijk_to_ras, sweep: TrackedSweep, **options) -> RegistrationResult:
    """Runs a RigidRegistration to its end; the options are its keyword arguments."""
    registration = RigidRegistration(volume, ijk_to_ras, sweep, **options)
    for _ in registration:
        pass
    return registration.result
