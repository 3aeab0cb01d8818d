"""What points are made of: fractions of tissues, sharpened and mixed there, and the thin structures between them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .tissue import GEL

if TYPE_CHECKING:
    from jaxtyping import Float

STEP_MM = 0.3  # width of a sharpened interface
MAX_GAIN = 8
SHEET_CHANNELS = 4  # of a voxel: the vector to the nearest sheet in RAS mm, and the sheet's level
SHEET_RANGE_MM = 5.0
_SMALL_MM = 0.01  # rounds the distance's kink on the sheet


def sharpening_gain(spacing_mm: float) -> int:
    """The power to which fractions are raised, 1, 2, 4 or 8, so that an interface is about `STEP_MM` wide.

    A fraction that trilinear sampling spreads over a voxel falls by 1 / spacing, and its g-th power, normalised, g
    times as fast. Powers of two cost a product each.
    """
    return 2 ** round(math.log2(min(max(spacing_mm / STEP_MM, 1), MAX_GAIN)))


def sharpen(fractions: Float[Tensor, "c *points"], gain: int) -> tuple[Tensor, Tensor]:
    """Fractions f^g / sum f^g and what they leave to 1, sharpened with them; differentiable.

    Partial volume near one half is an interface inside of the voxel: it becomes a smooth step where it is. What the
    fractions leave to 1 counts as one more tissue.

    Args:
        fractions: (C, ...), 0 to 1, that add up to 1 at most.
        gain: g of `sharpening_gain`; 1 changes nothing.
    """
    rest = (1 - fractions.sum(0)).clamp(min=0)
    if gain == 1:
        return fractions, rest
    fractions = fractions.clamp(min=0)
    for _square in range(gain.bit_length() - 1):
        fractions, rest = fractions * fractions, rest * rest
    total = fractions.sum(0) + rest
    return fractions / total, rest / total


def mix(
    fractions: Float[Tensor, "c *shape"],
    properties: Float[Tensor, "c 4"],
    background: Float[Tensor, "4"] | None = None,
) -> Float[Tensor, "4 *shape"]:
    """The medium's channels of mixtures of tissues, the rest being the background; differentiable to both.

    Args:
        fractions: (C, ...), 0 to 1, that add up to 1 at most.
        properties: (C, 4), the channels' values of each tissue, in the order of `CHANNELS`.
        background: (4,), the channels' values of what the fractions leave to 1; None for gel.
    """
    rest = fractions.new_tensor(GEL) if background is None else background.to(fractions)
    values = torch.addmm(rest[:, None], (properties.to(fractions) - rest).T, fractions.reshape(len(fractions), -1))
    return values.view(len(rest), *fractions.shape[1:])


@dataclass(frozen=True)
class Mixture:
    """What one set of points is made of, to be mixed with any table of tissues.

    Args:
        background: (4,), the channels' values where nothing else is.
        fractions: (C, *points), sharpened, or None without tissues.
        under: (4, *points), by how much plain maps differ from the background, already weighed by what the fractions
            leave to 1; None without maps.
        echogenicity_db: (*points), added to the scattering; None for none.
        sheets: (2, *points), distance in mm from the nearest sheet and the level of its echo; None without sheets.
    """

    background: Float[Tensor, "4"]
    fractions: Float[Tensor, "c *points"] | None = None
    under: Float[Tensor, "4 *points"] | None = None
    echogenicity_db: Float[Tensor, "*points"] | None = None
    sheets: Float[Tensor, "2 *points"] | None = None

    def mixed(self, properties: Float[Tensor, "c 4"] | None) -> Float[Tensor, "channels *points"]:
        """The channels at the points, (4, ...), or (6, ...) with sheets, for the tissues' values, (C, 4)."""
        if self.fractions is None:
            background = self.background.view(-1, *[1] * (self.under.ndim - 1))
            values = self.under + background
        else:
            values = mix(self.fractions, properties, self.background)
            if self.under is not None:
                values = values + self.under
        parts = [values]
        if self.echogenicity_db is not None:
            parts = [values[:-1], values[-1:] * torch.exp(self.echogenicity_db * (math.log(10) / 20))]
        if self.sheets is not None:
            parts.append(self.sheets)
        return torch.cat(parts) if len(parts) > 1 else values


def sheets_at(offset_and_level: Float[Tensor, "4 *points"]) -> Float[Tensor, "2 *points"]:
    """Distance in mm, and level, of the sampled vector to the sheet and level; `SHEET_RANGE_MM` where no sheet is near.

    The vector to a plane is linear in space, so that trilinear sampling finds its zero within the voxel; a distance
    without sign would be sampled as half a voxel there.
    """
    offset, level = offset_and_level[:3], offset_and_level[3]
    distance = (offset.square().sum(0) + _SMALL_MM**2).sqrt().masked_fill(level == 0, SHEET_RANGE_MM)
    return torch.stack([distance, level])
