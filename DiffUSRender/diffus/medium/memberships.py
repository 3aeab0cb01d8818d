"""What the voxels of a patient are made of: the one path from an MRI or a segmentation to a medium.

The medium at a point is the sum of fractions times values, sum_c m_c(x) p_c, and coupling gel is what the fractions
leave to 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from .impedance import LEVELS, impedance_of_levels
from .tissue import GEL, Tissue, tissue_properties

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

Box = tuple[slice, slice, slice]

# Normalised intensity at which the network gives the impedance of a class; a sulcus is half fluid, half grey matter.
LEVEL_OF_CLASS = {
    "csf": LEVELS[0],
    "sulcus": (LEVELS[0] + LEVELS[1]) / 2,
    "grey matter": LEVELS[1],
    "white matter": LEVELS[2],
}
ANTIALIAS_VOXELS = 0.7  # standard deviation of the Gaussian over the steps between labels


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


@dataclass(frozen=True)
class LabelMemberships:
    """Tissues of a segmentation, one per voxel, with the steps between them softened.

    Args:
        tissues: those that occur; gel is none.
        index: (K, J, I), the number of each voxel's tissue; beyond the last is gel.
        antialias: whether steps are softened, by a Gaussian of `ANTIALIAS_VOXELS`.
    """

    tissues: tuple[Tissue, ...]
    index: Int[np.ndarray, "k j i"]
    antialias: bool = True
    mapping: ClassVar[None] = None  # a segmentation has no network

    @property
    def shape(self) -> tuple[int, int, int]:
        """(K, J, I)."""
        return self.index.shape

    @property
    def box(self) -> Box:
        """The whole grid."""
        return tuple(slice(0, size) for size in self.shape)

    def maps(
        self, under: Float[Tensor, "4 k j i"] | None = None, free: Bool[np.ndarray, "k j i"] | None = None
    ) -> Float[Tensor, "4 k j i"]:
        """The medium's four maps, (4, K, J, I), float32; those of `under` where `free` is true."""
        rows = torch.cat([tissue_properties(self.tissues), torch.tensor([GEL], dtype=torch.float64)]).float()
        # Channels of a voxel side by side, the layout in which the medium keeps its maps.
        maps = rows.index_select(0, torch.from_numpy(self.index.ravel())).view(*self.shape, len(GEL))
        if under is not None:
            maps = torch.where(torch.from_numpy(free)[..., None], under.detach().to(maps).permute(1, 2, 3, 0), maps)
        for channel in maps.numpy().transpose(3, 0, 1, 2):
            channel[:] = self._softened(channel)
        return maps.permute(3, 0, 1, 2)

    def fractions(self, region: Box) -> Iterator[Float[Tensor, "k j i"]]:
        """The fraction of each tissue in a region of the grid."""
        for number in range(len(self.tissues)):
            yield torch.from_numpy(self._softened((self.index[region] == number).astype(np.float32)))

    def _softened(self, volume: np.ndarray) -> np.ndarray:
        if not self.antialias:
            return volume
        return ndimage.gaussian_filter(volume, ANTIALIAS_VOXELS, mode="nearest", truncate=3)
