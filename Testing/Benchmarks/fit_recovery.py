"""What `AppearanceFit` finds again: sweeps of known display, beam and tissues, fitted from the defaults.

The sweeps are rendered with another speckle seed and other noise than the fit uses, stored as 8 bit on a scanner's
pixels. Same anatomy and physics on both sides: this shows that the parameters can be identified and are, not that the
physics is a patient's. Errors: gain over its distance from the start, scattering as an amplitude, impedance over its
difference from liver's (which is held: boundaries tell no more), others of the value.
Noise is a nuisance (it shows only where nothing scatters) and has no goal.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from Benchmarks.measure import report, versions
from diffus.cli.study.figures import pyplot
from diffus.fit import AppearanceFit, FitResult, FittableMedium, label_medium, mri_medium
from diffus.medium import AcousticMedium, ImpedanceMLP, load_impedance, tissue_table
from diffus.render.renderer import UltrasoundRenderer
from diffus.render.settings import RenderSettings
from diffus.sweep.sweep import TrackedSweep
from support.fitting_cases import LABELS, blobs, fan_sweep
from support.heads import mni152
from support.phantoms import pose_from, probe_of

COMMAND = "python Testing/Benchmarks/benchmark.py FOLDER fit_recovery"
PROBE = probe_of("convex", rays=192, samples=400, depth_mm=60.0, focus_mm=25.0, transmit_f_number=2.0, mm_per_pixel=0.2)
SCANNER = {"tgc_db_per_cm": 3.6, "gain_db": -7.0, "dynamic_range_db": 74.0, "noise_db": -58.0}
BEAM = {"frequency_mhz": 4.3, "focus_mm": 40.0}
TISSUES = {
    "liver": {},
    "fluid": {"scattering_db": -32.0},
    "kidney": {"scattering_db": 1.5, "attenuation_db_cm_mhz": 0.7},
    "tumour": {"scattering_db": 9.0, "attenuation_db_cm_mhz": 0.55, "impedance_mrayl": 1.66},
}
HEAD_TISSUES = {
    "grey matter": {"scattering_db": -7.0, "attenuation_db_cm_mhz": 0.55},
    "sulcus": {"scattering_db": 6.0},
}
HEAD_IMPEDANCE = 2.0  # how many times steeper the true curve is than the shipped one


@dataclass(frozen=True)
class Case:
    """A sweep, what it is fitted with, and the truth: {(parameter, tissue or ""): value}."""

    name: str
    sweep: TrackedSweep
    medium: FittableMedium
    settings: RenderSettings
    parameters: tuple[str, ...]
    truth: dict[tuple[str, str], float]
    reference: AcousticMedium
    probe: object = PROBE


def run(folder: Path) -> None:
    """Writes fit_recovery.csv, fit_recovery_ncc.csv and fit_recovery.png into `folder`."""
    numbers, scores, drawn = [], [], []
    for case in cases():
        fit = AppearanceFit(
            case.medium,
            case.sweep,
            torch.eye(4),
            probe=PROBE,
            settings=case.settings,
            parameters=case.parameters,
            steps=20,
        )
        for _ in fit:
            pass
        result = fit.result
        numbers += [_row(case, number) for number in result.numbers]
        if result.mapping is not None:
            numbers += _curve_rows(case, result)
        before, after = result.before, result.after
        scores.append(
            [case.name, *(f"{v:.3f}" for v in (before.ncc, after.ncc, before.ncc_smoothed, after.ncc_smoothed))]
        )
        drawn.append((case, result))
    report(
        folder,
        "fit_recovery",
        f"Parameters found again by fitting through the renderer; {COMMAND}",
        ["case", "parameter", "tissue", "start", "true", "found", "error %", "learned"],
        numbers,
    )
    report(
        folder,
        "fit_recovery_ncc",
        f"Mean NCC of held-out frames, before and after the fit, plain and smoothed over 2 mm; {COMMAND}",
        ["case", "before", "after", "smoothed before", "smoothed after"],
        scores,
    )
    _draw(drawn[0], numbers, folder / "fit_recovery.png")


def cases() -> list[Case]:
    """Acquisition alone, tissues alone, both, and a head with its network."""
    labels, matrix = blobs(76)
    fittable = label_medium(labels, LABELS, matrix)
    table = {name: replace(tissue_table()[name], **change) for name, change in TISSUES.items()}
    plain = AcousticMedium.from_labels(labels, LABELS, matrix)
    changed = AcousticMedium.from_labels(labels, {v: table[name] for v, name in LABELS.items()}, matrix)
    scanner = replace(PROBE, **BEAM)
    display = {(name, ""): value for name, value in {**SCANNER, **BEAM}.items()}
    tissues = {
        (channel, tissue.name): getattr(tissue, channel)
        for tissue in table.values()
        for channel in ("impedance_mrayl", "attenuation_db_cm_mhz", "scattering_db")
    }
    sweep = {"seed": 41, "count": 12}
    default, known = RenderSettings(), RenderSettings(**SCANNER)
    return [
        Case(
            "acquisition",
            fan_sweep(plain, scanner, **sweep, **SCANNER),
            fittable,
            default,
            ("acquisition",),
            display,
            plain,
        ),
        Case("tissues", fan_sweep(changed, PROBE, **sweep, **SCANNER), fittable, known, ("tissues",), tissues, changed),
        Case(
            "both",
            fan_sweep(changed, scanner, **sweep, **SCANNER),
            fittable,
            default,
            ("acquisition", "tissues"),
            display | tissues,
            changed,
        ),
        _head(),
    ]


def _head() -> Case:
    """A sweep over MNI152 with other tissues and a steeper impedance curve; boundaries shown 12 dB brighter."""
    t1, grey, white, matrix = mni152()
    mask = (grey + white) > 0.1
    table = {name: replace(tissue_table()[name], **change) for name, change in HEAD_TISSUES.items()}
    settings = {**SCANNER, "reflection_db": 69.0}
    medium = AcousticMedium.from_mri(t1, matrix, mask, mapping=steeper(HEAD_IMPEDANCE), tissues=table)
    base = pose_from((-90.0, 0.0, 0.0), (5.0, 20.0, 68.0))
    # The sweep is made about the probe's own axes and carried to the head.
    sweep = fan_sweep(medium, PROBE, seed=43, count=12, span_mm=30.0, base=base, **settings)
    truth = {(channel, name): change[channel] for name, change in HEAD_TISSUES.items() for channel in change} | {
        ("scattering_db", "white matter"): 0.0,
        ("attenuation_db_cm_mhz", "white matter"): 0.88,
    }
    return Case(
        "head",
        sweep,
        mri_medium(t1, matrix, mask),
        RenderSettings(**settings),
        ("scattering_db", "attenuation_db_cm_mhz", "impedance"),
        truth,
        medium,
    )


def steeper(factor: float) -> ImpedanceMLP:
    """The shipped network with its differences from grey matter times `factor`."""
    shipped, other = load_impedance(), load_impedance()
    with torch.no_grad():
        other.scale *= factor
        other.offset += shipped(torch.tensor(0.6)) - other(torch.tensor(0.6))
    return other


def _row(case: Case, number) -> list[object]:
    truth = case.truth.get((number.name, number.tissue))
    known = f"{number.learned:.3f}"
    row = [case.name, number.name, number.tissue, f"{number.start:.4g}"]
    if truth is None:
        return [*row, "as at start", f"{number.value:.4g}", "", known]
    return [*row, f"{truth:.4g}", f"{number.value:.4g}", f"{error_percent(number, truth):.1f}", known]


def error_percent(number, truth: float) -> float:
    """The module's definition of a parameter's error."""
    if number.name == "scattering_db":
        return 100 * abs(10 ** ((number.value - truth) / 20) - 1)
    if number.name == "impedance_mrayl":
        return 100 * abs(number.value - truth) / abs(truth - tissue_table()["liver"].impedance_mrayl)
    scale = abs(truth - number.start) if number.name in ("gain_db", "noise_db") else abs(truth)
    return 100 * abs(number.value - truth) / max(scale, 1e-9)


def _curve_rows(case: Case, result: FitResult) -> list[list[object]]:
    """Reflection coefficients between the MRI's tissues: what boundaries tell of an impedance curve."""
    level = torch.tensor([0.0, 0.6, 1.0])
    curves = [network(level) for network in (load_impedance(), steeper(HEAD_IMPEDANCE), result.mapping)]
    start, true, found = (0.5 * z.log().diff() for z in curves)
    rows = []
    for n, name in enumerate(("csf to grey", "grey to white")):
        error = 100 * abs(found[n] / true[n] - 1)
        rows.append(
            [case.name, "reflection", name, f"{start[n]:.4f}", f"{true[n]:.4f}", f"{found[n]:.4f}", f"{error:.1f}", ""]
        )
    return rows


def _draw(drawn: tuple[Case, FitResult], numbers: list[list[object]], path: Path) -> None:
    plt = pyplot()

    case, result = drawn
    held = result.held_out_frames[len(result.held_out_frames) // 2]
    place = case.sweep.image_to_reference[held] @ torch.linalg.inv(PROBE.slice_geometry().pixel_to_probe)
    with torch.inference_mode():
        before = UltrasoundRenderer(PROBE)(case.reference, place)[0]
        chosen = {name: getattr(result.settings, name) for name in SCANNER}
        after = UltrasoundRenderer(result.probe, **chosen)(case.reference, place)[0]
    figure = plt.figure(figsize=(11, 6.4), constrained_layout=True)
    grid = figure.add_gridspec(2, 3, height_ratios=[1.15, 1])
    shown = (
        ("held-out frame of the sweep", case.sweep.frames[held]),
        ("rendered, defaults", before),
        ("rendered, fitted", after),
    )
    for column, (title, image) in enumerate(shown):
        axes = figure.add_subplot(grid[0, column])
        axes.imshow(image, cmap="gray", vmin=0, vmax=1)
        axes.set_title(title, fontsize=9)
        axes.axis("off")
    axes = figure.add_subplot(grid[1, :])
    rows = [row for row in numbers if row[6] not in ("",) and row[1] != "noise_db"]
    values = np.array([float(row[6]) for row in rows])
    seen = np.array([row[7] == "" or float(row[7]) > 0.9 for row in rows])
    axes.bar(np.arange(len(rows)), values.clip(max=20), color=np.where(seen, "tab:blue", "0.75"))
    axes.axhline(5, color="tab:red", lw=0.8, ls="--")
    axes.set_xticks(
        np.arange(len(rows)),
        [f"{r[0]}: {r[1].split('_')[0]} {r[2]}" for r in rows],
        rotation=60,
        ha="right",
        fontsize=6,
    )
    axes.set(ylabel="error, % (cut at 20)", title="Grey: not told by the frames (learned below 0.9). Red line: 5 %")
    axes.title.set_fontsize(9)
    figure.supxlabel(f"{COMMAND}; {versions()}", fontsize=5, color="0.4")
    figure.savefig(path, dpi=100)
    plt.close(figure)
