"""What the voxels of an MRI are made of.

The medium at a point is the sum of fractions times values, sum_c m_c(x) p_c, and coupling gel is what the fractions
leave to 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .impedance import LEVELS, impedance_of_levels
from .tissue import Tissue, tissue_properties

if TYPE_CHECKING:
    from jaxtyping import Float

Box = tuple[slice, slice, slice]

# Normalised intensity at which the network gives the impedance of a class; a sulcus is half fluid, half grey matter.
LEVEL_OF_CLASS = {
    "csf": LEVELS[0],
    "sulcus": (LEVELS[0] + LEVELS[1]) / 2,
    "grey matter": LEVELS[1],
    "white matter": LEVELS[2],
}


def network_levels() -> Float[Tensor, " knots"]:
    """The normalised intensities at which the network is asked: those of the classes of an MRI, in their order."""
    return torch.tensor(list(LEVEL_OF_CLASS.values()))


@dataclass(frozen=True)
class MriMemberships:
    """Fractions of tissues in an MRI, whose impedance is a network's.

    Args:
        tissues: one per fraction; the first are those of `LEVEL_OF_CLASS`, whose impedance is the network's.
        values: (C, k, j, i), the fractions in `box`; elsewhere they are zero.
        sheets: (4, k, j, i), as `sheet_channels` makes them.
        echogenicity_db: (k, j, i), the slow texture of the tissues' scattering, or None.
        mapping: normalised intensity to MRayl.
        shape: (K, J, I) of the whole grid.
        box: the part of it that holds the patient; around it is gel.
    """

    tissues: tuple[Tissue, ...]
    values: Float[Tensor, "c k j i"]
    sheets: Float[Tensor, "4 k j i"]
    echogenicity_db: Float[Tensor, "k j i"] | None
    mapping: Callable[[Tensor], Tensor]
    shape: tuple[int, int, int]
    box: Box

    def properties(self) -> Float[Tensor, "c 4"]:
        """The channels' values of the tissues, with the network's impedance; differentiable to the network."""
        impedance = impedance_of_levels(self.mapping, network_levels().to(self.values))
        return with_impedance(tissue_properties(self.tissues).to(self.values), impedance)


def with_impedance(properties: Float[Tensor, "c 4"], impedance: Float[Tensor, " n"]) -> Float[Tensor, "c 4"]:
    """A table with other impedances, in MRayl, in its first n rows."""
    column = torch.cat([impedance.to(properties), properties[len(impedance) :, 0]])
    return torch.cat([column[:, None], properties[:, 1:]], 1)
