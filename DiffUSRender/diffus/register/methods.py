"""Refinement by a similarity of whole images: intensities resliced at the frames, or what the renderer says of them.

The search is always by patch LC2. A method then refines and ranks its candidates by gradient; the verdict rests on the
evidence of patch LC2 whatever the method. Its limits were set on the method lc2; others get no more than check.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..errors import InputError, _
from ..geometry.pose import place_samples
from ..medium import AcousticMedium
from ..medium.medium import SampledMedium
from ..render.display import log_compress
from ..render.expected import expected_echo, mean_brightness
from ..render.plan import plan_frame
from ..render.settings import RenderSettings
from ..sweep.probe_sweep import polar_sweep, probe_of_sweep
from ..sweep.sweep import TrackedSweep
from .channels import ChannelVolume
from .patches import reduce_frames
from .search import PoseSpace
from .similarity import lc2, mind_ssc, mutual_information, ncc, ngf, patch_ncc

if TYPE_CHECKING:
    from jaxtyping import Float, Int

    from ..render.plan import FramePlan
    from ..sweep.probe_sweep import PolarSweep

METHODS = ("lc2", "rendered", "ncc", "mind", "ngf", "mi")
RENDERED_KINDS = ("mri", "mri-t2", "ct", "labels")
Objective = Callable[["Float[Tensor, 'b 4 4']"], "Float[Tensor, ' b']"]

RAYS = 64  # of the rendered frames
MIN_SAMPLES = 32
SMOOTHING = 0.3  # of the frames, standard deviation in pixels of `pixel_mm`
OVERSAMPLING = 2  # of what is rendered, so that thin boundaries are not missed
# Compared is structure: no depth may sink into black, as on a scanner's screen.
COMPARED = RenderSettings(gain_db=0.0, tgc_reach=1.0)
NODES = (3, 1)  # of the expected brightness: as alike to a mean of renderings as the full quadrature, to 0.001 of NCC
MI_BINS = 20  # a coarser joint histogram than the usual 32: half the time, the same optimum
STEP_MM = 0.6  # of the first gradient step in each of the six unknowns


def needs_medium(method: str, kind: str) -> bool:
    """Whether a method renders a volume of this kind.

    Raises:
        InputError: where it must and cannot, and for an unknown method.
    """
    if method not in METHODS:
        raise InputError(
            _("There is no method {method!r}; choose one of {names}."), method=method, names=", ".join(METHODS)
        )
    if method == "rendered" and kind not in RENDERED_KINDS:
        raise InputError(
            _("A volume of kind {kind} cannot be rendered; choose mri, ct or labels, or another method."), kind=kind
        )
    return method == "rendered" or (method == "ncc" and kind in RENDERED_KINDS)


def intensity_objective(
    method: str, sweep: TrackedSweep, frames: Int[Tensor, " f"], pixel_mm: float, volume: ChannelVolume
) -> Objective:
    """Mean similarity of the frames and the volume's intensities there.

    Args:
        method: one of "mind", "ngf", "mi", "ncc".
        sweep: whose frames are compared.
        frames: (F,), their numbers.
        pixel_mm: about the size of the pixels that are compared.
        volume: whose first channel is compared.

    Returns:
        A function of poses reference_to_ras (B, 4, 4) to (B,), differentiable, higher is better.
    """
    images, fraction, points = reduce_frames(sweep, frames, pixel_mm)
    device, dtype = volume.table.device, volume.table.dtype
    shown = (fraction > 0.5).flatten(1).any(1)  # the others are black
    images, mask = images[shown].to(device, dtype), (fraction[shown] > 0.5).to(device, dtype)
    points = points[shown].permute(0, 2, 3, 1).to(device, dtype)
    brightest = torch.quantile(volume.table[::97, 0], 0.995).clamp_min(1e-6)
    compare = {"mind": mind_ssc, "ngf": ngf, "mi": partial(mutual_information, bins=MI_BINS), "ncc": _both_ncc}[method]

    def value(pose: Tensor) -> Tensor:
        matrix = pose.to(dtype)[:, None, None]
        in_volume = (matrix[..., None, :3, :3] @ points[None, ..., None])[..., 0] + matrix[..., None, :3, 3]
        resliced = volume.sample(in_volume)[..., 0] / brightest
        return compare(images.expand_as(resliced), resliced, mask.expand_as(resliced)).mean(-1)

    return value


def rendered_objective(
    method: str, sweep: TrackedSweep, frames: Int[Tensor, " f"], pixel_mm: float, medium: AcousticMedium
) -> Objective:
    """Similarity of the frames, along the rays of their own fan, to what the renderer expects.

    Args:
        method: "rendered", LC2 on expected brightness (with shadow and attenuation along the true beam), boundary echo
            and impedance; or "ncc", correlation with the expected brightness. Without speckle: its expectation is what
            is smooth.
        sweep: whose frames are compared.
        frames: (F,), their numbers.
        pixel_mm: about the distance of samples along a ray.
        medium: what is rendered.

    Returns:
        A function of poses reference_to_ras (B, 4, 4) to (B,), differentiable, higher is better.

    Raises:
        InputError: where no fan can be seen in the frames.
    """
    seen = fan_frames(sweep, frames, pixel_mm)
    plan = plan_frame(seen.probe, COMPARED, medium.dtype, medium.device)
    target = _reduced(seen.brightness).to(medium.device, medium.dtype)
    mask = (_reduced(seen.inside.float()) == 1).to(medium.device, medium.dtype)
    decades = plan.settings.dynamic_range_db / 10

    def value(pose: Tensor) -> Tensor:
        rendered = expected_frames(plan, medium, seen.probe_to_reference, pose)
        expected, edge, impedance = (_reduced(image) for image in rendered)
        image, valid = target.expand_as(expected), mask.expand_as(expected)
        if method == "ncc":
            return _both_ncc(image, expected, valid).mean(-1)
        # Of a variance of order one, as LC2's ridge expects: levels in decades, impedance in steps of soft tissue.
        channels = torch.stack([decades * expected, decades * edge, (impedance - 1.55) / 0.05], -3)
        return lc2(image, channels, valid).mean(-1)

    return value


def fan_frames(sweep: TrackedSweep, frames: Int[Tensor, " f"], pixel_mm: float) -> PolarSweep:
    """Those of the frames that show anything, along `RAYS` rays of the fan found in the sweep, oversampled."""
    probe, pixel_to_probe = probe_of_sweep(sweep)
    shown = sweep.subset(frames[sweep.mask.expand(len(sweep), -1, -1)[frames].flatten(1).any(1)])
    samples = OVERSAMPLING * max(MIN_SAMPLES, round(probe.depth_mm / pixel_mm))
    smoothing = SMOOTHING * pixel_mm
    return polar_sweep(shown, probe, pixel_to_probe, rays=RAYS, samples=samples, smoothing_mm=smoothing)


def expected_frames(
    plan: FramePlan,
    medium: AcousticMedium,
    probe_to_reference: Float[Tensor, "f 4 4"],
    reference_to_ras: Float[Tensor, "b 4 4"],
) -> tuple[Float[Tensor, "b f rays samples"], Float[Tensor, "b f rays samples"], Float[Tensor, "b f rays samples"]]:
    """Mean brightness, the boundaries' own brightness, and impedance in MRayl, of every frame under every pose."""
    probe_to_ras = (reference_to_ras[:, None] @ probe_to_reference.to(reference_to_ras)).flatten(0, 1)
    points = place_samples(probe_to_ras.to(medium.dtype), plan.points)
    sampled = SampledMedium(medium.sample(points))
    coherent, power = expected_echo(plan, sampled, points)
    expected = mean_brightness(plan, coherent, power, NODES)
    iq = torch.stack([coherent, torch.zeros_like(coherent)], 1)
    edge = log_compress(iq, plan.gain_db, plan.settings.dynamic_range_db, plan.settings.grey_contrast)
    both = len(reference_to_ras), len(probe_to_reference)
    return tuple(image.unflatten(0, both) for image in (expected, edge, sampled.values[0, :, 0]))


def refine_images(
    space: PoseSpace, objective: Objective, pose: Float[Tensor, "b 4 4"], steps: int
) -> tuple[Float[Tensor, "b 4 4"], Float[Tensor, " b"]]:
    """Adam on the six unknowns of each pose.

    Args:
        space: of the poses, which none leaves.
        objective: to be made large.
        pose: (B, 4, 4), reference_to_ras.
        steps: of the gradient, with a cosine schedule from `STEP_MM`.

    Returns:
        The best pose of each path, (B, 4, 4), and its value, (B,).
    """
    xi = torch.zeros(len(pose), 6, dtype=torch.float64, device=pose.device, requires_grad=True)
    adam = torch.optim.Adam([xi], lr=STEP_MM)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps, eta_min=0.02 * STEP_MM)
    best, best_value = pose.clone(), torch.full((len(pose),), -torch.inf, dtype=torch.float64, device=pose.device)
    for _step in range(steps):
        adam.zero_grad()
        with torch.enable_grad():
            here = space.step(pose, xi)
            value = objective(here)
            (-value.sum()).backward()
        won = (value.detach() > best_value) & space.inside(here.detach())
        best = torch.where(won[:, None, None], here.detach(), best)
        best_value = torch.where(won, value.detach().to(best_value), best_value)
        adam.step()
        schedule.step()
    return best, best_value


def _reduced(image: Float[Tensor, "*batch rays fine"]) -> Float[Tensor, "*batch rays samples"]:
    return image.unflatten(-1, (-1, OVERSAMPLING)).mean(-1)


def _both_ncc(a: Tensor, b: Tensor, mask: Tensor) -> Tensor:
    return 0.5 * (ncc(a, b, mask) + patch_ncc(a, b, mask))
