"""The one place where the scene layer calls the engine. torch and the engine are imported inside the functions."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import vtk

from .errors import RenderError
from .render.parameters import ImageSettings, ProbeSettings, ProbeType, RenderParameters
from .scene.transforms import isRigid, mapPoints

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from diffus.medium import AcousticMedium
    from diffus.probe import Probe
    from diffus.render.renderer import UltrasoundRenderer
    from pydicom import Dataset
    from torch import Tensor


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


def fanSettings(images: np.ndarray, mmPerPixel: float, present: ProbeSettings) -> tuple[ProbeSettings, np.ndarray]:
    """The probe whose fan real images show, and where it is: its settings, and pixel to probe mm, (4, 4).

    images: grey values (rows, columns) or a stack of them, x to the marked side and y into the depth. What a fan does
    not show stays as in `present`; the focus does not lie below the image. Raises RenderError where none can be seen.
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
    return settings, fan.pixel_to_probe.numpy()


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


def simulatedFrames(renderer: UltrasoundRenderer, pixels: np.ndarray, probeToWorld: np.ndarray, seconds: np.ndarray):
    """The engine's frames for export: pixels (K, rows, columns) uint8, poses (K, 4, 4) mm, times (K,) s."""
    from diffus.export import SimulatedFrames

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


@dataclass(frozen=True)
class SeenSweep:
    """Real frames and where they lie.

    pixels (K, rows, columns) 0 to 1; imageToVolume (K, 4, 4), (column, row, 0, 1) to the volume's RAS mm; the probe
    with the fan that they show; imageToProbe (4, 4). Columns and rows run as the probe's x and y do.
    """

    pixels: np.ndarray
    imageToVolume: np.ndarray
    probe: ProbeSettings
    imageToProbe: np.ndarray


def appearanceFit(medium: AcousticMedium, sweep: SeenSweep, image: ImageSettings, frames: int, steps: int):
    """The engine's fit of display and beam to some of the frames; it has its result when it was iterated over."""
    import torch
    from diffus.fit import AppearanceFit, fixed_medium
    from diffus.render.settings import RenderSettings
    from diffus.sweep.sweep import TrackedSweep

    row, column = np.indices(sweep.pixels.shape[1:])
    points = np.stack([column, row], -1) @ sweep.imageToProbe[:2, :2].T + sweep.imageToProbe[:2, 3]
    mask = fanGrid(sweep.probe, points).inside
    with engineErrors():
        return AppearanceFit(
            fixed_medium(medium),
            TrackedSweep.from_arrays(sweep.pixels, sweep.imageToVolume, mask=mask),
            torch.eye(4),
            probe=buildProbe(sweep.probe),
            pixel_to_probe=torch.as_tensor(sweep.imageToProbe),
            settings=RenderSettings(**_imageSettings(image)),
            seed=image.seed,
            frames=frames,
            steps=steps,
            held_out=len(sweep.pixels) >= 4,
        )


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
