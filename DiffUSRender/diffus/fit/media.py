"""Media as a fit sees them: what the points of its frames are made of, found once, and then only mixed.

Sharpening does not depend on the tissues' values, so a step of the fit costs no volume and no gradient to one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError, _
from ..medium import AcousticMedium
from ..medium.checks import as_ijk_to_ras
from ..medium.impedance import ImpedanceMLP
from ..medium.labels import LabelTable, label_memberships
from ..medium.medium import SampledMedium
from ..medium.memberships import LabelMemberships, with_impedance
from ..medium.mixture import Mixture
from ..medium.mri import mri_memberships
from ..medium.tissue import Tissue

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jaxtyping import Bool, Float

MARGIN_VOXELS = 3  # what trilinear sampling, softening and anti-aliasing reach


@dataclass(frozen=True)
class Fractions:
    """What the samples of one set of points are made of, ready for any table.

    Args:
        mixture: of the medium at the points, or None where nothing of it is fitted.
        channels: (4 or 6, *points), the channels themselves, there.
    """

    mixture: Mixture | None = None
    channels: Float[Tensor, "channels *points"] | None = None

    @property
    def tissues(self) -> Float[Tensor, "c *points"]:
        """Fractions of the medium's tissues, (C, *points); what they leave to 1 is gel."""
        return self.mixture.fractions

    def mixed(self, table: Float[Tensor, "c 4"] | None, impedance: Float[Tensor, " knots"] | None) -> SampledMedium:
        """The medium at these points for a table of channel values and the network's values at its levels."""
        if self.channels is not None:
            return SampledMedium(self.channels)
        if impedance is not None:
            table = with_impedance(table, impedance)
        return SampledMedium(self.mixture.mixed(table))


@dataclass(frozen=True)
class FittableMedium:
    """A patient as the fit sees it: tissues to be mixed anew in each step, or a medium that stays as it is.

    Args:
        ijk_to_ras: (4, 4) float64, voxel centre to RAS mm.
        medium: of which nothing is fitted, or whose `tissues` are; None for a segmentation.
        labels: the segmentation, whose fractions are made only around the points.
        tissues: the table's rows that can be fitted.
        mapping: the network that can be fitted, or None.
    """

    ijk_to_ras: Float[Tensor, "4 4"]
    medium: AcousticMedium | None = None
    labels: LabelMemberships | None = None
    tissues: tuple[Tissue, ...] = ()
    mapping: ImpedanceMLP | None = None

    def contains(self, points: Float[Tensor, "*shape 3"]) -> Bool[Tensor, "*shape"]:
        """Whether points, (..., 3) RAS mm, lie in the volume."""
        if self.medium is not None:
            return self.medium.contains(points)
        inverse = torch.linalg.inv(self.ijk_to_ras)
        ijk = points.double() @ inverse[:3, :3].T + inverse[:3, 3]
        last = ijk.new_tensor([size - 1 for size in reversed(self.labels.shape)])
        return ((ijk >= 0) & (ijk <= last)).all(-1)

    def sample(self, sets: Sequence[Tensor]) -> list[Fractions]:
        """What several sets of points, (..., 3) RAS mm, are made of."""
        medium = self.medium
        if medium is None:
            region, matrix = self._region(sets)
            fractions = torch.stack(list(self.labels.fractions(region)))
            medium = AcousticMedium.of_fractions(fractions, self.tissues, matrix, sharp=False)
        if not self.tissues:
            return [Fractions(channels=medium.sample(points)) for points in sets]
        return [Fractions(medium.mixture(points)) for points in sets]

    def _region(self, sets: Sequence[Tensor]) -> tuple[tuple[slice, ...], Tensor]:
        """The box of voxels (k, j, i) around all points, and its ijk_to_ras."""
        inverse = torch.linalg.inv(self.ijk_to_ras)
        points = torch.cat([points.reshape(-1, 3).double() for points in sets])
        ijk = points @ inverse[:3, :3].T + inverse[:3, 3]
        last = torch.tensor(self.labels.shape[::-1]) - 1
        # Two voxels at least: points beyond them all are gel.
        low = torch.minimum((ijk.amin(0).floor().long() - MARGIN_VOXELS).clamp(min=0), last - 1)
        high = torch.maximum((ijk.amax(0).ceil().long() + MARGIN_VOXELS).clamp(max=last), low + 1)
        matrix = self.ijk_to_ras.clone()
        matrix[:3, 3] += matrix[:3, :3] @ low.double()
        i, j, k = (slice(a, b + 1) for a, b in zip(low.tolist(), high.tolist()))
        return (k, j, i), matrix


def fixed_medium(medium: AcousticMedium) -> FittableMedium:
    """A medium of which nothing is fitted (a CT's): only the acquisition can be."""
    return FittableMedium(medium.ijk_to_ras, medium)


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
    memberships = mri_memberships(t1, mask, ijk_to_ras=matrix, **options)
    medium = AcousticMedium.of_memberships(memberships, matrix)
    return FittableMedium(matrix, medium, tissues=memberships.tissues, mapping=memberships.mapping)


def label_medium(labels: np.ndarray | Tensor, table: LabelTable, ijk_to_ras: np.ndarray | Tensor) -> FittableMedium:
    """The medium of `AcousticMedium.from_labels`, to be fitted: one class per tissue that occurs.

    Raises:
        InputError: as that does, and for a segmentation without any tissue.
    """
    memberships = label_memberships(labels, table)
    if not memberships.tissues:
        raise InputError(_("The segmentation holds no tissue; choose one with labels."))
    return FittableMedium(as_ijk_to_ras(ijk_to_ras), labels=memberships, tissues=memberships.tissues)
