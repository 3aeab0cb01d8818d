"""MRI: where the head is, the scale of its intensities, and memberships of its tissues.

Intensities of MRI are not quantitative. They are brought onto a scale where cerebrospinal fluid, grey and white matter
have fixed values (`fit_intensity_scale`, `normalise`); the same scale is used when the network is trained and applied.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk
import torch
from scipy import ndimage
from scipy.cluster.vq import kmeans
from torch import Tensor

from ..errors import InputError, _
from ..geometry.filters import denoise, grey_opening
from .brain import DURA_DB, brain_sheets
from .checks import as_mask, as_volume, require_contrast
from .curves import in_slabs, piecewise_linear
from .impedance import LEVELS, load_impedance
from .labels import LabelTable, as_labels
from .memberships import LEVEL_OF_CLASS, MriMemberships
from .override import Override, override_of
from .sheets import decibels, from_sheet_grid, joined, on_sheet_grid, ridge, sheet_channels, sheet_grid
from .tissue import Tissue, tissue_table
from .unevenness import TEXTURE_DB, unevenness_db

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

CONTRASTS = ("t1", "t2")
SULCUS_MM = 4.0  # fluid in narrower gaps is sulcus, in wider ones ventricle, cistern or cyst

_DEEP = 0.35


@dataclass(frozen=True)
class IntensityScale:
    """Mean intensities of the tissue classes of one MRI, in the order of `TISSUES` (T1: ascending, T2: descending)."""

    centres: tuple[float, ...]


def fit_intensity_scale(
    volume: np.ndarray | Tensor,
    mask: np.ndarray | Tensor | None = None,
    *,
    contrast: str = "t1",
    n: int = 3,
    spacing_mm: Sequence[float] = (1.0, 1.0, 1.0),
) -> IntensityScale:
    """The tissue classes of an MRI: k-means of the intensities deep inside of the head or the mask.

    Deep means further from the surface than 35 % of the deepest point: there is brain and no scalp, whether the
    head is whole or stripped. Where the deep voxels have fewer grey levels than classes, all of the mask is taken;
    where that has too, the classes are spread evenly from the darkest to the brightest voxel.

    Args:
        volume: (K, J, I).
        mask: (K, J, I); None finds the head.
        contrast: "t1" (fluid dark) or "t2" (fluid bright; its spread is wide, so the classes are sought in the
            logarithm).
        n: number of classes.
        spacing_mm: along k, j, i.

    Raises:
        InputError: for a volume without contrast, another contrast, or fewer than two classes.
    """
    volume = as_volume(volume, "MRI").detach()
    require_contrast(volume, "MRI")
    if contrast not in CONTRASTS:
        raise InputError(_('The contrast of an MRI must be "t1" or "t2", not "{contrast}".'), contrast=contrast)
    if n < 2:
        raise InputError(_("The number of tissue classes must be at least 2, not {n}."), n=n)
    inside = foreground_mask(volume) if mask is None else as_mask(mask, volume)
    centres = None
    for values in _intensities(volume.cpu().numpy(), inside.cpu().numpy(), spacing_mm):
        if contrast == "t2":
            floor = max(float(np.percentile(values, 98)), 1e-6) * 1e-3
            centres = _k_means(np.log(values.clip(min=floor)), n)
            centres = None if centres is None else np.exp(centres)[::-1]
        else:
            centres = _k_means(values, n)
        if centres is not None:
            break
    else:
        centres = np.linspace(volume.min().item(), volume.max().item(), n)
        centres = centres[::-1] if contrast == "t2" else centres
    return IntensityScale(tuple(float(c) for c in centres))


def normalise(volume: Float[Tensor, "*shape"], scale: IntensityScale) -> Float[Tensor, "*shape"]:
    """MRI intensities on the common scale: fluid 0, grey matter 0.6, white matter 1; straight between and beyond.

    Landmark-based standardisation as in Nyul and Udupa 1999 (MRM 42:1072-1081), the landmarks being tissue means.
    """
    if len(scale.centres) != len(LEVELS):
        raise InputError(
            _("The intensity scale has {count} tissue classes; fit it with {wanted}."),
            count=len(scale.centres),
            wanted=len(LEVELS),
        )
    return piecewise_linear(volume, *_ascending(scale, LEVELS))


def tissue_memberships(
    t1: np.ndarray | Tensor,
    mask: np.ndarray | Tensor | None = None,
    n: int = 3,
    *,
    contrast: str = "t1",
    scale: IntensityScale | None = None,
) -> Float[Tensor, "n k j i"]:
    """Soft memberships of tissue classes in order of T1 intensity, fluid first; they sum to 1 in the mask.

    A voxel between the means of two neighbouring classes is the mixture of both that has its intensity (partial
    volume). Differentiable to t1 with the class means held.

    Args:
        t1: (K, J, I), an MRI.
        mask: (K, J, I), brain or head; None finds the head. Outside of it all memberships are zero.
        n: number of classes.
        contrast: "t1", or "t2" with bright fluid.
        scale: the classes' means; None fits them to this image.

    Returns:
        (n, K, J, I), 0 to 1.
    """
    volume = as_volume(t1, "MRI")
    inside = foreground_mask(volume) if mask is None else as_mask(mask, volume)
    scale = scale or fit_intensity_scale(volume, inside, contrast=contrast, n=n)
    return _class_fractions(volume, inside, scale)


def mri_memberships(
    t1: np.ndarray | Tensor,
    mask: np.ndarray | Tensor | None = None,
    *,
    mapping: str | Path | Callable[[Tensor], Tensor] | None = None,
    contrast: str = "t1",
    scale: IntensityScale | None = None,
    sulci: Tensor | None = None,
    tissues: Mapping[str, Tissue] | None = None,
    segmentation: tuple[np.ndarray | Tensor, LabelTable] | None = None,
    texture_db: float = TEXTURE_DB,
    ijk_to_ras: Float[Tensor, "4 4"],
) -> MriMemberships:
    """The tissues of an MRI of the head, those of `LEVEL_OF_CLASS`, and its sheets.

    Arguments and errors are those of `AcousticMedium.from_mri`.
    """
    spacing_mm = ijk_to_ras[:3, :3].norm(dim=0).flip(0).tolist()
    volume = as_volume(t1, "MRI")
    require_contrast(volume, "MRI")
    inside = foreground_mask(volume) if mask is None else as_mask(mask, volume)
    scale = scale or fit_intensity_scale(volume, inside, contrast=contrast, spacing_mm=spacing_mm)
    if mapping is None or isinstance(mapping, (str, Path)):
        mapping = load_impedance(mapping).to(volume.device)
    labels = None
    if segmentation is not None:
        labels = as_labels(segmentation[0])
        said = as_mask(labels, volume)
        inside = inside | said
    shape, box = tuple(volume.shape), _box_of(inside)
    volume, inside = denoise(volume[box], inside[box]), inside[box]
    level = in_slabs(lambda planes: normalise(planes, scale), volume.detach())
    narrow = narrow_fluid(level, inside, spacing_mm) if sulci is None else sulci[box].to(level) * inside

    def classes(volume: Tensor, inside: Tensor, narrow: Tensor) -> Tensor:
        fluid, *solid = _class_fractions(volume, inside, scale)
        return torch.stack([fluid - narrow, narrow, *solid])

    values, named = in_slabs(classes, volume, inside, narrow), mri_tissues(LEVEL_OF_CLASS, tissues)
    override = None if labels is None else override_of(labels, segmentation[1], box, spacing_mm)
    if override is not None:
        left = torch.from_numpy(1 - override.covered).to(values)
        values = torch.cat([values * left, torch.from_numpy(override.fractions).to(values)])
        narrow, named = narrow * left, named + override.tissues
    sheets = _sheets(values, narrow, inside, override, ijk_to_ras).to(values)
    texture = unevenness_db(level, values[2] + values[3], spacing_mm, texture_db) if texture_db > 0 else None
    if override is not None and override.echogenicity_db is not None:
        said = torch.from_numpy(override.echogenicity_db).to(values)
        texture = said if texture is None else texture + said
    return MriMemberships(named, values, sheets, texture, mapping, shape, box)


def _sheets(
    values: Float[Tensor, "c k j i"],
    narrow: Float[Tensor, "k j i"],
    inside: Bool[Tensor, "k j i"],
    override: Override | None,
    ijk_to_ras: Float[Tensor, "4 4"],
) -> Float[Tensor, "4 k j i"]:
    """The channels of an MRI's sheets with what a segmentation says of them."""
    factor = sheet_grid(ijk_to_ras[:3, :3].norm(dim=0).flip(0).tolist())
    fluid = values[0] + narrow
    if override is not None:
        fluid = fluid + torch.from_numpy(override.fluid).to(fluid)
    matrix = ijk_to_ras @ torch.diag(ijk_to_ras.new_tensor([*factor[::-1], 1]))
    spacing_mm = matrix[:3, :3].norm(dim=0).flip(0).tolist()
    fluid, narrow, within = (on_sheet_grid(part, factor) for part in (fluid, narrow, inside))
    patches = brain_sheets(fluid, narrow, within > 0.5, spacing_mm)
    if override is not None and override.thin.any():
        thin = on_sheet_grid(torch.from_numpy(override.thin), factor)
        patches = joined(patches, ridge(thin, spacing_mm, decibels(DURA_DB)))
    return from_sheet_grid(sheet_channels(patches, fluid.shape, matrix), factor, inside.shape)


def mri_tissues(names: Iterable[str], tissues: Mapping[str, Tissue] | None = None) -> tuple[Tissue, ...]:
    """The tissues of these names: of `tissues` where it has them, else of the table."""
    return tuple(tissues[name] if tissues and name in tissues else tissue_table()[name] for name in names)


def narrow_fluid(
    level: Float[Tensor, "k j i"], inside: Bool[Tensor, "k j i"], spacing_mm: Sequence[float]
) -> Float[Tensor, "k j i"]:
    """Fraction of fluid, 0 to 1, that lies in gaps narrower than `SULCUS_MM`.

    Sulci are bright in ultrasound, for they hold pia and vessels; ventricles are black. What is narrow is what a grey
    opening with a ball takes away.

    Args:
        level: (K, J, I), normalised intensity.
        inside: (K, J, I), the head or brain.
        spacing_mm: along k, j, i.
    """
    reach = [max(1, round(0.5 * SULCUS_MM / mm)) for mm in spacing_mm]
    fluid = in_slabs(lambda x, mask: ((LEVELS[1] - x) / (LEVELS[1] - LEVELS[0])).clamp(0, 1) * mask, level, inside)
    # Bytes are compared many times as fast as floating point; a fraction is off by 1/255 at most.
    whole = np.rint(fluid.cpu().numpy() * 255).astype(np.uint8)
    return torch.from_numpy((whole - grey_opening(whole, reach)).astype(np.float32) / 255).to(level)


def foreground_mask(volume: Float[Tensor, "k j i"]) -> Bool[Tensor, "k j i"]:
    """The head (or stripped brain) in an MRI: the largest piece above the darker of two Otsu thresholds, holes filled.

    The first threshold (Otsu 1979, IEEE Trans. Syst. Man Cybern. 9:62-66) parts bright tissue from the rest, the second
    the rest into dark tissue and air. Both are found on a grid of at most 256 voxels an axis.
    """
    values = volume.detach().cpu().numpy()
    some = values[tuple(slice(None, None, -(-size // 256)) for size in values.shape)]
    top = np.percentile(some, 99.9)
    counts, edges = np.histogram(some, 512, range=(some.min(), top if top > some.min() else some.max()))
    middles = (edges[1:] + edges[:-1]) / 2
    bright = _otsu(counts, middles)
    darker = middles < bright
    above = values > (_otsu(counts[darker], middles[darker]) if darker.sum() > 1 else bright)
    above = sitk.GetImageFromArray(above.astype(np.uint8))
    largest = sitk.RelabelComponent(sitk.ConnectedComponent(above)) == 1
    mask = torch.from_numpy(sitk.GetArrayFromImage(largest)).bool()
    box = _box_of(mask)
    filled = sitk.BinaryFillhole(sitk.GetImageFromArray(mask[box].numpy().astype(np.uint8)))
    mask[box] = torch.from_numpy(sitk.GetArrayFromImage(filled)).bool()
    return mask.to(volume.device)


def _class_fractions(
    volume: Float[Tensor, "k j i"], inside: Bool[Tensor, "k j i"], scale: IntensityScale
) -> Float[Tensor, "n k j i"]:
    knots, numbers = _ascending(scale, range(len(scale.centres)))

    def fractions(volume: Tensor, inside: Tensor) -> Tensor:
        position = piecewise_linear(volume.clamp(knots[0], knots[-1]), knots, numbers)
        return torch.stack([(1 - (position - n).abs()).clamp(min=0) * inside for n in range(len(numbers))])

    return in_slabs(fractions, volume, inside)


def _box_of(inside: Bool[Tensor, "k j i"]) -> tuple[slice, slice, slice]:
    """The smallest box around a mask, with a margin of one voxel, over which impedance is softened."""
    if not inside.any():
        return tuple(slice(0, size) for size in inside.shape)
    mask, box = inside.cpu().numpy(), []
    across = mask.any(2)
    for occupied, size in zip((across.any(1), across.any(0), mask.any(0).any(0)), mask.shape):
        found = np.flatnonzero(occupied)
        box.append(slice(max(int(found[0]) - 1, 0), min(int(found[-1]) + 2, size)))
    # No axis of a medium has fewer than two voxels.
    return tuple(slice(0, size) if b.stop - b.start < 2 else b for b, size in zip(box, inside.shape))


def _ascending(scale: IntensityScale, values: Sequence[float]) -> tuple[list[float], list[float]]:
    """The class means in ascending order, and the given value of each."""
    pairs = sorted(zip(scale.centres, values))
    return [centre for centre, _ in pairs], [float(value) for _, value in pairs]


def _intensities(volume: np.ndarray, inside: np.ndarray, spacing_mm: Sequence[float]) -> Iterator[np.ndarray]:
    """Intensities far inside of the mask, then those of all of it, from a grid of at most 128 voxels an axis."""
    steps = [-(-size // 128) for size in inside.shape]
    every = tuple(slice(None, None, step) for step in steps)
    inside, volume = inside[every], volume[every].astype(np.float64)
    distance = ndimage.distance_transform_edt(
        np.pad(inside, 1), sampling=[step * mm for step, mm in zip(steps, spacing_mm)]
    )[1:-1, 1:-1, 1:-1]
    for chosen in (distance > _DEEP * distance.max(), inside):
        if chosen.any():
            yield volume[chosen]


def _k_means(values: np.ndarray, n: int) -> np.ndarray | None:
    """Ascending means of n classes of numbers, or None if there are not that many."""
    low, high = np.percentile(values, [2, 98])
    if high == low or np.unique(values).size < n:
        return None
    # Seeded by the even steps between the ends, on a scale of 1: the result does not depend on the scanner's gain.
    found, _ = kmeans(((values - low) / (high - low))[:, None], (np.arange(n)[:, None] + 0.5) / n, thresh=1e-9)
    centres = low + (high - low) * np.sort(found[:, 0])
    return centres if len(centres) == n and (np.diff(centres) > 0).all() else None


def _otsu(counts: np.ndarray, middles: np.ndarray) -> float:
    """The threshold of a histogram with the greatest variance between the two classes.

    Not SimpleITK's, which takes the far end of the bin: heads of whole numbers would lose or win a grey level.
    """
    weight, moment = np.cumsum(counts), np.cumsum(counts * middles)
    rest = weight[-1] - weight
    between = (moment[-1] * weight / weight[-1] - moment) ** 2 / np.maximum(weight * rest, 1e-12)
    return float(middles[between[:-1].argmax()])
