"""The medium of a CT: Hounsfield units made sharp at the points that are sampled, and then the curves of `ct`."""

from __future__ import annotations

import math
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..geometry.filters import soften
from .ct import continued, fluid_from_hu, impedance_from_hu, loss_and_scattering_from_hu
from .curves import in_slabs
from .medium import AcousticMedium, grid_of, grid_sample, spacing_kji
from .mixture import SHEET_RANGE_MM, STEP_MM, Mixture
from .sheets import decibels
from .tissue import CHANNELS, GEL
from .walls import FASCIA_DB, WALL_DB

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from jaxtyping import Bool, Float

HU_RANGE, HU_STEP = (-1000.0, 3000.0), 4.0  # of the curves at points
EDGE_HU = (60.0, 120.0)  # neighbours that differ by less are one tissue, by more two
_WINDOW_MM = 1.0  # how far from a voxel its edge's two sides are looked for, one voxel at least
_FAT_HU, _SOFT_HU, _GAS_HU = -80.0, 20.0, (-300.0, -200.0)
_SOFTEN_MM = 0.7  # of the border between fat and muscle, on fine voxels
_MAX_PASSES = 3
_LEAST = 0.02  # fractions nearer to 0 and 1 say nothing of the distance
_LOGIT = 1.702  # the logistic function at 1.702 x is the normal distribution's within 0.01
_OUTSIDE = (0.0, -1.0, 0.0, 0.0, SHEET_RANGE_MM, 0.0)  # the voxels' channels around the grid


class CtMedium(AcousticMedium):
    """A CT. Voxels hold its numbers, those on both sides of the nearest edge, liquid, and the way to the nearest wall.

    A ramp between two tissues that the scanner blurred runs through the numbers of others: from gas to muscle through
    lung and fat. At a point the number is therefore set to that of either side, with a step `STEP_MM` wide where the
    ramp is half-way, and only then looked up. Numbers that differ little, texture and noise, stay as they are.
    Differentiable to points and numbers.

    Args:
        hu: (K, J, I), Hounsfield units without noise.
        liquid: (K, J, I), 1 for fluid in the body, 0 for solid tissue, -1 for gel.
        ijk_to_ras: (4, 4) float64, voxel centre to RAS mm.
        scanner: as for `AcousticMedium.from_ct`.
        softened: whether the impedance of `maps` is smoothed from voxel to voxel.
    """

    _MOVED = ("_hu", "_liquid", "_outside", "_background", "_curves", "_volume")

    def __init__(
        self,
        hu: Float[Tensor, "k j i"],
        liquid: Float[Tensor, "k j i"],
        ijk_to_ras: Float[Tensor, "4 4"],
        *,
        scanner: str | tuple[float, float] = "ge-standard",
        softened: bool = True,
    ) -> None:
        spacing = spacing_kji(ijk_to_ras)
        self._ijk_to_ras, self._shape = ijk_to_ras, tuple(hu.shape)
        self._ras_to_grid = grid_of(ijk_to_ras, self._shape)
        self._scanner, self._is_softened = scanner, softened
        self._slope = 4 * math.prod(spacing) ** (1 / 3) / STEP_MM
        self._hu, self._liquid = hu.clamp(*HU_RANGE), liquid
        self._outside = hu.new_tensor(_OUTSIDE)
        self._background = hu.new_tensor(GEL)
        self._properties = None
        self._curves = hu_curves(scanner).to(hu)

    @cached_property
    def _volume(self) -> Float[Tensor, "1 6 k j i"]:
        """The voxels' channels, made when the first points are sampled: labels over a CT take another's."""
        hu, liquid, spacing = self._hu, self._liquid, spacing_kji(self._ijk_to_ras)
        # What is made under inference mode could never serve a gradient later.
        with torch.inference_mode(False), torch.set_grad_enabled(hu.requires_grad):
            # A voxel's channels side by side, each written where it belongs as soon as it is there.
            volume = hu.new_empty(*hu.shape, len(_OUTSIDE))
            volume[..., 0], volume[..., 1] = hu, liquid
            volume[..., 2], volume[..., 3] = edge_sides(hu, spacing)
            volume[..., 4], volume[..., 5] = body_walls(hu, liquid, spacing)
            volume = volume - self._outside if volume.requires_grad else volume.sub_(self._outside)
            return volume.permute(3, 0, 1, 2)[None]

    @property
    def hu(self) -> Float[np.ndarray, "k j i"]:
        """The Hounsfield units of the voxels, (K, J, I); in gel those of the skin."""
        return self._hu.detach().cpu().numpy()

    @property
    def maps(self) -> Float[Tensor, "4 k j i"]:
        hu, fluid, gel = self._hu, self._liquid.clamp(min=0), (-self._liquid).clamp(min=0)
        impedance = in_slabs(lambda planes: impedance_from_hu(planes, self._scanner), hu.contiguous())
        impedance = soften(impedance) if self._is_softened else impedance
        maps = torch.stack([impedance, *loss_and_scattering_from_hu(hu, fluid)])
        return torch.lerp(maps, self._background[:, None, None, None], gel)

    def without(self, hidden: Bool[Tensor, "k j i"]) -> CtMedium:
        """The same scan without the numbers of some voxels, which those around them replace.

        Labels over a CT need it: beside enhanced blood or bone, tissue would be half of that.
        """
        hu, liquid = continued(self._hu, hidden), continued(self._liquid, hidden)
        return CtMedium(hu, liquid, self._ijk_to_ras, scanner=self._scanner, softened=self._is_softened)

    @property
    def device(self) -> torch.device:
        return self._hu.device

    @property
    def dtype(self) -> torch.dtype:
        return self._hu.dtype

    def sample(self, points_ras: Float[Tensor, "*shape 3"]) -> Float[Tensor, "6 *shape"]:
        matrix = self._ras_to_grid.to(points_ras)
        grid = (points_ras.reshape(-1, 3) @ matrix[:3, :3].T + matrix[:3, 3]).to(self._volume)
        hu, liquid, low, high, distance, level = grid_sample(self._volume, grid) + self._outside[:, None]
        hu = sharpened(hu, low, high, self._slope)
        values, fluid = self._looked_up(hu), _step(liquid, self._slope)
        values = torch.cat([values[:1], torch.lerp(values[1:], torch.stack(fluid_from_hu(hu)), fluid)])
        values = torch.lerp(values, self._background[:, None], _step(-liquid, self._slope))
        return torch.cat([values, distance[None], level[None]]).view(6, *points_ras.shape[:-1])

    def mixture(self, points_ras: Float[Tensor, "*shape 3"]) -> Mixture:
        values = self.sample(points_ras)
        background = self._background.view(-1, *[1] * (values.ndim - 1))
        return Mixture(self._background, None, values[: len(CHANNELS)] - background, sheets=values[len(CHANNELS) :])

    def _looked_up(self, hu: Float[Tensor, " n"]) -> Float[Tensor, "4 n"]:
        """The four channels of solid tissue, linear between the entries of `hu_curves`."""
        position = (hu.clamp(*HU_RANGE) - HU_RANGE[0]) / HU_STEP
        index = position.detach().floor().clamp(max=self._curves.shape[1] - 2)
        entry = index.to(torch.int64)
        start = self._curves.index_select(1, entry)
        return torch.lerp(start, self._curves.index_select(1, entry + 1), position - index)


def hu_curves(scanner: str | tuple[float, float]) -> Float[Tensor, "4 n"]:
    """The channels of solid tissue at Hounsfield units of `HU_RANGE`, every `HU_STEP`, float64."""
    hu = torch.arange(HU_RANGE[0], HU_RANGE[1] + HU_STEP, HU_STEP, dtype=torch.float64)
    return torch.stack([impedance_from_hu(hu, scanner), *loss_and_scattering_from_hu(hu, torch.zeros_like(hu))])


def edge_sides(
    hu: Float[Tensor, "k j i"], spacing_mm: Sequence[float]
) -> tuple[Float[Tensor, "k j i"], Float[Tensor, "k j i"]]:
    """The least and the greatest number around every voxel, between which an edge there runs.

    Args:
        hu: (K, J, I).
        spacing_mm: along k, j, i.
    """
    reach = [max(1, round(_WINDOW_MM / mm)) for mm in spacing_mm]
    return -_greatest(-hu, reach), _greatest(hu, reach)


def sharpened(
    hu: Float[Tensor, " n"], low: Float[Tensor, " n"], high: Float[Tensor, " n"], slope: float
) -> Float[Tensor, " n"]:
    """Numbers at points set to that of the side of the edge on which they lie.

    Args:
        hu: sampled numbers.
        low, high: sampled, of `edge_sides`.
        slope: of the step, for numbers that pass from low to high in 1.
    """
    contrast = high - low
    fraction = ((hu - low) / (contrast + 1e-3)).clamp(0, 1)
    apart = ((contrast - EDGE_HU[0]) / (EDGE_HU[1] - EDGE_HU[0])).clamp(0, 1)
    apart = apart * apart * (3 - 2 * apart)
    return torch.lerp(hu, torch.lerp(low, high, torch.sigmoid((fraction - 0.5) * slope)), apart)


def body_walls(
    hu: Float[Tensor, "k j i"], liquid: Float[Tensor, "k j i"], spacing_mm: Sequence[float]
) -> tuple[Float[Tensor, "k j i"], Float[Tensor, "k j i"]]:
    """Fascia, capsules and walls of fluid: distance and level, as a medium's sheets.

    They lie on the border of what is solid (muscle and organs) against fat and fluid. Its distance follows from the
    smoothed fraction of solid, which across a plane is a normal distribution. Where gas is near there are none, for
    its own echo is stronger, nor at the skin, where the probe's face lies.

    Args:
        hu: (K, J, I).
        liquid: (K, J, I), 1 for fluid.
        spacing_mm: along k, j, i.

    Returns:
        Distance in mm, positive in the solid, and level, (K, J, I) each.
    """
    fluid = liquid.clamp(min=0)
    solid = ((hu - _FAT_HU) / (_SOFT_HU - _FAT_HU)).clamp(0, 1) * (1 - fluid)
    passes = [min(max(round(2 * (_SOFTEN_MM / mm) ** 2), 1), _MAX_PASSES) for mm in spacing_mm]
    for _pass in range(min(passes)):
        solid = soften(solid)
    # A pass has the variance 1/2, the scanner's own blur a little.
    sigma = math.prod(spacing_mm) ** (1 / 3) * math.sqrt(0.5 * min(passes) + 0.05)
    fraction = solid.clamp(_LEAST, 1 - _LEAST)
    distance = (torch.logit(fraction) * (sigma / _LOGIT)).clamp(-SHEET_RANGE_MM, SHEET_RANGE_MM)
    # Far from any border the distance is not known: no wall either.
    here = (solid * (1 - solid) / (_LEAST * (1 - _LEAST))).clamp(max=1)
    gas = ((_GAS_HU[1] - hu) / (_GAS_HU[1] - _GAS_HU[0])).clamp(0, 1)
    none = _greatest(torch.maximum(gas, (-2 * liquid).clamp(0, 1)), (1, 1, 1))
    fascia, wall = decibels(FASCIA_DB), decibels(WALL_DB)
    return distance, (fascia + (wall - fascia) * _greatest(fluid, (1, 1, 1))) * (1 - none) * here


def _greatest(volume: Float[Tensor, "k j i"], reach: Sequence[int]) -> Float[Tensor, "k j i"]:
    """The greatest value of the box of voxels around each, one axis after the other."""
    for axis, half in enumerate(reach):
        for _voxel in range(half):
            size = volume.shape[axis] - 1
            pairs = torch.maximum(volume.narrow(axis, 0, size), volume.narrow(axis, 1, size))
            inner = torch.maximum(pairs.narrow(axis, 0, size - 1), pairs.narrow(axis, 1, size - 1))
            volume = torch.cat([pairs.narrow(axis, 0, 1), inner, pairs.narrow(axis, size - 1, 1)], axis)
    return volume


def _step(fraction: Float[Tensor, " n"], slope: float) -> Float[Tensor, " n"]:
    """0 below one half, 1 above, with a smooth step between; exactly 0 at 0 and less."""
    return torch.sigmoid((fraction - 0.5) * slope) * (fraction / 0.25).clamp(0, 1)
