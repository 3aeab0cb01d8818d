"""What each step of the simulation adds: its images beside real frames, and their similarity.

The steps are the DiffUS paper's (arXiv 2508.06768, table 1): the volume's slice; its impedance; reflection along the
rays; artefacts. Then the same without the mapping to impedance, and last this renderer's own scattering.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from ..medium import GEL, AcousticMedium
from ..metrics import images as metrics
from ..render.renderer import UltrasoundRenderer
from ..render.settings import RenderSettings, paper_settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaxtyping import Bool, Float, Real

    from .fan_frames import FanFrames

METRICS = ("mse", "ssim", "ncc", "mae")
DISPLAY = (1.0, 99.0)  # percentiles in the fan, over all frames, that become black and white
MIN_IN_VOLUME = 0.2  # of a fan, for its frame to be compared
INTENSITY_FLOOR = 0.01  # air in an MRI is 0, and no impedance
HEADROOM_DB = -40.0  # of the linear display before grey levels are set: nothing clips


@dataclass(frozen=True)
class Row:
    """One row of the table.

    Args:
        name: in the table.
        mapped: whether it starts from impedance, and not from the volume's own intensities.
        step: `sampling`, `propagation`, `artefacts` or `scattering`.
    """

    name: str
    mapped: bool
    step: str


ROWS = (
    Row("sampling", False, "sampling"),
    Row("sampling + mapping", True, "sampling"),
    Row("sampling + mapping + propagation", True, "propagation"),
    Row("sampling + mapping + propagation + artefacts", True, "artefacts"),
    Row("sampling + propagation", False, "propagation"),
    Row("sampling + propagation + artefacts", False, "artefacts"),
    Row("default renderer (scattering)", True, "scattering"),
)


@dataclass(frozen=True)
class AblationRow:
    """What a row gave.

    Args:
        row: which one.
        images: of the K frames, (rows, columns) each, in [0, 1].
        scores: {name: (K,)}; names are those of METRICS, the same with `_shifted` after phase correlation, and
            `shift_px`, the length of that shift.
    """

    row: Row
    images: list[Float[Tensor, "rows columns"]]
    scores: dict[str, np.ndarray]


@dataclass(frozen=True)
class Pictured:
    """One frame beside what the renderer delivers in its place, as in the DiffUS paper's figure 3.

    Args:
        number: of the frame, among those that are compared.
        real: (rows, columns) in [0, 1], as the scanner showed it, black off the fan.
        paper: the slice of the paper's preset, (h, w) in [0, 1]; the same fan in the renderer's pixels.
        simulated: the slice of the run's settings, likewise.
    """

    number: int
    real: Float[Tensor, "rows columns"]
    paper: Float[Tensor, "h w"]
    simulated: Float[Tensor, "h w"]


@dataclass(frozen=True)
class AblationResult:
    """The table.

    Args:
        rows: in the order of ROWS.
        real: the frames, displayed like the rows.
        masks: pixels that are compared: in the fan and in the volume.
        fan_fraction: of the pixels, in the fan.
        volume_fraction: of the fan, in the volume.
        frames_left_out: how many lie outside of the volume.
        pictures: of the frames that were asked for.
    """

    rows: list[AblationRow]
    real: list[Float[Tensor, "rows columns"]]
    masks: list[Bool[Tensor, "rows columns"]]
    fan_fraction: float
    volume_fraction: float
    frames_left_out: int
    pictures: list[Pictured]


@dataclass(frozen=True)
class AblationStep:
    """Progress: the row in work, images finished, images in all."""

    row: str
    done: int
    total: int


@dataclass
class Ablation:
    """Compares every row with the real frames; iterate to run it (`AblationStep` each), then read `result`.

    The steps are those of the DiffUS paper, arXiv 2508.06768, table 1. Media are made one after the other, so that only
    one is held.

    Args:
        views: real frames with their probes.
        medium: makes the acoustic medium; called once.
        intensities: makes a medium whose impedance channel is the volume as it is (`intensity_medium`); None leaves
            out the rows without mapping.
        settings: of the last row; start depth and seed also of the paper's.
        pictured: from how many frames are compared to the numbers of those to make a `Pictured` of.

    Raises:
        InputError: while iterating, where no frame lies in the volume.
    """

    views: Sequence[FanFrames]
    medium: Callable[[], AcousticMedium]
    intensities: Callable[[], AcousticMedium] | None = None
    settings: RenderSettings = field(default_factory=RenderSettings)
    pictured: Callable[[int], Sequence[int]] | None = None
    result: AblationResult | None = None

    def __iter__(self) -> Iterator[AblationStep]:
        rows = [row for row in ROWS if row.mapped or self.intensities is not None]
        made: dict[str, list[Tensor]] = {}
        frames: list[tuple[FanFrames, int]] | None = None
        masks: list[Tensor] = []
        pictures: list[Pictured] = []
        for mapped, make in ((False, self.intensities), (True, self.medium)):
            if make is None:
                continue
            medium = make()
            if frames is None:
                frames, masks = _frames_in(medium, self.views)
            for row in (row for row in rows if row.mapped == mapped):
                made[row.name] = []
                for image in _row_images(row, medium, frames, self.settings):
                    made[row.name].append(image)
                    yield AblationStep(row.name, sum(map(len, made.values())), len(rows) * len(frames))
            if mapped and self.pictured is not None:
                pictures = [_picture(n, medium, *frames[n], self.settings) for n in self.pictured(len(frames))]
            del medium
        real = displayed([view.frames[n] for view, n in frames], masks)
        finished = []
        for row in rows:
            images = displayed(made.pop(row.name), masks)
            finished.append(AblationRow(row, images, _scores(images, real, masks)))
        fan = sum(int(view.mask[n].sum()) for view, n in frames)
        self.result = AblationResult(
            rows=finished,
            real=real,
            masks=masks,
            fan_fraction=fan / sum(mask.numel() for mask in masks),
            volume_fraction=sum(int(mask.sum()) for mask in masks) / fan,
            frames_left_out=sum(len(view) for view in self.views) - len(frames),
            pictures=pictures,
        )


def intensity_medium(
    volume: Real[np.ndarray, "k j i"], ijk_to_ras: Float[np.ndarray | Tensor, "4 4"]
) -> AcousticMedium:
    """The volume in place of the impedance: what the paper's rows without mapping use.

    Args:
        volume: (K, J, I); its 1st to 99th percentile become INTENSITY_FLOOR to 1.
        ijk_to_ras: (4, 4).

    Returns:
        A medium whose other channels are gel's and mean nothing.
    """
    values = torch.from_numpy(np.ascontiguousarray(volume, dtype=np.float32))
    step = max(1, values.numel() // 1_000_000)
    low, high = np.percentile(values.flatten()[::step].numpy(), DISPLAY)
    if high <= low:
        low, high = values.min().item(), values.max().item()
    maps = torch.empty(4, *values.shape)
    torch.clamp((values - low) / (high - low), 0, 1, out=maps[0]).mul_(1 - INTENSITY_FLOOR).add_(INTENSITY_FLOOR)
    for channel, value in zip(maps[1:], GEL[1:]):
        channel.fill_(value)
    background = torch.tensor([INTENSITY_FLOOR, *GEL[1:]])
    return AcousticMedium(maps, ijk_to_ras, background)


def displayed(images: Sequence[Tensor], masks: Sequence[Tensor]) -> list[Tensor]:
    """One display for a whole series, so that MSE and MAE do not measure the gain.

    Args:
        images: (rows, columns) each.
        masks: of the same shapes, bool.

    Returns:
        The images with the 1st and 99th percentile of all masked pixels at 0 and 1, and zero outside of the masks.
    """
    values = torch.cat([image[mask] for image, mask in zip(images, masks)])
    values = values[:: max(1, values.numel() // 1_000_000)].numpy()
    low, high = np.percentile(values, DISPLAY)
    scale = max(float(high - low), 1e-12)
    return [((image - float(low)) / scale).clamp(0, 1) * mask for image, mask in zip(images, masks)]


def phase_correlated(
    image: Float[Tensor, "h w"], real: Float[Tensor, "h w"], mask: Bool[Tensor, "h w"]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The image moved onto the real frame by phase correlation.

    As `metrics.ssim_after_phase_correlation`, but the mean in the fan is subtracted first: else the outline of the fan,
    which both have, would hold every image where it is.

    Args:
        image: (h, w).
        real: (h, w).
        mask: the fan, (h, w).

    Returns:
        Image, real frame and mask where both overlap, and the shift (2,) in pixels, rows first.
    """
    centred = [(each - each[mask].mean()) * mask for each in (real, image)]
    shift = metrics.phase_correlation_shift(*centred)
    dy, dx = shift.tolist()
    rows, columns = real.shape
    here = slice(max(dy, 0), rows + min(dy, 0)), slice(max(dx, 0), columns + min(dx, 0))
    there = slice(max(-dy, 0), rows + min(-dy, 0)), slice(max(-dx, 0), columns + min(-dx, 0))
    both = mask[here] & mask[there]
    if both.sum() < 0.25 * mask.sum():  # noise may correlate best far away; that is no alignment
        return image, real, mask, torch.zeros_like(shift)
    return image[there], real[here], both, shift


def _frames_in(
    medium: AcousticMedium, views: Sequence[FanFrames]
) -> tuple[list[tuple[FanFrames, int]], list[Bool[Tensor, "rows columns"]]]:
    """The frames, as (view, index), whose fans lie in the volume, and where they do."""
    frames, masks = [], []
    for view in views:
        for n in range(len(view)):
            mask = view.mask[n] & medium.contains(view.pixels_ras(n))
            if mask.sum() >= max(MIN_IN_VOLUME * view.mask[n].sum(), 1):
                frames.append((view, n))
                masks.append(mask)
    if not frames:
        raise InputError("No frame of the ultrasound lies in the volume; give the transform between them (--initial).")
    return frames, masks


def _row_images(
    row: Row, medium: AcousticMedium, frames: Sequence[tuple[FanFrames, int]], settings: RenderSettings
) -> Iterator[Float[Tensor, "rows columns"]]:
    """The row's image of every frame, in its pixels, in units of its own."""
    chosen, renderer = _row_settings(row, settings), None
    for view, n in frames:
        with torch.inference_mode():
            if row.step == "sampling":
                image = medium.sample(view.pixels_ras(n).to(medium.dtype))[0]
            else:
                if renderer is None or renderer.probe is not view.probe:
                    renderer = UltrasoundRenderer(view.probe, **vars(chosen))
                points = renderer.points_ras(view.probe_to_ras[n : n + 1], medium.dtype)
                image = view.from_polar(renderer.polar(medium, points)[0])
        yield image.clone()


def _picture(number: int, medium: AcousticMedium, view: FanFrames, n: int, settings: RenderSettings) -> Pictured:
    """The slices that the renderer delivers where the n-th frame of a view was taken."""
    shared = {"seed": settings.seed, "start_depth_mm": settings.start_depth_mm}
    with torch.inference_mode():
        paper, simulated = (
            UltrasoundRenderer(view.probe, **vars(chosen))(medium, view.probe_to_ras[n])[0].clone()
            for chosen in (paper_settings(**shared), settings)
        )
    return Pictured(number, view.frames[n] * view.mask[n], paper, simulated)


def _row_settings(row: Row, settings: RenderSettings) -> RenderSettings:
    if row.step == "scattering":
        return settings
    shared = {"seed": settings.seed, "start_depth_mm": settings.start_depth_mm, "gain_db": HEADROOM_DB}
    paper = paper_settings(**shared)
    return paper if row.step == "artefacts" else replace(paper, artefacts=None)


def _scores(images: Sequence[Tensor], real: Sequence[Tensor], masks: Sequence[Tensor]) -> dict[str, np.ndarray]:
    scores: dict[str, list[float]] = {}
    for image, frame, mask in zip(images, real, masks):
        moved, onto, both, shift = phase_correlated(image, frame, mask)
        for name in METRICS:
            measure = getattr(metrics, name)
            scores.setdefault(name, []).append(measure(image, frame, mask).item())
            scores.setdefault(f"{name}_shifted", []).append(measure(moved, onto, both).item())
        scores.setdefault("shift_px", []).append(shift.double().norm().item())
    return {name: np.array(values) for name, values in scores.items()}
