"""The filters against scipy's and by gradcheck."""

import numpy as np
import pytest
import torch
from diffus.geometry.filters import box_mean, gaussian_blur, gaussian_kernel, grey_opening, soften
from scipy import ndimage


def noise(*shape, seed=0):
    return np.random.default_rng(seed).random(shape)


@pytest.mark.parametrize("reach", [(4, 4, 4), (2, 3, 4), (1, 1, 2), (5, 1, 1)])
@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_the_grey_opening_is_scipys(reach, dtype):
    volume = (60000 * ndimage.gaussian_filter(noise(21, 18, 23), 0.8)).astype(dtype)
    grid = np.ogrid[tuple(slice(-r, r + 1) for r in reach)]
    ball = sum((g / (r + 0.2)) ** 2 for g, r in zip(grid, reach)) <= 1
    assert np.array_equal(grey_opening(volume, reach), ndimage.grey_opening(volume, footprint=ball))


@pytest.mark.parametrize(("ends", "mode"), [("constant", "constant"), ("replicate", "nearest")])
@pytest.mark.parametrize("sigma", [1.5, (0.7, 2.2), (0.0, 1.3)])
def test_the_gaussian_is_scipys(ends, mode, sigma):
    images = noise(2, 17, 19)
    both = sigma if isinstance(sigma, tuple) else (sigma, sigma)
    wanted = images
    for axis, width in zip((1, 2), both):
        if width:
            radius = int(np.ceil(3 * width))
            wanted = ndimage.gaussian_filter1d(wanted, width, axis, mode=mode, radius=radius)
    np.testing.assert_allclose(gaussian_blur(torch.from_numpy(images), sigma, ends=ends).numpy(), wanted, atol=1e-12)


def test_whole_windows_are_the_middle_of_all():
    images = torch.from_numpy(noise(3, 20, 24))
    whole = gaussian_blur(images, 1.5, ends="valid", half=5)
    torch.testing.assert_close(whole, gaussian_blur(images, 1.5, half=5)[:, 5:-5, 5:-5], rtol=0, atol=1e-12)


def test_kernels_follow_width_and_spacing():
    sigma = torch.tensor([1.0, 2.0], dtype=torch.float64, requires_grad=True)
    kernels = gaussian_kernel(sigma, 4, torch.tensor([0.5, 1.0], dtype=torch.float64))
    torch.testing.assert_close(kernels[0], kernels[1])
    torch.testing.assert_close(kernels.sum(1), torch.ones(2, dtype=torch.float64))
    assert torch.autograd.gradcheck(lambda s: gaussian_kernel(s, 3), sigma)


def test_a_box_mean_is_of_the_pixels_in_the_mask():
    image, mask = torch.from_numpy(noise(9, 11)), torch.from_numpy(noise(9, 11, seed=1) > 0.4).double()
    found = box_mean(image, mask, (3, 5))
    here = slice(2, 5), slice(4, 9)
    inside = mask[here].bool()
    assert found[3, 6].item() == pytest.approx(image[here][inside].mean().item())
    assert found[0, 0].item() == pytest.approx(image[:2, :3][mask[:2, :3].bool()].mean().item())


def test_soften_keeps_even_tissue_and_spreads_a_step():
    step = torch.tensor([1.0, 1, 1, 2, 2, 2]).reshape(1, 1, 6).repeat(3, 3, 1)
    assert soften(step)[1, 1].tolist() == [1, 1, 1.25, 1.75, 2, 2]
    volume = torch.from_numpy(noise(3, 4, 5)).requires_grad_()
    assert torch.autograd.gradcheck(soften, volume)
