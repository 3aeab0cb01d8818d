"""The one place where the scene layer calls the engines. torch and the engines are imported inside the functions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ..engine import engineErrors
from ..i18n import _
from ..kinds import MediumKind
from ..scene.tracked import SceneUltrasound
from ..scene.voxels import MediumCache, guessKind, readVoxels
from .parameters import RegisterParameters, VolumeSource

if TYPE_CHECKING:
    from diffus.sweep.sweep import TrackedSweep


@dataclass(frozen=True)
class Problem:
    """What is registered: voxels (K, J, I) with ijkToRas, the sweep, and the first guess of mri_to_reference (4, 4)."""

    voxels: np.ndarray
    ijkToRas: np.ndarray
    kind: str
    sweep: TrackedSweep
    initial: np.ndarray


@dataclass(frozen=True)
class Outcome:
    """What came out: mri_to_reference (4, 4), the verdict with its reasons, and everything else as plain values."""

    mriToReference: np.ndarray
    verdict: str
    reasons: tuple[str, ...]
    report: dict


# Gives an iterable of states (stage, progress, similarity, mri_to_reference) that has a `result` at its end.
BuildRegistration = Callable[[Problem, RegisterParameters], Iterable]


def buildRegistration(problem: Problem, parameters: RegisterParameters) -> Iterable:
    """The engine's registration, ready to be stepped."""
    from diffus.register.registration import RigidRegistration, Settings

    settings = replace(Settings(), translation_mm=parameters.translationMm, rotation_deg=parameters.rotationDeg)
    with engineErrors():
        return RigidRegistration(
            problem.voxels,
            problem.ijkToRas,
            problem.sweep,
            initial=problem.initial,
            kind=problem.kind,
            seed=parameters.seed,
            settings=settings,
        )


def states(registration: Iterable) -> Iterator:
    """The states of a registration; the engines' one-sentence errors become the scene layer's."""
    with engineErrors():
        yield from registration


def outcomeOf(registration) -> Outcome:
    """The result of a registration that has run to its end."""
    report = registration.result.report()
    return Outcome(
        np.array(report["mri_to_reference"], dtype=np.float64),
        report["verdict"],
        tuple(report["reasons"]),
        report,
    )


def trackedSweep(ultrasound: SceneUltrasound) -> TrackedSweep:
    """The engine's sweep of what the scene holds; raises RenderError for poses or pixels that cannot be used."""
    from diffus.sweep.sweep import SweepReport, TrackedSweep, sweep_from_volume

    with engineErrors():
        if ultrasound.isVolume:
            sweep = sweep_from_volume(ultrasound.frames, ultrasound.imageToReference[0])
            return replace(sweep, report=replace(sweep.report, notes=(*sweep.report.notes, *ultrasound.notes)))
        total = len(ultrasound.frames) + ultrasound.skipped
        report = SweepReport(total, ultrasound.skipped, notes=ultrasound.notes)
        return TrackedSweep.from_arrays(ultrasound.frames, ultrasound.imageToReference, report=report)


def readVolume(node, kind: MediumKind, source: VolumeSource) -> tuple[np.ndarray, np.ndarray, str]:
    """Voxels (K, J, I), ijkToRas (4, 4) and the engine's name of their kind; labels always become impedance."""
    if kind is MediumKind.AUTO:
        kind = guessKind(node)
    if source is VolumeSource.RAW and kind is not MediumKind.LABELS:
        voxels = readVoxels(node, kind)
        return voxels.array, voxels.ijkToRas, kind.value
    medium = MediumCache().medium(node, kind)
    return medium.maps[0].cpu().numpy(), medium.ijk_to_ras.numpy(), "generic"


def fitLandmarks(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The rigid (4, 4) of least squares from points (n, 3) to their partners; RenderError for fewer than three."""
    import torch
    from diffus.register.landmarks import rigid_from_landmarks

    with engineErrors():
        return rigid_from_landmarks(torch.from_numpy(source), torch.from_numpy(target)).numpy()


def pairNames(first: list[str], second: list[str]) -> list[tuple[int, int]]:
    """Which name of the first list belongs to which of the second; RenderError where that cannot be told."""
    from diffus.register.landmarks import pair_names

    with engineErrors():
        return pair_names(first, second)


def readSweepFile(path: str, imageToProbe: np.ndarray | None = None) -> TrackedSweep:
    """A tracked sequence file by the engine's reader; raises RenderError where it cannot be used.

    imageToProbe (4, 4): the image calibration, where the file has none.
    """
    from diffus.sweep.sweep import read_sweep

    with engineErrors():
        return read_sweep(path, imageToProbe)


def stageText(stage: str) -> str:
    """The engine's name of a stage, for people."""
    known = {
        "preparing": _("Preparing"),
        "searching": _("Searching"),
        "judging": _("Judging how far the result can be trusted"),
        "nothing overlaps": _("Nothing overlaps"),
        "trusted": _("Done"),
        "check": _("Done"),
        "rejected": _("Done"),
    }
    if stage.startswith("refining"):
        return _("Refining{level}").format(level=stage.removeprefix("refining"))
    return known.get(stage, stage)
