"""Cases in the form of ReMIND2Reg, drawn: a head in T1 and T2, and a swept fan that sees it by scattering."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

T1 = (0.0, 90.0, 420.0, 700.0)  # outside, fluid, grey, white
T2 = (0.0, 900.0, 500.0, 330.0)
ECHO = (0.0, 20.0, 90.0, 140.0)


@dataclass(frozen=True)
class DrawnFan:
    """The fan of `write_case`: apex (n, 3) RAS mm of every slice, unit depth direction (3,), RAS; mm and degrees."""

    apex: np.ndarray
    depth_axis: np.ndarray
    radius_mm: float
    depth_mm: float
    fov_deg: float


def write_case(
    folder: Path, number: int, *, size: int = 64, mm: float = 1.5, tilt_deg: float = 20.0, skip: str = "", seed: int = 0
) -> DrawnFan:
    """Writes ReMIND2Reg_<number>_0000/_0001/_0002.nii.gz of size^3 voxels; `skip` names modalities to leave out.

    The sweep moves along j; in the planes of i and k the fan points down (-k, inferior), turned by `tilt_deg`.
    """
    rng = np.random.default_rng(seed)
    ijk_to_ras = np.diag([mm, mm, mm, 1.0])
    ijk_to_ras[:3, 3] = -mm * (size - 1) / 2
    tissue = _head(size, rng)
    inside, fan = _swept_fan(size, mm, tilt_deg, ijk_to_ras)
    speckle = rng.rayleigh(0.8, tissue.shape)
    echo = np.clip(np.take(ECHO, tissue) * speckle, 1, 255) * inside
    volumes = {"0000": echo.round(), "0001": np.take(T1, tissue), "0002": np.take(T2, tissue)}
    for modality, values in volumes.items():
        if modality in skip.split():
            continue
        if modality != "0000":
            values = values + (tissue > 0) * ndimage.gaussian_filter(rng.normal(0, 40, values.shape), 0.7)
        image = sitk.GetImageFromArray(values.astype(np.float32))
        image.SetSpacing((mm,) * 3)
        image.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))
        image.SetOrigin((-ijk_to_ras[0, 3], -ijk_to_ras[1, 3], ijk_to_ras[2, 3]))
        sitk.WriteImage(image, str(folder / f"ReMIND2Reg_{number:04d}_{modality}.nii.gz"), useCompression=True)
    return fan


def _head(size: int, rng: np.random.Generator) -> np.ndarray:
    """Classes (K, J, I): outside, fluid, grey, white."""
    k, j, i = np.ogrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j, -1 : 1 : size * 1j]
    folds = ndimage.zoom(rng.normal(0, 1, (10, 10, 10)), size / 10, order=1)[:size, :size, :size]
    radius = np.sqrt((i / 0.9) ** 2 + (j / 0.95) ** 2 + (k / 0.9) ** 2)
    tissue = np.where(radius < 1, 2, 0)
    tissue[radius + 0.1 * folds < 0.8] = 3
    ventricle = (np.abs(i) - 0.18) ** 2 / 0.1**2 + (j / 0.4) ** 2 + (k / 0.25) ** 2 < 1
    tissue[ventricle] = 1
    return tissue


def _swept_fan(size: int, mm: float, tilt_deg: float, ijk_to_ras: np.ndarray) -> tuple[np.ndarray, DrawnFan]:
    """Voxels (K, J, I) that the beam reached, and its geometry."""
    half, near, far = math.radians(32.0), 0.16 * size, 0.72 * size  # voxels
    tilt = math.radians(tilt_deg)
    depth = np.array([math.sin(tilt), -math.cos(tilt)])  # of i and k
    middle = (size - 1) / 2
    k, i = np.mgrid[:size, :size].astype(float)
    inside = np.zeros((size, size, size), bool)
    apexes = []
    for j in range(round(0.3 * size), round(0.7 * size)):
        apex = np.array([middle, middle]) - 0.45 * size * depth + [0.05 * (j - middle), 0.0]
        x, y = i - apex[0], k - apex[1]
        along, across = x * depth[0] + y * depth[1], x * depth[1] - y * depth[0]
        radius = np.hypot(along, across)
        inside[:, j] = (radius > near) & (radius < far) & (np.abs(np.arctan2(across, along)) < half)
        apexes.append(ijk_to_ras[:3, :3] @ [apex[0], j, apex[1]] + ijk_to_ras[:3, 3])
    axis = np.array([depth[0], 0.0, depth[1]])
    return inside, DrawnFan(np.array(apexes), axis, near * mm, (far - near) * mm, math.degrees(2 * half))
