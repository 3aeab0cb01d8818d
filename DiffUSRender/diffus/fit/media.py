"""Media whose maps are linear in what is fitted, so that a frame's samples are looked up once and then only weighed.

A map is the sum of shares times values: sum_c m_c(x) p_c. Trilinear sampling is linear too, so m_c at the points of a
frame can be sampled before the fit, and a step of the fit costs no volume and no gradient to one. The network from
MRI intensity to impedance becomes linear by its values at `KNOTS` levels, with the hat functions between them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from ..geometry.filters import soften
from ..medium import GEL, AcousticMedium, fit_intensity_scale, foreground_mask, normalise, tissue_memberships
from ..medium.checks import as_mask, as_volume, require_contrast
from ..medium.labels import as_labels
from ..medium.mri import LEVEL_RANGE, TISSUES, ImpedanceMLP, load_impedance, mri_tissues, narrow_fluid
from ..medium.tissue import CHANNELS, Tissue, tissue_table
from ..medium.tissue import label_table as public_label_table

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from jaxtyping import Float

KNOTS = 33  # levels of the network that the maps are built from; in between it is straight within 1e-4 MRayl
MRI_CLASSES = ("csf", "sulcus", *TISSUES[1:])
MARGIN_VOXELS = 3  # what trilinear sampling, softening and anti-aliasing reach


@dataclass(frozen=True)
class Shares:
    """What the samples of one set of points are made of.

    tissues: (C, *points), shares of the tissues of the table, what they leave to 1 is gel. levels: (KNOTS, *points),
    shares of the network's levels, or None where impedance is in the table. channels: (4, *points), the four maps
    themselves where nothing of the medium is fitted, else None.
    """

    tissues: Tensor | None = None
    levels: Tensor | None = None
    channels: Tensor | None = None

    def mixed(self, table: Float[Tensor, "c 4"] | None, impedance: Float[Tensor, " knots"] | None) -> SampledMedium:
        """The medium at these points for a table of channel values and the network's values at its levels."""
        if self.channels is not None:
            return SampledMedium(self.channels)
        gel = self.tissues.new_tensor(GEL)
        values = torch.tensordot((table.to(gel) - gel).T, self.tissues, 1)
        values = values + gel.view(-1, *[1] * (values.ndim - 1))
        if self.levels is not None:
            values = torch.cat([torch.tensordot(impedance.to(gel) - gel[0], self.levels, 1)[None] + gel[0], values[1:]])
        return SampledMedium(values)


@dataclass(frozen=True)
class SampledMedium:
    """The values of a medium at one set of points, in the renderer's place of an `AcousticMedium`: (4, *points)."""

    values: Float[Tensor, "4 *points"]

    def sample(self, points: Float[Tensor, "*points 3"]) -> Float[Tensor, "4 *points"]:
        return self.values


@dataclass(frozen=True)
class FittableMedium:
    """A patient as the fit sees it.

    tissues: the table's rows that are fitted (empty for a medium that is not). mapping: the network, or None.
    sample: points (..., 3), mm of the volume's world, several sets of them, to the `Shares` of each.
    contains: whether points lie in the volume.
    """

    tissues: tuple[Tissue, ...]
    mapping: ImpedanceMLP | None
    sample: Callable[[list[Tensor]], list[Shares]]
    contains: Callable[[Tensor], Tensor]


def network_levels() -> Float[Tensor, " knots"]:
    """The normalised intensities whose impedance the maps are built from."""
    return torch.linspace(*LEVEL_RANGE, KNOTS)


def fixed_medium(medium: AcousticMedium) -> FittableMedium:
    """A medium of which nothing is fitted (a CT's): only the acquisition can be."""
    return FittableMedium(
        (), None, lambda sets: [Shares(channels=medium.sample(points)) for points in sets], medium.contains
    )


def mri_medium(
    t1: np.ndarray | Tensor,
    ijk_to_ras: np.ndarray | Tensor,
    mask: np.ndarray | Tensor | None = None,
    *,
    mapping: str | ImpedanceMLP | None = None,
    contrast: str = "t1",
    tissues: Mapping[str, Tissue] | None = None,
) -> FittableMedium:
    """The medium of `AcousticMedium.from_mri`: impedance by the network, the rest by the classes of `MRI_CLASSES`."""
    volume = as_volume(t1, "MRI")
    require_contrast(volume, "MRI")
    matrix = torch.as_tensor(np.asarray(ijk_to_ras, dtype=np.float64))
    inside = foreground_mask(volume) if mask is None else as_mask(mask, volume)
    spacing = matrix[:3, :3].norm(dim=0).flip(0).tolist()
    scale = fit_intensity_scale(volume, inside, contrast=contrast, spacing_mm=spacing)
    network = mapping if isinstance(mapping, ImpedanceMLP) else load_impedance(mapping)
    ends = min(scale.centres), max(scale.centres)
    sulci = narrow_fluid(normalise(volume.clamp(*ends), scale), inside, spacing) * inside
    fluid, *solid = tissue_memberships(volume, inside, contrast=contrast, scale=scale)
    shares = torch.stack([fluid - sulci, sulci, *solid])

    def sample(sets: list[Tensor]) -> list[Shares]:
        box, place = _crop(volume.shape, matrix, sets)
        level = normalise(volume[box].contiguous(), scale).clamp(*LEVEL_RANGE)
        step = (LEVEL_RANGE[1] - LEVEL_RANGE[0]) / (KNOTS - 1)
        hats = (soften((1 - (level - knot).abs() / step).clamp(min=0) * inside[box]) for knot in network_levels())
        classes = _sampled(shares[(slice(None), *box)], place, sets)
        return [Shares(c, k) for c, k in zip(classes, _sampled(hats, place, sets))]

    return FittableMedium(tuple(mri_tissues(MRI_CLASSES, tissues)), network, sample, _within(volume.shape, matrix))


def label_medium(
    labels: np.ndarray | Tensor, table: str | dict[int, str | Tissue], ijk_to_ras: np.ndarray | Tensor
) -> FittableMedium:
    """The medium of `AcousticMedium.from_labels`, one class per tissue that occurs; gel is no class and stays gel.

    Raises InputError, as that does, for labels without a tissue.
    """
    array = as_labels(labels)
    matrix = torch.as_tensor(np.asarray(ijk_to_ras, dtype=np.float64))
    entries = dict(public_label_table(table) if isinstance(table, str) else table)
    known = tissue_table()
    values: dict[Tissue, list[int]] = {}
    for value in np.unique(array).tolist():
        if value == 0 and value not in entries:
            continue
        if value not in entries:
            raise InputError(f"No tissue is known for label {value}; add it to the label table.")
        tissue = known.require(entries[value])
        if tissue.name != "gel":
            values.setdefault(tissue, []).append(value)
    if not values:
        raise InputError("The segmentation holds no tissue; choose one with labels.")

    def sample(sets: list[Tensor]) -> list[Shares]:
        box, place = _crop(array.shape, matrix, sets)
        each = (_antialiased(np.isin(array[box], list(of))) for of in values.values())
        return [Shares(tissues) for tissues in _sampled(each, place, sets)]

    return FittableMedium(tuple(values), None, sample, _within(array.shape, matrix))


def _antialiased(region: np.ndarray) -> Tensor:
    from scipy import ndimage

    return torch.from_numpy(ndimage.gaussian_filter(region.astype(np.float32), 0.7, mode="nearest", truncate=3))


def _sampled(volumes: Iterable[Tensor], place: Tensor, sets: Sequence[Tensor]) -> list[Tensor]:
    """Every volume of the crop at every set of points, zero outside: a list of (n, *points), four volumes at a time."""
    found: list[list[Tensor]] = [[] for _ in sets]
    batch: list[Tensor] = []

    def flush() -> None:
        count = len(batch)
        stack = torch.stack([*batch, *[torch.zeros_like(batch[0])] * (len(CHANNELS) - count)])
        medium = AcousticMedium(stack, place, torch.zeros(len(CHANNELS)))
        for parts, points in zip(found, sets):
            parts.append(medium.sample(points)[:count])
        batch.clear()

    for volume in volumes:
        batch.append(volume.float())
        if len(batch) == len(CHANNELS):
            flush()
    if batch:
        flush()
    return [torch.cat(parts) for parts in found]


def _crop(shape: Sequence[int], ijk_to_ras: Tensor, sets: Sequence[Tensor]) -> tuple[tuple[slice, ...], Tensor]:
    """The box of voxels (k, j, i) around all points, and its ijk_to_ras; InputError where they miss the volume."""
    inverse = torch.linalg.inv(ijk_to_ras)
    ends = []
    for points in sets:
        flat = points.reshape(-1, 3).double()
        ijk = flat @ inverse[:3, :3].T + inverse[:3, 3]
        ends.append(torch.stack([ijk.amin(0), ijk.amax(0)]))
    low = torch.stack([e[0] for e in ends]).amin(0).floor().long() - MARGIN_VOXELS
    high = torch.stack([e[1] for e in ends]).amax(0).ceil().long() + MARGIN_VOXELS
    size = torch.tensor([shape[2], shape[1], shape[0]])
    low, high = low.clamp(min=0), torch.minimum(high, size - 1)
    if (high - low < 1).any():
        raise InputError("The sweep lies outside of the volume; check the initial transform.")
    place = ijk_to_ras.clone()
    place[:3, 3] = ijk_to_ras[:3, :3] @ low.double() + ijk_to_ras[:3, 3]
    i, j, k = (slice(a, b + 1) for a, b in zip(low.tolist(), high.tolist()))
    return (k, j, i), place


def _within(shape: Sequence[int], ijk_to_ras: Tensor) -> Callable[[Tensor], Tensor]:
    inverse = torch.linalg.inv(ijk_to_ras)
    last = torch.tensor([shape[2] - 1, shape[1] - 1, shape[0] - 1], dtype=torch.float64)

    def contains(points: Tensor) -> Tensor:
        ijk = points.double() @ inverse[:3, :3].T + inverse[:3, 3]
        return ((ijk >= 0) & (ijk <= last)).all(-1)

    return contains
