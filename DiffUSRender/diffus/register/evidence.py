"""What speaks for and against a pose, measured around it: the raw material of the verdict.

Everything here follows one idea: at a right pose the image agrees with the volume *everywhere*. So parts of the
sweep are set free to move on their own (blocks, odd and even frames, the image's scale, a mirrored image), and where
they go or what they gain tells what a rigid optimum cannot.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from .channels import ChannelVolume
from .mapping import global_fit
from .patches import PatchSet, log_likelihood, patch_similarity, patch_systems, score_poses
from .search import PoseSpace, distinct, refine
from .steps import mapped

if TYPE_CHECKING:
    from jaxtyping import Float

HALF_REACH_MM = 7.0  # how far a half of the sweep is looked for around the pose
HALF_SAMPLES = 256
SPECKLE_CELLS = 0.5  # independent samples per averaged pixel: speckle is about as large as two of them
FREE_MM = 4.0  # prior standard deviation of a free displacement
RIVAL_MM = 4.0  # farther from the pose than this a start is another optimum
AGREEING_MM = 1.0
SCALES = (0.94, 0.96, 0.98, 1.0, 1.02, 1.04, 1.06)
MIN_MIRRORED = 12  # patches that have a mirrored partner
POSES_PER_STEP = 64  # scored before the next yield


@dataclass(frozen=True)
class Evidence:
    """Numbers about one pose; mm where the name says so. Gains are fractions of what they add to."""

    overlap: float  # fraction of the pixels that lie in the volume
    similarity: float  # mean of -log(1 - S) over the patches, finest level
    z_score: float  # similarity above that of random poses, in their standard deviations (coarsest level)
    runner_up: float  # merit of the best other optimum, as a fraction of the best one's (coarsest level)
    starts_agreeing: float  # fraction of the refined starts that end within 1 mm of the best
    global_fit: float  # fraction of the variance that one grey value mapping for the whole sweep explains
    bend_mm: float  # RMS displacement by the quadratic deformation that the data ask for
    bend_gain: float  # what that deformation adds to the log likelihood
    odd_even_mm: float  # RMS distance between the poses of odd and even frames
    halves_mm: float  # RMS distance between the best poses of the first and second half of the frames, each searched
    halves_gain: float  # what these poses add to the similarity: did the tracker or the head move?
    scale_percent: float  # change of the image's scale that the data ask for
    scale_gain: float  # what that change adds to the similarity
    mirrored: float  # similarity of the left-right mirrored frames, refined, as a fraction of the similarity
    laplace_mm: float  # RMS standard deviation of the pixels' positions (Laplace covariance of the pose)
    weakest_mm: float  # standard deviation along the pose's weakest direction
    weakest: str  # that direction in words
    frames: int  # that lie apart from each other

    @property
    def bend(self) -> float:
        """mm of bending times the fraction it gains: noise bends far for little, or gains by a bend of little."""
        return self.bend_mm * self.bend_gain

    def as_dict(self) -> dict:
        """Plain numbers and strings for a report."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


class Resolution(NamedTuple):
    """Patches of the sweep, and the volume smoothed alike."""

    patches: PatchSet
    volume: ChannelVolume


@dataclass(frozen=True)
class Found:
    """The pose to be judged, reference_to_mri, and what its search has left.

    starts: the refined starts' poses (n, 4, 4); merits (n,): each one's likelihood and twice its global fit;
    population: the scores of random poses; coarse: as in the search; wide: of the same resolution, from all frames;
    fine: the finest.
    """

    space: PoseSpace
    pose: Float[Tensor, "4 4"]
    starts: Float[Tensor, "n 4 4"]
    merits: Float[Tensor, " n"]
    population: Float[Tensor, " m"]
    coarse: Resolution
    wide: Resolution
    fine: Resolution


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
) -> Generator[None, None, FreeFit]:
    """Sets the patches free to move by sum_m theta_m basis_m from `pose`, and climbs to the nearest optimum (LM).

    Args:
        patches: P of them.
        volume: Its channels are sampled.
        pose: (4, 4) reference_to_ras.
        space: Of the pose; its centre and radius scale the system.
        basis: (P, M, 3) mm of each patch per unit of each parameter.
        steps: At most so many.
    """
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
        yield
        step = torch.linalg.solve(hessian + damping * torch.diag(hessian.diagonal()), slope)
        trial = theta + step * (2.0 / step.abs().max().clamp_min(2.0))
        result = system(trial)
        if result[2] > value:
            theta, (hessian, slope, value), damping = trial, result, damping / 5
        else:
            damping *= 8
    return FreeFit(theta, torch.linalg.inv(hessian), before, value)


def fit_at_the_pose(found: Found) -> dict:
    """Similarity, overlap, the covariance there, and one grey value mapping for all."""
    space, pose, (patches, volume) = found.space, found.pose, found.fine
    h, _, _ = patch_systems(patches, volume, pose, space.centre, space.radius_mm)
    hessian = (h.double() * (patches.count * SPECKLE_CELLS).double()[:, None, None]).sum(0)
    laplace, weakest_mm, weakest = covariance_figures(hessian, space, patches)
    return {
        "similarity": mean_similarity(patches, volume, pose)[0],
        "overlap": overlap_fraction(patches, volume, pose),
        "laplace_mm": laplace,
        "weakest_mm": weakest_mm,
        "weakest": weakest,
        "global_fit": global_fit(*found.wide, pose),
    }


def rivals(found: Found) -> dict:
    """The pose beside the other starts and random poses."""
    apart = found.space.distance(found.starts, found.pose)
    others = found.merits[apart > RIVAL_MM]
    best = float(found.merits[torch.argmin(apart)])
    score, population = score_poses(*found.coarse, found.pose[None])[0], found.population
    return {
        "z_score": float((score - population.mean()) / population.std().clamp_min(1e-9)),
        "runner_up": float(others.max() / max(best, 1e-9)) if len(others) else 0.0,
        "starts_agreeing": float((apart < AGREEING_MM).double().mean()),
    }


def bending(found: Found) -> Generator[None, None, dict]:
    """RMS mm, and the gain in log likelihood, by letting a quadratic deformation of space loose at the pose.

    Where the anatomy is that of the volume, moved rigidly, there is little to gain: a wrong scale, a shifted brain and
    a wrong pose all gain much.
    """
    (patches, volume), space = found.wide, found.space
    x = (patch_centres(patches).double() - space.centre) / space.radius_mm
    pairs = [x[:, i] * x[:, j] for i in range(3) for j in range(i, 3)]
    terms = torch.cat([torch.ones_like(x[:, :1]), x, torch.stack(pairs, 1)], 1)
    eye = torch.eye(3, dtype=torch.float64, device=x.device)
    basis = torch.einsum("pa,ij->paij", terms, eye).flatten(1, 2)
    fit = yield from fit_displacement(patches, volume, found.pose, space, basis, steps=8)
    moved = torch.einsum("pmd,m->pd", basis, fit.value)
    return {
        "bend_mm": float(moved.square().sum(1).mean().sqrt()),
        "bend_gain": (fit.after - fit.before) / max(fit.before, 1e-9),
    }


def odd_and_even(found: Found) -> Generator[None, None, dict]:
    """RMS distance in mm between the poses that odd and even frames slide to from the pose."""
    patches, volume = found.fine
    rigid = rigid_fields(patches, found.space)
    odd = (torch.unique(patches.frame, return_inverse=True)[1] % 2).double()[:, None, None]
    basis = torch.cat([rigid * odd, rigid * (1 - odd)], 1)
    fit = yield from fit_displacement(patches, volume, found.pose, found.space, basis)
    difference = fit.value[:6] - fit.value[6:]
    return {"odd_even_mm": float(torch.einsum("pmd,m->pd", rigid, difference).square().sum(1).mean().sqrt())}


def halves(found: Found) -> Generator[None, None, dict]:
    """How far apart each half of the sweep lies when it is searched for on its own, mm, and what that gains.

    Where nothing moved during the sweep, the halves' own optima may differ by some mm along weak directions but add
    next to nothing to the fit.
    """
    space, pose = found.space, found.pose
    if len(torch.unique(found.fine.patches.frame)) < 2:
        return {"halves_mm": 0.0, "halves_gain": 0.0}
    engine = torch.quasirandom.SobolEngine(6, scramble=True, seed=0)
    unit = engine.draw(HALF_SAMPLES - 1, dtype=torch.float64).clamp(1e-4, 1 - 1e-4)
    normal = torch.special.ndtri(unit).to(pose.device)
    candidates = space.step(pose, torch.cat([normal.new_zeros(1, 6), normal * (HALF_REACH_MM / 3)]))
    best, before, after = [], 0.0, 0.0
    for late in (False, True):
        coarse, fine = (_half(patches, late) for patches in (found.wide.patches, found.fine.patches))
        scores = []
        for batch in candidates.split(POSES_PER_STEP):
            scores.append(score_poses(coarse, found.wide.volume, batch))
            yield
        top = distinct(space, candidates, torch.cat(scores), 1.0, 8)
        near = yield from refine(space, coarse, found.wide.volume, torch.cat([candidates[top], pose[None]]), 10)
        kept = distinct(space, near.pose, near.value, 0.5, 3)
        last = yield from refine(space, fine, found.fine.volume, torch.cat([near.pose[kept], pose[None]]), 8)
        best.append(last.pose[last.value.argmax()])
        before += mean_similarity(fine, found.fine.volume, pose)[0]
        after += float(last.value.max())
    return {"halves_mm": float(space.distance(*best)), "halves_gain": after / max(before, 1e-9) - 1}


def _half(patches: PatchSet, late: bool) -> PatchSet:
    rank = torch.unique(patches.frame, return_inverse=True)[1]
    return patches.select((rank > rank.max() / 2) == late)


def image_scale(found: Found) -> Generator[None, None, dict]:
    """Change of the image's scale in percent that the data ask for, within +-6 %, and what it gains.

    The pose is refined anew at every scale. A parabola through the best and its neighbours gives the top.
    """
    patches, volume = found.fine.patches.thinned(500), found.fine.volume
    tops = []
    for scale in SCALES:
        refined = yield from refine(found.space, scaled_patches(patches, scale), volume, found.pose[None], 8)
        tops.append(float(refined.value[0]))
    best = max(range(len(SCALES)), key=tops.__getitem__)
    change = SCALES[best] - 1
    if 0 < best < len(SCALES) - 1:
        before, top, after = tops[best - 1 : best + 2]
        change += 0.01 * (after - before) / max(2 * top - before - after, 1e-9)
    return {"scale_percent": 100 * change, "scale_gain": tops[best] / max(tops[SCALES.index(1.0)], 1e-9) - 1}


def scaled_patches(patches: PatchSet, scale: float) -> PatchSet:
    """The patches as if the image's pixels were `scale` times as large, about the middle of each frame."""
    points = patches.points.clone()
    for number in torch.unique(patches.frame):
        rows = patches.frame == number
        valid = patches.valid[rows][..., None]
        middle = (points[rows] * valid).sum((0, 1)) / valid.sum()
        points[rows] = middle + scale * (points[rows] - middle)
    return replace(patches, points=points)


def mirrored(found: Found) -> Generator[None, None, dict]:
    """Similarity of the frames mirrored left-right, after refinement from the pose, as a fraction of the plain one."""
    patches, volume = found.wide
    flipped = mirrored_patches(patches)
    if flipped is None:
        return {"mirrored": 0.0}
    refined = yield from refine(found.space, flipped, volume, found.pose[None], 8)
    plain = mean_similarity(patches, volume, found.pose)[0]
    return {"mirrored": float(refined.value[0]) / max(plain, 1e-9)}


def mirrored_patches(patches: PatchSet) -> PatchSet | None:
    """Each patch with the mirrored pixels of the one at its mirrored position in the image; None if few have one."""
    centres = [(int(f), float(r), float(c)) for f, (r, c) in zip(patches.frame, patches.centre)]
    width = float(patches.centre[:, 1].min() + patches.centre[:, 1].max())
    number = {(f, round(r, 3), round(c, 2)): n for n, (f, r, c) in enumerate(centres)}
    partners = [number.get((f, round(r, 3), round(width - c, 2))) for f, r, c in centres]
    here = [n for n, partner in enumerate(partners) if partner is not None]
    if len(here) < MIN_MIRRORED:
        return None
    side = round(patches.valid.shape[1] ** 0.5)
    flip = torch.arange(side * side, device=patches.valid.device).reshape(side, side).flip(1).flatten()
    moved = patches.select(torch.tensor([partners[n] for n in here], device=flip.device))
    kept = patches.select(torch.tensor(here, device=flip.device))
    return replace(moved, points=kept.points[:, flip], centre=kept.centre)


def mean_similarity(patches: PatchSet, volume: ChannelVolume, pose: Tensor) -> tuple[float, Float[Tensor, " p"]]:
    """Log likelihood at one pose by trilinear sampling, and S of every patch."""
    matrix = pose.to(patches.points.dtype)
    values = volume.sample(patches.points @ matrix[:3, :3].T + matrix[:3, 3])
    similarity = patch_similarity(patches, values[:, :, None])[0]
    return float(log_likelihood(patches, similarity)[0]), similarity[:, 0]


def overlap_fraction(patches: PatchSet, volume: ChannelVolume, pose: Tensor) -> float:
    """Fraction of the patches' pixels that lie within the volume."""
    matrix = (volume.ras_to_ijk @ pose).to(patches.points.dtype)
    index = patches.points @ matrix[:3, :3].T + matrix[:3, 3]
    limit = index.new_tensor([n - 2.0 for n in reversed(volume.size)])
    inside = ((index >= 1) & (index <= limit)).all(-1)
    return float((inside * patches.valid).sum() / patches.valid.sum().clamp_min(1))


def covariance_figures(hessian: Tensor, space: PoseSpace, patches: PatchSet) -> tuple[float, float, str]:
    """(RMS mm over the pixels, mm along the weakest direction, that direction in words) of the Laplace covariance."""
    damped = hessian + 1e-9 * torch.eye(6, dtype=hessian.dtype, device=hessian.device)
    values, vectors = torch.linalg.eigh(damped)
    covariance = torch.linalg.inv(damped)
    rigid = rigid_fields(patches, space)
    spread = torch.einsum("pmd,mn,pnd->p", rigid, covariance, rigid)
    weak = vectors[:, 0]
    part = int(weak.abs().argmax())
    words = ("shift along " if part < 3 else "turn about ") + "xyz"[part % 3] + " of the reference frame"
    return float(spread.mean().clamp_min(0).sqrt()), float(values[0].clamp_min(1e-12).rsqrt()), words


# Each gives some of the fields of Evidence; those that take long are generators that return them.
MEASUREMENTS: tuple[Callable, ...] = (fit_at_the_pose, rivals, bending, image_scale, odd_and_even, halves, mirrored)


def gather(found: Found, frames: int) -> Generator[float, None, Evidence]:
    """All measurements of a pose.

    Args:
        found: The pose and its search.
        frames: How many lie apart from each other.

    Yields:
        Progress, 0..1, many times.
    """
    values: dict = {"frames": frames}
    for number, measure in enumerate(MEASUREMENTS):
        done = number / len(MEASUREMENTS)
        yield done
        measured = measure(found)
        if isinstance(measured, Iterator):
            measured = yield from mapped(measured, lambda _, done=done: done)
        values |= measured
    return Evidence(**values)


def similarity_per_frame(resolution: Resolution, pose: Float[Tensor, "4 4"]) -> dict[int, float]:
    """Mean S of the patches of every frame."""
    patches = resolution.patches
    similarity = mean_similarity(*resolution, pose)[1]
    return {int(f): float(similarity[patches.frame == f].mean()) for f in torch.unique(patches.frame)}
