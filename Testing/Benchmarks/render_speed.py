"""Speed and memory of the renderer, one thread: each figure with its ratio to a baseline of the same run."""

from __future__ import annotations

from pathlib import Path

import torch
from Benchmarks.measure import best_of, peak_mb, report
from diffus.geometry.pose import twist_to_matrix
from diffus.medium import AcousticMedium, fit_intensity_scale, foreground_mask, normalise
from diffus.medium.mri import narrow_fluid
from diffus.render.echo import layered, reverberation, transmission
from diffus.render.renderer import UltrasoundRenderer
from support.dense_system import dense_reflection
from support.phantoms import phantom, pose_from, probe_of

DENSE_RAYS = 8  # the dense solve is linear in the rays; all 256 would take minutes


def run(folder: Path) -> None:
    """Writes render_echo.csv, render_frame.csv and render_medium.csv into `folder`."""
    report(folder, "render_echo", "Echo models, 256 rays x 200 samples", ["model", "ms", "dense / model"], echo_rows())
    report(
        folder,
        "render_frame",
        "Default frame, 192 rays x 400 samples, speckle, PSF, 512-pixel slice, oblique plane of a 200^3 volume",
        ["what", "figure", "target"],
        frame_rows(),
    )
    report(folder, "render_medium", "Medium of a head of 0.5 mm voxels, 364 x 436 x 364", ["step", "s"], medium_rows())


def echo_rows() -> list[list[object]]:
    z = 1.5 + 0.2 * torch.rand(256, 200, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    (dense,) = best_of(lambda: dense_reflection(z[:DENSE_RAYS]), repeats=2)
    dense *= 256 / DENSE_RAYS
    models = {"layered": layered, "transmission": transmission, "reverberation": reverberation}
    seconds = best_of(*(lambda f=f: f(z) for f in models.values()), repeats=5)
    rows = [[f"dense solve (from {DENSE_RAYS} rays)", f"{dense * 1e3:.0f}", "1"]]
    rows += [[name, f"{s * 1e3:.3f}", f"{dense / s:.0f}"] for name, s in zip(models, seconds)]
    air = z[:1, :16].clone()
    air[:, 6:9] = 0.0004
    late = reverberation(air, steps=80_000).reflection
    error = (late.sum() - (air[0, -1] - air[0, 0]) / (air[0, -1] + air[0, 0])).abs().item()
    rows.append(
        ["reverberation in trapped air, 80 000 arrivals: tail, |sum - d0|", f"{late[0, -1]:.1e}", f"{error:.1e}"]
    )
    return rows


def medium_rows() -> list[list[object]]:
    """A ball of white matter with folds of fluid and grey matter, 160 mm wide, in air."""
    k, j, i = torch.meshgrid(*(torch.linspace(-91, 91, n) for n in (364, 436, 364)), indexing="ij")
    fold = torch.sin(0.33 * k) + torch.sin(0.29 * j + 0.1 * k) + torch.sin(0.31 * i + 1)
    t1 = (60 + 60 * fold).clamp(20, 100) * (k * k + j * j + i * i < 80**2)
    del k, j, i, fold
    matrix = torch.diag(torch.tensor([0.5, 0.5, 0.5, 1.0], dtype=torch.float64))
    mask = foreground_mask(t1)
    scale = fit_intensity_scale(t1, mask, spacing_mm=(0.5, 0.5, 0.5))
    level = normalise(t1, scale)
    steps = {
        "find the head": lambda: foreground_mask(t1),
        "intensity scale": lambda: fit_intensity_scale(t1, mask, spacing_mm=(0.5, 0.5, 0.5)),
        "narrow fluid": lambda: narrow_fluid(level, mask, (0.5, 0.5, 0.5)),
        "the whole medium (under 5)": lambda: AcousticMedium.from_mri(t1, matrix),
    }
    return [[name, f"{s:.1f}"] for name, s in zip(steps, best_of(*steps.values(), repeats=1))]


def frame_rows() -> list[list[object]]:
    def tissue(maps, x, y, z):
        maps[3] *= 0.6 + 0.4 * torch.sin(0.2 * x) * torch.sin(0.15 * y) * torch.cos(0.1 * z)

    medium = phantom(tissue, size_mm=200.0)
    probe = probe_of("convex", rays=192, depth_mm=120.0)
    pose = pose_from((20.0, 30.0, 10.0), (0.0, 10.0, 0.0))
    renderer = UltrasoundRenderer(probe)
    points = renderer.points_ras(pose[None])
    twist = torch.zeros(6, requires_grad=True)

    def forward():
        with torch.no_grad():
            return renderer(medium, pose)

    graph = []

    def forward_with_graph():
        graph[:] = [renderer(medium, pose.float() @ twist_to_matrix(twist)).square().mean()]

    def both():
        forward_with_graph()
        graph[0].backward()

    sample, frame, tracked, whole = best_of(lambda: medium.sample(points), forward, forward_with_graph, both)
    memory = peak_mb(
        "import torch; torch.set_num_threads(1)\n"
        "from support.phantoms import phantom, probe_of\n"
        "from diffus.render.renderer import UltrasoundRenderer\n"
        "medium = phantom(size_mm=200.0)\n"
        "pose = torch.eye(4, requires_grad=True)\n"
        "UltrasoundRenderer(probe_of(rays=8, samples=16))(medium, pose).sum().backward()\n"
        "mark()\n"
        "UltrasoundRenderer(probe_of('convex', rays=192))(medium, pose).sum().backward()\n"
    )
    return [
        ["one trilinear grid_sample of the same points and maps, ms", f"{sample * 1e3:.1f}", ""],
        ["frame forward, ms", f"{frame * 1e3:.1f}", ""],
        ["frame forward / grid_sample", f"{frame / sample:.2f}", "at most 4"],
        ["backward to pose, ms", f"{(whole - tracked) * 1e3:.1f}", ""],
        ["backward to pose / forward", f"{(whole - tracked) / frame:.2f}", "at most 3"],
        ["memory of a frame, forward and backward, beyond the volume, MB", f"{memory:.0f}", "under 300"],
    ]
