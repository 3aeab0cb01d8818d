"""The DiffUS paper's table 1 on the shared sweeps, and on a drawn case of ReMIND2Reg's size with its memory."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from Benchmarks.measure import SHARED, has_shared_data, report
from Benchmarks.register_cases import VOLUMES, names, read_truth
from diffus.io.transforms import write_transform
from support.remind2reg import write_case

SHOWN = ("colin27_101", "mni152_111")  # sweeps with a figure
SCORES = ("mse", "ssim", "ncc", "mae", "mse_shifted", "ssim_shifted", "ncc_shifted", "mae_shifted", "shift_px")
MAX_MB = 2000
MM = 0.5


def run(folder: Path) -> None:
    """Writes ablation_*.csv and figures into `folder`."""
    with tempfile.TemporaryDirectory() as scratch:
        if has_shared_data("ablation_benchmark"):
            benchmark_sweeps(folder, Path(scratch))
        remind2reg_case(folder, Path(scratch))


def command(*arguments: object) -> float:
    """Runs `python -m diffus study ablation` and returns its greatest resident memory in MB."""
    path = os.pathsep.join(sys.path)
    process = subprocess.Popen(
        [sys.executable, "-m", "diffus", "study", "ablation", *map(str, arguments)],
        stdout=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
    )
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"the command failed with status {os.waitstatus_to_exitcode(status)}")
    return usage.ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def read_table(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def benchmark_sweeps(folder: Path, scratch: Path) -> None:
    """Every shared sweep with its true pose: simulated by other physics than the renderer's, so not real."""
    tables, output, figure = {}, scratch / "table.csv", scratch / "figure.png"
    for name in names():
        write_transform(scratch / "truth.tfm", read_truth(name).mri_to_reference)
        files = ("--volume", SHARED / VOLUMES[name.split("_")[0]], "--initial", scratch / "truth.tfm")
        sweep = SHARED / "ius_benchmark" / f"{name}.igs.mha"
        pictures = ("--pictures", folder / f"ablation_pictures_{name}.png") if name in SHOWN else ()
        command(*files, "--sweep", sweep, "--frames", 8, "--output", output, "--figure", figure, *pictures)
        tables[name] = read_table(output)
        if name in SHOWN:
            shutil.copy(figure, folder / f"ablation_{name}.png")
    rows = [[name, *_cells(row)] for name, table in tables.items() for row in table]
    for number, row in enumerate(next(iter(tables.values()))):
        cells = [row["row"], sum(int(table[number]["frames"]) for table in tables.values())]
        for score in ("fan_percent_of_pixels", *SCORES):
            values = np.array([float(table[number][score]) for table in tables.values()])
            cells.append(f"{values.mean():.3f} ({values.std(ddof=1):.3f})")
        rows.append(["mean (sd) over sweeps", *cells])
    title = "Ablation, simulated benchmark sweeps at their true poses, mean (sd) over frames; one sweep: python -m "
    title += "diffus study ablation --volume HEAD --sweep SWEEP --initial TRUTH.tfm --frames 8 --output table.csv"
    report(folder, "ablation_benchmark", title, ["sweep", "row", "frames", "fan, % of pixels", *SCORES], rows)


def remind2reg_case(folder: Path, scratch: Path) -> None:
    """A drawn case of 256^3 voxels of 0.5 mm: its table, and the memory that it takes."""
    write_case(scratch, 1, size=256, mm=MM)
    output, figure = scratch / "table.csv", folder / "ablation_remind2reg.png"
    memory = command("--cases", scratch, "--frames", 12, "--output", output, "--figure", figure)
    title = f"Ablation of a drawn case in the form of ReMIND2Reg, 256^3 at {MM} mm, mean (sd) over frames; "
    title += f"greatest resident memory {memory:.0f} MB (target: under {MAX_MB}); python -m diffus study ablation "
    title += "--cases FOLDER --frames 12 --output table.csv --figure figure.png"
    header = ["row", "frames", "fan, % of pixels", *SCORES]
    report(folder, "ablation_remind2reg", title, header, [_cells(row) for row in read_table(output)])


def _cells(row: dict[str, str]) -> list[object]:
    scores = [f"{float(row[score]):.3f} ({float(row[score + '_sd']):.3f})" for score in SCORES]
    return [row["row"], row["frames"], row["fan_percent_of_pixels"], *scores]
