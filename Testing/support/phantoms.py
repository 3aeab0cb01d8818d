"""Small acoustic phantoms, painted voxel by voxel."""

from __future__ import annotations

from collections.abc import Callable

import torch
from diffus.medium.medium import AcousticMedium
from diffus.probe.probe import ConvexProbe, LinearProbe, PhasedProbe, Probe

TISSUE = (1.6, 0.5, 1.0, 1.0)  # MRayl, dB/(cm MHz), exponent, scattering


def phantom(
    paint: Callable[..., None] | None = None,
    *,
    size_mm: float = 80.0,
    spacing_mm: float = 1.0,
    tissue: tuple[float, ...] = TISSUE,
    dtype: torch.dtype = torch.float32,
) -> AcousticMedium:
    """A cube of tissue, centred on x = z = 0, from y = -10 mm on; `paint(maps, x, y, z)` changes it in place."""
    n = round(size_mm / spacing_mm) + 1
    maps = torch.tensor(tissue, dtype=dtype)[:, None, None, None].repeat(1, n, n, n)
    ijk_to_ras = torch.diag(torch.tensor([spacing_mm, spacing_mm, spacing_mm, 1.0], dtype=torch.float64))
    ijk_to_ras[:3, 3] = torch.tensor([-size_mm / 2, -10.0, -size_mm / 2], dtype=torch.float64)
    if paint is not None:
        axis = torch.arange(n, dtype=dtype) * spacing_mm
        z, y, x = torch.meshgrid(axis - size_mm / 2, axis - 10.0, axis - size_mm / 2, indexing="ij")
        paint(maps, x, y, z)
    return AcousticMedium(maps, ijk_to_ras)


def probe_of(kind: str = "convex", **changes: object) -> Probe:
    """A probe of each type that looks 60 mm deep at 5 MHz."""
    common = {"frequency_mhz": 5.0, "depth_mm": 60.0, "focus_mm": 30.0, "rays": 128, "samples": 400} | changes
    if kind == "convex":
        return ConvexProbe(**({"radius_mm": 20.0, "fov_deg": 60.0} | common))
    if kind == "phased":
        return PhasedProbe(**({"fov_deg": 60.0} | common))
    return LinearProbe(**({"width_mm": 40.0} | common))


def pose_from(rotation_deg: tuple[float, float, float], translation_mm: tuple[float, float, float]) -> torch.Tensor:
    """Rigid 4x4, float64, from rotations about x, y, z (in that order) and a translation."""
    matrix = torch.eye(4, dtype=torch.float64)
    for axis, angle in enumerate(torch.deg2rad(torch.tensor(rotation_deg, dtype=torch.float64))):
        turn = torch.eye(4, dtype=torch.float64)
        i, j = (axis + 1) % 3, (axis + 2) % 3
        turn[i, i] = turn[j, j] = angle.cos()
        turn[j, i], turn[i, j] = angle.sin(), -angle.sin()
        matrix = turn @ matrix
    matrix[:3, 3] = torch.tensor(translation_mm, dtype=torch.float64)
    return matrix
