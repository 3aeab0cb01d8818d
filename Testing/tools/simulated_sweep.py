"""Simulated tracked brain sweeps with known truth, from grey and white matter maps.

Other physics than the renderer's on purpose: tissue classes scatter, and nothing here looks at a T1 image, so that a
registration to the T1 is tested on images that it could not have made itself. World-locked speckle, focus, attenuation
left over by the time gain, shadow sectors, noise and tracking noise are simulated.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from diffus.sweep.sweep import SweepReport, TrackedSweep
from scipy import ndimage
from scipy.spatial.transform import Rotation

WHITE_DB, GREY_DB, FLUID_DB, PIA_DB = 0.0, -4.0, -40.0, 10.0


@dataclass(frozen=True)
class SimulatedCase:
    """A sweep and its truth: mri_to_reference (4, 4), targets (n, 3) mm in MRI RAS."""

    sweep: TrackedSweep
    mri_to_reference: np.ndarray
    targets: np.ndarray

    def error_mm(self, mri_to_reference) -> float:
        """Mean distance of the targets between a found transform and the true one."""
        difference = np.asarray(mri_to_reference, dtype=np.float64) - self.mri_to_reference
        return float(np.linalg.norm(self.targets @ difference[:3, :3].T + difference[:3, 3], axis=1).mean())


def mni152(folder: Path | None = None):
    """(t1, grey, white) arrays (K, J, I) and ijk_to_ras of the MNI152 brain; nilearn's own files without `folder`."""
    import SimpleITK as sitk

    if folder is None:
        import nilearn.datasets

        folder = Path(nilearn.datasets.__file__).parent / "data"
        names = [f"mni_icbm152_{k}_tal_nlin_sym_09a_converted.nii.gz" for k in ("t1", "gm", "wm")]
    else:
        names = [f"mni152_2009a_{k}_1mm.nii.gz" for k in ("t1", "gm", "wm")]
    images = [sitk.ReadImage(str(folder / name)) for name in names]
    lps = np.eye(4)
    lps[:3, :3] = np.array(images[0].GetDirection()).reshape(3, 3) * images[0].GetSpacing()
    lps[:3, 3] = images[0].GetOrigin()
    arrays = [sitk.GetArrayFromImage(image).astype(np.float32) for image in images]
    return arrays[0], arrays[1] / 255, arrays[2] / 255, np.diag([-1.0, -1.0, 1.0, 1.0]) @ lps


def simulate(
    grey, white, ijk_to_ras, *, seed: int, frames: int = 32, size: int = 288, mm_per_pixel: float = 0.3
) -> SimulatedCase:
    """One sweep of the brain given by memberships `grey` and `white` (K, J, I) in 0..1, all of it drawn from `seed`."""
    rng = np.random.default_rng(seed)
    decibel = _scattering_db(grey, white)
    brain = ndimage.binary_opening((grey + white) > 0.5, iterations=2)
    probe = {
        "radius": rng.uniform(8, 20),
        "depth": rng.uniform(62, 78),
        "half": np.radians(rng.uniform(55, 75) / 2),
        "gain": rng.uniform(-0.15, 0.15),
        "focus": rng.uniform(30, 50),
    }
    shadows = [(rng.uniform(-1, 1), rng.uniform(0.05, 0.12), rng.uniform(8, 25)) for _ in range(rng.integers(1, 3))]
    poses = _probe_poses(rng, brain, ijk_to_ras, frames)
    texture = rng.standard_normal((2, 96, 96, 96)).astype(np.float32)
    to_world = _random_rigid(rng, 40.0, 40.0)
    pixel_to_probe = np.diag([mm_per_pixel, mm_per_pixel, 1.0, 1.0])
    pixel_to_probe[0, 3] = -(size - 1) / 2 * mm_per_pixel
    pixel_to_probe[1, 3] = -probe["radius"] * (1 - np.cos(probe["half"])) - 1.0
    images, tracked, mask = [], [], None
    for pose in poses:
        polar, rays, depths = _polar_frame(rng, pose, probe, shadows, decibel, ijk_to_ras, texture)
        image, mask = _scan_convert(polar, rays, depths, probe, pixel_to_probe, size)
        images.append(image)
        noise = np.eye(4)
        noise[:3, 3] = rng.normal(0, 0.25 / np.sqrt(3), 3)
        tracked.append(noise @ to_world @ pose @ pixel_to_probe)
    points = _fan_points(rng, poses, probe)
    sweep = TrackedSweep.from_arrays(
        np.stack(images), np.stack(tracked), mask=mask, report=SweepReport(frames, 0, "MFA")
    )
    return SimulatedCase(sweep, to_world, points)


def displaced(case: SimulatedCase, translation_mm: float, rotation_deg: float, seed: int) -> np.ndarray:
    """A first guess of mri_to_reference: the truth moved by these amounts, in random directions, about the sweep."""
    rng = np.random.default_rng(seed)
    centre = case.targets.mean(0)
    axis, shift = (v / np.linalg.norm(v) for v in rng.standard_normal((2, 3)))
    error = np.eye(4)
    error[:3, :3] = Rotation.from_rotvec(np.radians(rotation_deg) * axis).as_matrix()
    error[:3, 3] = centre - error[:3, :3] @ centre + translation_mm * shift
    return case.mri_to_reference @ error


def smooth_deformation(volume, ijk_to_ras, *, seed: int, peak_mm: float, sigma_mm: float = 20.0):
    """(warped volume, displacement (3, K, J, I) mm RAS): warped(x) = volume(x + displacement(x)), of this peak."""
    rng = np.random.default_rng(seed)
    shape = np.array(np.shape(volume))
    coarse = np.maximum(shape // 8, 4)
    field = ndimage.gaussian_filter(rng.standard_normal((3, *coarse)), (0, *(3 * [sigma_mm / 8])))
    field = np.stack([ndimage.zoom(f, shape / coarse, order=1) for f in field])[:, : shape[0], : shape[1], : shape[2]]
    field *= peak_mm / np.sqrt((field**2).sum(0)).max()
    steps = np.einsum("ab,bkji->akji", np.linalg.inv(ijk_to_ras[:3, :3]), field)[::-1]
    where = np.indices(shape) + steps
    return ndimage.map_coordinates(np.asarray(volume, np.float32), where, order=1), field.astype(np.float32)


def _scattering_db(grey, white) -> np.ndarray:
    fluid = np.clip(1 - grey - white, 0, 1)
    inside = ndimage.binary_fill_holes(ndimage.binary_closing((grey + white) > 0.4, iterations=6))
    pia = np.clip(4 * ndimage.gaussian_filter(fluid * inside, 0.7) * ndimage.gaussian_filter(grey, 0.7), 0, 1)
    plain = white * WHITE_DB + grey * GREY_DB + fluid * FLUID_DB
    return (plain * (1 - pia) + pia * PIA_DB).astype(np.float32)


def _probe_poses(rng, brain, ijk_to_ras, frames: int) -> list[np.ndarray]:
    """probe_to_ras of a hand-held sweep: from a point on the upper brain surface inwards, fanned and shifted."""
    surface = np.argwhere(brain & ~ndimage.binary_erosion(brain))[:, ::-1]
    points = surface @ ijk_to_ras[:3, :3].T + ijk_to_ras[:3, 3]
    centre = points.mean(0)
    upper = points[points[:, 2] > centre[2] + 15]
    entry = upper[rng.integers(len(upper))]
    depth = centre + rng.normal(0, 8, 3) - entry
    depth /= np.linalg.norm(depth)
    across = np.cross(depth, rng.standard_normal(3))
    across /= np.linalg.norm(across)
    base = np.eye(4)
    base[:3, :3] = np.stack([across, depth, np.cross(across, depth)], 1)
    base[:3, 3] = entry - 2.0 * depth
    reach, fan = rng.uniform(8, 16), rng.uniform(8, 20)
    wobble = ndimage.gaussian_filter1d(rng.standard_normal((frames, 6)), 4, axis=0) * 3
    poses = []
    for t, w in zip(np.linspace(-1, 1, frames), wobble):
        step = np.eye(4)
        step[:3, :3] = Rotation.from_euler("xyz", [fan * t + w[0], w[1], w[2]], degrees=True).as_matrix()
        step[:3, 3] = [0.4 * w[3], 0.3 * w[4], reach * t + 0.3 * w[5]]
        poses.append(base @ step)
    return poses


def _polar_frame(rng, pose, probe, shadows, decibel, ijk_to_ras, texture):
    rays, depths = np.linspace(-probe["half"], probe["half"], 160), np.linspace(0, probe["depth"], 300)
    t, r = np.meshgrid(rays, depths, indexing="ij")
    plane = np.stack([(probe["radius"] + r) * np.sin(t), (probe["radius"] + r) * np.cos(t) - probe["radius"]], -1)
    echo = 0
    for height, weight in ((-1.0, 0.25), (0.0, 0.5), (1.0, 0.25)):
        local = np.concatenate([plane, np.full((*plane.shape[:2], 1), height)], -1)
        points = local @ pose[:3, :3].T + pose[:3, 3]
        index = (points - ijk_to_ras[:3, 3]) @ np.linalg.inv(ijk_to_ras[:3, :3]).T
        level = ndimage.map_coordinates(decibel, np.moveaxis(index[..., ::-1], -1, 0), order=1, cval=FLUID_DB)
        grain = np.moveaxis(points / 0.35, -1, 0)
        speckle = [ndimage.map_coordinates(part, grain, order=1, mode="grid-wrap") for part in texture]
        echo = echo + weight * 10 ** (level / 20) * (speckle[0] + 1j * speckle[1])
    echo = ndimage.gaussian_filter1d(echo, 1.2, axis=1)
    spread = 0.6 + 0.02 * abs(probe["focus"] - depths.mean())
    envelope = np.abs(ndimage.gaussian_filter1d(echo, 2.0 * spread, axis=0))
    image_db = 20 * np.log10(envelope + 1e-4) + probe["gain"] * (r - depths.mean())
    image_db += 4 * np.exp(-(((r - probe["focus"]) / 15) ** 2))
    for centre, width, loss in shadows:
        image_db -= loss * np.exp(-(((t / probe["half"] - centre) / width) ** 2)) * np.clip(r / 20, 0, 1)
    floor = 10 ** (-42 / 20) * np.abs(rng.standard_normal(r.shape) + 1j * rng.standard_normal(r.shape))
    return 20 * np.log10(10 ** (image_db / 20) + floor), rays, depths


def _scan_convert(polar, rays, depths, probe, pixel_to_probe, size):
    columns, rows = np.meshgrid(np.arange(size), np.arange(size))
    x = columns * pixel_to_probe[0, 0] + pixel_to_probe[0, 3]
    y = rows * pixel_to_probe[1, 1] + pixel_to_probe[1, 3] + probe["radius"]
    ray = (np.arctan2(x, y) - rays[0]) / (rays[1] - rays[0])
    sample = (np.hypot(x, y) - probe["radius"] - depths[0]) / (depths[1] - depths[0])
    mask = (ray >= 0) & (ray <= len(rays) - 1) & (sample >= 0) & (sample <= len(depths) - 1)
    grey = ndimage.map_coordinates((polar + 45) / 60, np.stack([ray, sample]), order=1, mode="nearest")
    return (np.clip(grey * 255, 1, 255) * mask).astype(np.uint8), mask


def _fan_points(rng, poses, probe) -> np.ndarray:
    t, r = rng.uniform(-0.8, 0.8, 12) * probe["half"], rng.uniform(0.25, 0.9, 12) * probe["depth"]
    local = np.stack(
        [(probe["radius"] + r) * np.sin(t), (probe["radius"] + r) * np.cos(t) - probe["radius"], 0 * t], -1
    )
    chosen = [poses[n] for n in np.linspace(0, len(poses) - 1, 12).round().astype(int)]
    return np.stack([pose[:3, :3] @ p + pose[:3, 3] for pose, p in zip(chosen, local)])


def _random_rigid(rng, degrees: float, mm: float) -> np.ndarray:
    matrix = np.eye(4)
    axis = rng.standard_normal(3)
    matrix[:3, :3] = Rotation.from_rotvec(np.radians(degrees) * axis / np.linalg.norm(axis)).as_matrix()
    matrix[:3, 3] = rng.uniform(-mm, mm, 3)
    return matrix
