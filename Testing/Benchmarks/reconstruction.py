"""A volume from slices: held-out frames of a simulated and a real sweep, by physics and by compounding."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from Benchmarks.measure import SHARED, has_shared_data, report
from diffus.cli.study.reconstruct import draw_held_out, summary
from diffus.io.volumes import read_volume
from diffus.medium import AcousticMedium
from diffus.studies.reconstruction import METHODS, HeldOutExperiment
from diffus.sweep.sweep import read_sweep
from scipy import ndimage

BRAIN = "mni152_111"  # simulated by diffus/sweep/simulated.py, not by this renderer
HEADER = ["sweep", "held out", "start from", "voxel mm"]
HEADER += [f"{kind} {name}" for kind in ("NCC", "NCC smoothed") for name in METHODS]


def run(folder: Path) -> None:
    """Writes reconstruction.csv and two figures into `folder`; needs the shared test data."""
    if not has_shared_data("reconstruction"):
        return
    brain = read_sweep(SHARED / "ius_benchmark" / f"{BRAIN}.igs.mha")
    liver = read_sweep(SHARED / "us_tracked" / "liver_us_sweep.igs.mha")
    liver = liver.subset(range(0, len(liver), 2))
    medium, to_ras = brain_medium()
    rows = []
    for name, sweep, every, block, start, figure in (
        ("brain, simulated", brain, 5, 1, None, None),
        ("brain, simulated", brain, 5, 1, medium, "reconstruction_brain.png"),
        ("brain, simulated", brain, 10, 5, None, None),
        ("brain, simulated", brain, 10, 5, medium, None),
        ("liver, real", liver, 5, 1, None, "reconstruction_liver.png"),
    ):
        experiment = HeldOutExperiment(
            sweep, start, None if start is None else to_ras, every=every, block=block, frequency_mhz=3.5
        )
        for _ in experiment:
            pass
        scores = experiment.scores()
        rows.append([name, f"{block} of {every}", "uniform" if start is None else "MRI", experiment.grid.spacing_mm])
        rows[-1] += _means(experiment, scores)
        if figure:
            draw_held_out(folder / figure, sweep, experiment, scores)
    report(folder, "reconstruction", "NCC of held-out frames, mean (sd); make bench, reconstruction", HEADER, rows)


def brain_medium() -> tuple[AcousticMedium, torch.Tensor]:
    """The T1 within the brain as a medium, and reference_to_ras of the sweep's truth."""
    t1 = read_volume(SHARED / "mri" / "mni152_2009a_t1_1mm.nii.gz")
    grey, white = (read_volume(SHARED / "mri" / f"mni152_2009a_{k}_1mm.nii.gz").array / 255 for k in ("gm", "wm"))
    mask = ndimage.binary_fill_holes(ndimage.binary_closing((grey + white) > 0.4, iterations=6))
    truth = json.loads((SHARED / "ius_benchmark" / f"{BRAIN}.truth.json").read_text())
    medium = AcousticMedium.from_mri(t1.array, t1.ijk_to_ras, mask)
    return medium, torch.from_numpy(np.linalg.inv(np.array(truth["mri_to_reference"])))


def _means(experiment: HeldOutExperiment, scores) -> list[str]:
    values = summary(experiment, scores)["mean_and_sd"]
    return ["{:.3f} ({:.3f})".format(*values[name][key]) for key in ("ncc", "ncc_smoothed") for name in METHODS]
