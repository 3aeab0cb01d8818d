"""What each method makes of the same sweeps and starts, and whether one seed gives one answer every time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from Benchmarks.measure import console, report
from Benchmarks.register_cases import SHARED, good_cases
from diffus.register.methods import METHODS
from diffus.register.registration import register

SWEEPS = 3  # of each head the first, so that all methods fit into a quarter of an hour
RUNS = 20  # of one registration


def run(folder: Path) -> None:
    """Writes register_methods.csv and register_repeats.csv into `folder`."""
    if not SHARED.is_dir():
        console.print(f"skipped: the shared test data is not present at {SHARED}")
        return
    cases = list(good_cases(1))[:: 9 // SWEEPS]
    rows = [_row(method, cases) for method in METHODS]
    header = ["method", *(case.name for case in cases), "median mm", "seconds"]
    report(folder, "register_methods", "Methods on the same sweeps and starts, mean mm at the targets", header, rows)
    report(folder, "register_repeats", "Runs with one seed", ["runs", "different transforms"], [_repeats(cases[0])])


def _row(method: str, cases: list) -> list[str]:
    errors, seconds = [], []
    for case in cases:
        result = register(case.volume, case.ijk_to_ras, case.truth.sweep, initial=case.initial, method=method)
        errors.append(case.error_mm(result.mri_to_reference.numpy()))
        seconds.append(result.seconds)
        console.print(f"{method}  {case.name}  {errors[-1]:.2f} mm  {seconds[-1]:.0f} s")
    return [method, *(f"{error:.2f}" for error in errors), f"{np.median(errors):.2f}", f"{np.mean(seconds):.0f}"]


def _repeats(case) -> list[int]:
    options = {"initial": case.initial, "seed": 7}
    found = {
        register(case.volume, case.ijk_to_ras, case.truth.sweep, **options).mri_to_reference.numpy().tobytes()
        for _ in range(RUNS)
    }
    return [RUNS, len(found)]
