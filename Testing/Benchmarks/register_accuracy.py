"""Accuracy, time and honesty of the registration on the shared benchmark: a table, a CSV, predicted against true error.

python Testing/Benchmarks/register_accuracy.py [--starts 3] [--no-spoilt] [--output FOLDER]
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import time
from pathlib import Path

import numpy as np
from register_cases import SHARED, good_cases, spoilt_cases

COLUMNS = ("kind", "name", "error_mm", "verdict", "expected_mm", "worst_mm", "seconds", "cpu_seconds", "similarity")


def run(case, evidence: list) -> dict:
    from diffus_register.registration import register

    cpu = time.process_time()
    result = register(case.volume, case.ijk_to_ras, case.truth.sweep, initial=case.initial, seed=0)
    row = {
        "kind": case.kind,
        "name": case.name,
        "error_mm": case.error_mm(result.mri_to_reference.numpy()),
        "verdict": result.verdict.verdict,
        "expected_mm": result.verdict.expected_error_mm,
        "worst_mm": result.verdict.expected_error_worst_mm,
        "seconds": result.seconds,
        "cpu_seconds": time.process_time() - cpu,
        "similarity": result.similarity,
    }
    found = {} if result.evidence is None else result.evidence.as_dict()
    evidence.append({**row, **found, "reasons": list(result.verdict.reasons)})
    print("  ".join(f"{v:.2f}" if isinstance(v, float) else str(v) for v in row.values()), flush=True)
    return row


def summary(rows: list[dict]) -> None:
    good = [r for r in rows if r["kind"] == "good"]
    spoilt = [r for r in rows if r["kind"] != "good"]
    if good:
        error = np.array([r["error_mm"] for r in good])
        print(f"\n{len(good)} good runs: {np.mean(error < 2):.0%} under 2 mm, median {np.median(error):.2f} mm")
        seconds = [r["seconds"] for r in good]
        cpu = np.mean([r["cpu_seconds"] for r in good])
        print(f"seconds: mean {np.mean(seconds):.1f}, worst {max(seconds):.1f}; CPU seconds: mean {cpu:.1f}")
        print(f"on {platform.machine()}, {os.cpu_count()} cores")
        fine = [r for r in good if r["error_mm"] < 1]
        print(f"trusted among the {len(fine)} under 1 mm: {np.mean([r['verdict'] == 'trusted' for r in fine]):.0%}")
    trusted = [r for r in rows if r["verdict"] == "trusted"]
    below = not trusted or np.mean([r["error_mm"] <= r["worst_mm"] for r in trusted])
    print(f"trusted but worse than 3 mm: {sum(r['error_mm'] > 3 for r in trusted)} of {len(trusted)} trusted")
    print(f"true error below the expected worst in {below:.0%} of the trusted runs")
    for kind in sorted({r["kind"] for r in spoilt}):
        part = [r for r in spoilt if r["kind"] == kind]
        counts = {v: sum(r["verdict"] == v for r in part) for v in ("trusted", "check", "rejected")}
        errors = [r["error_mm"] for r in part]
        print(f"{kind:>12}: {counts}, errors {min(errors):.1f}..{max(errors):.1f} mm")


def plot(rows: list[dict], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 6))
    for verdict, colour in (("trusted", "tab:green"), ("check", "tab:orange"), ("rejected", "tab:red")):
        part = [r for r in rows if r["verdict"] == verdict]
        for marker, good in (("o", True), ("x", False)):
            some = [r for r in part if (r["kind"] == "good") == good]
            label = f"{verdict}, {'good' if good else 'spoilt'}"
            axes.scatter(
                [r["worst_mm"] for r in some], [r["error_mm"] for r in some], c=colour, marker=marker, label=label
            )
    axes.plot([0.05, 60], [0.05, 60], "k:", lw=1)
    axes.set(xscale="log", yscale="log", xlabel="expected worst error, mm", ylabel="true mean error, mm")
    axes.legend()
    figure.savefig(path, dpi=120, bbox_inches="tight")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--starts", type=int, default=3)
    parser.add_argument("--no-spoilt", action="store_true")
    parser.add_argument("--output", type=Path, default=Path("build/bench"))
    options = parser.parse_args()
    if not SHARED.is_dir():
        print(f"skipped: the shared test data is not present at {SHARED}")
        return
    import json

    rows, evidence = [], []
    for case in good_cases(options.starts):
        rows.append(run(case, evidence))
    for case in () if options.no_spoilt else spoilt_cases():
        rows.append(run(case, evidence))
    options.output.mkdir(parents=True, exist_ok=True)
    with (options.output / "register_accuracy.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    (options.output / "register_evidence.json").write_text(json.dumps(evidence, indent=1))
    plot(rows, options.output / "register_predicted_error.png")
    summary(rows)


if __name__ == "__main__":
    main()
