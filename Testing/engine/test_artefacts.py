"""The paper's optional artefacts on polar images."""

import math

import pytest
import torch
from diffus.errors import InputError
from diffus.probe import ConvexProbe, PhasedProbe
from diffus.render.paper import lateral_blur, multiplicative_speckle

PROBE = ConvexProbe(40.0, 60.0, frequency_mhz=5.0, depth_mm=80.0, focus_mm=40.0, rays=401, samples=17)


def ones(batch=1, rays=300, samples=40):
    return torch.ones(batch, rays, samples, dtype=torch.float64)


def test_radial_noise_makes_arcs_whose_spread_follows_the_power_law():
    settings = {"radial_std": 0.1, "radial_power": 2.0, "local_std": 0.0}
    image = torch.cat([multiplicative_speckle(ones(1, 2), **settings, seed=seed) for seed in range(4000)])
    assert torch.equal(image[:, 0], image[:, 1])
    spread = image[:, 0].std(0)
    # Twice as strong at full depth; half way, 1 + 1/4.
    assert spread[0].item() == pytest.approx(0.1, rel=0.05)
    assert spread[-1].item() == pytest.approx(0.2, rel=0.05)
    assert spread[19:21].mean().item() == pytest.approx(0.125, rel=0.05)
    assert image.mean().item() == pytest.approx(1.0, abs=0.002)


def test_local_grain_differs_from_ray_to_ray_and_grows_with_depth():
    image = multiplicative_speckle(ones(1, 5000), radial_std=0.0, local_std=0.05, local_power=1.0)
    spread = image[0].std(0)
    assert spread[0].item() == pytest.approx(0.05, rel=0.05)
    assert spread[-1].item() == pytest.approx(0.1, rel=0.05)
    assert spread[19:21].mean().item() == pytest.approx(0.075, rel=0.05)
    neighbours = torch.corrcoef(image[0, :2])[0, 1]
    assert abs(neighbours) < 0.5


def grain_mm(noise, spacing_mm):
    """Lag in mm at which the correlation along the last axis falls below exp(-1/4): sigma of a Gaussian grain."""
    noise = noise - noise.mean()
    correlation = [1.0]
    for lag in range(1, 40):
        correlation.append(((noise[..., lag:] * noise[..., :-lag]).mean() / noise.square().mean()).item())
    last = next(lag for lag, value in enumerate(correlation) if value < math.exp(-0.25))
    before, after = correlation[last - 1], correlation[last]
    return (last - 1 + (before - math.exp(-0.25)) / (before - after)) * spacing_mm


def test_local_grain_coarsens_with_depth_in_millimetres_both_ways():
    depth = torch.linspace(0, 100, 401, dtype=torch.float64)
    spacing = torch.linspace(0.1, 0.3, 401, dtype=torch.float64)
    chosen = {"radial_std": 0.0, "local_std": 0.05, "local_power": 1.0, "grain_growth": 0.02}
    image = multiplicative_speckle(ones(1, 1500, 401), **chosen, depths_mm=depth, lateral_spacing_mm=spacing)[0] - 1
    for middle in (120, 200, 280, 360):
        band = image[:, middle - 20 : middle + 21] / (1 + depth[middle - 20 : middle + 21] / 100)
        assert grain_mm(band, 0.25) == pytest.approx(0.02 * depth[middle].item(), rel=0.15)
        across = grain_mm(band.T, spacing[middle].item())
        assert across == pytest.approx(0.02 * depth[middle].item(), rel=0.15)
    # At the face a grain is a pixel, and the spread is what it is without growth, everywhere.
    assert abs(torch.corrcoef(image[:, :2].T)[0, 1]) < 0.1
    spread = image.square().mean(0).sqrt() / (0.05 * (1 + depth / 100))
    assert spread.tolist() == pytest.approx([1.0] * 401, abs=0.2)
    assert spread.mean().item() == pytest.approx(1.0, abs=0.02)


def test_without_growth_the_grain_is_a_pixel_as_before():
    image = ones(1, 20, 30)
    generator = torch.Generator().manual_seed(3)
    radial, local = torch.randn(1, 30, generator=generator), torch.randn(20, 30, generator=generator)
    z = torch.linspace(0.0, 1.0, 30, dtype=torch.float64)
    noise = 0.1 * (1 + z**2.0) * radial.to(image) + 0.02 * (1 + z**1.5) * local.to(image)
    assert torch.equal(multiplicative_speckle(image, seed=3), image * (1 + noise).clamp(min=0.0))
    with pytest.raises(InputError, match="30 samples"):
        multiplicative_speckle(image, grain_growth=0.01)


def test_speckle_multiplies_and_never_turns_negative():
    image = multiplicative_speckle(ones(), radial_std=2.0)
    assert image.min() == 0.0
    assert (multiplicative_speckle(0 * ones()) == 0).all()
    assert torch.allclose(multiplicative_speckle(3 * ones()), 3 * multiplicative_speckle(ones()))
    assert torch.equal(multiplicative_speckle(ones(), radial_std=0.0, local_std=0.0), ones())


def test_a_seed_repeats_its_noise_in_every_precision():
    first = multiplicative_speckle(ones(2), seed=5)
    assert torch.equal(first, multiplicative_speckle(ones(2), seed=5))
    assert not torch.allclose(first, multiplicative_speckle(ones(2), seed=6))
    # An image does not depend on its neighbours in the batch.
    assert torch.equal(first[0], first[1])
    assert torch.equal(first[0], multiplicative_speckle(ones(1), seed=5)[0])
    state = torch.random.get_rng_state()
    single = multiplicative_speckle(ones(2).float(), seed=5)
    assert single.dtype == torch.float32
    assert torch.allclose(single.double(), first, atol=1e-6)
    assert torch.equal(state, torch.random.get_rng_state())


def test_blur_has_the_width_in_millimetres_at_every_depth():
    image = torch.zeros(1, PROBE.rays, PROBE.samples, dtype=torch.float64)
    image[:, 200] = 1.0
    spacing, depth = PROBE.lateral_spacing_mm(), PROBE.depths_mm()
    blurred = lateral_blur(image, depth, spacing, sigma_mm=0.5, growth=0.02)[0]
    position = (torch.arange(PROBE.rays) - 200.0)[:, None] * spacing
    variance = (blurred * position**2).sum(0) / blurred.sum(0)
    assert variance.sqrt().tolist() == pytest.approx((0.5 + 0.02 * depth).tolist(), rel=0.01)
    assert blurred.sum(0).tolist() == pytest.approx([1.0] * PROBE.samples, rel=1e-6)


def test_blur_keeps_constants_up_to_the_sides_and_does_not_mix_depths():
    spacing, depth = PROBE.lateral_spacing_mm(), PROBE.depths_mm()
    levels = torch.arange(1.0, 18.0, dtype=torch.float64)
    image = levels.expand(2, PROBE.rays, PROBE.samples)
    assert torch.allclose(lateral_blur(image, depth, spacing), image)


def test_blur_where_a_phased_arrays_rays_meet():
    probe = PhasedProbe(90.0, frequency_mhz=3.0, depth_mm=100.0, focus_mm=50.0, rays=64, samples=20)
    image = torch.rand(1, 64, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    blurred = lateral_blur(image, probe.depths_mm(), probe.lateral_spacing_mm())
    assert torch.isfinite(blurred).all()
    # In the apex the kernel is flat over a quarter of the rays on either side.
    assert blurred[0, 32, 0].item() == pytest.approx(image[0, 16:49, 0].mean().item())


def test_grain_grows_where_a_phased_arrays_rays_meet():
    probe = PhasedProbe(90.0, frequency_mhz=3.0, depth_mm=100.0, focus_mm=50.0, rays=64, samples=200)
    grown = {"grain_growth": 0.008, "depths_mm": probe.depths_mm(), "lateral_spacing_mm": probe.lateral_spacing_mm()}
    noisy = multiplicative_speckle(ones(1, 64, 200), radial_std=0.0, local_std=0.1, local_power=0.0, **grown)
    assert torch.isfinite(noisy).all()
    assert (noisy - 1).std().item() == pytest.approx(0.2, rel=0.2)


def test_gradients_to_image_and_parameters():
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(2, 9, 7, generator=generator, dtype=torch.float64, requires_grad=True)
    numbers = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (0.1, 2.0, 0.05, 1.5)]

    def speckle(image, radial_std, radial_power, local_std, local_power):
        return multiplicative_speckle(
            image, radial_std=radial_std, radial_power=radial_power, local_std=local_std, local_power=local_power
        )

    assert torch.autograd.gradcheck(speckle, (image, *numbers))
    depth = torch.linspace(0, 50, 7, dtype=torch.float64)
    spacing = torch.linspace(0.3, 1.0, 7, dtype=torch.float64)
    sigma, growth = (torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (0.4, 0.02))
    blur = lambda image, sigma, growth: lateral_blur(image, depth, spacing, sigma_mm=sigma, growth=growth)  # noqa: E731
    assert torch.autograd.gradcheck(blur, (image, sigma, growth))

    def grain(growth):
        return multiplicative_speckle(image, grain_growth=growth, depths_mm=depth, lateral_spacing_mm=spacing)

    assert torch.autograd.gradcheck(grain, (torch.tensor(0.11, dtype=torch.float64, requires_grad=True),))


@pytest.mark.parametrize(
    "change", [{"radial_std": -0.1}, {"local_std": math.nan}, {"radial_power": -1.0}, {"local_power": -0.5}], ids=str
)
def test_wrong_speckle_is_refused(change):
    with pytest.raises(InputError, match=next(iter(change))):
        multiplicative_speckle(ones(), **change)


@pytest.mark.bad_input
def test_wrong_images_and_widths_are_refused():
    spacing, depth = PROBE.lateral_spacing_mm(), PROBE.depths_mm()
    image = torch.ones(1, PROBE.rays, PROBE.samples)
    with pytest.raises(InputError, match="must be positive"):
        lateral_blur(image, depth, spacing, sigma_mm=0.0)
    with pytest.raises(InputError, match="17 samples"):
        lateral_blur(image, depth[1:], spacing)
    for wrong in (image[0], image.long()):
        with pytest.raises(InputError, match="floating point"):
            lateral_blur(wrong, depth, spacing)
        with pytest.raises(InputError, match="floating point"):
            multiplicative_speckle(wrong)
