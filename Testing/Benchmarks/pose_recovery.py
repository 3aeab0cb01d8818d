"""Capture range of `PoseRecovery`: a single frame's pose by gradient, from starts further and further away.

Truth: MNI152 brain, one oblique frame. The frame to be recovered is rendered with another speckle seed each time, and
with other noise, gain, time gain, dynamic range, frequency and focus than what the recovery starts from; the anatomy
and the physics are the same. It proves that the gradient leads to the pose without the speckle's help and through an
unknown display; it does not prove that a patient's MRI predicts a patient's ultrasound.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from Benchmarks.measure import report, versions
from diffus.cli.study.figures import pyplot
from diffus.medium import AcousticMedium
from diffus.render.renderer import UltrasoundRenderer
from diffus.studies.pose import PoseRecovery, displaced_pose, pose_error
from support.fitting_cases import fan_mask
from support.heads import mni152
from support.phantoms import pose_from, probe_of

COMMAND = "python Testing/Benchmarks/benchmark.py FOLDER pose_recovery"
OFFSETS = (2, 5, 10, 15, 20)  # mm and degrees at once
TRIALS = 6
WITHIN = 0.3  # mm and degrees
DISPLAY = {"tgc_db_per_cm": 5.0, "gain_db": -5.0, "dynamic_range_db": 70.0, "noise_db": -50.0}
PROBE = probe_of("convex", rays=160, samples=400, depth_mm=80.0, fov_deg=75.0, focus_mm=40.0, mm_per_pixel=0.25)
TRUE = pose_from((-90.0, 0.0, 0.0), (5.0, 20.0, 70.0)) @ pose_from((4.0, 6.0, 3.0), (0.5, 0.3, 0.2))


def run(folder: Path) -> None:
    """Writes pose_recovery.csv and pose_recovery.png into `folder`."""
    t1, grey, white, ijk_to_ras = mni152()
    medium = AcousticMedium.from_mri(t1, ijk_to_ras, (grey + white) > 0.1)
    trials = {offset: [_trial(medium, offset, seed) for seed in range(TRIALS)] for offset in OFFSETS}
    rows = []
    for offset, ends in trials.items():
        errors = np.array(ends)
        inside = (errors < WITHIN).all(1)
        near = np.median(errors[inside], 0) if inside.any() else (np.nan, np.nan)
        middle = np.median(errors, 0)
        rows.append([offset, f"{inside.mean():.0%}", *(f"{v:.3f}" for v in (*near, *middle))])
    report(
        folder,
        "pose_recovery",
        f"Pose of one frame by gradient, {TRIALS} starts an offset, success: {WITHIN} mm and {WITHIN} deg; {COMMAND}",
        [
            "offset, mm and deg",
            "success",
            "median error of successes, mm",
            "deg",
            "median error of all, mm",
            "deg",
        ],
        rows,
    )
    _draw(trials, folder / "pose_recovery.png")


def _trial(medium: AcousticMedium, offset: float, seed: int) -> tuple[float, float]:
    scanner = UltrasoundRenderer(replace(PROBE, frequency_mhz=5.5, focus_mm=50.0), seed=100 + seed, **DISPLAY)
    with torch.inference_mode():
        frame = scanner(medium, TRUE)[0].mul(255).round().div(255)
    start = displaced_pose(TRUE, PROBE, offset, offset, seed)
    *_, last = PoseRecovery(medium, frame.clone(), PROBE, start, mask=fan_mask(PROBE))
    return pose_error(last.probe_to_ras, TRUE)


def _draw(trials: dict[int, list[tuple[float, float]]], path: Path) -> None:
    plt = pyplot()

    figure, (rate, error) = plt.subplots(1, 2, figsize=(9, 3.6), constrained_layout=True)
    offsets = list(trials)
    rate.plot(offsets, [100 * (np.array(ends) < WITHIN).all(1).mean() for ends in trials.values()], "o-")
    rate.set(xlabel="start offset, mm and degrees", ylabel="success, %", ylim=(-4, 104), title="Capture range")
    spread = np.linspace(-0.6, 0.6, TRIALS)
    for column, (unit, marker) in enumerate((("mm", "o"), ("degrees", "^"))):
        x = np.concatenate([offset + spread for offset in offsets])
        y = np.concatenate([np.array(ends)[:, column] for ends in trials.values()])
        error.semilogy(x, y.clip(min=1e-3), marker, ms=4, label=unit, alpha=0.8)
    error.axhline(WITHIN, color="0.4", lw=0.8, ls="--", label=f"{WITHIN} (success)")
    error.set(xlabel="start offset, mm and degrees", ylabel="error at the end", title="Every trial")
    error.legend(fontsize=8)
    figure.supxlabel(f"{COMMAND}; {versions()}", fontsize=5, color="0.4")
    figure.savefig(path, dpi=110)
    plt.close(figure)
