"""Similarities of ultrasound images and what a volume says of the same pixels.

Each is a pure function of images (..., H, W) with a mask (..., H, W), batched over the leading axes, differentiable
with respect to both, higher is better. Pixels outside of the mask have no part.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from ..geometry.filters import box_filter, box_mean
from ..metrics.images import ncc

__all__ = ["lc2", "lc2_map", "mind_descriptor", "mind_ssc", "mutual_information", "ncc", "ngf", "patch_ncc"]

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

    Image = Float[Tensor, "*#b h w"]
    Mask = Bool[Tensor, "*#b h w"] | Float[Tensor, "*#b h w"]


def lc2_map(
    ultrasound: Image,
    channels: Float[Tensor, "*#b c h w"],
    mask: Mask,
    patch: int = 9,
    ridge: float = 1e-3,
) -> tuple[Float[Tensor, "*b h w"], Float[Tensor, "*b h w"]]:
    """LC2 of the patch around every pixel, and its weight.

    u ~ sum_c a_c p_c + const by (ridge) least squares in each patch, S = 1 - Var(residual) / Var(u), from masked box
    means: S_xy = m(xy) - m(x) m(y), a = (S_pp + ridge I)^-1 S_pu, S = (2 a.S_pu - a.S_pp a) / S_uu
    (Wein 2013, MICCAI; Fuerst 2014, Med. Image Anal. 18).

    Args:
        ultrasound: (..., H, W).
        channels: (..., C, H, W), of a variance of order one.
        mask: (..., H, W).
        patch: pixels of a patch's edge, odd.
        ridge: added to the channels' variances.

    Returns:
        LC2, 0 to 1, and the local standard deviation (0 where less than half of the patch is valid), (..., H, W) each.
    """
    mask = mask.to(ultrasound.dtype)
    count = channels.shape[-3]
    mean_u = box_mean(ultrasound, mask, patch)
    wide = mask.unsqueeze(-3)
    mean_p = box_mean(channels, wide, patch)
    var_u = box_mean(ultrasound**2, mask, patch) - mean_u**2
    cross = box_mean(channels * ultrasound.unsqueeze(-3), wide, patch) - mean_p * mean_u.unsqueeze(-3)
    products = channels.unsqueeze(-3) * channels.unsqueeze(-4)
    gram = box_mean(products, wide.unsqueeze(-3), patch) - mean_p.unsqueeze(-3) * mean_p.unsqueeze(-4)
    gram = gram.movedim((-4, -3), (-2, -1))
    cross = cross.movedim(-3, -1)
    # A tiny floor keeps patches without any structure solvable when the ridge is zero.
    floor = 1e-14 * (gram.diagonal(dim1=-2, dim2=-1).sum(-1) + 1e-3)
    eye = torch.eye(count, dtype=gram.dtype, device=gram.device)
    weights = torch.linalg.solve(gram + (ridge + floor[..., None, None]) * eye, cross.unsqueeze(-1)).squeeze(-1)
    explained = 2 * (weights * cross).sum(-1) - torch.einsum("...c,...cd,...d->...", weights, gram, weights)
    enough = (box_filter(mask, patch) >= 0.5) & (var_u > 1e-10)
    safe = torch.where(enough, var_u, torch.ones_like(var_u))
    similarity = torch.where(enough, explained / safe, torch.zeros_like(var_u))
    return similarity, torch.where(enough, safe.sqrt(), torch.zeros_like(var_u))


def lc2(
    ultrasound: Image, channels: Float[Tensor, "*#b c h w"], mask: Mask, patch: int = 9, ridge: float = 1e-3
) -> Float[Tensor, "*b"]:
    """LC2 of whole images: the mean of `lc2_map` weighted by the local standard deviation of the ultrasound.

    Args:
        ultrasound: (..., H, W).
        channels: (..., C, H, W), the volume's intensity and its gradient's length, or what a renderer says (echo along
            the beam, impedance, scattering): the algebra is the same.
        mask: (..., H, W).
        patch, ridge: as in `lc2_map`.
    """
    similarity, weight = lc2_map(ultrasound, channels, mask, patch, ridge)
    return (similarity * weight).sum((-2, -1)) / weight.sum((-2, -1)).clamp_min(1e-12)


def patch_ncc(a: Image, b: Image, mask: Mask, patch: int = 9) -> Float[Tensor, "*b"]:
    """Mean local normalised cross correlation in patch x patch boxes that are at least half valid, -1..1."""
    mask = mask.to(a.dtype)
    mean_a, mean_b = box_mean(a, mask, patch), box_mean(b, mask, patch)
    var_a = box_mean(a * a, mask, patch) - mean_a**2
    var_b = box_mean(b * b, mask, patch) - mean_b**2
    local = (box_mean(a * b, mask, patch) - mean_a * mean_b) / (var_a.clamp_min(0) * var_b.clamp_min(0) + 1e-10).sqrt()
    enough = ((box_filter(mask, patch) >= 0.5) & (mask > 0)).to(a.dtype)
    return (local * enough).sum((-2, -1)) / enough.sum((-2, -1)).clamp_min(1e-12)


def mind_descriptor(image: Float[Tensor, "*b h w"], radius: int = 1, step: int = 2) -> Float[Tensor, "*b 4 h w"]:
    """MIND self-similarity context in the image plane, 4 channels in 0..1 (Heinrich 2013, MICCAI, in two dimensions).

    Patch distances between the four neighbours that share a corner, divided by their mean, through exp(-x).
    """
    flat = image.reshape(-1, 1, *image.shape[-2:])
    padded = F.pad(flat, (step,) * 4, mode="replicate")
    h, w = image.shape[-2:]
    around = [(0, step), (step, 2 * step), (2 * step, step), (step, 0)]
    shifted = [padded[..., r : r + h, c : c + w] for r, c in around]
    size = 2 * radius + 1
    distance = [
        F.avg_pool2d(F.pad((shifted[n] - shifted[(n + 1) % 4]) ** 2, (radius,) * 4, mode="replicate"), size, 1)
        for n in range(4)
    ]
    stack = torch.cat(distance, 1)
    floor = 1e-3 * stack.mean((1, 2, 3), keepdim=True)  # of each image by itself, whatever else is in the batch
    variance = stack.mean(1, keepdim=True) + floor + 1e-12
    return torch.exp(-stack / variance).reshape(*image.shape[:-2], 4, h, w)


def mind_ssc(a: Image, b: Image, mask: Mask, radius: int = 1, step: int = 2) -> Float[Tensor, "*b"]:
    """Minus the mean squared difference of the MIND descriptors of both images, over the mask; 0 is perfect."""
    mask = mask.to(a.dtype)
    difference = (mind_descriptor(a, radius, step) - mind_descriptor(b, radius, step)).square().mean(-3)
    return -(difference * mask).sum((-2, -1)) / mask.sum((-2, -1)).clamp_min(1e-12)


def ngf(a: Image, b: Image, mask: Mask, noise: float = 0.02) -> Float[Tensor, "*b"]:
    """Normalised gradient fields: mean squared cosine between the images' gradients (Haber and Modersitzki 2006), 0..1.

    `noise`: gradients below it (grey values per pixel) are taken as none.
    """
    mask = mask.to(a.dtype)
    ax, ay = _gradient(a)
    bx, by = _gradient(b)
    dot = ax * bx + ay * by
    cosine = dot**2 / ((ax**2 + ay**2 + noise**2) * (bx**2 + by**2 + noise**2))
    return (cosine * mask).sum((-2, -1)) / mask.sum((-2, -1)).clamp_min(1e-12)


def _gradient(image: Tensor) -> tuple[Tensor, Tensor]:
    padded = F.pad(image.reshape(-1, 1, *image.shape[-2:]), (1, 1, 1, 1), mode="replicate").reshape(
        *image.shape[:-2], image.shape[-2] + 2, image.shape[-1] + 2
    )
    return (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) / 2, (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) / 2


def mutual_information(a: Image, b: Image, mask: Mask, bins: int = 32) -> Float[Tensor, "*b"]:
    """Mutual information in nats of two images in 0..1, from a joint histogram with cubic B-spline Parzen windows.

    Mattes 2003, IEEE Trans. Med. Imaging 22; values outside of 0..1 count in the outermost bins.
    """
    mask = mask.to(a.dtype)
    first, second = _parzen(a, bins) * mask.flatten(-2).unsqueeze(-1), _parzen(b, bins)
    joint = first.transpose(-1, -2) @ second / mask.sum((-2, -1))[..., None, None].clamp_min(1e-12)
    independent = joint.sum(-1, keepdim=True) * joint.sum(-2, keepdim=True)
    return (joint * (torch.log(joint + 1e-12) - torch.log(independent + 1e-12))).sum((-2, -1))


def _parzen(image: Tensor, bins: int) -> Float[Tensor, "*b n bins"]:
    position = image.flatten(-2).clamp(0, 1) * (bins - 5) + 2
    x = (position.unsqueeze(-1) - torch.arange(bins, dtype=image.dtype, device=image.device)).abs()
    inner = (4 - 6 * x**2 + 3 * x**3) / 6
    outer = (2 - x).clamp_min(0) ** 3 / 6
    return torch.where(x < 1, inner, outer)
