"""Where to look for the pose: a bounded space around the first guess, quasi-random search in it, refinement by LM."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..geometry.pose import twist_to_matrix
from ..settings import check_settings, setting
from .channels import ChannelVolume
from .mapping import global_fit
from .patches import PatchSet, normal_equations, score_poses

if TYPE_CHECKING:
    from jaxtyping import Bool, Float


@dataclass(frozen=True)
class PoseSpace:
    """Rigid maps reference_to_mri = T0 Tr(c) exp(xi) Tr(-c) within a ball of translations and one of rotations.

    initial T0 (4, 4) float64; centre c (3,) of the sweep in reference mm; radius_mm: RMS distance of the pixels to c,
    by which rotations are scaled so that all six unknowns are millimetres.
    """

    initial: Float[Tensor, "4 4"]
    centre: Float[Tensor, "3"]
    radius_mm: float
    translation_mm: float = 25.0
    rotation_deg: float = 18.0

    def step(self, pose: Float[Tensor, "*#b 4 4"], xi_mm: Float[Tensor, "*#b 6"]) -> Float[Tensor, "*b 4 4"]:
        """pose Tr(c) exp(xi) Tr(-c) with xi = (mm, mm of rotation at radius_mm)."""
        scale = xi_mm.new_tensor([1.0] * 3 + [1.0 / self.radius_mm] * 3)
        moved = twist_to_matrix(xi_mm * scale)
        turned = moved[..., :3, :3]
        shift = moved[..., :3, 3] + self.centre - turned @ self.centre
        about = torch.eye(4, dtype=xi_mm.dtype, device=xi_mm.device).repeat(*xi_mm.shape[:-1], 1, 1)
        about[..., :3, :3] = turned
        about[..., :3, 3] = shift
        return pose @ about

    def away(self, pose: Float[Tensor, "*b 4 4"]) -> tuple[Float[Tensor, "*b"], Float[Tensor, "*b"]]:
        """How far from the first guess: shift of the centre in mm, angle in degrees."""
        difference = pose[..., :3, :3] - self.initial[:3, :3]
        shift = (difference @ self.centre + pose[..., :3, 3] - self.initial[:3, 3]).norm(dim=-1)
        sine = (difference.square().sum((-1, -2)).sqrt() / math.sqrt(8)).clamp(max=1.0)
        return shift, torch.rad2deg(2 * torch.asin(sine))

    def inside(self, pose: Float[Tensor, "*b 4 4"], slack: float = 1.15) -> Bool[Tensor, "*b"]:
        """True where the pose is plausible: within the bounds, and a little slack for a refinement to move in."""
        shift, angle = self.away(pose)
        return (shift <= slack * self.translation_mm) & (angle <= slack * self.rotation_deg)

    def sample(self, count: int, seed: int) -> Float[Tensor, "n 4 4"]:
        """`count` quasi-random poses (scrambled Sobol points), uniform in both balls; the first is the guess itself."""
        engine = torch.quasirandom.SobolEngine(8, scramble=True, seed=seed)
        unit = engine.draw(count, dtype=torch.float64).clamp(1e-6, 1 - 1e-6).to(self.initial.device)
        normal = torch.special.ndtri(unit[:, :6])
        shift = torch.nn.functional.normalize(normal[:, :3], dim=1) * unit[:, 6:7] ** (1 / 3) * self.translation_mm
        turn = torch.nn.functional.normalize(normal[:, 3:], dim=1) * unit[:, 7:8] ** (1 / 3)
        xi = torch.cat([shift, turn * math.radians(self.rotation_deg) * self.radius_mm], 1)
        xi[0] = 0.0
        return self.step(self.initial, xi)

    def distance(self, a: Float[Tensor, "*#b 4 4"], b: Float[Tensor, "*#b 4 4"]) -> Float[Tensor, "*b"]:
        """RMS distance in mm that pixels of the sweep move between two poses."""
        d = a - b
        middle = (d[..., :3, :3] @ self.centre + d[..., :3, 3]).square().sum(-1)
        return (middle + d[..., :3, :3].square().sum((-1, -2)) * self.radius_mm**2 / 3).sqrt()


@dataclass(frozen=True)
class SearchSettings:
    """Sizes of the search; the defaults are those that were measured."""

    samples: int = setting(int, 16384, low=64, help="Poses tried in the search.", panel=False)
    families: int = 400  # best samples, 4 mm apart, that are looked at again
    around: int = 160  # of these, so many are sampled around in the second round
    copies: int = 10  # new samples around each
    spread_mm: float = 1.5  # standard deviation of each of the six unknowns in the second round
    starts: int = 72  # candidates that are refined by gradient
    chunk: int = 512

    def __post_init__(self) -> None:
        check_settings(self)


def sample_search(
    space: PoseSpace, patches: PatchSet, volume: ChannelVolume, settings: SearchSettings, seed: int
) -> Iterator[tuple[float, Float[Tensor, "n 4 4"], Float[Tensor, " n"]]]:
    """Two rounds of samples; yields (progress 0..1, poses so far, their scores), at the end the starts, best first.

    A third of the starts each are the best samples that lie apart, the best of a second round around them, and those of
    the samples that a single grey value mapping explains best: what is near a broad false optimum scores better than
    what is near a narrow true one, but not by all three.
    """
    first = space.sample(settings.samples, seed)
    total = settings.samples + settings.around * settings.copies
    poses, scores = first[:0], first.new_zeros(0, dtype=torch.float32)
    for batch in first.split(settings.chunk):
        poses, scores = torch.cat([poses, batch]), torch.cat([scores, score_poses(patches, volume, batch)])
        yield len(poses) / total, poses, scores
    top = torch.argsort(scores, descending=True, stable=True)[: 10 * settings.families]
    apart = top[distinct(space, poses[top], scores[top], 4.0, settings.families)]
    parents, values = poses[apart], scores[apart]
    near, best = _second_round(space, patches, volume, parents[: settings.around], values, settings, seed)
    third = settings.starts // 3
    kept = distinct(space, near, best, 1.0, third)
    yield len(first) / total, parents, values
    fits = []
    for batch in parents[third:].split(48):
        fits += [global_fit(patches, volume, pose) for pose in batch]
        yield (len(first) + (total - len(first)) * len(fits) / len(parents)) / total, parents, values
    mapped = third + torch.argsort(values.new_tensor(fits), descending=True, stable=True)[:third]
    starts = torch.cat([parents[:third], near[kept], parents[mapped]])
    value = torch.cat([values[:third], best[kept], values[mapped]])
    order = torch.argsort(value, descending=True, stable=True)
    yield 1.0, starts[order], value[order]


def _second_round(space, patches, volume, parents: Tensor, scores: Tensor, settings: SearchSettings, seed: int):
    """The best of each family of samples around the parents, and its score."""
    generator = torch.Generator().manual_seed(seed + 1)
    noise = torch.randn(len(parents), settings.copies, 6, generator=generator, dtype=torch.float64)
    children = space.step(parents[:, None], noise.to(parents.device) * settings.spread_mm)
    flat = children.flatten(0, 1)
    values = torch.cat([score_poses(patches, volume, batch) for batch in flat.split(settings.chunk)])
    values = torch.where(space.inside(flat), values, -torch.inf).reshape(len(parents), -1)
    best, index = torch.cat([scores[: len(parents), None], values], 1).max(1)
    family = torch.cat([parents[:, None], children], 1)
    return family[torch.arange(len(parents)), index], best


@dataclass(frozen=True)
class Refined:
    """Poses after Levenberg-Marquardt, with the value, Hessian and patch similarity there."""

    pose: Float[Tensor, "b 4 4"]
    value: Float[Tensor, " b"]
    hessian: Float[Tensor, "b 6 6"]
    similarity: Float[Tensor, "p b"]


def refine(
    space: PoseSpace, patches: PatchSet, volume: ChannelVolume, pose: Float[Tensor, "b 4 4"], steps: int
) -> Refined:
    """Levenberg-Marquardt on the patches' log likelihood, from each pose on its own, never out of the space."""
    system = normal_equations(patches, volume, pose, space.centre, space.radius_mm)
    damping = torch.full((len(pose),), 1e-2, dtype=torch.float64, device=pose.device)
    active = torch.ones(len(pose), dtype=torch.bool, device=pose.device)
    for _ in range(steps):
        rows = torch.nonzero(active).flatten()
        if len(rows) == 0:
            break
        h = system.hessian[rows]
        diagonal = torch.diagonal(h, dim1=1, dim2=2)
        damped = h + torch.diag_embed(diagonal * damping[rows, None] + 1e-3 * diagonal.mean(1, keepdim=True) + 1e-9)
        xi = torch.linalg.solve(damped, system.slope[rows])
        xi = xi * (4.0 / xi.norm(dim=1, keepdim=True).clamp_min(4.0))
        trial = space.step(pose[rows], xi)
        next_system = normal_equations(patches, volume, trial, space.centre, space.radius_mm)
        better = (next_system.value > system.value[rows]) & space.inside(trial)
        won = rows[better]
        gain = next_system.value[better] - system.value[won]
        pose = pose.index_copy(0, won, trial[better])
        for name in ("hessian", "slope", "value"):
            getattr(system, name)[won] = getattr(next_system, name)[better]
        system.similarity[:, won] = next_system.similarity[:, better]
        damping[rows] = torch.where(better, damping[rows] / 5, damping[rows] * 8).clamp(1e-6, 1e4)
        active[won[(gain < 1e-7) | (xi[better].norm(dim=1) < 1e-3)]] = False
        active[rows[~better & (damping[rows] > 1e2)]] = False
    return Refined(pose, system.value, system.hessian, system.similarity)


def distinct(
    space: PoseSpace, pose: Float[Tensor, "b 4 4"], value: Float[Tensor, " b"], apart_mm: float, count: int
) -> Tensor:
    """Indices of at most `count` poses, best first, each at least `apart_mm` from every better one."""
    open_ = torch.argsort(value, descending=True, stable=True)
    kept: list[int] = []
    while len(open_) and len(kept) < count:
        kept.append(int(open_[0]))
        open_ = open_[space.distance(pose[open_], pose[open_[0]]) >= apart_mm]
    return torch.tensor(kept, dtype=torch.long, device=pose.device)
