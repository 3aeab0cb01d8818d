"""The one place where the scene layer calls the engine. torch and the engine are imported inside the functions."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import vtk

from .errors import RenderError
from .geometry import isRigid, mapPoints
from .parameters import ImageSettings, ProbeSettings, ProbeType, RenderParameters

if TYPE_CHECKING:
    from diffus_render.medium import AcousticMedium
    from diffus_render.probe import Probe
    from diffus_render.renderer import UltrasoundRenderer


@contextmanager
def engineErrors():
    """Turns the engine's one-sentence errors into the scene layer's."""
    from diffus_render.errors import InputError

    try:
        yield
    except InputError as error:
        raise RenderError(str(error)) from error


def buildProbe(settings: ProbeSettings) -> Probe:
    """The engine's probe; raises RenderError for a value out of range."""
    from diffus_render.probe.geometry import ConvexProbe, LinearProbe, PhasedProbe

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
    from diffus_render.probe.presets import probe_preset

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


def buildRenderer(parameters: RenderParameters) -> UltrasoundRenderer:
    """The engine's renderer for these settings; raises RenderError for a value out of range."""
    from diffus_render.renderer import UltrasoundRenderer

    probe = buildProbe(parameters.probe)
    with engineErrors():
        return UltrasoundRenderer(probe, **_imageSettings(parameters.image))


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
