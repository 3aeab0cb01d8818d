"""Why the other signs of the paper's echo are oracles only: they make or lose energy; and how the benchmark fits."""

import pytest
import torch
from Benchmarks.paper_tables import energy_media, exponent
from support.dense_system import dense_reflection, energy_balance

MEDIA = energy_media()
AT_DEPTH = (10, 40, 160)


def balance(name, variant, samples):
    return sum(energy_balance(MEDIA[name][:, :samples], variant))


@pytest.mark.parametrize("name", MEDIA)
def test_the_signed_echo_keeps_energy_in_every_tissue_and_depth(name):
    for samples in AT_DEPTH:
        torch.testing.assert_close(balance(name, "signed", samples), torch.ones(64).double(), rtol=0, atol=1e-9)


def test_absolute_reflection_makes_energy_that_grows_with_depth():
    shallow, deeper, deepest = (balance("soft tissue", "absolute", samples) for samples in AT_DEPTH)
    assert shallow.min() > 1.2
    assert (deeper > shallow).all()
    assert deepest.min() > 4
    assert dense_reflection(MEDIA["soft tissue"][:4, :160], "absolute")[:, -1].min() > 0.99  # a mirror, of soft tissue


def test_the_wrong_sign_loses_energy_in_tissue_and_returns_too_much_from_air():
    shallow, deeper, deepest = (balance("soft tissue", "wrong sign", samples) for samples in AT_DEPTH)
    assert (deeper < shallow).all()
    assert (deepest < deeper).all()
    assert deepest.max() < 0.6
    assert energy_balance(MEDIA["with air"][:, :40], "wrong sign")[0].max() > 1.2


def test_the_balance_holds_what_the_solve_returns():
    z = MEDIA["with bone"][:3, :20]
    for variant in ("signed", "absolute", "wrong sign"):
        returned, _ = energy_balance(z, variant)
        torch.testing.assert_close(returned, dense_reflection(z, variant)[:, -1] ** 2)


@pytest.mark.parametrize("power", [1.0, 2.0, 3.7])
def test_a_power_law_is_fitted_exactly(power):
    samples = (30, 70, 200)
    assert exponent(samples, [3e-5 * n**power for n in samples]) == pytest.approx(power)
