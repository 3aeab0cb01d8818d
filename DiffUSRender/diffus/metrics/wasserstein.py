"""Sliced Wasserstein distance between the small patches of two sets of frames, scale by scale.

Karras et al. 2018 (Progressive growing of GANs, section 5): 7 x 7 patches of a Laplacian pyramid, whose last level is
what is left, projected on random directions of unit length, where the earth mover's distance is a difference of sorted
numbers. They normalise each set to zero mean and unit spread (`texture`); without that (`grey`) a picture that is too
bright or too flat is far away too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError, _
from ..geometry.filters import convolve

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jaxtyping import Bool, Float, Int

PATCH = 7  # pixels of its edge
LEVELS = 4  # each of half the resolution, the last the low-pass remainder
PATCHES = 16384  # of each set and level
PROJECTIONS = 64
BINOMIAL = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)  # Burt and Adelson 1983


@dataclass(frozen=True)
class PatchDistance:
    """Of two sets of frames at every level, (levels,), the finest first.

    grey: in grey levels of full scale. texture: each set's patches brought to zero mean and unit standard deviation
    at every level, as Karras et al. do: what is left is the shape of the texture.
    """

    grey: Float[Tensor, " levels"]
    texture: Float[Tensor, " levels"]


@torch.no_grad()
def patch_wasserstein(
    a: Float[Tensor, "n h w"],
    b: Float[Tensor, "m h w"],
    mask: Bool[Tensor, "h w"],
    *,
    levels: int = LEVELS,
    seed: int = 0,
) -> PatchDistance:
    """How far the patches of one set of frames are from those of another.

    Patches are taken at the same places of both sets, wholly inside of the mask. Not differentiable.

    Args:
        a, b: (n, h, w) and (m, h, w) in [0, 1], on one pixel grid.
        mask: (h, w), the fan.
        levels: of the pyramid.
        seed: of places and directions.

    Raises:
        InputError: for frames of two sizes, and where no patch lies in the mask at some level.
    """
    if a.shape[1:] != b.shape[1:] or a.shape[1:] != mask.shape:
        raise InputError(
            _("Frames and mask must have one size, not {shape}, {other} and {mask}."),
            shape=tuple(a.shape[1:]),
            other=tuple(b.shape[1:]),
            mask=tuple(mask.shape),
        )
    generator = torch.Generator().manual_seed(seed)
    grey, texture = [], []
    for (first, inside), (second, _inside) in zip(_pyramid(a, mask, levels), _pyramid(b, mask, levels)):
        corners = _corners(inside)
        chosen = corners[torch.randint(len(corners), (PATCHES,), generator=generator)]
        directions = torch.randn(PATCH**2, PROJECTIONS, generator=generator).to(first)
        directions = directions / directions.norm(dim=0)
        sets, shapes = [], []
        for images in (first, second):
            patches = _cut(images, chosen)
            ordered = (patches @ directions).T.contiguous().sort().values
            sets.append(ordered)
            # Normalising does not change the order.
            mean = patches.mean() * directions.sum(0)[:, None]
            shapes.append((ordered - mean) / patches.std().clamp(min=1e-12))
        grey.append((sets[0] - sets[1]).abs().mean())
        texture.append((shapes[0] - shapes[1]).abs().mean())
    return PatchDistance(torch.stack(grey), torch.stack(texture))


def _pyramid(images: Tensor, mask: Tensor, levels: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Levels of the Laplacian pyramid, (n, h, w) each, and where they are inside of the mask, (h, w) bool.

    What lies outside of the mask has no weight, so that the fan's outline does not show inside.
    """
    weight = mask.to(images)
    images = images * weight
    for level in range(levels):
        if level == levels - 1:
            yield images, weight > 0.5
            return
        # The weight's own blur divides: a mean over the pixels inside.
        total = _halved(weight[None])[0]
        smaller = torch.cat([_halved(part[None]) for part in images]) / total.clamp(min=1e-6)
        inside = (total > 0.5).to(images)
        size = tuple(images.shape[1:])
        larger = F.interpolate(smaller[:, None], size, mode="bilinear", align_corners=False)[:, 0]
        yield (images - larger) * weight, weight > 0.5
        images, weight = smaller * inside, inside


def _halved(images: Float[Tensor, "n h w"]) -> Float[Tensor, "n h2 w2"]:
    """Blurred and averaged to half the size; pixels of both sizes cover the same field."""
    kernel = images.new_tensor(BINOMIAL)
    for axis in (-2, -1):
        images = convolve(images.transpose(axis, -1), kernel, "constant").transpose(axis, -1)
    return F.avg_pool2d(images[:, None], 2, ceil_mode=True)[:, 0]


def _corners(inside: Bool[Tensor, "h w"]) -> Int[Tensor, "n 2"]:
    """Upper left corners of the patches that lie wholly inside."""
    outside = F.max_pool2d(1 - inside.float()[None, None], PATCH, 1)[0, 0] if min(inside.shape) >= PATCH else None
    corners = torch.nonzero(outside == 0) if outside is not None else torch.zeros(0, 2)
    if len(corners) == 0:
        raise InputError(_("The fan is too small in the frames for their patches; use frames of more pixels."))
    return corners


def _cut(images: Float[Tensor, "n h w"], corners: Int[Tensor, "p 2"]) -> Float[Tensor, "p patch"]:
    """Patches at these corners, of one frame after the other."""
    frame = torch.arange(len(corners)) * len(images) // len(corners)
    offset = torch.arange(PATCH)
    rows = corners[:, 0, None, None] + offset[:, None]
    columns = corners[:, 1, None, None] + offset
    return images[frame[:, None, None], rows, columns].flatten(1)
