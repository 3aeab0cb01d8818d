"""The one place where the scene layer calls the engine; what needs torch is imported inside the functions."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import vtk
from diffus.errors import InputError
from diffus.settings import PROBE, SHAPES, ArraySettings, declared

from .declared import engineValues, sceneValues
from .errors import GpuMemoryError, RenderError
from .i18n import _, translated
from .kinds import Device
from .render.parameters import ImageSettings, ProbeSettings, ProbeType, RenderParameters, imageValues
from .scene.transforms import mapPoints
from .torch_support import torchDevice

if TYPE_CHECKING:
    from pathlib import Path

    from diffus.io.sweeps import SweepFile
    from diffus.medium import AcousticMedium
    from diffus.probe import Probe
    from diffus.render.display import Persistence
    from diffus.render.plan import FramePlan
    from diffus.render.renderer import UltrasoundRenderer
    from diffus.render.scan_conversion import Pixels
    from diffus.sweep.sweep import TrackedSweep
    from pydicom import Dataset
    from torch import Tensor

    from .register.parameters import RegisterParameters
    from .register.session import Session
    from .scene.tracked import TrackedImages

_OUT_OF_MEMORY = re.compile(r"out\s+of\s+memory")


@contextmanager
def engineErrors():
    """Turns the engine's one-sentence errors, and a GPU without memory, into the scene layer's."""
    try:
        yield
    except InputError as error:
        raise RenderError(translated(error.sentence)) from error
    except RuntimeError as error:  # torch's, of CUDA and of MPS
        if not _OUT_OF_MEMORY.search(str(error)):
            raise
        raise GpuMemoryError(_("The GPU has too little memory for this: choose CPU as the device.")) from error


def buildProbe(settings: ProbeSettings) -> Probe:
    """The engine's probe; raises RenderError for a value out of range."""
    from diffus.probe.specification import probe_from_dict

    shape = settings.probeType.value
    names = {**declared(ArraySettings), **declared(SHAPES[shape])}
    with engineErrors():
        return probe_from_dict({"type": shape, **engineValues(settings, names)})


def probeSettings(probe: Probe, present: ProbeSettings, names: Iterable[str] = PROBE) -> ProbeSettings:
    """The settings of an engine's probe.

    Args:
        probe: the engine's.
        present: what the probe's type does not have, or what is not among `names`, stays as here.
        names: of the engine's settings that are taken.
    """
    from diffus.probe.specification import probe_to_dict

    values = probe_to_dict(probe)
    values = {name: values[name] for name in names if name in values}
    return replace(present, probeType=ProbeType(probe.type), **sceneValues(values, PROBE))


def presetSettings(name: str, present: ProbeSettings) -> ProbeSettings:
    """The settings of the engine's preset `name`; what its type does not have stays as in `present`."""
    from diffus.probe.presets import probe_preset

    with engineErrors():
        return probeSettings(probe_preset(name), present)


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
    seen = ("depth_mm", *declared(SHAPES[fan.probe.type]))
    settings = probeSettings(fan.probe, present, seen)
    settings = replace(settings, focusMm=min(present.focusMm, settings.depthMm))
    return settings, fan.pixel_to_probe.numpy(), fan.depth_certain


def buildRenderer(parameters: RenderParameters) -> UltrasoundRenderer:
    """The engine's renderer for these settings; raises RenderError for a value out of range."""
    from diffus.render.renderer import UltrasoundRenderer

    probe = buildProbe(parameters.probe)
    with engineErrors():
        return UltrasoundRenderer(probe, **imageValues(parameters.image))


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


def buildPersistence(weight: float) -> Persistence:
    """The engine's averaging of frames shown one by one, the last of them with this weight."""
    from diffus.render.display import Persistence

    return Persistence(weight)


def renderPixels(
    renderer: UltrasoundRenderer,
    medium: AcousticMedium,
    probeToVolume: np.ndarray | vtk.vtkAbstractTransform,
    frame: int = 0,
    persistence: Persistence | None = None,
) -> np.ndarray:
    """The slice, uint8 (rows, columns), of `medium` seen by a probe.

    The fan is 1 at least: 0 is outside of it, where the views show what lies behind.

    Args:
        probeToVolume: takes the probe into the medium, a matrix or any transform.
        frame: its number: each has noise of its own.
        persistence: averages it with those that went through it before, or None.

    Raises:
        RenderError: the fan lies outside the volume.
    """
    import torch
    from diffus.export.frames import pixels_of

    with engineErrors(), torch.inference_mode():
        images = renderer.slices(medium, _pointsInVolume(renderer, medium, probeToVolume), frame)
        image = (images if persistence is None else persistence(images))[0]
        inside = renderer.plan(image.dtype, image.device).inside
        return pixels_of(image, inside)


@dataclass
class FanGrid:
    """The pixels of an image: where they lie in the fan, for `renderAt`, and whether they do.

    grid: (rows, columns, 2) tensor in [-1, 1], whatever the number of lines and samples. inside: (rows, columns) bool.
    """

    grid: Tensor
    inside: np.ndarray
    _pixels: tuple | None = field(default=None, repr=False, compare=False)

    def pixels(self, plan: FramePlan) -> Pixels:
        """What a frame's plan needs to know of them; made once for a plan."""
        import torch

        if self._pixels is None or self._pixels[0] is not plan:
            self._pixels = plan, plan.pixels_at(self.grid, torch.as_tensor(self.inside))
        return self._pixels[1]


def fanGrid(settings: ProbeSettings, imageToProbe: np.ndarray, shape: tuple[int, int]) -> FanGrid:
    """The pixel centres of an image in the fan of a probe.

    Args:
        imageToProbe: (column, row, 0, 1) to probe mm, (4, 4).
        shape: rows and columns.

    Raises:
        RenderError: for a value of the probe out of range.
    """
    import torch
    from diffus.sweep.probe_sweep import frame_grid, inside_fan

    grid = frame_grid(buildProbe(settings), torch.as_tensor(imageToProbe), *shape)
    return FanGrid(grid, inside_fan(grid).numpy())


def renderAt(
    renderer: UltrasoundRenderer,
    medium: AcousticMedium,
    probeToVolume: np.ndarray | vtk.vtkAbstractTransform,
    points: FanGrid,
    frame: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """The slice at chosen points of the probe plane, (rows, columns): float32 from 0 to 1, and bool.

    The second tells which of the points lie both in the fan and in the volume. Arguments and errors as of
    `renderPixels`.
    """
    import torch
    from diffus.render.scan_conversion import scan_convert

    with engineErrors(), torch.inference_mode():
        inVolume = _pointsInVolume(renderer, medium, probeToVolume)
        pixels = points.pixels(renderer.plan(medium.dtype, medium.device))
        image = renderer.slices(medium, inVolume, frame, pixels)[0]
        inside = torch.as_tensor(points.inside, device=medium.device)
        covered = scan_convert(medium.contains(inVolume[:, 0]).to(image), points.grid.to(image), inside)[0]
        return image.cpu().numpy(), covered.cpu().numpy() > 0.5


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
            settings=RenderSettings(**imageValues(image)),
            seed=image.seed,
            frames=frames,
            steps=steps,
            held_out=len(sweep) >= 4,
        )


# --- tracked images


def greyLimits(images: TrackedImages) -> tuple[float, float]:
    """The grey values that are black and white in all of the images."""
    from diffus.sweep.frames import grey_limits

    return grey_limits(images.pixels)


def trackedSweep(
    images: TrackedImages, mask: np.ndarray | None = None, limits: tuple[float, float] | None = None
) -> TrackedSweep:
    """The engine's sweep of what the scene holds.

    Args:
        images: frames, or a 3-D volume, which is cut into frames.
        mask: where the frames show ultrasound, (rows, columns); found in their pixels where it is not given.
        limits: `greyLimits` of the whole recording, where the images are some of it.

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
            images.pixels, images.imageToReference, mask=mask, timestamps=images.times, report=report, limits=limits
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


# Gives an iterable of states (stage, progress, similarity, mri_to_reference) that has a `result` at its end.
BuildRegistration = Callable[["Session", "RegisterParameters"], Iterable]


def buildRegistration(session: Session, parameters: RegisterParameters) -> Iterable:
    """The engine's registration of an open session, ready to be stepped."""
    from diffus.register.registration import RigidRegistration, Settings

    device = torchDevice(parameters.device)
    if parameters.device is Device.MPS:
        raise RenderError(
            _("An Apple GPU has no double precision, which the registration needs: choose CPU as the device.")
        )
    settings = replace(Settings(), translation_mm=parameters.translationMm, rotation_deg=parameters.rotationDeg)
    with engineErrors():
        return RigidRegistration(
            session.voxels,
            session.ijkToRas,
            session.sweep,
            initial=session.initial,
            kind=session.kind,
            seed=parameters.seed,
            device=device,
            settings=settings,
        )


def registrationReport(registration) -> dict:
    """The result of a registration that has run to its end, as plain values with texts in the user's language."""
    report = registration.result.report()
    texts = {name: [translated(text) for text in report[name]] for name in ("reasons", "notes")}
    return report | texts | {"calibrated_on": translated(report["calibrated_on"])}


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


def _pointsInVolume(renderer, medium, probeToVolume):
    """Sample points (1, S, rays, samples, 3) in the volume's RAS, whose matrix may scale where the volume does."""
    import torch

    if isinstance(probeToVolume, np.ndarray):
        # Apple's GPUs (MPS) have no float64.
        dtype = torch.float32 if medium.device.type == "mps" else torch.float64
        return renderer.points_ras(torch.from_numpy(probeToVolume)[None].to(medium.device, dtype), medium.dtype)
    points = renderer.points_ras(torch.eye(4, dtype=torch.float64)[None], torch.float64).numpy()
    return torch.from_numpy(mapPoints(probeToVolume, points)).to(medium.device, medium.dtype)
