"""The pictures of `make demo`: of the simulated sweep, of the registration, and the extension's icon."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import slicer.util
import torch
from diffus.cli.study.figures import pyplot, save_small
from diffus.io.atomic import replacing
from DiffUSLib import engine
from DiffUSLib.kinds import MediumKind
from DiffUSLib.register.overlay import OverlaySource
from DiffUSLib.render.parameters import readParameters
from DiffUSLib.scene.transforms import ijkToRas, probeToVolume
from DiffUSLib.scene.voxels import MediumCache
from PIL import Image, ImageDraw
from scipy.ndimage import map_coordinates

if TYPE_CHECKING:
    from demo import Case
    from demo_register import Registered

ROOT = Path(__file__).resolve().parents[2]
BRAIN_MRAYL = (1.50, 1.62)  # of the colour scale: CSF to white matter
FLUID_BORDER = 0.55  # T1 level between fluid and brain, relative to white matter
WINDOW = 1.5  # the MRI's white in the picture, relative to white matter: about as grey as the ultrasound
EDGE = "#ffb000"


def dark_figure(**options):
    """An empty figure on black."""
    plt = pyplot()
    plt.style.use("dark_background")
    return plt.figure(layout="constrained", **options)


def save(figure, path: Path) -> None:
    with replacing(path) as temporary:
        save_small(figure, temporary, dpi=100)


def draw_panel(case: Case, path: Path, tilts_deg: np.ndarray) -> None:
    """MRI with the fan, impedance along the rays, simulated image, and the sweep below, as one PNG."""
    renderer = engine.buildRenderer(readParameters(case.parameters))
    outline = engine.fanOutline(renderer.probe)
    pixels = slicer.util.arrayFromVolume(case.parameters.outputSlice)[0]
    impedance, extent = fan_impedance(case, renderer)
    mri, mri_extent = mri_in_probe_plane(case)
    figure = dark_figure(figsize=(15, 7.4))
    upper, lower = figure.subfigures(2, 1, height_ratios=(2.6, 1))
    axes = upper.subplots(1, 3, width_ratios=(1, 1.25, 1.25))
    closed = np.vstack([outline, outline[:1]])
    axes[0].imshow(mri, cmap="gray", extent=mri_extent, vmin=0, vmax=255)
    axes[0].plot(*closed.T, color="#40ccff", lw=1.5)
    axes[0].set_title("MRI in the plane of the probe")
    map_ = axes[1].imshow(impedance, cmap="viridis", extent=extent, vmin=BRAIN_MRAYL[0], vmax=BRAIN_MRAYL[1])
    axes[1].set_title("Acoustic impedance along the rays, MRayl")
    upper.colorbar(map_, ax=axes[1], location="bottom", shrink=0.8, aspect=40)
    axes[2].imshow(pixels, cmap="gray", extent=extent, vmin=0, vmax=255)
    axes[2].set_title("Simulated ultrasound")
    for axis in axes:
        axis.set_xlabel("lateral, mm")
    axes[0].set_ylabel("depth, mm")
    chosen = np.linspace(0, len(tilts_deg) - 1, 7).round().astype(int)
    for axis, number in zip(lower.subplots(1, len(chosen)), chosen):
        frame = slicer.util.arrayFromVolume(case.slices.GetNthDataNode(int(number)))[0]
        axis.imshow(frame, cmap="gray", vmin=0, vmax=255)
        axis.set_title(f"{tilts_deg[number]:+.0f}°", fontsize=10)
        axis.axis("off")
    figure.suptitle("DiffUS: simulated from the MRI, not for clinical decisions")
    save(figure, path)


def fan_impedance(case: Case, renderer) -> tuple[np.ndarray, tuple]:
    """Impedance at the samples of the rays, scan-converted, NaN outside of the fan; and the slice's extent in mm."""
    medium = MediumCache().medium(case.mri, MediumKind.MRI)
    pose = torch.from_numpy(probeToVolume(case.parameters.probeTransform, case.mri))[None]
    with torch.inference_mode():
        points = renderer.points_ras(pose, medium.dtype)
        impedance = renderer.scan_convert(medium.sample(points)[0].mean(1))[0].numpy()
    geometry = renderer.probe.slice_geometry()
    left, top = geometry.pixel_to_probe[:2, 3].numpy() - geometry.mm_per_pixel / 2
    width, height = geometry.columns * geometry.mm_per_pixel, geometry.rows * geometry.mm_per_pixel
    return np.where(impedance > 0, impedance, np.nan), (left, left + width, top + height, top)


def mri_in_probe_plane(case: Case) -> tuple[np.ndarray, tuple]:
    """The MRI resampled in the probe's plane, wider than the fan."""
    x, y = np.arange(-80.0, 80.0, 0.5), np.arange(-15.0, 145.0, 0.5)
    plane = np.stack([*np.meshgrid(x, y), np.zeros((len(y), len(x))), np.ones((len(y), len(x)))])
    to_ijk = np.linalg.inv(ijkToRas(case.mri)) @ probeToVolume(case.parameters.probeTransform, case.mri)
    i, j, k = np.tensordot(to_ijk, plane, 1)[:3]
    values = map_coordinates(slicer.util.arrayFromVolume(case.mri).astype(np.float32), [k, j, i], order=1)
    return values, (x[0], x[-1], y[-1], y[0])


def renew(case: Case, panel: Path, registration: Path) -> None:
    """The pictures in Resources/Screenshots and the extension's icon."""
    screenshots = ROOT / "Resources" / "Screenshots"
    screenshots.mkdir(parents=True, exist_ok=True)
    shutil.copy(panel, screenshots / "render.png")
    shutil.copy(registration, screenshots / "register.png")
    pixels = slicer.util.arrayFromVolume(case.parameters.outputSlice)[0]
    renderer = engine.buildRenderer(readParameters(case.parameters))
    icon = Image.fromarray(draw_icon(pixels, renderer.probe)).resize((128, 128), Image.Resampling.LANCZOS)
    icon.save(ROOT / "Resources" / "DiffUS.png", optimize=True)


def draw_icon(pixels: np.ndarray, probe) -> np.ndarray:
    """The fan on nothing, the face of the probe in colour: (size, size, 4) uint8."""
    geometry = probe.slice_geometry()
    outline = (engine.fanOutline(probe) - geometry.pixel_to_probe[:2, 3].numpy()) / geometry.mm_per_pixel
    size, margin = max(pixels.shape) + 40, 20
    offset = (np.array([size, size]) - pixels.shape[::-1]) // 2
    canvas = np.zeros((size, size, 4), np.uint8)
    inside = Image.new("L", (size, size))
    ImageDraw.Draw(inside).polygon([tuple(point) for point in outline + offset], fill=255)
    rows, columns = pixels.shape
    canvas[offset[1] : offset[1] + rows, offset[0] : offset[0] + columns, :3] = pixels[..., None]
    canvas[..., 3] = np.asarray(inside)
    picture = Image.fromarray(canvas)
    face = [tuple(point) for point in outline[: len(outline) // 2] + offset]
    ImageDraw.Draw(picture).line(face, fill=(64, 204, 255, 255), width=margin, joint="curve")
    return np.asarray(picture)


def draw_registration(done: Registered, path: Path) -> None:
    """Two frames, before and after: with the edges of the MRI over them, and as a checkerboard with the MRI."""
    sweep = done.truth.sweep
    source = OverlaySource(
        (sweep.frames.numpy() * 255).round().astype(np.uint8),
        sweep.mask.numpy(),
        sweep.image_to_reference.numpy(),
        done.voxels,
        done.ijk_to_ras,
        0.0,
        WINDOW * white_matter(done.voxels),
    )
    figure = dark_figure(figsize=(15, 8))
    axes = figure.subplots(2, 4)
    for row, number in zip(axes, (len(sweep) // 4, 3 * len(sweep) // 4)):
        for column, (pose, title) in enumerate(((done.initial, "before"), (done.found, "after"))):
            error = done.truth.error_mm(pose)
            draw_edges(row[column], source, number, pose)
            draw_checkerboard(row[2 + column], source, number, pose)
            row[column].set_title(f"Ultrasound, edges of the MRI\n{title}: {error:.1f} mm off at the targets")
            row[2 + column].set_title(f"Checkerboard: ultrasound, MRI\n{title}")
        row[0].set_ylabel(f"frame {number}", visible=True)
    figure.suptitle(
        f"DiffUS: registration of a simulated sweep, {done.result.judgement.verdict}. Not for clinical decisions"
    )
    save(figure, path)


def white_matter(voxels: np.ndarray) -> float:
    return float(np.percentile(voxels[voxels > 0], 90))


def draw_edges(axes, source: OverlaySource, number: int, mri_to_reference: np.ndarray) -> None:
    """The frame, and where the MRI has the border between brain and fluid."""
    fan = source.masks[number if len(source.masks) > 1 else 0]
    mri = np.where(fan, source.volume(number, mri_to_reference), np.nan)
    axes.imshow(source.ultrasound(number), cmap="gray", vmin=0, vmax=255)
    axes.contour(mri, levels=[255 * FLUID_BORDER / WINDOW], colors=EDGE, linewidths=1.1)
    axes.set(xticks=[], yticks=[])


def draw_checkerboard(axes, source: OverlaySource, number: int, mri_to_reference: np.ndarray) -> None:
    """The frame in every other field of 15 mm, the MRI in the rest and around the fan."""
    axes.imshow(source.checkerboard(number, mri_to_reference, 15.0), cmap="gray", vmin=0, vmax=255)
    axes.set(xticks=[], yticks=[])
