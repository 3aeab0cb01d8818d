"""A tracked sweep with known truth, simulated from a head's own MRI: the sample case of the module.

The registration never sees what the sweep is drawn from: the T1 only gives tissue memberships, which get regional
echogenicity, bright sulci, world-locked speckle, attenuation, shadow sectors, clutter, noise and tracking noise; its
contrast is not that of the T1, and a brain mask stands for the opened skull.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from scipy.spatial.transform import Rotation

from ..errors import InputError
from ..medium import AcousticMedium, fit_intensity_scale, normalise, tissue_memberships
from ..medium.impedance import TISSUES
from ..medium.mri import narrow_fluid
from ..probe import ConvexProbe
from ..render.renderer import UltrasoundRenderer

PROBE = ConvexProbe(
    radius_mm=16.0,
    fov_deg=66.0,
    frequency_mhz=5.0,
    depth_mm=72.0,
    focus_mm=38.0,
    elevation_mm=2.5,
    rays=160,
    samples=320,
    elevation_layers=3,
    mm_per_pixel=0.3,
)
DYNAMIC_RANGE_DB = 54.0
SETTINGS = {"noise_db": -82.0, "tgc_db_per_cm": 6.8, "reflection_db": 50.0, "specular_exponent": 1.0}
BRAIN_LITRES = (0.4, 2.6)
WEAR_MM, GAP_MM = (4.0, 5.5, 7.0), 4.0
SMOOTH_MM = 0.6  # of the MRI before tissue is made of it: its noise must not be seen by the sweep
ENTRY = (0.50, 0.30, 0.81)  # from the brain's centre to the right and front of the vertex, RAS
STAND_OFF_MM = 1.5  # of gel and dura between the face and the brain
SULCUS_GAIN = 2.2  # pia and vessels brighten more than the fluid of a gap fills
REGION_DB, REGION_MM = 1.0, 12.0  # spread and size of regional echogenicity
SHADOWS = ((-0.85, 0.07, 15.0), (0.35, 0.05, 8.0))  # centre and width in half angles, loss in dB
CLUTTER_DB, CLUTTER_MM = -6.0, 3.0  # haze before the face: its level there, and where it has fallen to 1/e
FAN_DEG, REACH_MM = 13.0, 11.0  # of the hand's sweep, to either side
TRACKING_MM = 0.25  # RMS error of a tracked position
TRUTH = ((14.0, -20.0, 9.0), (35.0, -25.0, 30.0))  # MRI to reference: rotation vector in degrees, translation in mm
GUESS_MM, GUESS_DEG = 8.0, 6.0


@dataclass(frozen=True)
class SampleCase:
    """Frames (K, rows, columns) uint8 with pixel_to_probe (4, 4) and probe_to_reference (K, 4, 4); truth and guess.

    mri_to_reference and first_guess (4, 4) bring the MRI's RAS to the reference, mm; targets (n, 3) lie in MRI RAS.
    """

    frames: np.ndarray
    pixel_to_probe: np.ndarray
    probe_to_reference: np.ndarray
    mri_to_reference: np.ndarray
    first_guess: np.ndarray
    targets: np.ndarray

    def error_mm(self, mri_to_reference) -> float:
        """Mean distance, mm, of the targets between a found mri_to_reference (4, 4) and the true one."""
        difference = np.asarray(mri_to_reference, dtype=np.float64) - self.mri_to_reference
        return float(np.linalg.norm(self.targets @ difference[:3, :3].T + difference[:3, 3], axis=1).mean())


class SampleCaseSimulation:
    """Simulates the case of a T1-weighted head, (K, J, I) with ijk_to_ras (4, 4): iterate, then read `result`.

    Yields (what is done, share done 0..1). The same head and seed give the same case. Raises InputError where no brain
    is found.
    """

    def __init__(self, t1, ijk_to_ras, *, frames: int = 24, seed: int = 0) -> None:
        self.ijk_to_ras = np.asarray(ijk_to_ras, dtype=np.float64)
        self.volume = np.ascontiguousarray(t1, dtype=np.float32)
        self.frames, self.seed = frames, seed
        self.result: SampleCase | None = None

    def __iter__(self) -> Iterator[tuple[str, float]]:
        rng = np.random.default_rng(self.seed)
        yield "finding the brain", 0.0
        self.volume = ndimage.gaussian_filter(self.volume, [SMOOTH_MM / mm for mm in self._spacing()])
        scale = fit_intensity_scale(self.volume, spacing_mm=self._spacing())
        level = normalise(torch.from_numpy(self.volume), scale)
        brain = brain_mask(level.numpy(), self._spacing())
        yield "tissue", 0.3
        medium = self._medium(scale, level, torch.from_numpy(brain), rng)
        poses = sweep_poses(brain, self.ijk_to_ras, self.frames, rng)
        renderer = UltrasoundRenderer(PROBE, seed=self.seed, dynamic_range_db=DYNAMIC_RANGE_DB, **SETTINGS)
        images = []
        for number, pose in enumerate(poses):
            yield "scanning", 0.5 + 0.5 * number / self.frames
            images.append(_frame(renderer, medium, pose, rng))
        self.result = self._case(np.stack(images), poses, rng)

    def _spacing(self) -> list[float]:
        """Voxel size in mm along k, j, i."""
        return np.linalg.norm(self.ijk_to_ras[:3, :3], axis=0)[::-1].tolist()

    def _medium(self, scale, level, brain, rng) -> AcousticMedium:
        shares = tissue_memberships(self.volume, brain, scale=scale)
        sulci = (SULCUS_GAIN * narrow_fluid(level, brain, self._spacing())).clamp(max=1)
        shares = torch.cat([shares * (1 - sulci), sulci[None]])
        medium = AcousticMedium.from_memberships(shares, (*TISSUES, "sulcus"), self.ijk_to_ras)
        maps = medium.maps
        maps[3] *= torch.from_numpy(10 ** (_regions(self.volume.shape, self._spacing(), rng) / 20))
        return AcousticMedium(maps, self.ijk_to_ras)

    def _case(self, images, poses, rng) -> SampleCase:
        truth = np.eye(4)
        truth[:3, :3] = Rotation.from_rotvec(np.radians(TRUTH[0])).as_matrix()
        truth[:3, 3] = TRUTH[1]
        jitter = np.tile(np.eye(4), (len(poses), 1, 1))
        jitter[:, :3, 3] = rng.normal(0, TRACKING_MM / np.sqrt(3), (len(poses), 3))
        targets = _targets(poses)
        return SampleCase(
            images,
            PROBE.slice_geometry().pixel_to_probe.numpy(),
            jitter @ truth @ poses,
            truth,
            truth @ _displacement(targets.mean(0), rng),
            targets,
        )


def brain_mask(level: np.ndarray, spacing_mm) -> np.ndarray:
    """The brain, (K, J, I) bool, in a T1 head on the scale of `normalise`: what scalp and skull leave when worn away.

    Tissue is worn off by some mm, its largest piece kept and grown back, and gaps as wide as sulci closed; by more mm
    where that piece still hangs together with the face. Raises InputError where none has the size of a brain.
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
    raise InputError("No brain was found in this volume; the sample case needs a T1-weighted MRI of a head.")


def sweep_poses(brain: np.ndarray, ijk_to_ras: np.ndarray, frames: int, rng) -> np.ndarray:
    """probe_to_ras (frames, 4, 4) of a hand that fans and shifts the probe over the brain under a craniotomy."""
    points = np.argwhere(brain)[::7, ::-1] @ ijk_to_ras[:3, :3].T + ijk_to_ras[:3, 3]
    centre = points.mean(0)
    outward = np.array(ENTRY) / np.linalg.norm(ENTRY)
    along = (points - centre) @ outward
    near = np.linalg.norm(points - centre - along[:, None] * outward, axis=1) < 3.0
    depth = -outward
    across = np.cross(depth, (0.0, 1.0, 0.0))
    across /= np.linalg.norm(across)
    if across[0] < 0:
        across = -across
    base = np.eye(4)
    base[:3] = np.column_stack(
        [across, depth, np.cross(across, depth), centre + (along[near].max() + STAND_OFF_MM) * outward]
    )
    wobble = ndimage.gaussian_filter1d(rng.standard_normal((frames, 6)), 4, axis=0, mode="nearest") * 3
    steps = np.tile(np.eye(4), (frames, 1, 1))
    way = np.linspace(-1, 1, frames)
    angles = np.column_stack([FAN_DEG * way + wobble[:, 0], wobble[:, 1], wobble[:, 2]])
    steps[:, :3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    steps[:, :3, 3] = np.column_stack([0.4 * wobble[:, 3], 0.2 * wobble[:, 4], REACH_MM * way + 0.3 * wobble[:, 5]])
    return base @ steps


def _frame(renderer: UltrasoundRenderer, medium: AcousticMedium, pose: np.ndarray, rng) -> np.ndarray:
    """One slice, uint8 (rows, columns), with the shadows and the haze that no tissue explains."""
    with torch.inference_mode():
        points = renderer.points_ras(torch.from_numpy(pose)[None], medium.dtype)
        level_db = renderer.polar(medium, points) * DYNAMIC_RANGE_DB
        depth = PROBE.depths_mm().to(level_db)
        angle = torch.linspace(-1, 1, PROBE.rays).to(level_db)[:, None]
        for centre, width, loss in SHADOWS:
            level_db = level_db - loss * torch.exp(-(((angle - centre) / width) ** 2)) * (depth / 15).clamp(max=1)
        grain = torch.from_numpy(rng.rayleigh(size=level_db.shape)).to(level_db)
        haze = grain * 10 ** ((0.6 * DYNAMIC_RANGE_DB + CLUTTER_DB) / 20) * torch.exp(-depth / CLUTTER_MM)
        level_db = 20 * torch.log10(10 ** (level_db / 20) + haze)
        image = renderer.scan_convert((level_db / DYNAMIC_RANGE_DB).clamp(1 / 255, 1))
    return image[0].mul(255).round().to(torch.uint8).numpy()


def _regions(shape, spacing_mm, rng) -> np.ndarray:
    """A smooth field of `REGION_DB` standard deviation, float32 (K, J, I)."""
    coarse = [max(4, round(n * mm / (REGION_MM / 2))) for n, mm in zip(shape, spacing_mm)]
    field = ndimage.gaussian_filter(rng.standard_normal(coarse), 1.0)
    field = ndimage.zoom(field, np.array(shape) / coarse, order=1)[tuple(map(slice, shape))]
    return (REGION_DB * field / field.std()).astype(np.float32)


def _targets(poses: np.ndarray) -> np.ndarray:
    """Points spread over the fans, (n, 3) mm in MRI RAS."""
    local = np.array([[x, y, 0.0] for x in (-20.0, 0.0, 20.0) for y in (25.0, 45.0, 62.0)])
    return np.concatenate([local @ pose[:3, :3].T + pose[:3, 3] for pose in poses[:: max(1, len(poses) // 5)]])


def _displacement(centre: np.ndarray, rng) -> np.ndarray:
    """A rigid error of `GUESS_MM` and `GUESS_DEG` about `centre`, in directions drawn from `rng`."""
    axis, shift = (v / np.linalg.norm(v) for v in rng.standard_normal((2, 3)))
    error = np.eye(4)
    error[:3, :3] = Rotation.from_rotvec(np.radians(GUESS_DEG) * axis).as_matrix()
    error[:3, 3] = centre - error[:3, :3] @ centre + GUESS_MM * shift
    return error
