"""Image similarity against scikit-image, and speckle statistics against distributions with known values."""

import math

import numpy as np
import pytest
import torch
from diffus.errors import InputError
from diffus.metrics.images import (
    autocorrelation_width,
    envelope_snr,
    gcnr,
    mae,
    mse,
    nakagami_m,
    ncc,
    phase_correlation_shift,
    ssim,
    ssim_after_phase_correlation,
)
from scipy import ndimage
from skimage import metrics as oracle
from skimage.registration import phase_cross_correlation


def images(*shape, seed=0, dtype=torch.float64):
    """Two related textured images in [0, 1]."""
    generator = np.random.default_rng(seed)
    a = ndimage.gaussian_filter(generator.random(shape), [0] * (len(shape) - 2) + [2, 1])
    b = 0.7 * a + 0.3 * ndimage.gaussian_filter(generator.random(shape), [0] * (len(shape) - 2) + [1, 2])
    scale = [torch.from_numpy((x - x.min()) / (x.max() - x.min())).to(dtype) for x in (a, b)]
    return scale[0], scale[1]


def speckle(*shape, seed=0):
    """Fully developed speckle: the modulus of complex circular Gaussian noise."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, *shape, generator=generator, dtype=torch.float64).norm(dim=0)


def half_mask(rows, columns):
    mask = torch.zeros(rows, columns, dtype=torch.bool)
    mask[:, : columns // 2] = True
    return mask


def test_differences_equal_numpy_and_batches_equal_single_images():
    a, b = images(3, 40, 50)
    assert mse(a, b).tolist() == pytest.approx([oracle.mean_squared_error(x.numpy(), y.numpy()) for x, y in zip(a, b)])
    assert mae(a, b).tolist() == pytest.approx(np.abs(a.numpy() - b.numpy()).mean((1, 2)).tolist())
    expected = [np.corrcoef(x.numpy().ravel(), y.numpy().ravel())[0, 1] for x, y in zip(a, b)]
    assert ncc(a, b).tolist() == pytest.approx(expected)
    for metric in (mse, mae, ncc, ssim):
        assert metric(a, b).tolist() == pytest.approx([metric(x, y).item() for x, y in zip(a, b)])


@pytest.mark.parametrize("metric", [mse, mae, ncc])
def test_a_mask_is_the_same_as_cutting_out(metric):
    a, b = images(2, 40, 50)
    assert metric(a, b, half_mask(40, 50)).tolist() == pytest.approx(metric(a[..., :25], b[..., :25]).tolist())
    c = b.clone()
    c[..., 25:] = 1e6
    assert metric(a, c, half_mask(40, 50)).tolist() == pytest.approx(metric(a, b, half_mask(40, 50)).tolist())


def test_ncc_ignores_gain_and_offset_but_not_sign():
    a, b = images(40, 50)
    assert ncc(a, a).item() == pytest.approx(1.0)
    assert ncc(a, 3 * b + 7).item() == pytest.approx(ncc(a, b).item())
    assert ncc(a, -b).item() == pytest.approx(-ncc(a, b).item())
    assert ncc(1e-9 * a, b).item() == pytest.approx(ncc(a, b).item())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ncc_with_a_constant_image_is_zero_with_a_finite_gradient(dtype):
    a = images(20, 20, dtype=dtype)[0].requires_grad_()
    flat = torch.full((20, 20), 0.3, dtype=dtype, requires_grad=True)
    value = ncc(a, flat)
    assert value.item() == 0.0
    value.backward()
    assert torch.isfinite(a.grad).all()
    assert torch.isfinite(flat.grad).all()


@pytest.mark.parametrize("data_range", [1.0, 255.0])
def test_ssim_equals_scikit_image(data_range):
    a, b = (data_range * x for x in images(61, 47))
    settings = {"gaussian_weights": True, "use_sample_covariance": False, "data_range": data_range}
    expected, full = oracle.structural_similarity(a.numpy(), b.numpy(), full=True, **settings)
    assert ssim(a, b, data_range=data_range).item() == pytest.approx(expected, abs=1e-12)
    assert ssim(a.float(), b.float(), data_range=data_range).item() == pytest.approx(expected, abs=1e-4)
    mask = half_mask(61, 47)
    inner = torch.zeros_like(mask)
    inner[5:-5, 5:-5] = mask[5:-5, 5:-5]  # scikit-image leaves the border out of its mean too
    assert ssim(a, b, mask, data_range=data_range).item() == pytest.approx(full[inner.numpy()].mean(), abs=1e-12)


@pytest.mark.parametrize(("dy", "dx"), [(0, 0), (7, -5), (-12, 20), (31, 24)])
def test_phase_correlation_finds_a_roll_as_scikit_image_does(dy, dx):
    a, _ = images(64, 50)
    b = torch.roll(a, (-dy, -dx), (0, 1))
    assert phase_correlation_shift(a, b).tolist() == [dy, dx]
    shift, _, _ = phase_cross_correlation(a.numpy(), b.numpy(), upsample_factor=1)
    assert shift.tolist() == [dy, dx]


def test_ssim_after_phase_correlation_undoes_a_shift():
    scene, _ = images(90, 90)
    a, b = scene[10:74, 10:74], scene[15:79, 7:71]
    assert phase_correlation_shift(a, b).tolist() == [5, -3]
    assert ssim(a, b).item() < 0.5
    assert ssim_after_phase_correlation(a, b).item() == pytest.approx(1.0)
    stack = ssim_after_phase_correlation(torch.stack([a, a]), torch.stack([b, a]), half_mask(64, 64))
    assert stack.tolist() == pytest.approx([1.0, 1.0])


def test_unrelated_images_with_a_huge_shift_get_the_plain_ssim():
    a, _ = images(24, 24)
    b = torch.roll(a, (12, 11), (0, 1))
    b[:12] += 1e-3
    assert phase_correlation_shift(a, b).abs().max() > 10
    assert torch.isfinite(ssim_after_phase_correlation(a, b))
    b = torch.roll(images(20, 20)[0], (10, 10), (0, 1))
    a = images(20, 20)[0]
    assert ssim_after_phase_correlation(a, b).item() == ssim(a, b).item()


def test_fully_developed_speckle_has_its_textbook_statistics():
    envelope = speckle(400, 400)
    assert envelope_snr(envelope).item() == pytest.approx(math.sqrt(math.pi / (4 - math.pi)), abs=0.02)
    assert nakagami_m(envelope).item() == pytest.approx(1.0, abs=0.02)
    assert envelope_snr(1e-6 * envelope).item() == pytest.approx(1.913, abs=0.02)


@pytest.mark.parametrize("m", [0.5, 2.0, 5.0])
def test_nakagami_m_of_gamma_distributed_power(m):
    power = np.random.default_rng(0).gamma(m, 2.0, (400, 400))
    assert nakagami_m(torch.from_numpy(np.sqrt(power))).item() == pytest.approx(m, rel=0.04)


def test_speckle_statistics_within_a_mask():
    envelope = speckle(2, 300, 300)
    envelope[..., 150:] = 50.0
    assert envelope_snr(envelope, half_mask(300, 300)).tolist() == pytest.approx([1.913] * 2, abs=0.03)
    assert nakagami_m(envelope, half_mask(300, 300)).tolist() == pytest.approx([1.0] * 2, abs=0.04)


def test_gcnr_of_known_distributions():
    inside = half_mask(400, 400)
    same = speckle(400, 400)
    assert gcnr(same, inside, ~inside).item() < 0.03
    apart = torch.where(inside, same, same + 100)
    assert gcnr(apart, inside, ~inside).item() == pytest.approx(1.0)
    # Uniform on [0, 1] and on [0.25, 1.25] overlap by three quarters.
    uniform = torch.rand(400, 400, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    shifted = torch.where(inside, uniform, uniform + 0.25)
    assert gcnr(shifted, inside, ~inside).item() == pytest.approx(0.25, abs=0.02)
    assert gcnr(torch.ones(400, 400), inside, ~inside).item() == 0.0


@pytest.mark.parametrize("dim", [-1, -2])
def test_autocorrelation_width_of_filtered_noise(dim):
    sigma = [2.0, 5.0]
    noise = ndimage.gaussian_filter(np.random.default_rng(0).standard_normal((600, 600)), sigma, mode="wrap")
    # Noise through a Gaussian filter has a Gaussian autocovariance sqrt(2) wider: FWHM 2.3548 sqrt(2) sigma.
    expected = 2.3548 * math.sqrt(2) * sigma[dim]
    width = autocorrelation_width(torch.from_numpy(noise), dim, spacing=0.1)
    assert width.item() == pytest.approx(0.1 * expected, rel=0.05)
    stack = torch.from_numpy(np.stack([noise, 3 * noise + 10]))
    assert autocorrelation_width(stack, dim).tolist() == pytest.approx([10 * width.item()] * 2)


@pytest.mark.parametrize(
    "metric", [mse, mae, ncc, ssim, lambda a, b: envelope_snr(a + b), lambda a, b: nakagami_m(a + b)]
)
def test_gradients(metric):
    a, b = (x.requires_grad_() for x in images(2, 13, 12))
    assert torch.autograd.gradcheck(metric, (a, b))


def test_gradients_of_masked_metrics_and_of_the_shifted_ssim():
    a, b = (x.requires_grad_() for x in images(14, 13))
    mask = half_mask(14, 13)
    for metric in (mse, ncc, ssim):
        assert torch.autograd.gradcheck(lambda x, y, metric=metric: metric(x, y, mask), (a, b))
    moved = torch.roll(a.detach(), (1, -1), (0, 1)).requires_grad_()
    assert torch.autograd.gradcheck(ssim_after_phase_correlation, (a, moved))


@pytest.mark.bad_input
def test_wrong_input_is_refused():
    a, b = images(40, 50)
    empty = torch.zeros(40, 50, dtype=torch.bool)
    for metric in (mse, mae, ncc, ssim, phase_correlation_shift, ssim_after_phase_correlation):
        with pytest.raises(InputError, match="one shape"):
            metric(a, b[1:])
    for metric in (mse, mae, ncc, ssim):
        with pytest.raises(InputError, match="no pixel"):
            metric(a, b, empty)
        with pytest.raises(InputError, match="mask is"):
            metric(a, b, empty[1:])
    with pytest.raises(InputError, match="at least 11 x 11"):
        ssim(a[:10], b[:10])
    with pytest.raises(InputError, match="at least one pixel"):
        gcnr(a, empty, ~empty)
    with pytest.raises(InputError, match="one half"):
        autocorrelation_width(torch.ones(20, 20))
    with pytest.raises(InputError, match="dim is 0"):
        autocorrelation_width(a, 0)
