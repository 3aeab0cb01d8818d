"""The sample case: a sweep simulated on a T1-weighted head, through a craniotomy, with everything but the seed fixed.

The MRI gives memberships of tissue and a mask of the brain, which stands for the opened skull; what is drawn from them
(`simulated`) has regional echogenicity, and no contrast of the T1.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy import ndimage
from scipy.spatial.transform import Rotation

from ..errors import InputError, _
from ..medium import fit_intensity_scale, normalise, tissue_memberships
from ..medium.mri import narrow_fluid
from ..probe import ConvexProbe
from .simulated import (
    PIA_DB,
    Anatomy,
    PixelGrid,
    Scanner,
    SimulatedCase,
    assemble,
    displaced,
    fan_points,
    hand_sweep,
    probe_at,
    scan,
    scatterers,
    scattering_db,
)

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Real

PROBE = ConvexProbe(
    radius_mm=16.0,
    fov_deg=66.0,
    frequency_mhz=5.0,
    depth_mm=72.0,
    focus_mm=38.0,
    elevation_mm=2.5,
    rays=160,
    samples=320,
    mm_per_pixel=0.3,
)
# A shadow at the fan's edge, as of the rim of the bone, and one within it.
SCANNER = Scanner(PROBE, -0.05, ((-0.85, 0.07, 15.0), (0.35, 0.05, 8.0)), haze_db=-6.0)
BRAIN_LITRES = (0.4, 2.6)
WEAR_MM, GAP_MM = (4.0, 5.5, 7.0), 4.0
SMOOTH_MM = 0.6  # of the MRI before tissue is made of it: its noise must not be seen by the sweep
ENTRY = (0.50, 0.30, 0.81)  # from the brain's centre to the right and front of the vertex, RAS
STAND_OFF_MM = 1.5  # of gel and dura between the face and the brain
SULCUS_GAIN = 2.2  # pia and vessels brighten more than the fluid of a gap fills
REGION_DB, REGION_MM = 1.0, 12.0  # spread and size of regional echogenicity
FAN_DEG, REACH_MM = 13.0, 11.0  # of the hand's sweep, to either side
TRUTH = ((14.0, -20.0, 9.0), (35.0, -25.0, 30.0))  # MRI to reference: rotation vector in degrees, translation in mm
GUESS_MM, GUESS_DEG = 8.0, 6.0  # what a first guess is off by
TARGETS = 45


class SampleCaseSimulation:
    """Iterate over it: (what is done, fraction done 0 to 1) at every step; then read `result`.

    Args:
        t1: the MRI of a head, (K, J, I).
        ijk_to_ras: (4, 4).
        frames: of the sweep.
        seed: the same head and seed give the same case.

    Raises:
        InputError: while iterating, where no brain is found.
    """

    def __init__(
        self,
        t1: Real[np.ndarray, "k j i"],
        ijk_to_ras: Float[np.ndarray, "4 4"],
        *,
        frames: int = 24,
        seed: int = 0,
    ) -> None:
        self.ijk_to_ras = np.asarray(ijk_to_ras, dtype=np.float64)
        self.volume = np.ascontiguousarray(t1, dtype=np.float32)
        self.frames, self.seed = frames, seed
        self.result: SimulatedCase | None = None

    def __iter__(self) -> Iterator[tuple[str, float]]:
        rng = np.random.default_rng(self.seed)
        spacing_mm = np.linalg.norm(self.ijk_to_ras[:3, :3], axis=0)[::-1].tolist()
        yield "finding the brain", 0.0
        volume = ndimage.gaussian_filter(self.volume, [SMOOTH_MM / mm for mm in spacing_mm])
        scale = fit_intensity_scale(volume, spacing_mm=spacing_mm)
        level = normalise(torch.from_numpy(volume), scale)
        brain = brain_mask(level.numpy(), spacing_mm)
        yield "tissue", 0.3
        _, grey, white = tissue_memberships(volume, brain, scale=scale).numpy()
        sulci = (SULCUS_GAIN * narrow_fluid(level, torch.from_numpy(brain), spacing_mm)).clamp(max=1).numpy()
        scattering = scattering_db(grey, white, brain) * (1 - sulci) + PIA_DB * sulci
        scattering += _regions(brain.shape, spacing_mm, rng)
        anatomy = Anatomy(scattering, brain, self.ijk_to_ras)
        poses = hand_sweep(_craniotomy(anatomy), self.frames, FAN_DEG, REACH_MM, rng)
        geometry = PROBE.slice_geometry()
        grid = PixelGrid(geometry.rows, geometry.columns, geometry.pixel_to_probe)
        scans = []
        for one in scan(anatomy, SCANNER, poses, grid, scatterers(rng), rng):
            scans.append(one)
            yield "scanning", 0.5 + 0.5 * len(scans) / self.frames
        truth = np.eye(4)
        truth[:3, :3] = Rotation.from_rotvec(np.radians(TRUTH[0])).as_matrix()
        truth[:3, 3] = TRUTH[1]
        self.result = assemble(scans, poses, PROBE, grid, truth, fan_points(poses, PROBE, TARGETS, rng))


def first_guess(case: SimulatedCase) -> Float[np.ndarray, "4 4"]:
    """mri_to_reference (4, 4) that the sample case starts from, `GUESS_MM` and `GUESS_DEG` off the truth."""
    return displaced(case, GUESS_MM, GUESS_DEG, seed=0)


def brain_mask(level: Float[np.ndarray, "k j i"], spacing_mm: list[float]) -> Bool[np.ndarray, "k j i"]:
    """The brain in a T1-weighted head: what scalp and skull leave when they are worn away.

    Tissue is worn off by some mm, its largest piece kept and grown back, and gaps as wide as sulci closed; by more mm
    where that piece still hangs together with the face.

    Args:
        level: the head on the scale of `normalise`, (K, J, I).
        spacing_mm: along k, j, i.

    Raises:
        InputError: no piece has the size of a brain.
    """
    smooth = ndimage.gaussian_filter(level, [1.0 / mm for mm in spacing_mm])
    tissue = (smooth > 0.25) & (smooth < 1.3)
    inside = ndimage.distance_transform_edt(tissue, sampling=spacing_mm)
    for wear in WEAR_MM:
        pieces, count = ndimage.label(inside > wear)
        if not count:
            break
        core = pieces == np.bincount(pieces.ravel())[1:].argmax() + 1
        grown = tissue & (ndimage.distance_transform_edt(~core, sampling=spacing_mm) <= wear + 1.0)
        wide = ndimage.binary_fill_holes(ndimage.distance_transform_edt(~grown, sampling=spacing_mm) <= GAP_MM)
        brain = ndimage.distance_transform_edt(wide, sampling=spacing_mm) > GAP_MM
        if BRAIN_LITRES[0] <= brain.sum() * float(np.prod(spacing_mm)) * 1e-6 <= BRAIN_LITRES[1]:
            return brain
    raise InputError(_("No brain was found in this volume; the sample case needs a T1-weighted MRI of a head."))


def _craniotomy(anatomy: Anatomy) -> Float[np.ndarray, "4 4"]:
    """probe_to_ras of a probe that stands on the brain at `ENTRY`, its marked side to the patient's right in RAS."""
    matrix = anatomy.ijk_to_ras
    points = np.argwhere(anatomy.brain)[::7, ::-1] @ matrix[:3, :3].T + matrix[:3, 3]
    centre = points.mean(0)
    outward = np.array(ENTRY) / np.linalg.norm(ENTRY)
    along = (points - centre) @ outward
    near = np.linalg.norm(points - centre - along[:, None] * outward, axis=1) < 3.0
    across = np.cross(-outward, (0.0, 1.0, 0.0))
    face = centre + (along[near].max() + STAND_OFF_MM) * outward
    return probe_at(face, -outward, across if across[0] > 0 else -across)


def _regions(shape: tuple[int, ...], spacing_mm: list[float], rng: np.random.Generator) -> np.ndarray:
    """A smooth field of `REGION_DB` standard deviation, float32 (K, J, I)."""
    coarse = [max(4, round(n * mm / (REGION_MM / 2))) for n, mm in zip(shape, spacing_mm)]
    field = ndimage.gaussian_filter(rng.standard_normal(coarse), 1.0)
    field = ndimage.zoom(field, np.array(shape) / coarse, order=1)[tuple(map(slice, shape))]
    return (REGION_DB * field / field.std()).astype(np.float32)
