"""The paper's linear system, solved densely: the oracle of the closed form and the baseline of the benchmark."""

from __future__ import annotations

import torch
from torch import Tensor

VARIANTS = ("signed", "absolute", "wrong sign")


def dense_reflection(impedance: Tensor, variant: str = "signed") -> Tensor:
    """d0(k) for k = 0..N-1 of rays (..., N): one system of 2(k+1) unknowns per sample (DiffUS, eqs. 1-4).

    `variant`: "signed" R with R21 = -R; "absolute", |R| as the paper prints it; "wrong sign", R21 = +R.
    """
    samples = impedance.shape[-1]
    answers = [torch.zeros_like(impedance[..., 0])]
    for k in range(1, samples):
        matrix, right = dense_system(impedance[..., : k + 1], variant)
        answers.append(torch.linalg.solve(matrix, right)[..., k + 1])
    return torch.stack(answers, -1)


def dense_amplitudes(impedance: Tensor) -> tuple[Tensor, Tensor]:
    """g_i and d_i, each (..., N), of the whole stack of N layers."""
    matrix, right = dense_system(impedance, "signed")
    waves = torch.linalg.solve(matrix, right)
    return waves[..., : impedance.shape[-1]], waves[..., impedance.shape[-1] :]


def dense_system(impedance: Tensor, variant: str) -> tuple[Tensor, Tensor]:
    """Matrix (..., 2(k+1), 2(k+1)) and right side for unknowns g_0..g_k, d_0..d_k of k+1 samples."""
    before, after = impedance[..., :-1], impedance[..., 1:]
    r = (after - before) / (after + before)
    if variant == "absolute":
        r = r.abs()
    r21 = r if variant == "wrong sign" else -r
    k = r.shape[-1]
    matrix = impedance.new_zeros(*impedance.shape[:-1], 2 * k + 2, 2 * k + 2)
    i = torch.arange(k)
    g, d = i, i + k + 1
    matrix[..., 0, 0] = 1  # g_0 = 1
    matrix[..., 1 + i, g + 1] = 1  # g_(i+1) - T12 g_i - R21 d_(i+1) = 0
    matrix[..., 1 + i, g] = -(1 + r)
    matrix[..., 1 + i, d + 1] = -r21
    matrix[..., 1 + k + i, d] = 1  # d_i - R g_i - T21 d_(i+1) = 0
    matrix[..., 1 + k + i, g] = -r
    matrix[..., 1 + k + i, d + 1] = -(1 - r)
    matrix[..., 2 * k + 1, 2 * k + 1] = 1  # d_k = 0
    right = torch.zeros_like(matrix[..., 0])
    right[..., 0] = 1
    return matrix, right


def energy_balance(impedance: Tensor, variant: str = "signed") -> tuple[Tensor, Tensor]:
    """Energy that stacks (..., N) return and pass on, per unit of incident energy, each (...); they must add up to 1.

    Pressure p in impedance Z carries p^2 / Z: returned d_0^2, passed on g_k^2 Z_0 / Z_k.
    """
    matrix, right = dense_system(impedance, variant)
    waves = torch.linalg.solve(matrix, right)
    last = impedance.shape[-1] - 1
    return waves[..., last + 1] ** 2, waves[..., last] ** 2 * impedance[..., 0] / impedance[..., -1]
