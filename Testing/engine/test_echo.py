"""The echo models against the paper's dense system, against each other, and against what sound must do."""

import pytest
import torch
from diffus.errors import InputError
from diffus.render.echo import echo, layered, layered_amplitudes, reverberation, transmission
from support.dense_system import dense_amplitudes, dense_reflection

SOFT = (1.31, 1.73)  # fat to muscle, MRayl
BONE, AIR = 6.46, 0.0004


def rays(*layers: float, samples: int = 40, batch: int = 4, seed: int = 0) -> torch.Tensor:
    """Random soft tissue (batch, samples), float64, with slabs of the given impedances in it."""
    generator = torch.Generator().manual_seed(seed)
    z = SOFT[0] + (SOFT[1] - SOFT[0]) * torch.rand(batch, samples, generator=generator, dtype=torch.float64)
    for n, layer in enumerate(layers):
        z[:, 10 + 8 * n : 13 + 8 * n] = layer
    return z


def steady_state(z: torch.Tensor) -> torch.Tensor:
    return (z[..., -1] - z[..., 0]) / (z[..., -1] + z[..., 0])


@pytest.mark.parametrize(("layers", "error"), [((), 1e-12), ((BONE,), 1e-10), ((AIR,), 1e-10), ((BONE, AIR), 1e-10)])
def test_layered_solves_the_papers_linear_system(layers, error):
    z = rays(*layers)
    dense = dense_reflection(z)
    mine = layered(z).reflection
    assert (mine.cumsum(-1) - dense).abs().max() < error
    assert (mine[..., 1:] - dense.diff()).abs().max() < error


@pytest.mark.parametrize(("layers", "error"), [((), 1e-12), ((BONE,), 1e-10), ((AIR,), 1e-8), ((BONE, AIR), 1e-8)])
def test_forward_and_backward_waves_solve_the_papers_linear_system(layers, error):
    z = rays(*layers)
    forward, backward = layered_amplitudes(z, every_depth=True)
    for k in (0, 1, 17, 39):
        g, d = dense_amplitudes(z[:, : k + 1])
        assert (forward[:, k, : k + 1] - g).abs().max() < error
        assert (backward[:, k, : k + 1] - d).abs().max() < error
        assert (forward[:, k, k + 1 :] == 0).all()
    whole = layered_amplitudes(z)
    torch.testing.assert_close(whole.forward, forward[:, -1])
    torch.testing.assert_close(whole.backward, backward[:, -1])
    torch.testing.assert_close(backward[:, :, 0], layered(z).reflection.cumsum(-1))


def test_forward_and_backward_waves_keep_energy_and_have_gradients():
    z = rays(BONE, AIR)
    forward, backward = layered_amplitudes(z)
    flow = (forward.square() - backward.square()) / z
    torch.testing.assert_close(flow, flow[:, :1].expand_as(flow))
    small = z[:1, :12].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda z: tuple(layered_amplitudes(z, every_depth=True)), (small,))


def test_the_other_signs_break_energy_conservation():
    """Why they are oracles only: |R| makes a mirror of soft tissue, the wrong sign reflects more than it receives."""
    assert dense_reflection(rays()).abs().max() < 0.15
    assert dense_reflection(rays(), "absolute").abs().max() > 0.9
    assert dense_reflection(rays(AIR), "wrong sign").abs().max() > 1
    assert dense_reflection(rays(AIR)).abs().max() < 1


@pytest.mark.parametrize("samples", [2, 3, 39, 40])
@pytest.mark.parametrize("layers", [(), (BONE,)])
def test_reverberation_sums_to_the_steady_state(layers, samples):
    z = rays(*layers)[:, :samples]
    late = reverberation(z, steps=1500).reflection
    assert late[:, -20:].abs().max() < 1e-12
    assert (late.sum(-1) - steady_state(z)).abs().max() < 1e-9


def test_reverberation_in_a_trapped_layer_sums_to_the_steady_state_after_a_long_tail():
    """0.02 MRayl rings for 3,000 arrivals; air, 0.0004, for 80,000 (`make bench` prints that figure)."""
    z = rays(0.02, samples=24)
    late = reverberation(z, steps=3000).reflection
    assert late[:, -20:].abs().max() < 1e-12
    assert (late.sum(-1) - steady_state(z)).abs().max() < 1e-9


def test_reverberation_shows_the_multiple_of_two_boundaries_at_its_time():
    z = torch.full((1, 60), 1.6, dtype=torch.float64)
    z[:, 20:30] = 2.4
    multiple = (reverberation(z).reflection - transmission(z).reflection)[0]
    assert multiple[:40].abs().max() < 1e-15
    r = (2.4 - 1.6) / (2.4 + 1.6)
    assert multiple[40].item() == pytest.approx(-(1 - r * r) * r**3, abs=1e-15)


def test_attenuated_primaries_are_the_same_in_both_time_resolved_models():
    z = torch.full((1, 30), 1.6, dtype=torch.float64)
    z[:, 12:] = 1.7
    loss = torch.linspace(0.1, 3, 30, dtype=torch.float64)[None]
    primary = transmission(z, loss, 0.4).reflection
    assert primary[0, 12].abs() > 0
    torch.testing.assert_close(reverberation(z, loss, 0.4).reflection, primary)


@pytest.mark.parametrize("model", ["layered", "transmission", "reverberation"])
def test_attenuation_is_two_way_in_db_per_cm(model):
    z = torch.full((1, 101), 1.6)
    z[:, 100] = 1.7
    without = echo(model, z, None, 0.5).reflection[0, 100]
    alone = echo(model, z, torch.full_like(z, 1.5), 0.5).reflection[0, 100]
    assert 20 * torch.log10(without / alone).item() == pytest.approx(2 * 1.5 * 5.0, abs=1e-3)


def test_bone_and_air_cast_shadows_only_where_time_is_resolved():
    z = rays(AIR)
    behind = transmission(z).transmission[:, -1]
    assert (20 * torch.log10(behind) < -60).all()
    assert (layered(z).transmission == 1).all()


@pytest.mark.parametrize("model", ["layered", "transmission", "reverberation"])
@pytest.mark.parametrize("part", [0, 1])
def test_gradients(model, part):
    z = rays(BONE, samples=16, batch=2).requires_grad_()
    loss = torch.rand(2, 16, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda z, loss: echo(model, z, loss, 0.3)[part], (z, loss))


def test_unknown_model_is_named():
    with pytest.raises(InputError, match="no echo model 'magic'"):
        echo("magic", torch.ones(1, 4), None, 1.0)
