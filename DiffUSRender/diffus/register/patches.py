"""LC2 in image patches, for many poses at once, and its Gauss-Newton step.

Each patch of a frame is explained as u ~ sum_c a_c p_c + (a quadratic in the pixel's position): the volume's channels
are credited, the quadratic is not. It takes up what the beam does on a larger scale than the patch (attenuation, time
gain, the flank of a shadow). With Q an orthonormal basis of the quadratic, every vector is first made orthogonal to Q;
then S = 1 - |residual|^2 / |u|^2 as in Wein et al. 2013, Med. Image Comput. Comput. Assist. Interv. (LC2), and the
patch's log likelihood ratio is -1/2 log(1 - S) per pixel, which is what the search maximises.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError, _
from ..sweep.sweep import TrackedSweep
from .channels import ChannelVolume

if TYPE_CHECKING:
    from jaxtyping import Float, Int

RIDGE = 1e-3  # added to the channels' variances, which are of order one
TISSUE = 0.7  # fraction of a patch that must not lie in air
GREY_FLOOR = 0.01  # a patch whose grey values vary less than this (of 1) hardly counts


@dataclass(frozen=True)
class PatchSet:
    """Patches of n pixels from some frames at one resolution.

    points (P, n, 3) float32 reference mm; valid (P, n) 0/1; basis (P, q, n) orthonormal nuisance, zero where not valid;
    target (P, n) the pixels made orthogonal to the basis; energy (P,) |target|^2 / valid count; weight (P,);
    frame (P,) index of the frame in the sweep; centre (P, 2) row and column of the patch's centre in [0, 1].
    """

    points: Float[Tensor, "p n 3"]
    valid: Float[Tensor, "p n"]
    basis: Float[Tensor, "p q n"]
    target: Float[Tensor, "p n"]
    energy: Float[Tensor, " p"]
    weight: Float[Tensor, " p"]
    frame: Int[Tensor, " p"]
    centre: Float[Tensor, "p 2"]

    def __len__(self) -> int:
        return len(self.energy)

    @property
    def count(self) -> Float[Tensor, " p"]:
        return self.valid.sum(1)

    def select(self, keep: Tensor) -> PatchSet:
        """The patches with these indices or where this mask is true."""
        return PatchSet(*(getattr(self, field.name)[keep] for field in fields(self)))

    def thinned(self, count: int) -> PatchSet:
        """At most `count` of the patches, evenly taken."""
        return self if len(self) <= count else self.select(_evenly(len(self), count).to(self.energy.device))


def _evenly(total: int, count: int) -> Int[Tensor, " n"]:
    """Indices of at most `count` of `total` things."""
    return torch.linspace(0, total - 1, min(count, total)).round().long()


def make_patches(
    sweep: TrackedSweep, frames: Int[Tensor, " f"], pixel_mm: float, side: int, count: int = sys.maxsize, device="cpu"
) -> PatchSet:
    """Patches that lie beside each other in the frames.

    Args:
        sweep: Where the frames are from.
        frames: (F,) which of them.
        pixel_mm: The frames are averaged to about this size.
        side: Pixels of a patch's edge.
        count: At most so many patches, evenly taken.
        device: Of the result.

    Raises:
        InputError: No patch lies in the fan by half or more.
    """
    images, weights, points = reduce_frames(sweep, frames, pixel_mm)
    stack = torch.cat([images[:, None], (weights > 0.5).float()[:, None], points], 1)
    height, width = images.shape[1:]
    if min(height, width) < side:
        side = max(3, min(height, width))
    cut = F.unfold(stack, side, stride=side).reshape(len(frames), 5, side * side, -1)
    across = width // side
    number = torch.arange(cut.shape[-1])
    centre = torch.stack([(number // across) * side / height, (number % across) * side / width], 1)
    centre = (centre + side / 2 / torch.tensor([height, width])).repeat(len(frames), 1)
    which = frames.repeat_interleave(cut.shape[-1])
    cut = cut.permute(0, 3, 1, 2).reshape(-1, 5, side * side)
    keep = torch.nonzero(cut[:, 1].mean(1) > 0.5).flatten()
    if len(keep) == 0:
        raise InputError(
            _("The ultrasound fan is too small to be registered; check the pixels' size in ImageToReference.")
        )
    keep = keep[_evenly(len(keep), count)]
    cut, centre, which = cut[keep], centre[keep], which[keep]
    valid = cut[:, 1].contiguous()
    basis = _quadratic_basis(valid, side)
    pixels = cut[:, 0] * valid
    target = pixels - torch.einsum("pqn,pq->pn", basis, torch.einsum("pqn,pn->pq", basis, pixels))
    energy = target.square().sum(1) / valid.sum(1).clamp_min(1)
    weight = energy / (energy + GREY_FLOOR**2)
    parts = (cut[:, 2:].permute(0, 2, 1).contiguous(), valid, basis, target, energy, weight, which, centre.float())
    return PatchSet(*(part.to(device) for part in parts))


def reduce_frames(sweep: TrackedSweep, frames: Tensor, pixel_mm: float):
    """Frames averaged over blocks of pixels.

    Returns:
        The means over the fan's pixels (F, h, w), the fraction of every block that lies in the fan (F, h, w), and the
        blocks' centres in the reference frame, mm (F, 3, h, w).
    """
    images = sweep.frames[frames]
    mask = sweep.mask.expand(len(sweep), -1, -1)[frames].float()
    poses = sweep.image_to_reference[frames]
    spacing = poses[:, :3, :2].norm(dim=1).mean(0)
    block = [max(1, round(pixel_mm / float(spacing[a]))) for a in (1, 0)]
    fraction = F.avg_pool2d(mask[:, None], block)[:, 0]
    mean = F.avg_pool2d((images * mask)[:, None], block)[:, 0] / fraction.clamp_min(1e-6)
    rows = torch.arange(mean.shape[1], dtype=torch.float64) * block[0] + (block[0] - 1) / 2
    columns = torch.arange(mean.shape[2], dtype=torch.float64) * block[1] + (block[1] - 1) / 2
    r, c = torch.meshgrid(rows, columns, indexing="ij")
    pixels = torch.stack([c, r, torch.zeros_like(r), torch.ones_like(r)], -1)
    points = torch.einsum("fij,hwj->fihw", poses[:, :3], pixels)
    return mean, fraction, points.float()


def _quadratic_basis(valid: Float[Tensor, "p n"], side: int) -> Float[Tensor, "p 6 n"]:
    line = torch.linspace(-1, 1, side, dtype=torch.float64)
    y, x = (t.flatten() for t in torch.meshgrid(line, line, indexing="ij"))
    columns = torch.stack([torch.ones_like(x), x, y, x * y, x * x, y * y], -1) * valid[..., None].double()
    u, s, _ = torch.linalg.svd(columns, full_matrices=False)
    return (u * (s > 1e-6 * s[:, :1]).double()[:, None]).transpose(1, 2).float().contiguous()


def patch_similarity(
    patches: PatchSet, values: Float[Tensor, "p n b c"], ridge: float = RIDGE
) -> tuple[Float[Tensor, "p b"], Float[Tensor, "p b c"]]:
    """S of every patch and pose.

    Args:
        patches: P of them, of n pixels.
        values: (P, n, B, C) channels at the pixels under B poses.
        ridge: Added to the channels' variances.

    Returns:
        S (P, B), and the channels' coefficients (P, B, C).
    """
    p, n, b, c = values.shape
    values = values * patches.valid[:, :, None, None]
    rows = torch.cat([patches.basis, patches.target[:, None]], 1)
    products = torch.bmm(rows, values.reshape(p, n, b * c)).reshape(p, -1, b, c)
    count = patches.count[:, None, None]
    cross = products[:, -1] / count
    own = products[:, :-1]
    gram = torch.einsum("pnbc,pnbd->pbcd", values, values) if c > 2 else _small_gram(values)
    gram = (gram - torch.einsum("pqbc,pqbd->pbcd", own, own)) / count[..., None]
    damped = gram + ridge * torch.eye(c, dtype=gram.dtype, device=gram.device)
    weights = _solve(damped, cross)
    explained = 2 * (weights * cross).sum(-1) - torch.einsum("pbc,pbcd,pbd->pb", weights, gram, weights)
    return explained / patches.energy.clamp_min(1e-12)[:, None], weights


def _small_gram(values: Tensor) -> Tensor:
    if values.shape[-1] == 1:
        return values.square().sum(1)[..., None]
    first, second = values.unbind(-1)
    mixed = (first * second).sum(1)
    return torch.stack([first.square().sum(1), mixed, mixed, second.square().sum(1)], -1).unflatten(-1, (2, 2))


def _solve(matrix: Tensor, right: Tensor) -> Tensor:
    """Symmetric positive systems of one or two unknowns in closed form, larger ones by a solver."""
    if right.shape[-1] == 1:
        return right / matrix[..., 0]
    if right.shape[-1] > 2:
        return torch.linalg.solve(matrix, right[..., None])[..., 0]
    a, b, d = matrix[..., 0, 0], matrix[..., 0, 1], matrix[..., 1, 1]
    determinant = a * d - b * b
    return (
        torch.stack([d * right[..., 0] - b * right[..., 1], a * right[..., 1] - b * right[..., 0]], -1)
        / determinant[..., None]
    )


def log_likelihood(patches: PatchSet, similarity: Float[Tensor, "p b"]) -> Float[Tensor, " b"]:
    """Weighted mean of -log(1 - S) over the patches: what the search maximises."""
    gain = -torch.log1p(-similarity.clamp(0.0, 0.995))
    return (gain * patches.weight[:, None]).sum(0) / patches.weight.sum().clamp_min(1e-9)


def score_poses(
    patches: PatchSet, volume: ChannelVolume, reference_to_ras: Float[Tensor, "b 4 4"], chunk: int = 64
) -> Float[Tensor, " b"]:
    """Mean S of many poses from nearest voxels, the fast score of the search.

    S counts up to 0.5 only: far from the optimum many patches that agree a little say more than a few that agree much.
    Patches that lie in air count nothing.

    Args:
        patches: Of the frames that are looked at.
        volume: Its nearest voxels are taken.
        reference_to_ras: (B, 4, 4).
        chunk: Poses that are computed together.

    Returns:
        (B,) scores, 0..0.5.
    """
    points = patches.points.reshape(-1, 3)
    out = []
    for part in reference_to_ras.split(chunk):
        values = volume.nearest(points, part).reshape(*patches.valid.shape, len(part), -1)
        similarity = patch_similarity(patches, values)[0].clamp(0.0, 0.5)
        if volume.air > -math.inf:
            tissue = ((values[..., 0] > volume.air) * patches.valid[..., None]).sum(1) / patches.count[:, None]
            similarity = similarity * (tissue > TISSUE)
        out.append((similarity * patches.weight[:, None]).sum(0) / patches.weight.sum().clamp_min(1e-9))
    return torch.cat(out)


@dataclass(frozen=True)
class NormalEquations:
    """Gauss-Newton system of B poses: hessian (B, 6, 6), slope (B, 6) uphill, value (B,), patch similarity (P, B)."""

    hessian: Float[Tensor, "b 6 6"]
    slope: Float[Tensor, "b 6"]
    value: Float[Tensor, " b"]
    similarity: Float[Tensor, "p b"]


def normal_equations(
    patches: PatchSet,
    volume: ChannelVolume,
    reference_to_ras: Float[Tensor, "b 4 4"],
    centre: Float[Tensor, "3"],
    radius_mm: float,
) -> NormalEquations:
    """The sum of `patch_systems` over the patches, for each of B poses; value is their log likelihood."""
    results = []
    for pose in reference_to_ras:
        hessian, slope, similarity = patch_systems(patches, volume, pose, centre, radius_mm)
        value = log_likelihood(patches, similarity[:, None])[0]
        results.append((hessian.sum(0).double(), slope.sum(0).double(), value.double(), similarity))
    h, g, v, s = zip(*results)
    return NormalEquations(torch.stack(h), torch.stack(g), torch.stack(v), torch.stack(s, 1))


def patch_systems(
    patches: PatchSet,
    volume: ChannelVolume,
    reference_to_ras: Float[Tensor, "4 4"],
    centre: Float[Tensor, "3"],
    radius_mm: float,
    shift: Float[Tensor, "p 3"] | None = None,
) -> tuple[Float[Tensor, "p 6 6"], Float[Tensor, "p 6"], Float[Tensor, " p"]]:
    """Gauss-Newton per patch for x_ras = T Tr(c) exp(xi) Tr(-c) x_ref at xi = 0, xi = (mm, radius_mm * radians).

    Derivative of a channel: (R^T grad p)^T [I | -[x_ref - c]x]. The residual's Jacobian is that times the coefficients,
    projected off the basis and the channels (Kaufman 1975, variable projection). Patches are weighted by
    weight / residual energy, so that the slope is that of weight * -1/2 log(1 - S).

    Args:
        patches: P of them.
        volume: Its channels are sampled.
        reference_to_ras: (4, 4) the pose T.
        centre: (3,) c, reference mm.
        radius_mm: Scales the rotations.
        shift: (P, 3) moves each patch by so many mm in the reference frame first.

    Returns:
        Hessians (P, 6, 6), slopes uphill (P, 6) and S (P,) of the patches.
    """
    matrix = reference_to_ras.to(patches.points.dtype)
    points = patches.points if shift is None else patches.points + shift[:, None]
    values, slope = volume.sample(points @ matrix[:3, :3].T + matrix[:3, 3], gradient=True)
    similarity, weights = (part[:, 0] for part in patch_similarity(patches, values[:, :, None]))
    jacobian = _pose_jacobian(patches, slope @ matrix[:3, :3], weights, points - centre.to(points), radius_mm)
    values = values * patches.valid[..., None]
    flat = values - torch.bmm(patches.basis.transpose(1, 2), torch.bmm(patches.basis, values))
    residual = patches.target - torch.einsum("pnc,pc->pn", flat, weights)
    off_basis = torch.bmm(patches.basis, jacobian)
    off_channels = torch.bmm(flat.transpose(1, 2), jacobian)
    ridge = RIDGE * torch.eye(flat.shape[-1], dtype=flat.dtype, device=flat.device)
    gram = torch.bmm(flat.transpose(1, 2), flat) + patches.count[:, None, None] * ridge
    curvature = torch.bmm(jacobian.transpose(1, 2), jacobian) - torch.bmm(off_basis.transpose(1, 2), off_basis)
    curvature = curvature - torch.bmm(off_channels.transpose(1, 2), torch.linalg.solve(gram, off_channels))
    factor = patches.weight / (residual.square().sum(1) + patches.count * 1e-8)
    uphill = torch.bmm(jacobian.transpose(1, 2), residual[..., None])[..., 0]
    return curvature * factor[:, None, None], uphill * factor[:, None], similarity


def _pose_jacobian(patches: PatchSet, slope: Tensor, weights: Tensor, arm: Tensor, radius_mm: float) -> Tensor:
    """Derivative (P, n, 6) of the explained pixels by the pose; slope (P, n, C, 3) in the reference frame."""
    force = torch.einsum("pc,pncd->pnd", weights, slope) * patches.valid[..., None]
    return torch.cat([force, torch.linalg.cross(arm, force, dim=-1) / radius_mm], -1)
