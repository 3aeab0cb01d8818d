"""The similarities against their definitions, with masks, in batches, by gradcheck."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from diffus.medium import AcousticMedium
from diffus.metrics.images import ncc
from diffus.register import similarity as sim
from diffus.register.methods import COMPARED, expected_frames, fan_frames
from diffus.render.plan import plan_frame
from support.fitting_cases import LABELS, PROBE, blobs, fan_sweep


def images(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(*shape, generator=generator, dtype=torch.float64)


def test_lc2_without_ridge_is_least_squares_in_every_patch():
    us, channels = images(20, 22, seed=1), images(2, 20, 22, seed=2)
    mask = images(20, 22, seed=3) > 0.2
    similarity, weight = sim.lc2_map(us, channels, mask, patch=7, ridge=0.0)
    checked = 0
    for row in range(3, 17):
        for column in range(3, 19):
            window = (slice(row - 3, row + 4), slice(column - 3, column + 4))
            keep = mask[window].numpy()
            if keep.sum() < 25:
                continue
            u = us[window].numpy()[keep]
            regressors = np.stack(
                [channels[0][window].numpy()[keep], channels[1][window].numpy()[keep], np.ones(keep.sum())]
            )
            residual = u - regressors.T @ np.linalg.lstsq(regressors.T, u, rcond=None)[0]
            assert abs(float(similarity[row, column]) - (1 - residual.var() / u.var())) < 1e-10
            assert abs(float(weight[row, column]) - u.std()) < 1e-10
            checked += 1
    assert checked > 150


def test_lc2_does_not_see_what_the_mask_hides():
    us, channels, mask = images(16, 16), images(3, 16, 16, seed=5), torch.ones(16, 16, dtype=torch.bool)
    mask[:, 9:] = False
    spoilt = torch.where(mask, us, torch.full_like(us, 7.0))
    assert torch.allclose(sim.lc2(us, channels, mask, patch=5), sim.lc2(spoilt, channels, mask, patch=5), atol=1e-12)


def test_lc2_is_one_for_a_mixture_of_the_channels_and_small_for_chance():
    channels = images(2, 30, 30, seed=6)
    mask = torch.ones(30, 30, dtype=torch.bool)
    assert sim.lc2(0.3 * channels[0] - 0.7 * channels[1] + 0.1, channels, mask, ridge=0.0) > 1 - 1e-9
    assert sim.lc2(images(30, 30, seed=7), channels, mask) < 0.1


@pytest.mark.parametrize("name", ["ncc", "patch_ncc", "mind_ssc", "ngf", "mutual_information"])
def test_the_same_image_beats_a_shifted_one_and_batches_agree(name):
    measure = getattr(sim, name)
    smooth = torch.nn.functional.avg_pool2d(images(1, 40, 40, seed=8), 5, 1)[0]
    smooth = (smooth - smooth.min()) / (smooth.max() - smooth.min())
    mask = torch.ones_like(smooth, dtype=torch.bool)
    moved = 0.3 * smooth.roll(3, 1)
    both = measure(torch.stack([smooth, smooth]), torch.stack([smooth, moved]), torch.stack([mask, mask]))
    assert both.shape == (2,)
    assert both[0] > both[1]
    assert torch.allclose(both[1], measure(smooth, moved, mask), atol=1e-12)


def test_mutual_information_is_entropy_of_independent_bits():
    a = (torch.arange(64) % 2).double().expand(64, 64)
    mask = torch.ones(64, 64)
    same = sim.mutual_information(a, a, mask)
    crossed = sim.mutual_information(a, a.T, mask)
    assert abs(float(crossed)) < 1e-6
    assert 0.6 < float(same) <= np.log(2) + 1e-6


def test_mind_is_blind_to_contrast_and_offset():
    a = images(24, 24, seed=9)
    assert float(sim.mind_ssc(a, 0.4 * a + 0.3, torch.ones(24, 24))) > -1e-6


@pytest.mark.parametrize("name", ["lc2", "ncc", "patch_ncc", "mind_ssc", "ngf", "mutual_information"])
def test_gradcheck(name):
    a = images(8, 9, seed=10).mul(0.8).add(0.1).requires_grad_()
    b = images(8, 9, seed=11).mul(0.8).add(0.1)
    mask = torch.ones(8, 9, dtype=torch.bool)
    mask[:2, :3] = False
    if name == "lc2":
        other = torch.stack([b, images(8, 9, seed=12)]).requires_grad_()
        assert torch.autograd.gradcheck(lambda u, c: sim.lc2(u, c, mask, patch=5), (a, other))
    elif name == "mutual_information":
        assert torch.autograd.gradcheck(
            lambda x, y: sim.mutual_information(x, y, mask, bins=10), (a, b.requires_grad_())
        )
    else:
        assert torch.autograd.gradcheck(lambda x, y: getattr(sim, name)(x, y, mask), (a, b.requires_grad_()))


def test_what_is_expected_is_the_mean_of_renderings():
    """What the methods `ncc` and `rendered` compare is nearly the mean of 48 renderings with other scatterers.

    With their own display: below the end of a time gain brightness would hang on the beam, which no sweep tells.
    """
    labels, matrix = blobs()
    medium = AcousticMedium.from_labels(labels, LABELS, matrix)
    display = {"gain_db": COMPARED.gain_db, "tgc_reach": COMPARED.tgc_reach}
    sweeps = [fan_sweep(medium, PROBE, count=4, span_mm=8.0, seed=seed, **display) for seed in range(48)]
    mean = replace(sweeps[0], frames=torch.stack([sweep.frames for sweep in sweeps]).mean(0))
    seen = fan_frames(mean, torch.arange(4), 0.5)
    plan = plan_frame(seen.probe, COMPARED)
    expected, *_ = expected_frames(plan, medium, seen.probe_to_reference, torch.eye(4, dtype=torch.float64)[None])
    assert ncc(expected[0], seen.brightness, seen.inside).min() > 0.99
