"""What speaks for and against a pose, measured around it: the raw material of the verdict.

Everything here follows one idea: at a right pose the image agrees with the volume *everywhere*. So parts of the
sweep are set free to move on their own (blocks, odd and even frames, the image's scale, a mirrored image), and where
they go or what they gain tells what a rigid optimum cannot.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .channels import ChannelVolume
from .mapping import global_fit
from .patches import PatchSet, log_likelihood, patch_similarity, patch_systems, score_poses
from .search import PoseSpace, distinct, refine

if TYPE_CHECKING:
    from jaxtyping import Float

HALF_REACH_MM = 7.0  # how far a half of the sweep is looked for around the pose
HALF_SAMPLES = 256
SPECKLE_CELLS = 0.5  # independent samples per averaged pixel: speckle is about as large as two of them
FREE_MM = 4.0  # prior standard deviation of a free displacement


@dataclass(frozen=True)
class Evidence:
    """Numbers about one pose; mm where the name says so."""

    overlap: float  # share of the pixels that lie in the volume
    similarity: float  # mean of -log(1 - S) over the patches, finest level
    z_score: float  # similarity above that of random poses, in their standard deviations (coarsest level)
    runner_up: float  # merit of the best other optimum, as a share of the best one's (coarsest level)
    starts_agreeing: float  # share of the refined starts that end within 1 mm of the best
    global_fit: float  # share of the variance that one grey value mapping for the whole sweep explains
    bend_mm: float  # RMS displacement by the quadratic deformation that the data ask for
    bend_gain: float  # what that deformation adds to the log likelihood, as a share of it
    odd_even_mm: float  # RMS distance between the poses of odd and even frames
    halves_mm: (
        float  # RMS distance between the best poses of the first and the second half of the frames, each searched
    )
    halves_gain: float  # what these poses add to the similarity, as a share of it: did the tracker or the head move?
    scale_percent: float  # change of the image's scale that the data ask for
    scale_gain: float  # what that change adds to the similarity, as a share of it
    mirrored: float  # similarity of the left-right mirrored frames, refined, as a share of the similarity
    laplace_mm: float  # RMS standard deviation of the pixels' places (Laplace covariance of the pose)
    weakest_mm: float  # standard deviation along the pose's weakest direction
    weakest: str  # that direction in words
    frames: int  # that lie apart from each other

    @property
    def bend(self) -> float:
        """mm of bending times the share it gains: noise bends far for little, or gains by a bend of little."""
        return self.bend_mm * self.bend_gain

    def as_dict(self) -> dict:
        """Plain numbers and strings for a report."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


def patch_centres(patches: PatchSet) -> Float[Tensor, "p 3"]:
    """Centre of the valid pixels of every patch, reference mm."""
    return (patches.points * patches.valid[..., None]).sum(1) / patches.count.clamp_min(1)[:, None]


def rigid_fields(patches: PatchSet, space: PoseSpace) -> Float[Tensor, "p 6 3"]:
    """Displacement of each patch's centre per unit of the six pose parameters (mm)."""
    arm = patch_centres(patches).double() - space.centre
    shift = torch.eye(3, dtype=torch.float64, device=arm.device).expand(len(arm), 3, 3)
    turn = torch.linalg.cross(shift, arm[:, None].expand(-1, 3, -1), dim=-1) / space.radius_mm
    return torch.cat([shift, turn], 1)


@dataclass(frozen=True)
class FreeFit:
    """Displacement parameters (M,), their covariance (M, M), and the log likelihood before and after."""

    value: Float[Tensor, " m"]
    covariance: Float[Tensor, "m m"]
    before: float
    after: float


def fit_displacement(
    patches: PatchSet,
    volume: ChannelVolume,
    pose: Float[Tensor, "4 4"],
    space: PoseSpace,
    basis: Float[Tensor, "p m 3"],
    steps: int = 6,
) -> FreeFit:
    """Sets the patches free to move by sum_m theta_m basis_m from `pose`, and climbs to the nearest optimum (LM)."""
    basis = basis.double()
    theta = torch.zeros(basis.shape[1], dtype=torch.float64, device=basis.device)
    prior = torch.eye(len(theta), dtype=torch.float64, device=basis.device) / FREE_MM**2
    cells = (patches.count * SPECKLE_CELLS).double()

    def system(at: Tensor):
        shift = torch.einsum("pmd,m->pd", basis, at).float()
        h, g, s = patch_systems(patches, volume, pose, space.centre, space.radius_mm, shift)
        h = torch.einsum("pmi,pij,pnj,p->mn", basis, h[:, :3, :3].double(), basis, cells)
        g = torch.einsum("pmi,pi,p->m", basis, g[:, :3].double(), cells)
        gain = -0.5 * torch.log1p(-s.clamp(0.0, 0.995).double()) * patches.weight.double() * cells
        value = float(gain.sum() - 0.5 * at @ prior @ at)
        return h + prior, g - prior @ at, value

    hessian, slope, value = system(theta)
    before, damping = value, 1e-2
    for _ in range(steps):
        step = torch.linalg.solve(hessian + damping * torch.diag(hessian.diagonal()), slope)
        trial = theta + step * (2.0 / step.abs().max().clamp_min(2.0))
        result = system(trial)
        if result[2] > value:
            theta, (hessian, slope, value), damping = trial, result, damping / 5
        else:
            damping *= 8
    return FreeFit(theta, torch.linalg.inv(hessian), before, value)


def bending(patches: PatchSet, volume: ChannelVolume, pose: Tensor, space: PoseSpace) -> tuple[float, float]:
    """(RMS mm, share of the log likelihood gained) by letting a quadratic deformation of space loose at `pose`.

    Where the anatomy is that of the volume, moved rigidly, there is little to gain: a wrong scale, a shifted brain and
    a wrong pose all gain much.
    """
    x = (patch_centres(patches).double() - space.centre) / space.radius_mm
    pairs = [x[:, i] * x[:, j] for i in range(3) for j in range(i, 3)]
    terms = torch.cat([torch.ones_like(x[:, :1]), x, torch.stack(pairs, 1)], 1)
    eye = torch.eye(3, dtype=torch.float64, device=x.device)
    basis = torch.einsum("pa,ij->paij", terms, eye).flatten(1, 2)
    fit = fit_displacement(patches, volume, pose, space, basis, steps=8)
    moved = torch.einsum("pmd,m->pd", basis, fit.value)
    return float(moved.square().sum(1).mean().sqrt()), (fit.after - fit.before) / max(fit.before, 1e-9)


def odd_even_apart(patches: PatchSet, volume: ChannelVolume, pose: Tensor, space: PoseSpace) -> float:
    """RMS distance in mm between the poses that odd and even frames slide to from `pose`."""
    rigid = rigid_fields(patches, space)
    odd = (torch.unique(patches.frame, return_inverse=True)[1] % 2).double()[:, None, None]
    fit = fit_displacement(patches, volume, pose, space, torch.cat([rigid * odd, rigid * (1 - odd)], 1))
    difference = fit.value[:6] - fit.value[6:]
    return float(torch.einsum("pmd,m->pd", rigid, difference).square().sum(1).mean().sqrt())


def halves_apart(space: PoseSpace, pose: Tensor, wide, fine) -> tuple[float, float]:
    """(mm between them, share of similarity gained) when each half of the sweep is searched for on its own.

    wide, fine: (patches, volume) at the coarse and fine resolution. Where nothing moved during the sweep, the halves'
    own optima may differ by some mm along weak directions but add next to nothing to the fit.
    """
    engine = torch.quasirandom.SobolEngine(6, scramble=True, seed=0)
    unit = engine.draw(HALF_SAMPLES - 1, dtype=torch.float64).clamp(1e-4, 1 - 1e-4)
    normal = torch.special.ndtri(unit).to(pose.device)
    around = torch.cat([normal.new_zeros(1, 6), normal * (HALF_REACH_MM / 3)])
    candidates = space.step(pose, around)
    ends, before, after = [], 0.0, 0.0
    for late in (False, True):
        coarse, sharp = (_half(patches, late) for patches, _ in (wide, fine))
        top = distinct(space, candidates, score_poses(coarse, wide[1], candidates), 1.0, 8)
        found = refine(space, coarse, wide[1], torch.cat([candidates[top], pose[None]]), 10)
        kept = distinct(space, found.pose, found.value, 0.5, 3)
        last = refine(space, sharp, fine[1], torch.cat([found.pose[kept], pose[None]]), 8)
        ends.append(last.pose[last.value.argmax()])
        before += mean_similarity(sharp, fine[1], pose)[0]
        after += float(last.value.max())
    return float(space.distance(*ends)), after / max(before, 1e-9) - 1


def _half(patches: PatchSet, late: bool) -> PatchSet:
    rank = torch.unique(patches.frame, return_inverse=True)[1]
    return patches.select((rank > rank.max() / 2) == late)


def scaled_patches(patches: PatchSet, scale: float) -> PatchSet:
    """The patches as if the image's pixels were `scale` times as large, about the middle of each frame."""
    points = patches.points.clone()
    for number in torch.unique(patches.frame):
        rows = patches.frame == number
        valid = patches.valid[rows][..., None]
        middle = (points[rows] * valid).sum((0, 1)) / valid.sum()
        points[rows] = middle + scale * (points[rows] - middle)
    return replace(patches, points=points)


def image_scale(patches: PatchSet, volume: ChannelVolume, pose: Tensor, space: PoseSpace) -> tuple[float, float]:
    """Change of the image's scale in percent that the data ask for, within +-6 %, and the share of similarity it adds.

    The pose is refined anew at every scale. A parabola through the best and its neighbours gives the top.
    """
    scales = torch.tensor([0.94, 0.96, 0.98, 1.0, 1.02, 1.04, 1.06], dtype=torch.float64)
    tops = [refine(space, scaled_patches(patches, float(s)), volume, pose[None], 8).value[0] for s in scales]
    value = torch.stack(tops).cpu()
    best = int(value.argmax())
    change = float(scales[best] - 1)
    if 0 < best < len(scales) - 1:
        before, top, after = value[best - 1 : best + 2].tolist()
        change += 0.01 * (after - before) / max(2 * top - before - after, 1e-9)
    plain = float(value[len(scales) // 2])
    return 100 * change, float(value[best]) / max(plain, 1e-9) - 1


def mean_similarity(patches: PatchSet, volume: ChannelVolume, pose: Tensor) -> tuple[float, Float[Tensor, " p"]]:
    """Log likelihood at one pose by trilinear sampling, and S of every patch."""
    matrix = pose.to(patches.points.dtype)
    values = volume.sample(patches.points @ matrix[:3, :3].T + matrix[:3, 3])
    similarity = patch_similarity(patches, values[:, :, None])[0]
    return float(log_likelihood(patches, similarity)[0]), similarity[:, 0]


def overlap_share(patches: PatchSet, volume: ChannelVolume, pose: Tensor) -> float:
    """Share of the patches' pixels that lie within the volume."""
    matrix = (volume.ras_to_ijk @ pose).to(patches.points.dtype)
    index = patches.points @ matrix[:3, :3].T + matrix[:3, 3]
    limit = index.new_tensor([n - 2.0 for n in reversed(volume.size)])
    inside = ((index >= 1) & (index <= limit)).all(-1)
    return float((inside * patches.valid).sum() / patches.valid.sum().clamp_min(1))


def mirrored_similarity(
    patches: PatchSet, volume: ChannelVolume, pose: Tensor, space: PoseSpace, plain: float
) -> float:
    """Similarity of the frames mirrored left-right, after refinement from the same pose, as a share of `plain`.

    Patches change places: each takes the mirrored pixels of the fan, at its mirrored place in the image.
    """
    side = round(patches.valid.shape[1] ** 0.5)
    flip = torch.arange(side * side, device=patches.valid.device).reshape(side, side).flip(1).flatten()
    mirrored = _swap_places(patches, flip)
    if mirrored is None:
        return 0.0
    end = refine(space, mirrored, volume, pose[None], 8)
    return float(end.value[0]) / max(plain, 1e-9)


def _swap_places(patches: PatchSet, flip: Tensor) -> PatchSet | None:
    key = {
        (int(f), round(float(r), 3), round(float(c), 2)): n
        for n, (f, (r, c)) in enumerate(zip(patches.frame, patches.place))
    }
    fan = patches.place[:, 1].min() + patches.place[:, 1].max()
    pairs = []
    for n, (f, (r, c)) in enumerate(zip(patches.frame, patches.place)):
        other = key.get((int(f), round(float(r), 3), round(float(fan - c), 2)))
        if other is not None:
            pairs.append((n, other))
    if len(pairs) < 12:
        return None
    here, there = (torch.tensor(x, device=flip.device) for x in zip(*pairs))
    moved = patches.select(there)
    return PatchSet(
        patches.points[here][:, flip],
        moved.valid,
        moved.basis,
        moved.target,
        moved.energy,
        moved.weight,
        moved.frame,
        patches.place[here],
    )


def covariance_figures(hessian: Tensor, space: PoseSpace, patches: PatchSet) -> tuple[float, float, str]:
    """(RMS mm over the pixels, mm along the weakest direction, that direction in words) of the Laplace covariance."""
    damped = hessian + 1e-9 * torch.eye(6, dtype=hessian.dtype, device=hessian.device)
    values, vectors = torch.linalg.eigh(damped)
    covariance = torch.linalg.inv(damped)
    spread = torch.einsum("pmd,mn,pnd->p", rigid_fields(patches, space), covariance, rigid_fields(patches, space))
    weak = vectors[:, 0]
    part = int(weak.abs().argmax())
    words = ("shift along " if part < 3 else "turn about ") + "xyz"[part % 3] + " of the reference frame"
    return float(spread.mean().clamp_min(0).sqrt()), float(values[0].clamp_min(1e-12).rsqrt()), words


def gather(space: PoseSpace, pose: Tensor, ends, population, coarse, wide, fine) -> Iterator[float]:
    """Yields progress 0..1; returns the evidence for `pose`, and the mean S of every frame.

    ends: (poses, merits) of the refined starts, a merit being the likelihood and twice the global fit; population: the
    scores of random poses; coarse (as in the search), wide (the same resolution, all frames) and fine: pairs of
    patches and volume.
    """
    patches, volume = fine
    value, per_patch = mean_similarity(patches, volume, pose)
    plain = mean_similarity(*wide, pose)[0]
    apart = space.distance(ends[0], pose)
    rivals = ends[1][apart > 4.0]
    best = float(ends[1][torch.argmin(apart)])
    h, _, _ = patch_systems(patches, volume, pose, space.centre, space.radius_mm)
    hessian = (h.double() * (patches.count * SPECKLE_CELLS).double()[:, None, None]).sum(0)
    laplace, weakest_mm, weakest = covariance_figures(hessian, space, patches)
    bend_mm, bend_gain = bending(*wide, pose, space)
    yield 0.3
    scale, scale_gain = image_scale(patches.thinned(500), volume, pose, space)
    yield 0.6
    odd_even = odd_even_apart(patches, volume, pose, space)
    several = len(torch.unique(patches.frame)) > 1
    halves_mm, halves_gain = halves_apart(space, pose, wide, fine) if several else (0.0, 0.0)
    yield 0.8
    score = score_poses(*coarse, pose[None])[0]
    per_frame = {int(f): float(per_patch[patches.frame == f].mean()) for f in torch.unique(patches.frame)}
    evidence = Evidence(
        overlap=overlap_share(patches, volume, pose),
        similarity=value,
        z_score=float((score - population.mean()) / population.std().clamp_min(1e-9)),
        runner_up=float(rivals.max() / max(best, 1e-9)) if len(rivals) else 0.0,
        starts_agreeing=float((apart < 1.0).double().mean()),
        global_fit=global_fit(*wide, pose),
        bend_mm=bend_mm,
        bend_gain=bend_gain,
        odd_even_mm=odd_even,
        halves_mm=halves_mm,
        halves_gain=halves_gain,
        scale_percent=scale,
        scale_gain=scale_gain,
        mirrored=mirrored_similarity(*wide, pose, space, plain),
        laplace_mm=laplace,
        weakest_mm=weakest_mm,
        weakest=weakest,
        frames=len(per_frame),
    )
    return evidence, per_frame
