"""Statistics by which simulated frames are compared with real ones, without knowing which shows the same anatomy.

Speckle is looked at in small patches near the fan's axis, where rows are depth and columns lateral, in the
brighter half of the frames' patches and not clipped: in the dark there is electronic noise. Every number is the median
over the patches. Real images are logarithms of the envelope over a dynamic range that the file does not hold: it is
assumed, and the same for both.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..errors import InputError, _
from ..geometry.filters import gaussian_blur
from .images import autocorrelation_width, envelope_snr, gcnr, histogram_distance, nakagami_m, patch_kl
from .wasserstein import patch_wasserstein

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

PATCH_MM = 12.0
AXIS_DEG = 20.0  # how far from the fan's axis a patch may lie
MAX_PATCHES = 400
TREND_SIGMA = 0.5  # of the patch's side: slower changes are anatomy, not speckle
CLIPPED = 0.05  # most of a patch that may be black or saturated
BRIGHT_FRACTION = 0.5  # of the patches, the brightest, that are looked at
CONTRAST_FRACTION = 0.1  # of the patches, brightest and darkest of these, whose gCNR is taken


@dataclass(frozen=True)
class FrameStatistics:
    """Of a set of frames: medians over patches, but for gCNR (brightest against darkest tenth of these patches).

    Envelope SNR (1.913) and Nakagami m (1) are those of fully developed speckle if the dynamic range is right.
    """

    speckle_snr: float
    nakagami_m: float
    axial_width_mm: float
    lateral_width_mm: float
    gcnr: float
    mean_grey: float


@dataclass(frozen=True)
class FrameDistances:
    """Of simulated from real frames.

    histogram_distance: earth mover's, of grey levels over the fan (full scale 1). pkl: nats. patches: sliced
    Wasserstein distance of patches, mean over the levels of the pyramid and (patches_1, the finest, to patches_4) each,
    in grey levels; patch_texture: that of normalised patches, mean over the levels.
    """

    histogram_distance: float
    pkl: float
    patches: float
    patch_texture: float
    patches_1: float
    patches_2: float
    patches_3: float
    patches_4: float


STATISTICS = tuple(field.name for field in fields(FrameStatistics))
DISTANCES = tuple(field.name for field in fields(FrameDistances))


def frame_statistics(
    frames: Float[Tensor, "k h w"],
    mask: Bool[Tensor, "h w"],
    pixel_to_probe: Float[Tensor, "4 4"],
    *,
    dynamic_range_db: float = 60.0,
) -> FrameStatistics:
    """Statistics of frames within their fan.

    Args:
        frames: (K, h, w) in [0, 1].
        mask: (h, w), the fan.
        pixel_to_probe: (4, 4), which tells where its axis is.
        dynamic_range_db: of the display.

    Raises:
        InputError: where the frames show no patch of tissue large enough.
    """
    size = max(8, round(PATCH_MM / float(pixel_to_probe[0, 0])))
    patches = _patches(frames, _corners(mask, pixel_to_probe, size), size)
    sigma = TREND_SIGMA * size
    even = patches - gaussian_blur(patches, sigma) / gaussian_blur(torch.ones_like(patches[:1]), sigma)
    envelope = 10 ** (even * dynamic_range_db / 20)
    level = patches.mean((1, 2))
    count = max(1, round(CONTRAST_FRACTION * len(patches)))
    order = level.argsort()
    both = torch.cat([patches[order[:count]], patches[order[-count:]]]).flatten(0, 1)
    dark = torch.zeros(both.shape, dtype=torch.bool)
    dark[: count * size] = True
    return FrameStatistics(
        envelope_snr(envelope).median().item(),
        nakagami_m(envelope).median().item(),
        _width(even, -2, float(pixel_to_probe[1, 1])),
        _width(even, -1, float(pixel_to_probe[0, 0])),
        gcnr(both, ~dark, dark).item(),
        frames[:, mask].mean().item(),
    )


def frame_distances(
    real: Float[Tensor, "k h w"], simulated: Float[Tensor, "n h w"], mask: Bool[Tensor, "h w"]
) -> FrameDistances:
    """How far simulated frames (n, h, w) are from real ones (K, h, w) in the same fan (h, w)."""
    patches = patch_wasserstein(real, simulated, mask)
    return FrameDistances(
        histogram_distance(real[:, mask].flatten(), simulated[:, mask].flatten()).item(),
        patch_kl(real, simulated, mask).item(),
        patches.grey.mean().item(),
        patches.texture.mean().item(),
        *patches.grey.tolist(),
    )


def _corners(mask: Tensor, pixel_to_probe: Tensor, size: int) -> list[tuple[int, int]]:
    """Upper left corners of patches in the fan near its axis."""
    tangent = torch.tan(torch.deg2rad(torch.tensor(AXIS_DEG))).item()
    found = []
    for row in range(0, mask.shape[0] - size + 1, size // 2):
        for column in range(0, mask.shape[1] - size + 1, size // 2):
            x = float(pixel_to_probe[0, 0]) * (column + size / 2) + float(pixel_to_probe[0, 3])
            y = float(pixel_to_probe[1, 1]) * (row + size / 2) + float(pixel_to_probe[1, 3])
            if (
                y > PATCH_MM
                and abs(x) < tangent * y + PATCH_MM
                and mask[row : row + size, column : column + size].all()
            ):
                found.append((row, column))
    return found


def _patches(frames: Tensor, corners: list[tuple[int, int]], size: int) -> Float[Tensor, "n size size"]:
    """The brighter patches of all frames that are not clipped, some of them if there are too many."""
    cut = [frames[:, row : row + size, column : column + size] for row, column in corners]
    # One corner at a time: the patches overlap, all of them together are several times the frames.
    levels = [patch.mean((1, 2)) for patch in cut]
    clipped = [((patch <= 0) | (patch >= 1)).float().mean((1, 2)) for patch in cut]
    useful = torch.nonzero(torch.cat(clipped) < CLIPPED)[:, 0] if cut else torch.arange(0)
    if len(useful) < 2:
        raise InputError(
            _("The frames show too little tissue to measure speckle; use frames that are neither black nor saturated.")
        )
    bright = torch.cat(levels)[useful].argsort(descending=True)[: max(2, round(BRIGHT_FRACTION * len(useful)))]
    some = torch.randperm(len(bright), generator=torch.Generator().manual_seed(0))[:MAX_PATCHES]
    chosen = useful[bright[some].sort().values].tolist()
    return torch.stack([cut[number // len(frames)][number % len(frames)] for number in chosen])


def _width(patches: Tensor, dim: int, spacing: float) -> float:
    """Median over the patches that have a width: where the autocovariance falls to one half within."""
    widths = []
    for patch in patches:
        try:
            widths.append(autocorrelation_width(patch, dim, spacing=spacing).item())
        except InputError:
            continue
    if not widths:
        raise InputError(_("The frames show no speckle whose width can be measured."))
    return torch.tensor(widths).median().item()
