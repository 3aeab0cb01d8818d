"""What the voxels of a patient are made of: the one path from an MRI or a segmentation to a medium.

A map of the medium is the sum of fractions times values, sum_c m_c(x) p_c, and coupling gel is what the fractions leave
to 1. Rendering mixes whole maps (`maps`); fitting samples the fractions at the points of its frames (`fractions`), for
trilinear sampling is linear too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from ..geometry.filters import soften
from .impedance import LEVEL_RANGE, impedance_from_level
from .tissue import GEL, Tissue, tissue_properties

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

Box = tuple[slice, slice, slice]

KNOTS = 33  # levels of the network; between them its curve is straight within 1e-4 MRayl
ANTIALIAS_VOXELS = 0.7  # standard deviation of the Gaussian over the steps between labels


def mix(fractions: Float[Tensor, "c *shape"], properties: Float[Tensor, "c 4"]) -> Float[Tensor, "4 *shape"]:
    """The medium's channels of mixtures of tissues, the rest being gel; differentiable to both.

    Args:
        fractions: (C, ...), 0 to 1, that add up to 1 at most.
        properties: (C, 4), the channels' values of each tissue, in the order of `CHANNELS`.
    """
    gel = fractions.new_tensor(GEL)
    values = torch.addmm(gel[:, None], (properties.to(fractions) - gel).T, fractions.flatten(1))
    return values.view(len(gel), *fractions.shape[1:])


def network_levels() -> Float[Tensor, " knots"]:
    """The normalised intensities between which the network's curve is taken as straight in a fit."""
    return torch.linspace(*LEVEL_RANGE, KNOTS)


@dataclass(frozen=True)
class MriMemberships:
    """Fractions of tissues in an MRI, whose impedance is a network's.

    Args:
        tissues: one per fraction.
        values: (C, k, j, i), the fractions in `box`; elsewhere they are zero.
        level: (k, j, i), normalised intensity in `box`.
        inside: (k, j, i), where the patient is.
        mapping: normalised intensity to MRayl.
        shape: (K, J, I) of the whole grid.
        box: the part of it that holds the patient; around it is gel.
    """

    tissues: tuple[Tissue, ...]
    values: Float[Tensor, "c k j i"]
    level: Float[Tensor, "k j i"]
    inside: Bool[Tensor, "k j i"]
    mapping: Callable[[Tensor], Tensor]
    shape: tuple[int, int, int]
    box: Box

    def maps(self) -> Float[Tensor, "4 k j i"]:
        """The medium's four maps in `box`, (4, k, j, i); impedance is softened from voxel to voxel."""
        impedance = impedance_from_level(self.mapping, self.level).masked_fill(~self.inside, GEL[0])
        return torch.cat([soften(impedance)[None], mix(self.values, tissue_properties(self.tissues))[1:]])

    def fractions(self, region: Box) -> Iterator[Float[Tensor, "k j i"]]:
        """The fraction of each tissue in a region of the grid that lies in `box`."""
        yield from self.values[(slice(None), *_within(region, self.box))]

    def levels(self, region: Box) -> Iterator[Float[Tensor, "k j i"]]:
        """The fraction of each of `network_levels`, as `fractions`: hat functions, softened as impedance is."""
        here = _within(region, self.box)
        level, inside = self.level[here].clamp(*LEVEL_RANGE), self.inside[here]
        step = (LEVEL_RANGE[1] - LEVEL_RANGE[0]) / (KNOTS - 1)
        for knot in network_levels():
            yield soften((1 - (level - knot).abs() / step).clamp(min=0) * inside)


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


Memberships = MriMemberships | LabelMemberships


def _within(region: Box, box: Box) -> Box:
    """A region of the whole grid in the voxels of `box`."""
    return tuple(slice(r.start - b.start, r.stop - b.start) for r, b in zip(region, box))
