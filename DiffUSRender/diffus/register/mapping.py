"""One grey value mapping for the whole sweep: a second opinion on a pose that LC2's many local fits cannot give."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from .channels import ChannelVolume
from .patches import PatchSet

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


def global_fit(patches: PatchSet, volume: ChannelVolume, pose: Float[Tensor, "4 4"], bins: int = 6) -> float:
    """Fraction of the patches' variance explained by one mapping of the channels for the whole sweep.

    The mapping is piecewise linear in the first channel (a correlation ratio, Roche 1998) and quadratic in the others;
    each patch still has its own quadratic trend. Chance gives a few hundredths, a right pose several times that.

    Args:
        patches: Of all the frames that are looked at.
        volume: Its channels are sampled.
        pose: (4, 4) reference_to_ras.
        bins: Pieces of the mapping of the first channel.
    """
    matrix = pose.to(patches.points.dtype)
    values = volume.sample(patches.points @ matrix[:3, :3].T + matrix[:3, 3])
    first = values[..., 0]
    inside = first[patches.valid > 0]
    low, high = torch.quantile(inside[:: max(1, len(inside) // 20000)], torch.tensor([0.01, 0.99]).to(inside))
    width = ((high - low) / bins).clamp_min(1e-6)
    hats = [(1 - ((first - low) / width - k).abs()).clamp_min(0) for k in range(1, bins)]
    hats.append(((first - low) / width - (bins - 1)).clamp(0, 1))
    features = [*hats, *values[..., 1:].clamp(max=2).unbind(-1), *(values[..., 1:].clamp(max=2) ** 2).unbind(-1)]
    stack = torch.stack(features, -1) * patches.valid[..., None]
    own = torch.bmm(patches.basis, stack)
    per_patch = patches.weight / patches.energy.clamp_min(1e-8).sqrt()
    gram = torch.einsum("pnc,pnd,p->cd", stack, stack, per_patch) - torch.einsum("pqc,pqd,p->cd", own, own, per_patch)
    right = torch.einsum("pnc,pn,p->c", stack, patches.target, per_patch)
    total = (patches.target.square() * per_patch[:, None]).sum().clamp_min(1e-12)
    gram = gram + torch.diag(gram.diagonal() * 1e-3 + 1e-3)
    return float((torch.linalg.solve(gram, right) * right).sum() / total)
