"""Media as a fit sees them: fractions sampled once at the points of its frames, and then only mixed.

Trilinear sampling is linear, so a step of the fit costs no volume and no gradient to one. The network from MRI
intensity to impedance becomes linear by its values at `network_levels`, with the hat functions between them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError, _
from ..medium import GEL, AcousticMedium
from ..medium.checks import as_ijk_to_ras
from ..medium.impedance import ImpedanceMLP
from ..medium.labels import LabelTable, label_memberships
from ..medium.medium import SampledMedium, spacing_kji
from ..medium.memberships import Memberships, mix
from ..medium.mri import mri_memberships
from ..medium.tissue import CHANNELS, Tissue

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from jaxtyping import Bool, Float

MARGIN_VOXELS = 3  # what trilinear sampling, softening and anti-aliasing reach


@dataclass(frozen=True)
class Fractions:
    """What the samples of one set of points are made of.

    Args:
        tissues: (C, *points), fractions of the medium's tissues; what they leave to 1 is gel.
        levels: (knots, *points), fractions of the network's levels, or None where impedance is in the table.
        channels: (4, *points), the four maps themselves where nothing of the medium is fitted, else None.
    """

    tissues: Tensor | None = None
    levels: Tensor | None = None
    channels: Tensor | None = None

    def mixed(self, table: Float[Tensor, "c 4"] | None, impedance: Float[Tensor, " knots"] | None) -> SampledMedium:
        """The medium at these points for a table of channel values and the network's values at its levels."""
        if self.channels is not None:
            return SampledMedium(self.channels)
        values = mix(self.tissues, table)
        if self.levels is not None:
            z = torch.tensordot(impedance.to(values) - GEL[0], self.levels, 1) + GEL[0]
            values = torch.cat([z[None], values[1:]])
        return SampledMedium(values)


@dataclass(frozen=True)
class FittableMedium:
    """A patient as the fit sees it: memberships to be mixed anew in each step, or a medium that stays as it is.

    Args:
        ijk_to_ras: (4, 4) float64, voxel centre to RAS mm.
        memberships: what is fitted; None for a medium that is not.
        fixed: that medium.
    """

    ijk_to_ras: Float[Tensor, "4 4"]
    memberships: Memberships | None = None
    fixed: AcousticMedium | None = None

    @property
    def tissues(self) -> tuple[Tissue, ...]:
        """The table's rows that can be fitted."""
        return () if self.memberships is None else self.memberships.tissues

    @property
    def mapping(self) -> ImpedanceMLP | None:
        """The network that can be fitted, or None."""
        return None if self.memberships is None else self.memberships.mapping

    def contains(self, points: Float[Tensor, "*shape 3"]) -> Bool[Tensor, "*shape"]:
        """Whether points, (..., 3) RAS mm, lie in the volume."""
        if self.fixed is not None:
            return self.fixed.contains(points)
        inverse = torch.linalg.inv(self.ijk_to_ras)
        ijk = points.double() @ inverse[:3, :3].T + inverse[:3, 3]
        last = ijk.new_tensor([size - 1 for size in reversed(self.memberships.shape)])
        return ((ijk >= 0) & (ijk <= last)).all(-1)

    def sample(self, sets: Sequence[Tensor]) -> list[Fractions]:
        """The fractions at several sets of points, (..., 3) RAS mm."""
        if self.fixed is not None:
            return [Fractions(channels=self.fixed.sample(points)) for points in sets]
        region, matrix = self._region(sets)
        tissues = _sampled(self.memberships.fractions(region), matrix, sets)
        if self.mapping is None:
            return [Fractions(part) for part in tissues]
        return [Fractions(*parts) for parts in zip(tissues, _sampled(self.memberships.levels(region), matrix, sets))]

    def _region(self, sets: Sequence[Tensor]) -> tuple[tuple[slice, ...], Tensor]:
        """The box of voxels (k, j, i) around all points, within that of the memberships, and its ijk_to_ras."""
        inverse = torch.linalg.inv(self.ijk_to_ras)
        points = torch.cat([points.reshape(-1, 3).double() for points in sets])
        ijk = points @ inverse[:3, :3].T + inverse[:3, 3]
        box = self.memberships.box[::-1]
        first, last = (torch.tensor(ends) for ends in ([b.start for b in box], [b.stop - 1 for b in box]))
        # Two voxels at least: points beyond them all are gel.
        low = torch.minimum((ijk.amin(0).floor().long() - MARGIN_VOXELS).clamp(min=first), last - 1)
        high = torch.maximum((ijk.amax(0).ceil().long() + MARGIN_VOXELS).clamp(max=last), low + 1)
        matrix = self.ijk_to_ras.clone()
        matrix[:3, 3] += matrix[:3, :3] @ low.double()
        i, j, k = (slice(a, b + 1) for a, b in zip(low.tolist(), high.tolist()))
        return (k, j, i), matrix


def fixed_medium(medium: AcousticMedium) -> FittableMedium:
    """A medium of which nothing is fitted (a CT's): only the acquisition can be."""
    return FittableMedium(medium.ijk_to_ras, fixed=medium)


def mri_medium(
    t1: np.ndarray | Tensor,
    ijk_to_ras: np.ndarray | Tensor,
    mask: np.ndarray | Tensor | None = None,
    *,
    mapping: str | ImpedanceMLP | None = None,
    contrast: str = "t1",
    tissues: Mapping[str, Tissue] | None = None,
) -> FittableMedium:
    """The medium of `AcousticMedium.from_mri`, to be fitted."""
    matrix = as_ijk_to_ras(ijk_to_ras)
    options = {"mapping": mapping, "contrast": contrast, "tissues": tissues}
    return FittableMedium(matrix, mri_memberships(t1, mask, spacing_mm=spacing_kji(matrix), **options))


def label_medium(labels: np.ndarray | Tensor, table: LabelTable, ijk_to_ras: np.ndarray | Tensor) -> FittableMedium:
    """The medium of `AcousticMedium.from_labels`, to be fitted: one class per tissue that occurs.

    Raises:
        InputError: as that does, and for a segmentation without any tissue.
    """
    memberships = label_memberships(labels, table)
    if not memberships.tissues:
        raise InputError(_("The segmentation holds no tissue; choose one with labels."))
    return FittableMedium(as_ijk_to_ras(ijk_to_ras), memberships)


def _sampled(volumes: Iterable[Tensor], ijk_to_ras: Tensor, sets: Sequence[Tensor]) -> list[Tensor]:
    """Every volume at every set of points, zero outside: a list of (n, *points), four volumes at a time."""
    found: list[list[Tensor]] = [[] for _ in sets]
    batch: list[Tensor] = []

    def flush() -> None:
        count = len(batch)
        stack = torch.stack([*batch, *[torch.zeros_like(batch[0])] * (len(CHANNELS) - count)])
        medium = AcousticMedium(stack, ijk_to_ras, torch.zeros(len(CHANNELS)))
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
