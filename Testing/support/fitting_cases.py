"""Sweeps whose medium, probe, display and poses are known, as a scanner would store them: 8 bit, on its own pixels."""

from __future__ import annotations

import numpy as np
import torch
from diffus.medium import AcousticMedium
from diffus.probe.probe import Probe
from diffus.render.renderer import UltrasoundRenderer
from diffus.sweep.sweep import TrackedSweep

from .phantoms import pose_from, probe_of

PROBE = probe_of("convex", rays=96, samples=240, depth_mm=50.0, transmit_f_number=3.0, mm_per_pixel=0.3)
LABELS = {1: "liver", 2: "fluid", 3: "kidney", 4: "tumour"}
TRUE_DISPLAY = {"tgc_db_per_cm": 3.6, "gain_db": -7.0, "dynamic_range_db": 74.0, "noise_db": -60.0}
# Label, centre (x, y, z) in mm, radius in mm.
BLOBS = (
    (2, -8, 13, 0, 8),
    (3, 9, 20, 6, 9),
    (2, 6, 36, -4, 8),
    (4, -9, 33, 2, 8),
    (4, -2, 24, -9, 7),
    (3, -12, 42, 6, 7),
)


def blobs(size: int = 66, spacing_mm: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """A label volume (K, J, I) of `BLOBS` in liver, and ijk_to_ras; the skin lies at y = -2 mm."""
    axis = np.arange(size) * spacing_mm
    z, y, x = np.meshgrid(axis - size * spacing_mm / 2, axis - 10, axis - size * spacing_mm / 2, indexing="ij")
    labels = np.where(y > -2, 1, 0)
    for label, cx, cy, cz, radius in BLOBS:
        labels[(x - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2 < radius**2] = label
    return labels.astype(np.uint8), _centred(size, spacing_mm)


def head(size: int = 66) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A T1-like volume of white matter with folds of grey matter and fluid, ijk_to_ras and a mask."""
    axis = np.arange(size, dtype=np.float32)
    z, y, x = np.meshgrid(axis - size / 2, axis - 10, axis - size / 2, indexing="ij")
    wave = np.sin(0.33 * x) + np.sin(0.29 * y + 0.1 * z) + np.sin(0.31 * z + 1)
    t1 = np.interp(wave, [-1.4, -1.1, 0.1, 0.4], [20.0, 62.0, 62.0, 100.0]).astype(np.float32)
    mask = y > -4
    return np.where(mask, t1, 0).astype(np.float32), _centred(size, 1.0), mask


def fan_sweep(
    medium: AcousticMedium,
    probe: Probe,
    *,
    count: int = 8,
    span_mm: float = 14.0,
    base: torch.Tensor | None = None,
    **settings: object,
) -> TrackedSweep:
    """`count` frames, 8 bit, of a sweep across the elevation about the pose `base`, in the medium's own world."""
    renderer, geometry = UltrasoundRenderer(probe, **settings), probe.slice_geometry()
    steps = np.linspace(-span_mm / 2, span_mm / 2, count)
    poses = torch.stack([pose_from((0.0, 0.0, 0.0), (0.0, 0.0, z)) for z in steps])
    if base is not None:
        poses = base @ poses
    with torch.inference_mode():
        frames = (renderer(medium, poses) * 255).round().to(torch.uint8).numpy()
    return TrackedSweep.from_arrays(frames, (poses @ geometry.pixel_to_probe).numpy(), mask=fan_mask(probe))


def fan_mask(probe: Probe) -> np.ndarray:
    """Pixels of the probe's slice that lie in its fan, (rows, columns) bool."""
    polar = probe.polar_coordinates(probe.slice_geometry().pixel_centres())
    last = polar.new_tensor([probe.rays - 1, probe.samples - 1])
    return ((polar >= 0) & (polar <= last)).all(-1).numpy()


def _centred(size: int, spacing_mm: float) -> np.ndarray:
    matrix = np.diag([spacing_mm, spacing_mm, spacing_mm, 1.0])
    matrix[:3, 3] = [-size * spacing_mm / 2, -10.0, -size * spacing_mm / 2]
    return matrix
