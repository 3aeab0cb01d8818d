"""Cases for the registration benchmarks: the shared sweeps with their truth, seeded starts, and spoilt versions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch
from diffus_render.sweep import read_sweep
from scipy import ndimage
from simulated_sweep import SimulatedCase, displaced, smooth_deformation

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


def spoilt_cases() -> Iterator[Case]:
    """Nine each of: another head, a mirrored fan, a scale 5 % off, a smooth deformation, nothing to find."""
    liver = read_sweep(SHARED / "us_tracked" / "liver_us_sweep.igs.mha").subset(range(0, 140, 5))
    for number, name in enumerate(names()):
        truth, head = read_truth(name), name.split("_")[0]
        volume = read_volume(VOLUMES[head])
        other = read_volume(VOLUMES["mni152" if head == "colin27" else "colin27"])
        start = [random_start(truth, 5000 + 10 * number + n) for n in range(5)]
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


def _at(field: np.ndarray, points: np.ndarray, ijk_to_ras: np.ndarray) -> np.ndarray:
    index = (points - ijk_to_ras[:3, 3]) @ np.linalg.inv(ijk_to_ras[:3, :3]).T
    return np.stack([ndimage.map_coordinates(f, index.T[::-1], order=1, mode="nearest") for f in field], 1)


def _deformed(name, truth, volume, initial, number) -> Case:
    """The volume bent by 5 to 10 mm at the target that moves most; errors are taken at the moved targets."""
    options = {"seed": number, "sigma_mm": (15.0, 20.0, 30.0)[number % 3]}
    _, field = smooth_deformation(*volume, peak_mm=1.0, **options)
    largest = np.linalg.norm(_at(field, truth.targets, volume[1]), axis=1).max()
    bent, field = smooth_deformation(*volume, peak_mm=float((5 + 5 * number / 8) / largest), **options)
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
    shift[number // 3, 3] = 100.0
    return Case(name, "outside", truth, *volume, initial @ shift, truth.targets)
