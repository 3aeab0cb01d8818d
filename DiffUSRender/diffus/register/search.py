"""Where to look for the pose: a bounded space around the first guess, quasi-random search in it, refinement by LM."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..geometry.pose import twist_to_matrix
from ..settings import check_settings, setting
from .channels import ChannelVolume
from .mapping import global_fit
from .patches import NormalEquations, PatchSet, normal_equations, score_poses

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

# So little is done before the next yield: some hundredths of a second on one core.
FITS_PER_STEP = 8
POSES_PER_STEP = 4
MAX_STEP_MM = 4.0  # of the six unknowns together, in one step of the refinement


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
        return self.step(self.initial, self.sample_steps(count, seed))

    def sample_steps(self, count: int, seed: int) -> Float[Tensor, "n 6"]:
        """The steps from the guess to the poses of `sample`, mm."""
        engine = torch.quasirandom.SobolEngine(8, scramble=True, seed=seed)
        unit = engine.draw(count, dtype=torch.float64).clamp(1e-6, 1 - 1e-6).to(self.initial.device)
        normal = torch.special.ndtri(unit[:, :6])
        shift = torch.nn.functional.normalize(normal[:, :3], dim=1) * unit[:, 6:7] ** (1 / 3) * self.translation_mm
        turn = torch.nn.functional.normalize(normal[:, 3:], dim=1) * unit[:, 7:8] ** (1 / 3)
        xi = torch.cat([shift, turn * math.radians(self.rotation_deg) * self.radius_mm], 1)
        xi[0] = 0.0
        return xi

    def coordinates(self, pose: Float[Tensor, "*b 4 4"]) -> Float[Tensor, "*b 12"]:
        """Twelve numbers in mm, whose Euclidean distance is `distance`."""
        rotation = pose[..., :3, :3]
        centre = rotation @ self.centre + pose[..., :3, 3]
        return torch.cat([centre, rotation.flatten(-2) * (self.radius_mm / math.sqrt(3))], -1)

    def distance(self, a: Float[Tensor, "*#b 4 4"], b: Float[Tensor, "*#b 4 4"]) -> Float[Tensor, "*b"]:
        """RMS distance in mm that pixels of the sweep move between two poses."""
        return (self.coordinates(a) - self.coordinates(b)).norm(dim=-1)


@dataclass(frozen=True)
class SearchSettings:
    """Sizes of the search; the defaults are those that were measured."""

    samples: int = setting(int, 16384, low=64, help="Poses tried in the search.", panel=False)
    families: int = setting(int, 400, low=1, help="Best samples, 4 mm apart, that are looked at again.", panel=False)
    around: int = setting(int, 160, low=1, help="Of these, sampled around in the second round.", panel=False)
    copies: int = setting(int, 10, low=1, help="New samples around each.", panel=False)
    spread_mm: float = setting(
        float, 1.5, low=0.0, unit="mm", help="Standard deviation of the six unknowns in the second round.", panel=False
    )
    starts: int = setting(int, 72, low=3, help="Refined by gradient: a third by each of three rankings.", panel=False)
    chunk: int = setting(int, 128, low=1, help="Poses before the next yield.", panel=False)

    def __post_init__(self) -> None:
        check_settings(self)


def sample_search(
    space: PoseSpace, patches: PatchSet, volume: ChannelVolume, settings: SearchSettings, seed: int
) -> Iterator[tuple[float, Float[Tensor, "n 4 4"], Float[Tensor, " n"]]]:
    """Two rounds of samples.

    A third of the starts each are the best samples that lie apart, the best of a second round around them, and those of
    the samples that a single grey value mapping explains best: what is near a broad false optimum scores better than
    what is near a narrow true one, but not by all three.

    Args:
        space: Where to look.
        patches: Of a few frames at the coarsest resolution.
        volume: Smoothed alike.
        settings: How many samples.
        seed: Of both rounds.

    Yields:
        (progress 0..1, poses so far, their scores); at the end the starts, best first.
    """
    total = settings.samples + settings.around * settings.copies
    poses, scores = space.initial.new_zeros(0, 4, 4), space.initial.new_zeros(0, dtype=torch.float32)
    for steps in space.sample_steps(settings.samples, seed).split(settings.chunk):
        batch = space.step(space.initial, steps)
        poses, scores = torch.cat([poses, batch]), torch.cat([scores, score_poses(patches, volume, batch)])
        yield len(poses) / total, poses, scores
    top = torch.argsort(scores, descending=True, stable=True)[: 10 * settings.families]
    apart = top[distinct(space, poses[top], scores[top], 4.0, settings.families)]
    parents, values = poses[apart], scores[apart]
    yield settings.samples / total, parents, values
    near, best = yield from _second_round(space, patches, volume, parents, values, settings, seed)
    third = settings.starts // 3
    kept = distinct(space, near, best, 1.0, third)
    fits = []
    for batch in parents[third:].split(FITS_PER_STEP):
        fits += [global_fit(patches, volume, pose) for pose in batch]
        yield (settings.samples + (total - settings.samples) * len(fits) / len(parents)) / total, parents, values
    mapped = third + torch.argsort(values.new_tensor(fits), descending=True, stable=True)[:third]
    starts = torch.cat([parents[:third], near[kept], parents[mapped]])
    value = torch.cat([values[:third], best[kept], values[mapped]])
    order = torch.argsort(value, descending=True, stable=True)
    yield 1.0, starts[order], value[order]


def _second_round(space, patches, volume, parents: Tensor, scores: Tensor, settings: SearchSettings, seed: int):
    """The best of each family of samples around the first parents, and its score; yields as sample_search does."""
    progress = settings.samples / (settings.samples + settings.around * settings.copies)
    first = parents[: settings.around]
    generator = torch.Generator().manual_seed(seed + 1)
    noise = torch.randn(len(first), settings.copies, 6, generator=generator, dtype=torch.float64)
    children = space.step(first[:, None], noise.to(first.device) * settings.spread_mm)
    flat = children.flatten(0, 1)
    parts = []
    for batch in flat.split(settings.chunk):
        parts.append(score_poses(patches, volume, batch))
        yield progress, parents, scores
    values = torch.where(space.inside(flat), torch.cat(parts), -torch.inf).reshape(len(first), -1)
    best, index = torch.cat([scores[: len(first), None], values], 1).max(1)
    family = torch.cat([first[:, None], children], 1)
    return family[torch.arange(len(first)), index], best


@dataclass(frozen=True)
class Refined:
    """Poses after Levenberg-Marquardt, with the value, Hessian and patch similarity there."""

    pose: Float[Tensor, "b 4 4"]
    value: Float[Tensor, " b"]
    hessian: Float[Tensor, "b 6 6"]
    similarity: Float[Tensor, "p b"]


def refine(
    space: PoseSpace, patches: PatchSet, volume: ChannelVolume, pose: Float[Tensor, "b 4 4"], steps: int
) -> Generator[Refined, None, Refined]:
    """Levenberg-Marquardt on the patches' log likelihood, from each pose on its own, never out of the space.

    Args:
        space: The bounds, and the scale of rotations.
        patches: Of the frames that are looked at.
        volume: Smoothed alike.
        pose: (B, 4, 4) reference_to_ras.
        steps: At most so many of each pose.

    Yields:
        What there is so far of the poses of one batch, after each of their steps.

    Returns:
        All poses, refined.
    """
    parts = []
    for batch in pose.split(POSES_PER_STEP):
        parts.append((yield from _refine_together(space, patches, volume, batch, steps)))
    pose, value, hessian, similarity = ([getattr(part, f.name) for part in parts] for f in fields(Refined))
    return Refined(torch.cat(pose), torch.cat(value), torch.cat(hessian), torch.cat(similarity, 1))


def _refine_together(
    space: PoseSpace, patches: PatchSet, volume: ChannelVolume, pose: Tensor, steps: int
) -> Generator[Refined, None, Refined]:
    system = normal_equations(patches, volume, pose, space.centre, space.radius_mm)
    damping = torch.full((len(pose),), 1e-2, dtype=torch.float64, device=pose.device)
    active = torch.ones(len(pose), dtype=torch.bool, device=pose.device)
    for _ in range(steps):
        yield Refined(pose, system.value, system.hessian, system.similarity)
        rows = torch.nonzero(active).flatten()
        if len(rows) == 0:
            break
        xi = _damped_step(system, damping, rows)
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


def _damped_step(system: NormalEquations, damping: Tensor, rows: Tensor) -> Float[Tensor, "r 6"]:
    """The step of these poses, at most MAX_STEP_MM long."""
    h = system.hessian[rows]
    diagonal = torch.diagonal(h, dim1=1, dim2=2)
    damped = h + torch.diag_embed(diagonal * damping[rows, None] + 1e-3 * diagonal.mean(1, keepdim=True) + 1e-9)
    xi = torch.linalg.solve(damped, system.slope[rows])
    return xi * (MAX_STEP_MM / xi.norm(dim=1, keepdim=True).clamp_min(MAX_STEP_MM))


def distinct(
    space: PoseSpace, pose: Float[Tensor, "b 4 4"], value: Float[Tensor, " b"], apart_mm: float, count: int
) -> Tensor:
    """Indices of at most `count` poses, best first, each at least `apart_mm` from every better one."""
    candidates = torch.argsort(value, descending=True, stable=True)
    at = space.coordinates(pose)
    kept: list[int] = []
    while len(candidates) and len(kept) < count:
        kept.append(int(candidates[0]))
        candidates = candidates[(at[candidates] - at[candidates[0]]).norm(dim=-1) >= apart_mm]
    return torch.tensor(kept, dtype=torch.long, device=pose.device)
