"""Media as a fit sees them: what the points of its frames are made of, found once, and then only mixed.

Sharpening does not depend on the tissues' values, so a step of the fit costs no volume and no gradient to one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from ..errors import InputError, _
from ..medium import AcousticMedium
from ..medium.checks import as_ijk_to_ras
from ..medium.impedance import ImpedanceMLP
from ..medium.labelled import LabelMedium
from ..medium.labels import LabelTable, as_labels, label_tissues
from ..medium.medium import SampledMedium
from ..medium.memberships import with_impedance
from ..medium.mixture import Mixture
from ..medium.mri import mri_memberships
from ..medium.tissue import Tissue

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jaxtyping import Bool, Float

    from ..medium.medium import Samplable


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
        medium: of which nothing is fitted, or whose `tissues` are.
        tissues: the table's rows that can be fitted.
        mapping: the network that can be fitted, or None.
    """

    medium: AcousticMedium
    tissues: tuple[Tissue, ...] = ()
    mapping: ImpedanceMLP | None = None

    def contains(self, points: Float[Tensor, "*shape 3"]) -> Bool[Tensor, "*shape"]:
        """Whether points, (..., 3) RAS mm, lie in the volume."""
        return self.medium.contains(points)

    def mixed(self, table: Float[Tensor, "c 4"] | None, impedance: Float[Tensor, " knots"] | None) -> Samplable:
        """The medium at any points for a table and the network's values, as `Fractions.mixed` at its own."""
        return _Mixed(self, table, impedance) if self.tissues else self.medium

    def sample(self, sets: Sequence[Tensor]) -> list[Fractions]:
        """What several sets of points, (..., 3) RAS mm, are made of."""
        if not self.tissues:
            return [Fractions(channels=self.medium.sample(points)) for points in sets]
        return [Fractions(self.medium.mixture(points)) for points in sets]


@dataclass(frozen=True)
class _Mixed:
    """A fittable medium with some table and impedances of the network."""

    medium: FittableMedium
    table: Float[Tensor, "c 4"]
    impedance: Float[Tensor, " knots"] | None

    def sample(self, points: Float[Tensor, "*shape 3"]) -> Float[Tensor, "channels *shape"]:
        (made_of,) = self.medium.sample([points])
        return made_of.mixed(self.table, self.impedance).values


def fixed_medium(medium: AcousticMedium) -> FittableMedium:
    """A medium of which nothing is fitted (a CT's): only the acquisition can be."""
    return FittableMedium(medium)


def mri_medium(
    t1: np.ndarray | Tensor,
    ijk_to_ras: np.ndarray | Tensor,
    mask: np.ndarray | Tensor | None = None,
    *,
    mapping: str | ImpedanceMLP | None = None,
    contrast: str = "t1",
    tissues: Mapping[str, Tissue] | None = None,
    segmentation: tuple[np.ndarray | Tensor, LabelTable] | None = None,
) -> FittableMedium:
    """The medium of `AcousticMedium.from_mri`, to be fitted."""
    matrix = as_ijk_to_ras(ijk_to_ras)
    options = {"mapping": mapping, "contrast": contrast, "tissues": tissues, "segmentation": segmentation}
    memberships = mri_memberships(t1, mask, ijk_to_ras=matrix, **options)
    medium = AcousticMedium.of_memberships(memberships, matrix)
    return FittableMedium(medium, tissues=memberships.tissues, mapping=memberships.mapping)


def label_medium(labels: np.ndarray | Tensor, table: LabelTable, ijk_to_ras: np.ndarray | Tensor) -> FittableMedium:
    """The medium of `AcousticMedium.from_labels`, to be fitted: one class per tissue that occurs.

    Raises:
        InputError: as that does, and for a segmentation without any tissue.
    """
    tissues, index = label_tissues(as_labels(labels), table)
    if not tissues:
        raise InputError(_("The segmentation holds no tissue; choose one with labels."))
    return FittableMedium(LabelMedium(index, tissues, as_ijk_to_ras(ijk_to_ras)), tissues=tissues)
