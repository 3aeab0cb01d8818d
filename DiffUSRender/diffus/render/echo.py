"""Reflection and transmission along rays: from impedance and attenuation to the echo of every sample.

Layer k of a ray is sample k, with impedance Z_k; interface k lies between layers k-1 and k. Echo 0 is zero, for no
interface lies before the first sample. All functions work along the last axis and batch over every other one.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ..errors import InputError, _
from .settings import ECHO_MODELS

if TYPE_CHECKING:
    from jaxtyping import Float

CHECKPOINT_STEPS = 24
NEPER_PER_DB = 0.11512925464970229  # ln(10) / 20, for amplitudes
# Voxels and oblique incidence spread a boundary along a ray; what lies within so much of it is the same boundary.
BOUNDARY_MM = 2.5
SMOOTH_CHANGE = 1e-3  # changes of ln Z below this count less and less as boundaries; a loss of 1e-6 dB
DARKEST = -40.0  # nepers, two-way, -347 dB: squares of less are denormal numbers, which a CPU is slow at
MAX_REFLECTED = 1 - 1e-6  # r^2 of a perfect mirror, so that its logarithm stays finite


class Echo(NamedTuple):
    """Amplitudes at the transducer for a unit pulse.

    Args:
        reflection: (..., samples), signed echo of the interface before each sample.
        transmission: (..., samples), two-way amplitude to each sample and back, which weighs its scatterers.
    """

    reflection: Tensor
    transmission: Tensor


class Amplitudes(NamedTuple):
    """Waves of the coupled system in every layer, pressures for a unit wave sent in (DiffUS, eqs. 2-4).

    Args:
        forward: g_i, going away from the transducer.
        backward: d_i, coming back; d_0 is the stack's reflection.
    """

    forward: Tensor
    backward: Tensor


def reflection_coefficients(impedance: Float[Tensor, "*rays samples"]) -> Float[Tensor, "*rays samples"]:
    """Pressure reflection r_k = (Z_k - Z_(k-1)) / (Z_k + Z_(k-1)) of every interface, r_0 = 0 (DiffUS, eq. 1)."""
    before, after = impedance[..., :-1], impedance[..., 1:]
    return torch.nn.functional.pad((after - before) / (after + before), (1, 0))


def one_way_nepers(
    attenuation_db_cm: Float[Tensor, "*rays samples"], spacing_mm: float | Tensor
) -> Float[Tensor, "*rays samples"]:
    """Attenuation of each layer, dB/cm over `spacing_mm`, in nepers of amplitude for one passage."""
    return attenuation_db_cm * (0.1 * NEPER_PER_DB * spacing_mm)


def window_sum(part: Float[Tensor, "*rays samples"], reach: int) -> Float[Tensor, "*rays samples"]:
    """Sum over the samples at most `reach` away from each, (..., samples)."""
    total = torch.cumsum(part, -1)
    ends = total[..., -1:].expand(*total.shape[:-1], reach)
    start = total.new_zeros(*total.shape[:-1], reach + 1)
    padded = torch.cat([start, total, ends], -1)
    samples = part.shape[-1]
    return padded[..., 2 * reach + 1 :] - padded[..., :samples]


def layered(impedance: Tensor, attenuation_db_cm: Tensor | None = None, spacing_mm: float | Tensor = 1.0) -> Echo:
    """The steady-state reflection of the growing stack, differenced along the ray (DiffUS, eqs. 1-4).

    With T12 = 1 + R, T21 = 1 - R, R21 = -R the stack's reflection obeys artanh R = sum artanh r_k, so
    d0(k) = (Z_k - Z_0) / (Z_k + Z_0) exactly, and its first difference has the closed form used here.
    What lies between sample 0 and k cancels: no shadow, no reverberation.

    Args:
        impedance: (..., samples), MRayl.
        attenuation_db_cm: (..., samples), at the probe's frequency; None for none. It is applied afterwards.
        spacing_mm: between samples.
    """
    first, before, after = impedance[..., :1], impedance[..., :-1], impedance[..., 1:]
    difference = 2 * first * (after - before) / ((after + first) * (before + first))
    reflection = torch.nn.functional.pad(difference, (1, 0))
    if attenuation_db_cm is None:
        return Echo(reflection, torch.ones_like(reflection))
    loss = torch.exp(-2 * _before(one_way_nepers(attenuation_db_cm, spacing_mm)))
    return Echo(reflection * loss, loss)


def layered_amplitudes(impedance: Tensor, *, every_depth: bool = False) -> Amplitudes:
    """The waves g_i and d_i of the system that `layered` solves: of the whole stack, or of every growing one.

    With these signs pressure p = g + d and velocity v = (g - d) / Z are each the same on both sides of an interface. A
    layer has no phase, so they are the same in all layers: nothing comes back from the last one, so p = g_k and
    v = g_k / Z_k, and g_0 = 1 gives

        g_i = (Z_k + Z_i) / (Z_k + Z_0),  d_i = (Z_k - Z_i) / (Z_k + Z_0).

    Exact and stable with bone and air, where the dense solve of eq. 4 loses digits. Cost O(N) a stack.

    Args:
        impedance: (..., samples), MRayl.
        every_depth: for every k, the stack of the layers 0 to k, instead of for the last.

    Returns:
        Each (..., samples); or (..., samples, samples), stack k before layer i, zero in layers beyond the stack.
    """
    first = impedance[..., :1]
    if not every_depth:
        last = impedance[..., -1:]
        return Amplitudes((last + impedance) / (last + first), (last - impedance) / (last + first))
    last, layer, first = impedance[..., :, None], impedance[..., None, :], first[..., None]
    forward, backward = (last + layer) / (last + first), (last - layer) / (last + first)
    return Amplitudes(forward.tril(), backward.tril())


def transmission(impedance: Tensor, attenuation_db_cm: Tensor | None = None, spacing_mm: float | Tensor = 1.0) -> Echo:
    """Time-resolved primaries: r_k prod_(j<k) (1 - r_j^2), times the two-way attenuation of layers 0..k-1.

    r is that of whole boundaries (`boundaries`), however many samples they are spread over. Shadows behind bone and
    air, enhancement behind fluid; no multiples.

    Args:
        impedance: (..., samples), MRayl.
        attenuation_db_cm: (..., samples), at the probe's frequency; None for none.
        spacing_mm: between samples.
    """
    reflected, crossing = boundaries(impedance, spacing_mm)
    step = crossing
    if attenuation_db_cm is not None:
        nepers = one_way_nepers(attenuation_db_cm, spacing_mm)
        step = crossing.clone()
        step[..., 1:].sub_(nepers[..., :-1], alpha=2)
    total = torch.cumsum(step, -1).clamp(min=DARKEST)
    # The sum includes the crossing of interface k itself, which its own echo does not pay.
    return Echo(reflected * torch.exp(total - crossing), torch.exp(total))


def boundaries(
    impedance: Float[Tensor, "*rays samples"], spacing_mm: float | Tensor
) -> tuple[Float[Tensor, "*rays samples"], Float[Tensor, "*rays samples"]]:
    """Reflection and logarithm of the two-way transmission that each sample adds as a part of its boundary.

    Along a boundary artanh r adds (see `layered`): rises of ln Z within `BOUNDARY_MM` of each other are one boundary
    of r = tanh(U/2), U their sum, and so are falls. It loses ln(1 - r^2) in all, shared in proportion to the change at
    each sample, and echoes r in all, so both are those of the sharp boundary whatever the spacing. A boundary within
    one sample gives r_k and ln(1 - r_k^2).

    Args:
        impedance: (..., samples), MRayl.
        spacing_mm: between samples.
    """
    level = torch.log(impedance)
    change = torch.nn.functional.pad(level[..., 1:] - level[..., :-1], (1, 0))
    size = change.abs()
    # Smooth at no change at all, where rises turn into falls.
    fraction = (size / SMOOTH_CHANGE).clamp(max=1)
    counted = fraction.square() * (-2 * fraction).add_(3)
    part = size * counted
    reach = max(1, math.ceil(BOUNDARY_MM / float(spacing_mm) - 1e-6))
    rises = window_sum(change.clamp(min=0) * counted, reach)
    falls = window_sum(part, reach).sub_(rises)
    # Arithmetic with a sign is several times as fast as torch.where, or as a mask.
    whole = (change.detach().sign().clamp_(min=0) * (rises - falls)).add_(falls)
    whole = torch.maximum(whole, part).clamp_(min=1e-12)
    r = torch.tanh(0.5 * whole)
    loss = torch.log1p(r.square().clamp_(max=MAX_REFLECTED).neg_()) / whole
    crossing = part * loss
    # What is lost on the way through the boundary is made up for: (1 - e^crossing) / r, which sums to r.
    lost = crossing.clamp(max=-1e-4)
    through = (torch.expm1(lost) / lost).add_(crossing - lost, alpha=0.5)
    return change * (counted * (loss / r * through).neg_().sub_(0.5)).add_(0.5), crossing


def reverberation(
    impedance: Tensor,
    attenuation_db_cm: Tensor | None = None,
    spacing_mm: float | Tensor = 1.0,
    *,
    steps: int | None = None,
) -> Echo:
    """All multiples at their true arrival time, on a lattice of equal travel times (Goupillaud 1961).

    Down- and up-going waves hop one layer a step; only every other interface is met at a time, so a double step
    handles the odd interfaces, then the even ones. The transducer and what lies behind the last sample absorb.
    Without attenuation the sum of the echo over all time is d0 of `layered`. Cost O(N^2) a ray.

    Args:
        impedance: (..., samples), MRayl.
        attenuation_db_cm: (..., samples), at the probe's frequency; None for none.
        spacing_mm: between samples.
        steps: arrivals that are returned, (..., steps + 1) with the zero of sample 0 in front; None takes one for every
            interface. The `transmission` part is that of the primaries, (..., samples).
    """
    r = reflection_coefficients(impedance)
    samples = impedance.shape[-1]
    if attenuation_db_cm is None:
        passing = torch.ones_like(impedance)
    else:
        passing = torch.exp(-one_way_nepers(attenuation_db_cm, spacing_mm))
    odd, even = r[..., 1::2], r[..., 2::2]
    n_odd, n_even = odd.shape[-1], even.shape[-1]
    # Layer k lies below interface k: after an odd interface the wave crosses an odd layer down, an even one up.
    below_odd, above_odd = passing[..., 1::2], passing[..., 0::2][..., :n_odd]
    below_even, above_even = passing[..., 2::2], passing[..., 1::2][..., :n_even]
    down = torch.nn.functional.pad(above_odd[..., :1], (0, n_odd - 1))
    up = torch.zeros_like(odd)

    def bounce(down: Tensor, up: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
        arrivals = []
        for _arrival in range(count):
            back = (odd * down + (1 - odd) * up) * above_odd
            forth = ((1 + odd) * down - odd * up) * below_odd
            arrivals.append(back[..., 0])
            down, up = forth[..., :n_even], torch.nn.functional.pad(back[..., 1:], (0, n_even - n_odd + 1))
            back = (even * down + (1 - even) * up) * above_even
            forth = ((1 + even) * down - even * up) * below_even
            down = torch.nn.functional.pad(forth[..., : n_odd - 1], (1, 0))
            up = torch.nn.functional.pad(back, (0, n_odd - n_even))
        return torch.stack(arrivals, -1), down, up

    remaining = samples - 1 if steps is None else steps
    parts = []
    while remaining > 0:
        count = min(CHECKPOINT_STEPS, remaining)
        # Only the waves between the stretches are kept for the gradient: O(N^2) of them would be 1 GB a frame.
        part, down, up = checkpoint(bounce, down, up, count, use_reentrant=False)
        parts.append(part)
        remaining -= count
    reflection = torch.nn.functional.pad(torch.cat(parts, -1), (1, 0))
    return Echo(reflection, transmission(impedance, attenuation_db_cm, spacing_mm).transmission)


ECHO_MODELS.update(layered=layered, transmission=transmission, reverberation=reverberation)


def echo(model: str, impedance: Tensor, attenuation_db_cm: Tensor | None, spacing_mm: float | Tensor) -> Echo:
    """The echo of a model.

    Args:
        model: a key of `ECHO_MODELS`.
        impedance: (..., samples), MRayl.
        attenuation_db_cm: (..., samples), at the probe's frequency; None for none.
        spacing_mm: between samples.

    Raises:
        InputError: for an unknown model.
    """
    if model not in ECHO_MODELS:
        raise InputError(
            _("There is no echo model {model!r}; choose one of {names}."), model=model, names=", ".join(ECHO_MODELS)
        )
    return ECHO_MODELS[model](impedance, attenuation_db_cm, spacing_mm)


def _before(step: Tensor) -> Tensor:
    """Sum over all earlier layers, (..., samples)."""
    return torch.cumsum(step, -1) - step
