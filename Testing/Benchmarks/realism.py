"""Simulated frames of an abdomen CT beside a real liver sweep of another person: the command `realism`, as it is."""

from __future__ import annotations

import csv
from pathlib import Path

from Benchmarks.measure import SHARED, has_shared_data, report
from click.testing import CliRunner
from diffus.cli.main import main


def run(folder: Path) -> None:
    """Writes realism.csv, realism.png and realism_matched.json into `folder`; needs the shared test data."""
    if not has_shared_data("realism"):
        return
    table = folder / "realism.csv"
    arguments = ["study", "realism", "--real", SHARED / "us_tracked" / "liver_us_sweep.igs.mha", "--kind", "ct"]
    arguments += ["--volume", SHARED / "ct" / "abdomen_pelvis_ct_3mm.nii.gz"]
    arguments += ["--labels", SHARED / "ct" / "abdomen_pelvis_ct_3mm_totalseg_labels.nii.gz", "--output", table]
    arguments += ["--figure", folder / "realism.png", "--matched", folder / "realism_matched.json"]
    done = CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)
    if done.exit_code:
        raise RuntimeError(done.output)
    with open(table, newline="") as file:
        header, *rows = csv.reader(file)
    title = "Real liver sweep and simulated frames of another patient's CT; python -m diffus study realism"
    report(folder, "realism", title, header, rows)
