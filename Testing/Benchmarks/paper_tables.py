"""The DiffUS paper's figure 1 and tables 2 and 3: impedance from intensity; cost against rays and samples.

And why two variants of its echo are no choice.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from Benchmarks.measure import best_of, report
from diffus.cli.study.figures import pyplot
from diffus.geometry.pose import twist_to_matrix
from diffus.medium import load_impedance
from diffus.medium.training_points import POINT_LISTS, reference_list
from diffus.render.echo import ECHO_MODELS
from diffus.render.renderer import UltrasoundRenderer
from support.commands import run as run_command
from support.dense_system import VARIANTS, dense_reflection, energy_balance
from support.phantoms import phantom, pose_from, probe_of

RAYS, SAMPLES = (64, 128, 256), (32, 70, 100, 200)
DENSE_RAYS = {32: 32, 70: 16, 100: 8, 200: 2}  # measured, with half as many; the line through both gives the rest
FIT_RAYS = 64
DENSE, FRAME = "dense solve", "whole frame"
MODELS = (DENSE, *ECHO_MODELS, FRAME)
# {model: (theory, samples at which cost is fitted)}; the dense solve there is of one ray.
FITS = {
    DENSE: (4, (32, 70, 100, 200, 400)),
    "layered": (1, (32, 70, 100, 200, 800, 3200, 12800)),
    "transmission": (1, (32, 70, 100, 200, 800, 3200, 12800)),
    "reverberation": (2, (32, 70, 100, 200, 400, 800, 1600)),
    FRAME: (1, (32, 70, 100, 200, 400, 800, 1600)),
}


@dataclass(frozen=True)
class Setting:
    """What is timed: where, and whether the gradient to the impedance (whole frame: to the pose) comes with it."""

    device: str
    backward: bool

    @property
    def name(self) -> str:
        return "forward + backward" if self.backward else "forward"


def run(folder: Path) -> None:
    """Writes paper_impedance, paper_cost, paper_exponents and paper_energy (.csv, and .png of the first two)."""
    impedance(folder)
    devices = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])
    settings = [Setting(device, backward) for device in devices for backward in (False, True)]
    rows = [row for setting in settings for row in cost_rows(setting)]
    header = ["device", "pass", "rays", "samples"]
    header += [f"{model}, ms" for model in MODELS] + [f"dense / {model}" for model in MODELS[1:]]
    dense = f"dense: from {', '.join(f'{r} and {r // 2} rays at {n}' for n, r in DENSE_RAYS.items())} samples"
    where = f"; {torch.cuda.get_device_name()}" if "cuda" in devices else "; one CPU core"
    report(
        folder,
        "paper_cost",
        f"Cost of the echo models (float64) and of a whole frame (float32); {dense}{where}",
        header,
        rows,
    )
    curves = {setting: fit_curves(setting) for setting in settings}
    report(
        folder,
        "paper_exponents",
        f"Exponents of cost against samples, {FIT_RAYS} rays (dense: one ray)",
        ["device", "pass", "model", "theory", "fitted, 32 to 200 samples", "fitted, the three largest", "samples: ms"],
        [row for setting in settings for row in exponent_rows(setting, curves[setting])],
    )
    plot(curves, folder / "paper_cost.png")
    report(
        folder,
        "paper_energy",
        "Energy returned and passed on per unit of incident energy, 64 rays of random tissue (1 is right): least, "
        "greatest; greatest |d0| (above 1 reflects more than it receives)",
        ["signs", "tissue", *(f"{part}, {n} samples" for n in ENERGY_SAMPLES for part in ("energy", "|d0|"))],
        energy_rows(),
    )


# --- impedance from intensity


def impedance(folder: Path) -> None:
    """The figure 1: what the network learns of the paper's tissues, and of the brain alone."""
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for name in POINT_LISTS:
            weights = Path(scratch) / f"{name}.pt"
            figure = folder / "paper_impedance.png" if name == "seed" else weights.with_suffix(".png")
            done = run_command("train-impedance", {"points": name, "output": weights, "figure": figure})
            if done.exit_code:
                raise RuntimeError(done.output)
            model = load_impedance(weights)
            for point in reference_list(name):
                learned = model(torch.tensor(point.level)).item()
                numbers = [f"{point.level:g}", f"{point.impedance_mrayl:g}", f"{learned:.4f}"]
                rows.append([name, point.tissue, *numbers, f"{learned - point.impedance_mrayl:+.4f}"])
    title = "Impedance from normalised intensity, MRayl: reference points and what the network learned of them; "
    title += "train-impedance --points seed --figure paper_impedance.png"
    report(folder, "paper_impedance", title, ["points", "tissue", "intensity", "MRayl", "learned", "error"], rows)


# --- cost


def cost_rows(setting: Setting) -> list[list[object]]:
    rows = []
    for samples in SAMPLES:
        many, few = (task_of(DENSE, rays, samples, setting) for rays in (DENSE_RAYS[samples], DENSE_RAYS[samples] // 2))
        most, least = seconds(many, few)
        per_ray = max(most - least, 0.0) / (DENSE_RAYS[samples] - DENSE_RAYS[samples] // 2)
        for rays in RAYS:
            dense = most + per_ray * (rays - DENSE_RAYS[samples])
            others = seconds(*(task_of(model, rays, samples, setting) for model in MODELS[1:]))
            cost = [dense, *others]
            ratios = [f"{dense / each:.3g}" for each in others]
            rows.append([setting.device, setting.name, rays, samples, *(f"{1e3 * s:.3g}" for s in cost), *ratios])
    return sorted(rows, key=lambda row: (row[2], row[3]))


def task_of(model: str, rays: int, samples: int, setting: Setting) -> Callable[[], object]:
    if model == FRAME:
        return _frame_task(rays, samples, setting)
    echo = dense_reflection if model == DENSE else lambda z: ECHO_MODELS[model](z).reflection
    generator = torch.Generator().manual_seed(0)
    z = 1.5 + 0.2 * torch.rand(rays, samples, generator=generator, dtype=torch.float64)
    z = z.to(setting.device).requires_grad_(setting.backward)

    def task() -> None:
        with torch.set_grad_enabled(setting.backward):
            reflection = echo(z)
        if setting.backward:
            torch.autograd.grad(reflection.square().sum(), z)
        _finish(setting)

    return task


_MEDIUM = {}  # one phantom per device for all frames


def _frame_task(rays: int, samples: int, setting: Setting) -> Callable[[], object]:
    if setting.device not in _MEDIUM:
        _MEDIUM[setting.device] = phantom(size_mm=120.0).to(setting.device)
    medium = _MEDIUM[setting.device]
    renderer = UltrasoundRenderer(probe_of("convex", rays=rays, samples=samples, depth_mm=80.0))
    pose = pose_from((20.0, 30.0, 10.0), (0.0, 10.0, 0.0)).to(setting.device)
    twist = torch.zeros(6, dtype=pose.dtype, device=pose.device, requires_grad=setting.backward)

    def task() -> None:
        with torch.set_grad_enabled(setting.backward):
            image = renderer(medium, pose @ twist_to_matrix(twist))
        if setting.backward:
            torch.autograd.grad(image.square().mean(), twist)
        _finish(setting)

    return task


def _finish(setting: Setting) -> None:
    if setting.device == "cuda":
        torch.cuda.synchronize()


def seconds(*tasks: Callable[[], object]) -> list[float]:
    """Of each task, the best of as many turns as fit into about a second: two at least, ten at most."""
    start = time.perf_counter()
    for task in tasks:
        task()
    once = time.perf_counter() - start
    return best_of(*tasks, repeats=max(2, min(10, round(1.0 / once))))


# --- exponents


def fit_curves(setting: Setting) -> dict[str, list[float]]:
    """{model: seconds at each of its fitted samples}."""
    curves = {}
    for model, (_, samples) in FITS.items():
        rays = 1 if model == DENSE else FIT_RAYS
        curves[model] = [seconds(task_of(model, rays, n, setting))[0] for n in samples]
    return curves


def exponent(samples: tuple[int, ...], cost: list[float]) -> float:
    """Slope of the least squares line through log cost against log samples."""
    x, y = (torch.tensor(values, dtype=torch.float64).log() for values in (samples, cost))
    x, y = x - x.mean(), y - y.mean()
    return ((x * y).sum() / (x * x).sum()).item()


def exponent_rows(setting: Setting, curves: dict[str, list[float]]) -> list[list[object]]:
    rows = []
    for model, cost in curves.items():
        theory, samples = FITS[model]
        papers = len([n for n in samples if n <= max(SAMPLES)])
        fits = [exponent(samples[:papers], cost[:papers]), exponent(samples[-3:], cost[-3:])]
        points = ", ".join(f"{n}: {1e3 * each:.3g}" for n, each in zip(samples, cost))
        rows.append([setting.device, setting.name, model, theory, *(f"{fit:.2f}" for fit in fits), points])
    return rows


def plot(curves: dict[Setting, dict[str, list[float]]], path: Path) -> None:
    plt = pyplot()

    figure, axes = plt.subplots(1, len(curves), figsize=(4.8 * len(curves), 5.8), sharey=True, squeeze=False)
    for axis, (setting, each) in zip(axes[0], curves.items()):
        for colour, (model, cost) in zip(("k", "tab:blue", "tab:green", "tab:orange", "tab:red"), each.items()):
            theory, samples = FITS[model]
            slope = exponent(samples[-3:], cost[-3:])
            rays = "1 ray" if model == DENSE else f"{FIT_RAYS} rays"
            label = f"{model}, {rays}: $N^{{{slope:.1f}}}$ (theory $N^{theory}$)"
            axis.plot(samples, [1e3 * s for s in cost], "o-", color=colour, ms=3.5, label=label)
            ends = [1e3 * cost[-1] * (n / samples[-1]) ** theory for n in samples[-3:]]
            axis.plot(samples[-3:], ends, ":", color=colour, lw=2.5, alpha=0.5)
        axis.axvspan(axis.get_xlim()[0], 100, color="0.93", zorder=0)
        axis.set(xscale="log", yscale="log", xlabel="samples N", title=f"{setting.device}, {setting.name}")
        title = "slope of the three largest N; dotted: theory; grey: where overhead rules"
        axis.legend(fontsize=8, title=title, title_fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.13))
        axis.grid(alpha=0.3)
    axes[0, 0].set_ylabel("ms")
    figure.tight_layout()
    figure.savefig(path, dpi=90)
    plt.close(figure)


# --- energy

ENERGY_SAMPLES = (25, 100, 400)
LAYERS = {"soft tissue": None, "with bone": 6.46, "with air": 0.0004}


def energy_media() -> dict[str, torch.Tensor]:
    """Rays (64, 400) of random soft tissue, 1.31 (fat) to 1.73 MRayl (muscle), some with a plate of bone or of air."""
    generator = torch.Generator().manual_seed(0)
    soft = 1.31 + 0.42 * torch.rand(64, max(ENERGY_SAMPLES), generator=generator, dtype=torch.float64)
    media = {}
    for name, layer in LAYERS.items():
        media[name] = soft.clone()
        if layer is not None:
            media[name][:, 10:13] = layer
    return media


def energy_rows() -> list[list[object]]:
    rows = []
    for variant in VARIANTS:
        for name, rays in energy_media().items():
            cells = []
            for samples in ENERGY_SAMPLES:
                returned, passed = energy_balance(rays[:, :samples], variant)
                total = returned + passed
                cells += [f"{total.min():.3g} to {total.max():.3g}", f"{returned.max().sqrt():.3g}"]
            rows.append([variant, name, *cells])
    return rows
