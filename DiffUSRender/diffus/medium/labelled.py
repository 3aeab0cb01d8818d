"""The medium of a segmentation, with sharp borders and walls, alone or over another medium."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .medium import AcousticMedium, grid_of, spacing_kji
from .mixture import SHEET_RANGE_MM, Mixture
from .pairs import pack_labels
from .tissue import CHANNELS, GEL, Tissue, tissue_properties
from .walls import wall_levels

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Bool, Float, Int, Integer

    from .pairs import Borders

_ECHO_MM = 0.5  # standard deviation of a wall's echo, by which the nearer of two walls is chosen


class LabelMedium(AcousticMedium):
    """A segmentation: the tissues' values on either side of a border that is `STEP_MM` wide, and walls on it.

    Args:
        index: (K, J, I), the number of each voxel's tissue; the one beyond the last is gel, the next the medium under.
        tissues: those that occur.
        ijk_to_ras: (4, 4) float64, voxel centre to RAS mm.
        antialias: whether slanted borders are smoothed; else they follow the faces of the voxels.
        under: the medium of what is not segmented, on the same grid.
    """

    _MOVED = ("_rows", "_background", "_levels", "_under")

    def __init__(
        self,
        index: Integer[np.ndarray, "k j i"],
        tissues: tuple[Tissue, ...],
        ijk_to_ras: Float[Tensor, "4 4"],
        *,
        antialias: bool = True,
        under: AcousticMedium | None = None,
    ) -> None:
        self._ijk_to_ras, self._shape = ijk_to_ras, tuple(index.shape)
        self._ras_to_ijk = torch.linalg.inv(ijk_to_ras)
        self._ras_to_grid = grid_of(ijk_to_ras, self._shape)
        self._gel, self._rest = len(tissues), len(tissues) + 1
        self._pairs = pack_labels(index, spacing_kji(ijk_to_ras), self._gel, antialias=antialias)
        self._under = under
        rows = torch.cat([tissue_properties(tissues), torch.tensor([GEL, GEL], dtype=torch.float64)])
        self._rows = rows.float() if under is None else rows.to(under.background)
        self._background = self._rows[self._gel]
        rest = None if under is None else self._rest
        self._levels = wall_levels([*tissues, None, None], rest).to(self._rows).view(-1)

    @property
    def maps(self) -> Float[Tensor, "4 k j i"]:
        words = self._pairs.packed[1:-1, 1:-1, 1:-1]
        under = None if self._under is None else self._under.maps.flatten(1)
        first, second = ((words >> places & 255).reshape(-1) for places in (0, 8))
        part = (words >> 16).to(self._rows).reshape(-1) / 255
        one, other = (self._values(number, under) for number in (first, second))
        return torch.lerp(other, one, part).view(len(CHANNELS), *self._shape)

    @property
    def device(self) -> torch.device:
        return self._rows.device

    @property
    def dtype(self) -> torch.dtype:
        return self._rows.dtype

    def to(self, *args, **kwargs) -> LabelMedium:
        other = super().to(*args, **kwargs)
        other._pairs = self._pairs.to(other._rows.device)  # numbers of tissues stay whole
        return other

    def sample(self, points_ras: Float[Tensor, "*shape 3"]) -> Float[Tensor, "6 *shape"]:
        borders, flat = self._borders(points_ras)
        under, sheets = None, self._walls(borders)
        if self._under is not None:
            under = self._sample_under(flat, (borders.first == self._rest) | (borders.second == self._rest))
            if len(under) > len(CHANNELS):
                sheets = _stronger(sheets, under[len(CHANNELS) :], (borders.first == self._rest))
        one, other = (self._values(number, under) for number in (borders.first, borders.second))
        values = torch.cat([torch.lerp(other, one, borders.share), sheets])
        return values.view(len(values), *points_ras.shape[:-1])

    def mixture(self, points_ras: Float[Tensor, "*shape 3"]) -> Mixture:
        borders, flat = self._borders(points_ras)
        fractions = self._rows.new_zeros(self._rest + 1, len(flat))
        fractions = fractions.scatter_add(0, borders.first.long()[None], borders.share[None])
        fractions = fractions.scatter_add(0, borders.second.long()[None], 1 - borders.share[None])
        sheets, shape = self._walls(borders), points_ras.shape[:-1]
        under = None
        if self._under is not None:
            values = self._sample_under(flat, fractions[self._rest] > 0)
            under = (values[: len(CHANNELS)] - self._background[:, None]) * fractions[self._rest]
            under = under.view(len(CHANNELS), *shape)
            if len(values) > len(CHANNELS):
                sheets = _stronger(sheets, values[len(CHANNELS) :], borders.first == self._rest)
        fractions = fractions[: self._gel].view(self._gel, *shape)
        return Mixture(self._background, fractions, under, sheets=sheets.view(2, *shape))

    def _borders(self, points_ras: Tensor) -> tuple[Borders, Float[Tensor, "n 3"]]:
        matrix, flat = self._ras_to_ijk.to(points_ras), points_ras.reshape(-1, 3)
        return self._pairs.borders((flat @ matrix[:3, :3].T + matrix[:3, 3]).to(self._rows)), flat

    def _values(self, number: Int[Tensor, " n"], under: Float[Tensor, "c n"] | None) -> Float[Tensor, "4 n"]:
        """The channels of tissues by number."""
        values = self._rows.T.index_select(1, number)
        return values if under is None else torch.where(number == self._rest, under[: len(CHANNELS)], values)

    def _walls(self, borders: Borders) -> Float[Tensor, "2 n"]:
        """Distance from the wall and its level."""
        level = self._levels.index_select(0, borders.first * (self._rest + 1) + borders.second)
        return torch.stack([borders.distance_mm.abs(), level])

    def _sample_under(self, points: Float[Tensor, "n 3"], needed: Bool[Tensor, " n"]) -> Float[Tensor, "c n"]:
        """The channels of the medium under the labels where they are needed; on a CPU only there."""
        if points.device.type != "cpu":
            return self._under.sample(points)
        where = torch.nonzero(needed)[:, 0]
        values = self._under.sample(points.index_select(0, where))
        return values.new_zeros(len(values), len(points)).index_copy(1, where, values)


def _stronger(walls: Float[Tensor, "2 n"], under: Float[Tensor, "2 n"], rest: Bool[Tensor, " n"]) -> Tensor:
    """Of the labels' walls and the sheets of the medium under them, which count only there, the stronger echo."""
    strength = [level * torch.exp((distance / _ECHO_MM).square() / -2) for distance, level in (walls, under)]
    chosen = rest & (strength[1] > strength[0])
    distance = torch.where(chosen, under[0].clamp(-SHEET_RANGE_MM, SHEET_RANGE_MM), walls[0])
    return torch.stack([distance, torch.where(chosen, under[1], walls[1])])
