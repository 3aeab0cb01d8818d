"""The one place where the scene layer calls the engine. torch and the engine are imported inside the functions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import vtk

from .errors import RenderError
from .i18n import _
from .render.parameters import ImageSettings, ProbeSettings, ProbeType, RenderParameters
from .scene.transforms import isRigid, mapPoints

if TYPE_CHECKING:
    from pathlib import Path

    from diffus.io.sweeps import SweepFile
    from diffus.medium import AcousticMedium
    from diffus.probe import Probe
    from diffus.render.renderer import UltrasoundRenderer
    from diffus.sweep.sweep import TrackedSweep
    from pydicom import Dataset
    from torch import Tensor

    from .register.parameters import RegisterParameters
    from .register.session import Session
    from .scene.tracked import TrackedImages


@contextmanager
def engineErrors():
    """Turns the engine's one-sentence errors into the scene layer's."""
    from diffus.errors import InputError

    try:
        yield
    except InputError as error:
        raise RenderError(str(error)) from error


def buildProbe(settings: ProbeSettings) -> Probe:
    """The engine's probe; raises RenderError for a value out of range."""
    from diffus.probe.probe import ConvexProbe, LinearProbe, PhasedProbe

    common = {
        "frequency_mhz": settings.frequencyMhz,
        "depth_mm": settings.depthMm,
        "focus_mm": settings.focusMm,
        "f_number": settings.fNumber,
        "transmit_f_number": settings.transmitFNumber,
        "elevation_mm": settings.elevationMm,
        "rays": settings.rays,
        "samples": settings.samples,
        "elevation_layers": settings.elevationLayers,
        "rays_per_line": settings.raysPerLine,
    }
    with engineErrors():
        if settings.probeType is ProbeType.CONVEX:
            return ConvexProbe(radius_mm=settings.radiusMm, fov_deg=settings.fovDeg, **common)
        if settings.probeType is ProbeType.PHASED:
            return PhasedProbe(fov_deg=settings.fovDeg, **common)
        return LinearProbe(width_mm=settings.widthMm, **common)


def presetSettings(name: str, present: ProbeSettings) -> ProbeSettings:
    """The settings of the engine's preset `name`; what its type does not have stays as in `present`."""
    from diffus.probe.presets import probe_preset

    with engineErrors():
        probe = probe_preset(name)
    return ProbeSettings(
        probeType=ProbeType(probe.type),
        frequencyMhz=float(probe.frequency_mhz),
        depthMm=float(probe.depth_mm),
        fovDeg=float(getattr(probe, "fov_deg", present.fovDeg)),
        radiusMm=float(probe.radius_mm) if probe.type == "convex" else present.radiusMm,
        widthMm=float(getattr(probe, "width_mm", present.widthMm)),
        focusMm=float(probe.focus_mm),
        fNumber=float(probe.f_number),
        transmitFNumber=float(probe.transmit_f_number),
        elevationMm=float(probe.elevation_mm),
        rays=probe.rays,
        samples=probe.samples,
        elevationLayers=probe.elevation_layers,
        raysPerLine=probe.rays_per_line,
    )


def fanSettings(
    images: np.ndarray, mmPerPixel: float, present: ProbeSettings
) -> tuple[ProbeSettings, np.ndarray, bool]:
    """The probe whose fan real images show, and where it is.

    Args:
        images: grey values (rows, columns) or a stack of them, x to the marked side and y into the depth.
        present: what a fan does not show stays as here; the focus does not lie below the image.

    Returns:
        Its settings; pixel to probe mm, (4, 4); and whether the depth is certain: a far field may be black.

    Raises:
        RenderError: where no fan can be seen.
    """
    from diffus.probe.fan import estimate_fan

    with engineErrors():
        fan = estimate_fan(images, mmPerPixel)
    probe = fan.probe
    settings = replace(
        present,
        probeType=ProbeType(probe.type),
        depthMm=float(probe.depth_mm),
        fovDeg=float(getattr(probe, "fov_deg", present.fovDeg)),
        radiusMm=float(probe.radius_mm) if probe.type == "convex" else present.radiusMm,
        widthMm=float(getattr(probe, "width_mm", present.widthMm)),
        focusMm=min(present.focusMm, float(probe.depth_mm)),
    )
    return settings, fan.pixel_to_probe.numpy(), fan.depth_certain


def buildRenderer(parameters: RenderParameters) -> UltrasoundRenderer:
    """The engine's renderer for these settings; raises RenderError for a value out of range."""
    from diffus.render.renderer import UltrasoundRenderer

    probe = buildProbe(parameters.probe)
    with engineErrors():
        return UltrasoundRenderer(probe, **_imageSettings(parameters.image))


class RendererCache:
    """The renderers of the last two settings that were asked for: one for a moving probe and one for rest."""

    def __init__(self) -> None:
        self._renderers: dict[RenderParameters, UltrasoundRenderer] = {}

    def of(self, parameters: RenderParameters) -> UltrasoundRenderer:
        """The renderer for these settings; raises RenderError for a value out of range."""
        renderer = self._renderers.pop(parameters, None) or buildRenderer(parameters)
        while len(self._renderers) > 1:
            del self._renderers[next(iter(self._renderers))]
        self._renderers[parameters] = renderer
        return renderer


def fanOutline(probe: Probe) -> np.ndarray:
    """The fan's polygon, (n, 2) mm in the probe plane."""
    return probe.outline(48).numpy()


def pixelToProbe(probe: Probe) -> np.ndarray:
    """(column, row, 0) of the slice to probe mm, (4, 4)."""
    return probe.slice_geometry().pixel_to_probe.numpy()


def renderPixels(
    renderer: UltrasoundRenderer, medium: AcousticMedium, probeToVolume: np.ndarray | vtk.vtkAbstractTransform
) -> np.ndarray:
    """The slice, uint8 (rows, columns), of `medium` seen by a probe that a matrix or any transform takes into it.

    Raises RenderError where the fan lies outside the volume.
    """
    import torch

    with engineErrors(), torch.inference_mode():
        if isinstance(probeToVolume, np.ndarray) and isRigid(probeToVolume):
            image = renderer(medium, torch.from_numpy(probeToVolume))
        else:
            points = _mappedPoints(renderer, medium, probeToVolume)
            image = renderer.scan_convert(renderer.polar(medium, points))
        return image[0].mul(255.0).round_().to("cpu", torch.uint8).numpy()


@dataclass(frozen=True)
class FanGrid:
    """Chosen points of a probe plane: where they lie in the fan, for `renderAt`, and whether they do.

    grid: (rows, columns, 2) tensor in [-1, 1], whatever the number of lines and samples. inside: (rows, columns) bool.
    """

    grid: Tensor
    inside: np.ndarray


def fanGrid(settings: ProbeSettings, where: np.ndarray) -> FanGrid:
    """The grid of points of the probe plane, (rows, columns, 2) mm; raises RenderError for a value out of range."""
    import torch

    probe = buildProbe(settings)
    polar = probe.polar_coordinates(torch.as_tensor(where))
    last = polar.new_tensor([probe.rays - 1, probe.samples - 1])
    inside = ((polar >= 0) & (polar <= last)).all(-1)
    return FanGrid((2 * polar / last - 1).flip(-1), inside.numpy())


def renderAt(
    renderer: UltrasoundRenderer,
    medium: AcousticMedium,
    probeToVolume: np.ndarray | vtk.vtkAbstractTransform,
    points: FanGrid,
) -> tuple[np.ndarray, np.ndarray]:
    """The slice at chosen points of the probe plane, (rows, columns): float32 from 0 to 1, and bool.

    The second tells which of the points lie both in the fan and in the volume. Raises RenderError as `renderPixels`.
    """
    import torch
    from diffus.render.scan_conversion import scan_convert

    with engineErrors(), torch.inference_mode():
        inVolume = _mappedPoints(renderer, medium, probeToVolume)
        image = renderer.polar(medium, inVolume)
        covered = medium.contains(inVolume[:, 0]).to(image)
        inside = torch.as_tensor(points.inside, device=medium.device)
        image, covered = scan_convert(torch.cat([image, covered]), points.grid.to(image), inside).cpu()
        return image.numpy(), covered.numpy() > 0.5


def likeness(a: np.ndarray, b: np.ndarray, mask: np.ndarray, structural: bool = True) -> tuple[float, float | None]:
    """NCC and SSIM (None unless `structural`) of two images (rows, columns), 0 to 1, within a mask.

    Raises RenderError for images too small.
    """
    import torch
    from diffus.metrics.images import SSIM_RADIUS, ncc, ssim

    rows, columns = (
        slice(max(0, used[0] - SSIM_RADIUS), used[-1] + SSIM_RADIUS + 1)
        for used in (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    )
    inside = torch.as_tensor(np.ascontiguousarray(mask[rows, columns]))
    first, second = (
        torch.as_tensor(np.ascontiguousarray(image[rows, columns]), dtype=torch.float32) for image in (a, b)
    )
    with engineErrors(), torch.inference_mode():
        return float(ncc(first, second, inside)), float(ssim(first, second, inside)) if structural else None


def simulatedFrames(renderer: UltrasoundRenderer, pixels: np.ndarray, probeToWorld: np.ndarray, times):
    """The engine's frames for export: pixels (K, rows, columns) uint8, poses (K, 4, 4) mm, times (K,) s or None."""
    from diffus.export import SimulatedFrames

    seconds = np.arange(len(pixels), dtype=np.float64) if times is None else np.asarray(times, dtype=np.float64)
    with engineErrors():
        return SimulatedFrames(pixels, probeToWorld, seconds, renderer.probe, renderer.settings)


def checkExport(path: Path, count: int) -> None:
    """Raises RenderError where `count` slices cannot be written as `path`."""
    from diffus.export import format_of

    with engineErrors():
        format_of(path, count)


def exportFrames(frames, path: Path, source: Dataset | None, includePatient: bool) -> Iterator[int]:
    """Writes frames to a file; yields how many are done. `source`: a DICOM dataset of the study that a .dcm joins."""
    from diffus.export import DicomOptions, export

    with engineErrors():
        yield from export(frames, path, DicomOptions(source, includePatient))


def appearanceFit(
    medium: AcousticMedium,
    sweep: TrackedSweep,
    probe: ProbeSettings,
    imageToProbe: np.ndarray,
    image: ImageSettings,
    frames: int,
    steps: int,
):
    """The engine's fit of display and beam to some of the frames; it has its result when it was iterated over.

    Args:
        sweep: in the medium's RAS, columns and rows along the probe's x and y.
        imageToProbe: (column, row, 0, 1) to probe mm, (4, 4).
    """
    import torch
    from diffus.fit import AppearanceFit, fixed_medium
    from diffus.render.settings import RenderSettings

    with engineErrors():
        return AppearanceFit(
            fixed_medium(medium),
            sweep,
            torch.eye(4),
            probe=buildProbe(probe),
            pixel_to_probe=torch.as_tensor(imageToProbe),
            settings=RenderSettings(**_imageSettings(image)),
            seed=image.seed,
            frames=frames,
            steps=steps,
            held_out=len(sweep) >= 4,
        )


# --- tracked images


def trackedSweep(images: TrackedImages, mask: np.ndarray | None = None) -> TrackedSweep:
    """The engine's sweep of what the scene holds.

    Args:
        images: frames, or a 3-D volume, which is cut into frames.
        mask: where the frames show ultrasound, (rows, columns); found in their pixels where it is not given.

    Raises:
        RenderError: for poses or pixels that cannot be used.
    """
    from diffus.io.sweeps import SweepReport
    from diffus.sweep.from_volume import sweep_from_volume
    from diffus.sweep.sweep import TrackedSweep

    with engineErrors():
        if images.isVolume:
            sweep = sweep_from_volume(images.pixels, images.imageToReference[0])
            return replace(sweep, report=replace(sweep.report, notes=(*sweep.report.notes, *images.notes)))
        report = SweepReport(len(images.pixels) + images.skipped, images.skipped, notes=images.notes)
        return TrackedSweep.from_arrays(
            images.pixels, images.imageToReference, mask=mask, timestamps=images.times, report=report
        )


def probePose(sweep: TrackedSweep, imageToProbe: np.ndarray) -> np.ndarray:
    """The rigid pose (4, 4) to the reference, mm, of the probe that made the first frame."""
    import torch
    from diffus.geometry.pose import image_pose

    # In the probe's axes: the rows of an image may run towards the probe.
    placed = sweep.image_to_reference[0].numpy() @ np.linalg.inv(imageToProbe)
    return image_pose(torch.as_tensor(placed))[0].numpy()


def readSweepFile(path: str, imageToProbe: np.ndarray | None = None) -> SweepFile:
    """The valid frames of a tracked sequence file, checked, with pixels of the file's own type.

    Args:
        imageToProbe: the image calibration, (4, 4), where the file has none.

    Raises:
        RenderError: where the file cannot be read, or is no tracked sweep.
    """
    from diffus.io.sweeps import read_sweep_file
    from diffus.sweep.sweep import TrackedSweep

    with engineErrors():
        file = read_sweep_file(path, imageToProbe)
        TrackedSweep.from_arrays(file.pixels, file.image_to_reference, timestamps=file.timestamps)
    return file


def risingTimes(times: Sequence[float], minStepS: float) -> tuple[np.ndarray, str]:
    """The engine's rule for times, (K,) s, that must rise by a step: as they are to be stored, and what was changed."""
    from diffus.sweep.frames import rising_times

    rising, note = rising_times(np.asarray(times, dtype=np.float64), minStepS)
    return (np.arange(len(times), dtype=np.float64) if rising is None else rising), note


# --- registration


@dataclass(frozen=True)
class Outcome:
    """What came out: mri_to_reference (4, 4), the verdict with its reasons, and everything else as plain values."""

    mriToReference: np.ndarray
    verdict: str
    reasons: tuple[str, ...]
    report: dict


# Gives an iterable of states (stage, progress, similarity, mri_to_reference) that has a `result` at its end.
BuildRegistration = Callable[["Session", "RegisterParameters"], Iterable]


def buildRegistration(session: Session, parameters: RegisterParameters) -> Iterable:
    """The engine's registration of an open session, ready to be stepped."""
    from diffus.register.registration import RigidRegistration, Settings

    settings = replace(Settings(), translation_mm=parameters.translationMm, rotation_deg=parameters.rotationDeg)
    with engineErrors():
        return RigidRegistration(
            session.voxels,
            session.ijkToRas,
            session.sweep,
            initial=session.initial,
            kind=session.kind,
            seed=parameters.seed,
            settings=settings,
        )


def states(registration: Iterable) -> Iterator:
    """The states of a registration; the engine's one-sentence errors become the scene layer's."""
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


def stageText(stage: str) -> str:
    """The engine's name of a stage, for people."""
    known = {
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


# --- parts


def _mappedPoints(renderer, medium, probeToVolume):
    """Sample points (1, S, rays, samples, 3) taken into the volume's RAS by something that is not a rigid matrix."""
    import torch

    points = renderer.points_ras(torch.eye(4, dtype=torch.float64)[None], torch.float64).numpy()
    if isinstance(probeToVolume, np.ndarray):
        points = points @ probeToVolume[:3, :3].T + probeToVolume[:3, 3]
    else:
        points = mapPoints(probeToVolume, points)
    return torch.from_numpy(points).to(medium.device, medium.dtype)


def _imageSettings(image: ImageSettings) -> dict[str, object]:
    return {
        "echo": image.echoModel.value,
        "gain_db": image.gainDb,
        "dynamic_range_db": image.dynamicRangeDb,
        "tgc_db_per_cm": None if image.automaticTgc else image.tgcDbPerCm,
        "speckle": image.speckle,
        "noise_db": image.noiseDb if image.noise else None,
        "reflection_db": image.reflectionDb,
        "specular_exponent": image.specularExponent,
        "start_depth_mm": image.startDepthMm,
        "seed": image.seed,
    }
