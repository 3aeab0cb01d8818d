"""Accuracy, time and honesty of the registration on the shared benchmark; predicted against true error."""

from __future__ import annotations

import json
import time
from itertools import chain
from pathlib import Path

import numpy as np
from Benchmarks.measure import console, report
from Benchmarks.register_cases import SHARED, good_cases, spoilt_cases, unseen_cases
from diffus.register.registration import register

STARTS = 3  # of each shared sweep
UNSEEN = 10  # newly simulated sweeps of each head
RIGHT = ("good", "unseen")
COLUMNS = ("kind", "name", "error_mm", "verdict", "expected_mm", "worst_mm", "seconds", "cpu_seconds", "similarity")


def measure(case, evidence: list) -> dict:
    cpu = time.process_time()
    result = register(case.volume, case.ijk_to_ras, case.truth.sweep, initial=case.initial, seed=0)
    row = {
        "kind": case.kind,
        "name": case.name,
        "error_mm": case.error_mm(result.mri_to_reference.numpy()),
        "verdict": result.judgement.verdict,
        "expected_mm": result.judgement.expected_error_mm,
        "worst_mm": result.judgement.expected_error_worst_mm,
        "seconds": result.seconds,
        "cpu_seconds": time.process_time() - cpu,
        "similarity": result.similarity,
    }
    found = {} if result.evidence is None else result.evidence.as_dict()
    evidence.append({**row, **found, "reasons": list(result.judgement.reasons)})
    console.print("  ".join(_shown(value) for value in row.values()))
    return row


def _shown(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def summary(rows: list[dict]) -> list[list[str]]:
    """What the runs come to, beside what is asked of them."""
    table = []
    for kind in RIGHT:
        table += _right_runs(kind, [r for r in rows if r["kind"] == kind])
    trusted = [r for r in rows if r["verdict"] == "trusted"]
    wrong = sum(r["error_mm"] > 3 for r in trusted)
    covered = np.mean([r["error_mm"] <= r["worst_mm"] for r in trusted]) if trusted else 1.0
    table += [
        [f"trusted but worse than 3 mm, of {len(trusted)} trusted", str(wrong), "0"],
        ["trusted runs with the true error below the expected worst", f"{covered:.0%}", "at least 90 %"],
    ]
    for kind in sorted({r["kind"] for r in rows} - set(RIGHT)):
        part = [r for r in rows if r["kind"] == kind]
        verdicts = ", ".join(f"{sum(r['verdict'] == v for r in part)} {v}" for v in ("trusted", "check", "rejected"))
        errors = [r["error_mm"] for r in part]
        table.append([f"spoilt: {kind} ({min(errors):.1f} to {max(errors):.1f} mm)", verdicts, "0 trusted over 3 mm"])
    return table


def _right_runs(kind: str, runs: list[dict]) -> list[list[str]]:
    error = np.array([r["error_mm"] for r in runs])
    fine = [r["verdict"] == "trusted" for r in runs if r["error_mm"] < 1]
    seconds = [r["seconds"] for r in runs]
    return [
        [f"{len(runs)} {kind} runs, error under 2 mm", f"{np.mean(error < 2):.0%}", "at least 90 %"],
        ["  median error, mm", f"{np.median(error):.2f}", "under 0.4"],
        ["  worst error, mm", f"{error.max():.2f}", ""],
        ["  seconds: mean, worst", f"{np.mean(seconds):.1f}, {max(seconds):.1f}", "60"],
        ["  CPU seconds, mean", f"{np.mean([r['cpu_seconds'] for r in runs]):.1f}", ""],
        [f"  trusted, of the {len(fine)} under 1 mm", f"{np.mean(fine):.0%}", "at least 80 %"],
    ]


def plot(rows: list[dict], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 6))
    for verdict, colour in (("trusted", "tab:green"), ("check", "tab:orange")):
        part = [r for r in rows if r["verdict"] == verdict]
        for marker, good in (("o", True), ("x", False)):
            some = [r for r in part if (r["kind"] in RIGHT) == good]
            label = f"{verdict}, {'good' if good else 'spoilt'}"
            axes.scatter(
                [r["worst_mm"] for r in some], [r["error_mm"] for r in some], c=colour, marker=marker, label=label
            )
    axes.plot([0.05, 60], [0.05, 60], "k:", lw=1)
    rejected = sum(r["verdict"] == "rejected" for r in rows)
    axes.set(title=f"{len(rows)} runs; {rejected} rejected ones have no expected error")
    axes.set(xscale="log", yscale="log", xlabel="expected worst error, mm", ylabel="true mean error, mm")
    axes.legend()
    figure.savefig(path, dpi=120, bbox_inches="tight")


def run(folder: Path) -> None:
    """Writes register_accuracy.csv, register_runs.csv, register_evidence.json and the plot into `folder`."""
    if not SHARED.is_dir():
        console.print(f"skipped: the shared test data is not present at {SHARED}")
        return
    rows: list[dict] = []
    evidence: list[dict] = []
    for case in chain(good_cases(STARTS), unseen_cases(UNSEEN), spoilt_cases()):
        rows.append(measure(case, evidence))
    (folder / "register_evidence.json").write_text(json.dumps(evidence, indent=1))
    plot(rows, folder / "register_predicted_error.png")
    runs = [[_shown(row[column]) for column in COLUMNS] for row in rows]
    report(folder, "register_runs", "Registration, every run", list(COLUMNS), runs)
    report(
        folder, "register_accuracy", "Registration of the benchmark sweeps", ["what", "figure", "target"], summary(rows)
    )
