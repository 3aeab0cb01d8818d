"""Registration of real ultrasound: a wire phantom to its drawing, odd frames of a liver sweep to its even ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from Benchmarks.measure import console, report
from Benchmarks.register_cases import SHARED, read_volume, splatted
from diffus.io.landmarks import read_landmarks
from diffus.io.sweeps import read_image_to_probe
from diffus.register.extent import sweep_extent
from diffus.register.landmarks import match_landmarks, rigid_from_landmarks, target_errors
from diffus.register.registration import register
from diffus.sweep.simulated import SimulatedCase, displaced
from diffus.sweep.sweep import read_sweep

STARTS = 3


def run(folder: Path) -> None:
    """Writes register_real.csv and register_landmarks.csv into `folder`."""
    if not SHARED.is_dir():
        console.print(f"skipped: the shared test data is not present at {SHARED}")
        return
    rows = [*_runs("wire phantom", *wires(), 5, 5, "generic"), *_runs("liver, odd to even", *liver(), 10, 8, "us")]
    header = ["sweep", "start mm", "end mm", "verdict", "seconds"]
    report(folder, "register_real", "Real ultrasound: mean mm at wire ends, over the fan", header, rows)
    report(
        folder,
        "register_landmarks",
        "RESECT landmarks, MRI and ultrasound before resection",
        ["cases", "as recorded, mm", "after the best rigid transform, mm"],
        [resect()],
    )


def _runs(name: str, volume, ijk_to_ras, truth: SimulatedCase, mm: float, degrees: float, kind: str):
    for seed in range(STARTS):
        initial = displaced(truth, mm, degrees, seed)
        result = register(volume, ijk_to_ras, truth.sweep, initial=initial, kind=kind, seed=seed)
        end = truth.error_mm(result.mri_to_reference.numpy())
        console.print(f"{name}  start {truth.error_mm(initial):.2f}  end {end:.2f} mm")
        yield [name, f"{truth.error_mm(initial):.2f}", f"{end:.2f}", result.judgement.verdict, f"{result.seconds:.0f}"]


def wires():
    """(drawing of the wires, its matrix, real frames of them with the known PhantomToReference and the wires' ends)."""
    folder = SHARED / "us_tracked"
    calibration = read_image_to_probe(folder / "plus_fCal2_ImageToProbe.tfm")
    sweep = read_sweep(folder / "plus_fCal_Test_Calibration_3NWires_fCal2.0.igs.mha", calibration)
    ends = np.genfromtxt(folder / "plus_fCal2_wires_phantom_mm.csv", delimiter=",", skip_header=1)[:, 1:].reshape(-1, 3)
    phantom_to_reference = np.asarray(read_image_to_probe(folder / "plus_fCal2_PhantomToReference.tfm"))
    volume = read_volume("us_tracked/plus_fCal2_phantom_wires_SYNTHETIC.nrrd")
    return *volume, SimulatedCase(sweep, phantom_to_reference, ends)


def liver():
    """(even frames compounded, its matrix, the odd frames whose true pose in it is the identity)."""
    sweep = read_sweep(SHARED / "us_tracked" / "liver_us_sweep.igs.mha")
    even, odd = (sweep.subset(list(range(first, len(sweep), 2))) for first in (0, 1))
    targets = sweep_extent(odd)[2][::500].numpy()
    return *splatted(even), SimulatedCase(odd, np.eye(4), targets)


def resect() -> list[str]:
    """Cases, and the mean over them of the mean error before and after the closed-form rigid transform."""
    before, after = [], []
    for mri in sorted((SHARED / "landmarks").glob("resect_case*_mri.mrk.json")):
        us = read_landmarks(mri.with_name(mri.name.replace("_mri", "_us")))[0]
        a, b = match_landmarks(us, read_landmarks(mri)[0])
        before.append(float(target_errors(torch.eye(4, dtype=torch.float64), a, b).mean()))
        after.append(float(target_errors(rigid_from_landmarks(a, b), a, b).mean()))
    return [str(len(before)), f"{np.mean(before):.2f}", f"{np.mean(after):.2f}"]
