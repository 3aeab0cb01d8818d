"""Rigid registration of a tracked sweep to a volume, as an iterator: search, refine over resolutions, judge."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError, Sentence, _
from ..geometry.pose import require_rigid, transform_points
from ..medium import AcousticMedium
from ..settings import SEARCH_SEED, SearchBounds, check_settings
from ..sweep.sweep import TrackedSweep, choose_frames
from .channels import MRI, ChannelVolume, prepare_volume, smoothed_channels
from .evidence import Evidence, Found, Resolution, gather, similarity_per_frame
from .extent import field_scale, frames_apart, sweep_extent
from .mapping import global_fit
from .methods import intensity_objective, needs_medium, refine_images, rendered_objective
from .patches import PatchSet, make_patches
from .search import POSES_PER_STEP, PoseSpace, Refined, SearchSettings, distinct, refine, sample_search
from .steps import in_steps, mapped
from .verdict import Judgement, judge

if TYPE_CHECKING:
    from jaxtyping import Float

# What the methods of whole images look at; joint histograms cost most.
IMAGE_FRAMES = {"mi": 12}
USUAL_IMAGE_FRAMES = 24
IMAGE_STEPS = 25  # their gradient steps at each resolution

WIDE_PATCHES = 600  # of the evidence that needs all frames but little detail
MARGIN_MM = 20.0  # of the volume around the candidates of a finer level: what refinement and evidence move

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
    judgement: Judgement
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
            "verdict": self.judgement.verdict.value,
            "reasons": list(self.judgement.reasons),
            "expected_error_mm": self.judgement.expected_error_mm,
            "expected_error_worst_mm": self.judgement.expected_error_worst_mm,
            "assumptions": "no calibration error and no brain shift beyond what the sweep itself shows",
            "calibrated_on": self.judgement.calibrated_on,
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


@dataclass
class _Run:
    """What the phases hand on: the pose (reference_to_mri) and similarity so far, and what the evidence needs."""

    started: float
    space: PoseSpace
    cloud: Float[Tensor, "n 3"]  # points of the fan, reference mm
    pose: Float[Tensor, "4 4"]
    candidates: Float[Tensor, "b 4 4"]
    similarity: float = 0.0
    population: Float[Tensor, " m"] | None = None
    starts: Float[Tensor, "b 4 4"] | None = None
    merits: Float[Tensor, " b"] | None = None
    coarse: Resolution | None = None
    fine: Resolution | None = None

    def show(self, pose: Tensor, similarity) -> None:
        self.pose, self.similarity = pose, float(similarity)

    def state(self, stage: str, progress: float, *_: object) -> RegistrationState:
        pose = torch.linalg.inv(self.pose).cpu()
        return RegistrationState(stage, float(progress), self.similarity, pose)


Phase = Generator[RegistrationState, None, None]


class RigidRegistration:
    """Registers a sweep to a volume; iterate over it, then read `result`.

    The search is by patch LC2 whatever the method; the others refine what it found (see `methods`).
    The same seed gives the same result to the last digit on one machine, whatever else runs on it.

    Args:
        volume: (K, J, I) array of any real type; it is not copied.
        ijk_to_ras: (4, 4) mm.
        sweep: Tracked frames.
        initial: A first mri_to_reference (4, 4), identity if None.
        kind: What the volume holds, one of KINDS.
        method: One of METHODS.
        seed: Of the random poses.
        device: Where torch computes.
        settings: How far and how finely to look.
        medium: What the methods that render need; made from the volume for kind mri and ct, in one long step.

    Raises:
        InputError: A volume, transform, kind or method that cannot be used.
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
            raise InputError(
                _("The kind of volume must be one of {names}, not {kind}."), names=", ".join(KINDS), kind=kind
            )
        SEARCH_SEED.check("seed", seed)
        self.renders = needs_medium(method, kind)
        if self.renders and medium is None and kind == "labels":
            raise InputError(_("Labels are rendered through a medium that knows their tissues; give one."))
        self.medium = medium
        self.source = prepare_volume(volume, ijk_to_ras, kind)
        guess = torch.eye(4, dtype=torch.float64) if initial is None else torch.as_tensor(np.array(initial, np.float64))
        self.initial = torch.linalg.inv(require_rigid(guess, "The initial transform"))
        self.kind = kind
        self.sweep, self.method, self.seed, self.device = sweep, method, seed, torch.device(device)
        self.settings = settings or Settings()
        self.result: RegistrationResult | None = None

    def __iter__(self) -> Iterator[RegistrationState]:
        """Yields the state several times a second; stop asking to cancel. After the last one `result` is set."""
        return in_steps(self._phases())

    def _phases(self) -> Phase:
        self.result = None
        run = self._start()
        yield from self._prepare(run)
        if run.coarse is None:
            self.result = self._finish(run, None, {})
            yield run.state("nothing overlaps", 1.0)
            return
        yield from self._search(run)
        yield from self._refine(run)
        yield from self._judge(run)
        yield run.state(self.result.judgement.verdict.value, 1.0)

    def _start(self) -> _Run:
        centre, radius, cloud = sweep_extent(self.sweep)
        initial, s = self.initial.to(self.device), self.settings
        space = PoseSpace(initial, centre.to(self.device), radius, s.translation_mm, s.rotation_deg)
        return _Run(time.perf_counter(), space, cloud, initial, initial[None])

    def _prepare(self, run: _Run) -> Phase:
        """The coarsest level: all of the volume that a pose within the bounds can reach."""
        s = self.settings
        margin = 1.2 * s.translation_mm + 1.5 * run.space.radius_mm * np.radians(s.rotation_deg) + 5
        run.coarse = yield from self._level(run, s.levels[0], margin, partial(run.state, "preparing", 0.0))

    def _search(self, run: _Run) -> Phase:
        """Random poses; leaves the candidates that are to be refined."""
        run.population = torch.zeros(0)
        search = sample_search(run.space, *run.coarse, self.settings.search, self.seed)
        for progress, poses, scores in search:
            if len(scores) >= len(run.population):  # all of the random poses
                run.population = scores
            best = int(scores.argmax())
            run.show(poses[best], scores[best])
            run.candidates = poses
            yield run.state("searching", 0.45 * progress)

    def _refine(self, run: _Run) -> Phase:
        """From level to level fewer candidates; leaves the best one."""
        for number, level in enumerate(self.settings.levels):
            stage, progress = f"refining, level {number + 1}", 0.45 + 0.4 * number / len(self.settings.levels)
            run.fine = run.coarse  # and the memory of the level before is free
            if number:
                state = partial(run.state, stage, progress)
                run.fine = (yield from self._level(run, level, MARGIN_MM, state)) or run.coarse
            refine_level = self._refine_images if number and self.method != "lc2" else self._refine_patches
            values, merits = yield from refine_level(run, level, stage, progress)
            if number == 0:
                run.starts, run.merits = run.candidates, merits
            kept = distinct(run.space, run.candidates, merits, 0.5, level.keep)
            run.candidates = run.candidates[kept]
            run.show(run.candidates[0], values[kept[0]])

    def _refine_patches(self, run: _Run, level: Level, stage: str, progress: float) -> Generator:
        """Likelihood of the refined candidates, and with twice their global fit."""
        total = level.steps * math.ceil(len(run.candidates) / POSES_PER_STEP)
        steps, top = itertools.count(1), -math.inf

        def shown(part: Refined) -> RegistrationState:
            nonlocal top
            if float(part.value.max()) > top:
                top = float(part.value.max())
                run.show(part.pose[part.value.argmax()], top)
            return run.state(stage, progress + 0.4 / len(self.settings.levels) * next(steps) / total)

        refined = yield from mapped(refine(run.space, *run.fine, run.candidates, level.steps), shown)
        run.candidates = refined.pose
        fits = []
        for pose in refined.pose:
            fits.append(global_fit(*run.fine, pose))
            yield run.state(stage, progress + 0.4 / len(self.settings.levels))
        return refined.value, refined.value + 2 * refined.value.new_tensor(fits)

    def _refine_images(self, run: _Run, level: Level, stage: str, progress: float) -> Generator:
        """The chosen method's similarity of the refined candidates: both their value and their merit."""
        objective, parts = self._objective(level, run.fine.volume), []
        for pose in run.candidates:
            parts.append(refine_images(run.space, objective, pose[None], IMAGE_STEPS))
            yield run.state(stage, progress + 0.4 / len(self.settings.levels) * len(parts) / len(run.candidates))
        run.candidates, values = (torch.cat(part) for part in zip(*parts))
        return values, values

    def _judge(self, run: _Run) -> Phase:
        """Measures the evidence, and sets the result."""
        levels = self.settings.levels
        yield run.state("judging", 0.86)
        wide = Resolution(
            self._patches(replace(levels[0], frames=levels[-1].frames, patches=WIDE_PATCHES)), run.coarse.volume
        )
        found = Found(run.space, run.pose, run.starts, run.merits, run.population, run.coarse, wide, run.fine)
        per_frame = similarity_per_frame(run.fine, run.pose)
        work = gather(found, frames_apart(self.sweep.subset(sorted(per_frame))))
        evidence = yield from mapped(work, lambda done: run.state("judging", 0.86 + 0.13 * done))
        self.result = self._finish(run, evidence, per_frame)

    def _level(self, run: _Run, level: Level, margin_mm: float, state) -> Generator:
        """Patches, and the volume around the candidates, at one resolution; None if they do not overlap."""
        if self.renders and self.medium is None:
            yield state()
            self.medium = self._made_medium()
        cloud = run.cloud.to(run.candidates).expand(len(run.candidates), -1, -1)
        reached = transform_points(run.candidates, cloud).flatten(0, 1)
        sigma = level.sigma_mm * field_scale(self.sweep)
        work = smoothed_channels(self.source, reached, margin_mm, sigma, self.device)
        volume = yield from mapped(work, state)
        if volume is None:
            return None
        yield state()
        return Resolution(self._patches(level), volume)

    def _patches(self, level: Level) -> PatchSet:
        frames = choose_frames(self.sweep, level.frames)
        pixel_mm = level.pixel_mm * field_scale(self.sweep)
        return make_patches(self.sweep, frames, pixel_mm, level.side, level.patches, self.device)

    def _made_medium(self) -> AcousticMedium:
        data, matrix = self.source.data, self.source.ijk_to_ras
        if self.kind == "ct":
            return AcousticMedium.from_ct(data, matrix).to(self.device)
        contrast = "t2" if self.kind == "mri-t2" else "t1"
        return AcousticMedium.from_mri(data, matrix, contrast=contrast).to(self.device)

    def _objective(self, level: Level, volume: ChannelVolume):
        """The chosen method's similarity of poses, on this level's frames and pixels."""
        frames = choose_frames(self.sweep, min(level.frames, IMAGE_FRAMES.get(self.method, USUAL_IMAGE_FRAMES)))
        pixel_mm = level.pixel_mm * field_scale(self.sweep)
        if self.renders:
            return rendered_objective(self.method, self.sweep, frames, pixel_mm, self.medium)
        return intensity_objective(self.method, self.sweep, frames, pixel_mm, volume)

    def _uncalibrated(self) -> str:
        """What of this run the verdict's limits were not set on, in words, or an empty string."""
        if self.kind != "mri":
            return Sentence(_("volumes of kind {kind}"), kind=self.kind)
        if self.sweep.report.from_volume:
            return Sentence(_("3-D ultrasound volumes"))
        if self.method != "lc2":
            return Sentence(_("the method {method}"), method=self.method)
        return "" if self.settings == Settings() else Sentence(_("a search other than the standard one"))

    def _finish(self, run: _Run, evidence: Evidence | None, per_frame: dict[int, float]) -> RegistrationResult:
        report = self.sweep.report
        return RegistrationResult(
            torch.linalg.inv(run.pose).cpu(),
            run.similarity,
            judge(evidence, self._uncalibrated()),
            evidence,
            per_frame,
            time.perf_counter() - run.started,
            len(per_frame),
            report.frames_skipped,
            self.method,
            self.seed,
            report.notes,
        )


def register(volume, ijk_to_ras, sweep: TrackedSweep, **options) -> RegistrationResult:
    """Runs a RigidRegistration to its end; the options are its keyword arguments."""
    registration = RigidRegistration(volume, ijk_to_ras, sweep, **options)
    for _state in registration:
        pass
    return registration.result
