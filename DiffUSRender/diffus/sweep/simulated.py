"""Hand-held tracked sweeps of a brain with known truth: for the sample case, tests, benchmarks and the demo.

Other physics than the renderer's on purpose: classes of tissue scatter, and no intensity of an MRI is ever seen, so
that a registration to that MRI is tested on images that it could not have made itself. In three parts: the anatomy
(a map of scattering), the trajectory (a hand that fans and shifts the probe), and the formation of the image
(speckle that is locked to the tissue, focus, attenuation left over by the time gain, shadows, haze and noise).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy import ndimage
from scipy.spatial.transform import Rotation

from ..probe.probe import ConvexProbe, pixel_centres
from .probe_sweep import in_fan
from .sweep import SweepReport, TrackedSweep

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jaxtyping import Bool, Float, UInt8
    from torch import Tensor

    Generator = np.random.Generator

WHITE_DB, GREY_DB, FLUID_DB, PIA_DB = 0.0, -4.0, -40.0, 10.0  # scattering, relative to white matter
GRAIN_MM, TEXTURE_VOXELS = 0.35, 96  # of the cube of scatterers, which repeats
NOISE_DB = -42.0  # electronic, relative to white matter
BLACK_DB, RANGE_DB = -45.0, 60.0  # of the display
THICKNESS_MM = 2.355 / 2**0.5  # slice thickness (FWHM) that three planes 1 mm apart, weighted 1:2:1, have
TRACKING_MM = 0.25  # RMS error of a tracked position


@dataclass(frozen=True)
class Anatomy:
    """What is scanned.

    Args:
        scattering_db: relative to white matter, (K, J, I).
        brain: where the probe may be put on, (K, J, I).
        ijk_to_ras: (4, 4), of both.
    """

    scattering_db: Float[np.ndarray, "k j i"]
    brain: Bool[np.ndarray, "k j i"]
    ijk_to_ras: Float[np.ndarray, "4 4"]


@dataclass(frozen=True)
class Scanner:
    """How an image is formed.

    Args:
        probe: shape of the fan, focus and slice thickness.
        gain_db_mm: attenuation that the time gain leaves, about the middle of the depth.
        shadows: (centre, width, loss) of each, in half angles of the fan and dB.
        haze_db: level of the haze at the face, relative to white matter; None is none.
        haze_mm: depth at which it has fallen to 1/e.
    """

    probe: ConvexProbe
    gain_db_mm: float = 0.0
    shadows: tuple[tuple[float, float, float], ...] = ()
    haze_db: float | None = None
    haze_mm: float = 3.0


@dataclass(frozen=True)
class PixelGrid:
    """`rows` x `columns` pixels of the frames; `pixel_to_probe` (4, 4) maps pixel centres to mm of the probe."""

    rows: int
    columns: int
    pixel_to_probe: Float[Tensor, "4 4"]


@dataclass(frozen=True)
class SimulatedCase:
    """A sweep and its truth.

    Args:
        sweep: the tracked frames.
        mri_to_reference: the truth, (4, 4).
        targets: points in the fans, mm of the MRI's RAS, (n, 3).
        pixel_to_probe: where the probe lies in the frames, (4, 4), if known.
    """

    sweep: TrackedSweep
    mri_to_reference: Float[np.ndarray, "4 4"]
    targets: Float[np.ndarray, "n 3"]
    pixel_to_probe: Float[np.ndarray, "4 4"] | None = None

    def error_mm(self, mri_to_reference) -> float:
        """Mean distance, mm, of the targets between a found mri_to_reference, (4, 4) of any type, and the true one."""
        difference = np.asarray(mri_to_reference, dtype=np.float64) - self.mri_to_reference
        return float(np.linalg.norm(self.targets @ difference[:3, :3].T + difference[:3, 3], axis=1).mean())


def simulate(
    grey: Float[np.ndarray, "k j i"],
    white: Float[np.ndarray, "k j i"],
    ijk_to_ras: Float[np.ndarray, "4 4"],
    *,
    seed: int,
    frames: int = 32,
    size: int = 288,
    mm_per_pixel: float = 0.3,
) -> SimulatedCase:
    """One sweep of a brain, with probe, entry, shadows and truth drawn from `seed`.

    Args:
        grey: membership of grey matter, 0 to 1, (K, J, I).
        white: membership of white matter.
        ijk_to_ras: (4, 4), of both.
        seed: the same one gives the same sweep.
        frames: how many.
        size: rows and columns of a frame.
        mm_per_pixel: of a frame.
    """
    rng = np.random.default_rng(seed)
    brain = ndimage.binary_opening((grey + white) > 0.5, iterations=2)
    anatomy = Anatomy(scattering_db(grey, white), brain, ijk_to_ras)
    radius_mm, depth_mm, fov_deg = rng.uniform(8, 20), rng.uniform(62, 78), rng.uniform(55, 75)
    gain, focus_mm = rng.uniform(-0.15, 0.15), rng.uniform(30, 50)
    probe = ConvexProbe(
        radius_mm=radius_mm,
        fov_deg=fov_deg,
        frequency_mhz=5.0,
        depth_mm=depth_mm,
        focus_mm=focus_mm,
        elevation_mm=THICKNESS_MM,
        rays=160,
        samples=300,
    )
    shadows = [(rng.uniform(-1, 1), rng.uniform(0.05, 0.12), rng.uniform(8, 25)) for _ in range(rng.integers(1, 3))]
    poses = random_poses(anatomy, frames, rng)
    texture = scatterers(rng)
    truth = _random_rigid(40.0, 40.0, rng)
    grid = square_grid(probe, size, mm_per_pixel)
    scans = list(scan(anatomy, Scanner(probe, gain, tuple(shadows)), poses, grid, texture, rng))
    return assemble(scans, poses, probe, grid, truth, fan_points(poses, probe, 12, rng))


def displaced(case: SimulatedCase, mm: float, degrees: float, seed: int) -> Float[np.ndarray, "4 4"]:
    """A first guess of mri_to_reference, (4, 4): the truth moved in random directions about the sweep.

    Args:
        case: whose truth it is.
        mm: length of the shift of the targets' centre.
        degrees: of the turn.
        seed: of the directions.
    """
    rng = np.random.default_rng(seed)
    centre = case.targets.mean(0)
    axis, shift = (v / np.linalg.norm(v) for v in rng.standard_normal((2, 3)))
    error = np.eye(4)
    error[:3, :3] = Rotation.from_rotvec(np.radians(degrees) * axis).as_matrix()
    error[:3, 3] = centre - error[:3, :3] @ centre + mm * shift
    return case.mri_to_reference @ error


# --- anatomy


def scattering_db(
    grey: Float[np.ndarray, "k j i"],
    white: Float[np.ndarray, "k j i"],
    inside: Bool[np.ndarray, "k j i"] | None = None,
) -> Float[np.ndarray, "k j i"]:
    """Scattering of grey and white matter and fluid, with bright pia where fluid and grey matter meet.

    Args:
        grey: membership of grey matter, 0 to 1.
        white: membership of white matter; the rest is fluid.
        inside: within the surface of the brain, sulci included; found from both if None.

    Returns:
        dB relative to white matter, (K, J, I).
    """
    if inside is None:
        inside = ndimage.binary_fill_holes(ndimage.binary_closing((grey + white) > 0.4, iterations=6))
    fluid = np.clip(1 - grey - white, 0, 1)
    pia = np.clip(4 * ndimage.gaussian_filter(fluid * inside, 0.7) * ndimage.gaussian_filter(grey, 0.7), 0, 1)
    plain = white * WHITE_DB + grey * GREY_DB + fluid * FLUID_DB
    return (plain * (1 - pia) + pia * PIA_DB).astype(np.float32)


def scatterers(rng: Generator) -> Float[np.ndarray, "2 n n n"]:
    """Real and imaginary part of a cube of scatterers that repeats in space: speckle is locked to the tissue."""
    return rng.standard_normal((2, *3 * (TEXTURE_VOXELS,))).astype(np.float32)


# --- trajectory


def random_poses(anatomy: Anatomy, frames: int, rng: Generator) -> Float[np.ndarray, "k 4 4"]:
    """probe_to_ras of a hand-held sweep from a random point on the upper surface of the brain inwards."""
    brain, ijk_to_ras = anatomy.brain, anatomy.ijk_to_ras
    surface = np.argwhere(brain & ~ndimage.binary_erosion(brain))[:, ::-1]
    points = surface @ ijk_to_ras[:3, :3].T + ijk_to_ras[:3, 3]
    centre = points.mean(0)
    upper = points[points[:, 2] > centre[2] + 15]
    entry = upper[rng.integers(len(upper))]
    depth = centre + rng.normal(0, 8, 3) - entry
    depth /= np.linalg.norm(depth)
    base = probe_at(entry - 2.0 * depth, depth, np.cross(depth, rng.standard_normal(3)))
    reach_mm, fan_deg = rng.uniform(8, 16), rng.uniform(8, 20)
    return hand_sweep(base, frames, fan_deg, reach_mm, rng)


def probe_at(
    face: Float[np.ndarray, "3"], depth: Float[np.ndarray, "3"], across: Float[np.ndarray, "3"]
) -> Float[np.ndarray, "4 4"]:
    """probe_to_ras with its face at a point, mm; `depth` is a unit vector, `across` lies at a right angle to it."""
    across = across / np.linalg.norm(across)
    pose = np.eye(4)
    pose[:3] = np.stack([across, depth, np.cross(across, depth), face], 1)
    return pose


def hand_sweep(
    base: Float[np.ndarray, "4 4"], frames: int, fan_deg: float, reach_mm: float, rng: Generator
) -> Float[np.ndarray, "k 4 4"]:
    """Poses of a hand that fans the probe by `fan_deg` and shifts it by `reach_mm` to either side, and trembles."""
    tremor = ndimage.gaussian_filter1d(rng.standard_normal((frames, 6)), 4, axis=0) * 3
    along = np.linspace(-1, 1, frames)
    steps = np.tile(np.eye(4), (frames, 1, 1))
    angles = np.stack([fan_deg * along + tremor[:, 0], tremor[:, 1], tremor[:, 2]], 1)
    steps[:, :3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    steps[:, :3, 3] = np.stack([0.4 * tremor[:, 3], 0.3 * tremor[:, 4], reach_mm * along + 0.3 * tremor[:, 5]], 1)
    return base @ steps


def fan_points(
    poses: Float[np.ndarray, "k 4 4"], probe: ConvexProbe, count: int, rng: Generator
) -> Float[np.ndarray, "n 3"]:
    """Random points in the fans of frames spread over the sweep, mm of the MRI's RAS, (count, 3)."""
    half = np.radians(probe.fov_deg) / 2
    angle, depth = rng.uniform(-0.8, 0.8, count) * half, rng.uniform(0.25, 0.9, count) * probe.depth_mm
    local = np.stack([*_in_plane(probe, angle, depth), 0 * angle, 1 + 0 * angle], -1)
    chosen = poses[np.linspace(0, len(poses) - 1, count).round().astype(int)]
    return np.einsum("nij,nj->ni", chosen, local)[:, :3]


def _random_rigid(degrees: float, mm: float, rng: Generator) -> Float[np.ndarray, "4 4"]:
    matrix = np.eye(4)
    axis = rng.standard_normal(3)
    matrix[:3, :3] = Rotation.from_rotvec(np.radians(degrees) * axis / np.linalg.norm(axis)).as_matrix()
    matrix[:3, 3] = rng.uniform(-mm, mm, 3)
    return matrix


# --- formation of the image


def square_grid(probe: ConvexProbe, size: int, mm_per_pixel: float) -> PixelGrid:
    """`size` x `size` pixels, the fan's axis in the middle and its uppermost point 1 mm below the upper edge."""
    matrix = np.diag([mm_per_pixel, mm_per_pixel, 1.0, 1.0])
    matrix[0, 3] = -(size - 1) / 2 * mm_per_pixel
    matrix[1, 3] = -probe.radius_mm * (1 - np.cos(np.radians(probe.fov_deg) / 2)) - 1.0
    return PixelGrid(size, size, torch.from_numpy(matrix))


def scan(
    anatomy: Anatomy,
    scanner: Scanner,
    poses: Float[np.ndarray, "k 4 4"],
    grid: PixelGrid,
    texture: Float[np.ndarray, "2 n n n"],
    rng: Generator,
) -> Iterator[tuple[UInt8[np.ndarray, "rows columns"], Float[np.ndarray, "3"]]]:
    """One frame after the other, with the error in mm, (3,), that the tracker makes in its position."""
    xy = pixel_centres(grid.rows, grid.columns, grid.pixel_to_probe)
    coordinates = scanner.probe.polar_coordinates(xy).numpy()
    mask = in_fan(scanner.probe, grid.pixel_to_probe, grid.rows, grid.columns).numpy()
    for pose in poses:
        polar = polar_frame(anatomy, scanner, pose, texture, rng)
        grey = (polar - BLACK_DB) / RANGE_DB
        image = ndimage.map_coordinates(grey, np.moveaxis(coordinates, -1, 0), order=1, mode="nearest")
        yield (np.clip(image * 255, 1, 255) * mask).astype(np.uint8), rng.normal(0, TRACKING_MM / np.sqrt(3), 3)


def polar_frame(
    anatomy: Anatomy,
    scanner: Scanner,
    pose: Float[np.ndarray, "4 4"],
    texture: Float[np.ndarray, "2 n n n"],
    rng: Generator,
) -> Float[np.ndarray, "rays samples"]:
    """Brightness along the rays, dB relative to white matter."""
    probe = scanner.probe
    half = np.radians(probe.fov_deg) / 2
    angle, depth = np.meshgrid(
        np.linspace(-half, half, probe.rays), np.linspace(0, probe.depth_mm, probe.samples), indexing="ij"
    )
    echo = _coherent_echo(anatomy, probe, pose, texture, angle, depth)
    middle = 0.5 * probe.depth_mm
    echo = ndimage.gaussian_filter1d(echo, 1.2, axis=1)
    beam = 2.0 * (0.6 + 0.02 * abs(probe.focus_mm - middle))  # standard deviation in rays
    envelope = np.abs(ndimage.gaussian_filter1d(echo, beam, axis=0))
    level = 20 * np.log10(envelope + 1e-4) + scanner.gain_db_mm * (depth - middle)
    level += 4 * np.exp(-(((depth - probe.focus_mm) / 15) ** 2))
    for centre, width, loss in scanner.shadows:
        level -= loss * np.exp(-(((angle / half - centre) / width) ** 2)) * np.clip(depth / 20, 0, 1)
    amplitude = 10 ** (level / 20)
    noise = rng.standard_normal(depth.shape) + 1j * rng.standard_normal(depth.shape)
    amplitude += 10 ** (NOISE_DB / 20) * np.abs(noise)
    if scanner.haze_db is not None:
        amplitude += 10 ** (scanner.haze_db / 20) * np.exp(-depth / scanner.haze_mm) * rng.rayleigh(size=depth.shape)
    return 20 * np.log10(amplitude)


def _coherent_echo(anatomy, probe, pose, texture, angle, depth) -> np.ndarray:
    """Complex echo (rays, samples) of the scatterers in three planes across the slice thickness."""
    ras_to_ijk = np.linalg.inv(anatomy.ijk_to_ras[:3, :3])
    plane = np.stack(_in_plane(probe, angle, depth), -1)
    spacing = probe.elevation_mm / THICKNESS_MM
    echo = 0
    for height, weight in ((-spacing, 0.25), (0.0, 0.5), (spacing, 0.25)):
        local = np.concatenate([plane, np.full((*plane.shape[:2], 1), height)], -1)
        points = local @ pose[:3, :3].T + pose[:3, 3]
        index = (points - anatomy.ijk_to_ras[:3, 3]) @ ras_to_ijk.T
        level = ndimage.map_coordinates(
            anatomy.scattering_db, np.moveaxis(index[..., ::-1], -1, 0), order=1, cval=FLUID_DB
        )
        grain = np.moveaxis(points / GRAIN_MM, -1, 0)
        real, imaginary = (ndimage.map_coordinates(part, grain, order=1, mode="grid-wrap") for part in texture)
        echo = echo + weight * 10 ** (level / 20) * (real + 1j * imaginary)
    return echo


def _in_plane(probe: ConvexProbe, angle: np.ndarray, depth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """x and y, mm, of points at an angle and a depth along the rays of a convex probe."""
    return (probe.radius_mm + depth) * np.sin(angle), (probe.radius_mm + depth) * np.cos(angle) - probe.radius_mm


def assemble(
    scans: list[tuple[UInt8[np.ndarray, "rows columns"], Float[np.ndarray, "3"]]],
    poses: Float[np.ndarray, "k 4 4"],
    probe: ConvexProbe,
    grid: PixelGrid,
    mri_to_reference: Float[np.ndarray, "4 4"],
    targets: Float[np.ndarray, "n 3"],
) -> SimulatedCase:
    """Frames, with the tracker's errors, and poses in the MRI's RAS become a tracked sweep in the reference frame."""
    errors = np.tile(np.eye(4), (len(poses), 1, 1))
    errors[:, :3, 3] = [error for _, error in scans]
    sweep = TrackedSweep.from_arrays(
        np.stack([frame for frame, _ in scans]),
        errors @ mri_to_reference @ poses @ grid.pixel_to_probe.numpy(),
        mask=in_fan(probe, grid.pixel_to_probe, grid.rows, grid.columns),
        report=SweepReport(len(scans), 0, "MFA"),
    )
    return SimulatedCase(sweep, mri_to_reference, targets, grid.pixel_to_probe.numpy())
