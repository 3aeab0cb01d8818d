"""Cases for the registration benchmarks: the shared sweeps with their truth, seeded starts, and spoilt versions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch
from diffus.sweep.simulated import SimulatedCase, displaced, simulate
from diffus.sweep.sweep import TrackedSweep, read_sweep
from scipy import ndimage
from scipy.cluster.vq import kmeans2
from support.heads import mni152, smooth_deformation

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
VOLUMES = {"colin27": "mri/colin27_ch2_t1_1mm.nii.gz", "mni152": "mri/mni152_2009a_t1_1mm.nii.gz"}


@dataclass(frozen=True)
class Case:
    """One run: what is registered to what from where, and how wrong an answer is (mean mm at the targets)."""

    name: str
    kind: str
    truth: SimulatedCase
    volume: np.ndarray
    ijk_to_ras: np.ndarray
    initial: np.ndarray
    targets_in_volume: np.ndarray

    def error_mm(self, mri_to_reference) -> float:
        found = self.targets_in_volume @ mri_to_reference[:3, :3].T + mri_to_reference[:3, 3]
        true = self.truth.mri_to_reference
        return float(np.linalg.norm(found - self.truth.targets @ true[:3, :3].T - true[:3, 3], axis=1).mean())


def read_volume(name: str) -> tuple[np.ndarray, np.ndarray]:
    """(K, J, I) float32 and ijk_to_ras of a file below the shared folder."""
    image = sitk.ReadImage(str(SHARED / name))
    lps = np.eye(4)
    lps[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    lps[:3, 3] = image.GetOrigin()
    return sitk.GetArrayFromImage(image).astype(np.float32), np.diag([-1.0, -1.0, 1.0, 1.0]) @ lps


def read_truth(name: str) -> SimulatedCase:
    truth = json.loads((SHARED / "ius_benchmark" / f"{name}.truth.json").read_text())
    sweep = read_sweep(SHARED / "ius_benchmark" / f"{name}.igs.mha")
    return SimulatedCase(sweep, np.array(truth["mri_to_reference"]), np.array(truth["targets_mri_ras"]))


def names() -> list[str]:
    return sorted(path.name.split(".")[0] for path in (SHARED / "ius_benchmark").glob("*.igs.mha"))


def random_start(case: SimulatedCase, seed: int) -> np.ndarray:
    """Up to 20 mm and 15 degrees off, uniform in both balls."""
    rng = np.random.default_rng(seed)
    return displaced(case, 20 * rng.random() ** (1 / 3), 15 * rng.random() ** (1 / 3), seed)


def good_cases(starts: int) -> Iterator[Case]:
    for number, name in enumerate(names()):
        truth, volume = read_truth(name), read_volume(VOLUMES[name.split("_")[0]])
        for start in range(starts):
            initial = random_start(truth, 1000 * number + start)
            yield Case(f"{name}/{start}", "good", truth, *volume, initial, truth.targets)


def unseen_cases(count: int) -> Iterator[Case]:
    """`count` newly simulated sweeps of each of two heads; one start each.

    Nothing of the search was chosen on them; MNI152's seeds 9113, 9114 and 9117 were among those that the bounds on
    bending and scale were set on.
    """
    for head, first in (("mni152", 9112), ("colin27", 9212)):
        grey, white, ijk_to_ras = memberships(head)
        volume = read_volume(VOLUMES[head])
        for seed in range(first, first + count):
            truth = simulate(grey, white, ijk_to_ras, seed=seed)
            yield Case(f"{head}_{seed}", "unseen", truth, *volume, random_start(truth, seed), truth.targets)


def memberships(head: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(grey, white) in 0..1 and ijk_to_ras: MNI152's own maps, or Colin27's T1 between its three k-means centres."""
    _, grey, white, ijk_to_ras = mni152()
    if head == "mni152":
        return grey, white, ijk_to_ras
    t1, t1_to_ras = read_volume(VOLUMES[head])
    inside = ndimage.binary_dilation(grey + white > 0.3, iterations=3).astype(np.float32)
    to_mni = np.linalg.inv(ijk_to_ras) @ t1_to_ras
    matrix = to_mni[:3, :3][::-1, ::-1]  # both heads lie in MNI space: its brain mask, 3 mm wider, holds Colin's brain
    mask = ndimage.affine_transform(inside, matrix, to_mni[:3, 3][::-1], output_shape=t1.shape, order=1) > 0.5
    smooth = ndimage.gaussian_filter(t1, 0.4)
    start = np.quantile(smooth[mask], [[0.1], [0.45], [0.8]])
    fluid, middle, bright = np.sort(kmeans2(smooth[mask][:, None], start, minit="matrix")[0][:, 0])
    brain, count = ndimage.label(ndimage.binary_opening(mask & (smooth > 0.5 * (fluid + middle)), iterations=2))
    largest = 1 + np.argmax(ndimage.sum(brain > 0, brain, range(1, count + 1)))
    brain = ndimage.binary_dilation(brain == largest, iterations=2) & mask
    white = np.clip((smooth - middle) / (bright - middle), 0, 1)
    fluid = np.clip((middle - smooth) / (middle - fluid), 0, 1)
    return ((1 - white - fluid) * brain).astype(np.float32), (white * brain).astype(np.float32), t1_to_ras


def spoilt_cases() -> Iterator[Case]:
    """Every way of spoiling each of the shared sweeps."""
    liver = read_liver()
    for number, name in enumerate(names()):
        head = name.split("_")[0]
        other = "mni152" if head == "colin27" else "colin27"
        yield from spoilt(
            name, read_truth(name), read_volume(VOLUMES[head]), read_volume(VOLUMES[other]), number, liver
        )


def read_liver() -> TrackedSweep:
    """A real sweep of another organ."""
    return read_sweep(SHARED / "us_tracked" / "liver_us_sweep.igs.mha").subset(range(0, 140, 5))


def spoilt(name: str, truth: SimulatedCase, volume, other, number: int, liver: TrackedSweep) -> Iterator[Case]:
    """Another head, a mirrored fan, a scale 5 % off, a smooth deformation, nothing to find, a tracker that slipped."""
    start = [random_start(truth, 5000 + 10 * number + n) for n in range(6)]
    yield Case(name, "other head", truth, *other, start[0], truth.targets)
    sweep = truth.sweep
    flipped = replace(sweep, frames=sweep.frames.flip(2), mask=sweep.mask.flip(2))
    yield Case(name, "mirrored", replace(truth, sweep=flipped), *volume, start[1], truth.targets)
    scaled = sweep.image_to_reference.clone()
    scaled[:, :3, :2] *= 1.05 if number % 2 else 0.95
    scaled = replace(sweep, image_to_reference=scaled)
    yield Case(name, "scale", replace(truth, sweep=scaled), *volume, start[2], truth.targets)
    yield _deformed(name, truth, volume, start[3], number)
    yield _nothing(name, truth, volume, start[4], number, liver)
    yield _slipped(name, truth, volume, start[5], number)


def splatted(sweep: TrackedSweep, spacing: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """The frames' pixels averaged in voxels of the reference frame, small gaps filled by a Gaussian; 0..100."""
    points, values = [], []
    for number, pose in enumerate(sweep.image_to_reference):
        pixels = torch.nonzero(sweep.mask[0])[::3]
        flat = torch.nn.functional.pad(pixels.flip(1).double(), (0, 1))
        points.append(flat @ pose[:3, :3].T + pose[:3, 3])
        values.append(sweep.frames[number][pixels[:, 0], pixels[:, 1]])
    place, value = torch.cat(points).numpy(), torch.cat(values).numpy()
    low = place.min(0) - 2
    size = np.ceil((place.max(0) + 2 - low) / spacing).astype(int)
    i, j, k = np.rint((place - low) / spacing).astype(int).T
    flat = (k * size[1] + j) * size[0] + i
    total = np.bincount(flat, value, size.prod()).reshape(size[::-1])
    count = np.bincount(flat, minlength=size.prod()).reshape(size[::-1]).astype(float)
    total, count = (ndimage.gaussian_filter(part, 1.0) for part in (total, count))
    matrix = np.diag([spacing, spacing, spacing, 1.0])
    matrix[:3, 3] = low
    return np.where(count > 1e-2, 100 * total / np.maximum(count, 1e-2), 0).astype(np.float32), matrix


def _slipped(name, truth, volume, initial, number) -> Case:
    """The second half of the frames is moved by 3 to 6 mm; errors are taken at where that half's targets now lie."""
    matrices = truth.sweep.image_to_reference.clone()
    slip = np.random.default_rng(number).standard_normal(3)
    slip *= (3 + 3 * (number % 9) / 8) / np.linalg.norm(slip)
    matrices[len(matrices) // 2 :, :3, 3] += torch.from_numpy(slip)
    targets = truth.targets.copy()
    later = len(targets) // 2
    targets[later:] += slip @ truth.mri_to_reference[:3, :3]
    slipped = replace(truth, sweep=replace(truth.sweep, image_to_reference=matrices), targets=targets)
    return Case(name, "slipped", slipped, *volume, initial, truth.targets)


def _at(field: np.ndarray, points: np.ndarray, ijk_to_ras: np.ndarray) -> np.ndarray:
    index = (points - ijk_to_ras[:3, 3]) @ np.linalg.inv(ijk_to_ras[:3, :3]).T
    return np.stack([ndimage.map_coordinates(f, index.T[::-1], order=1, mode="nearest") for f in field], 1)


def _deformed(name, truth, volume, initial, number) -> Case:
    """The volume bent by 5 to 10 mm at the target that moves most; errors are taken at the moved targets."""
    options = {"seed": number, "sigma_mm": (15.0, 20.0, 30.0)[number % 3]}
    _, field = smooth_deformation(*volume, peak_mm=1.0, **options)
    largest = np.linalg.norm(_at(field, truth.targets, volume[1]), axis=1).max()
    bent, field = smooth_deformation(*volume, peak_mm=float((5 + 5 * (number % 9) / 8) / largest), **options)
    moved = truth.targets.copy()
    for _ in range(10):
        moved = truth.targets - _at(field, moved, volume[1])
    return Case(name, "deformed", truth, bent, volume[1], initial, moved)


def _nothing(name, truth, volume, initial, number, liver) -> Case:
    if number % 3 == 0:
        noise = np.random.default_rng(number).standard_normal(truth.sweep.frames.shape)
        noise = ndimage.gaussian_filter(noise, (0, 1.5, 2.5))
        frames = torch.from_numpy((0.4 + 0.12 * noise / noise.std()).clip(0, 1).astype(np.float32))
        truth = replace(truth, sweep=replace(truth.sweep, frames=frames))
        return Case(name, "noise", truth, *volume, initial, truth.targets)
    if number % 3 == 1:
        middle = liver.image_to_reference[:, :3] @ torch.tensor([370.0, 300, 0, 1], dtype=torch.float64)
        moved = initial.copy()
        moved[:3, 3] += middle.mean(0).numpy() - (truth.targets.mean(0) @ initial[:3, :3].T + initial[:3, 3])
        return Case(name, "liver", replace(truth, sweep=liver), *volume, moved, truth.targets)
    shift = np.eye(4)
    shift[number // 3 % 3, 3] = 100.0
    return Case(name, "outside", truth, *volume, initial @ shift, truth.targets)
