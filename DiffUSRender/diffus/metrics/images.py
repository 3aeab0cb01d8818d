"""How alike two images are, and how speckle is distributed. torch only; all but `gcnr` and the shift differentiable.

Images are (..., rows, columns) and the result has the shape (...). A mask, (rows, columns) or (..., rows, columns), is
bool or weights from 0 to 1; None is the whole image.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..errors import InputError, _
from ..geometry.filters import gaussian_blur

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

    Mask = Bool[Tensor, "*#batch h w"] | Float[Tensor, "*#batch h w"]
    Region = Bool[Tensor, "h w"] | Float[Tensor, "h w"]

SSIM_RADIUS, SSIM_SIGMA = 5, 1.5  # Wang et al. 2004: Gaussian window of 11 pixels
SSIM_K1, SSIM_K2 = 0.01, 0.03


def mse(
    a: Float[Tensor, "*batch h w"], b: Float[Tensor, "*batch h w"], mask: Mask | None = None
) -> Float[Tensor, "*batch"]:
    """Mean squared difference of images (..., h, w) within the mask."""
    _require_alike(a, b)
    return _mean((a - b) ** 2, mask)


def mae(
    a: Float[Tensor, "*batch h w"], b: Float[Tensor, "*batch h w"], mask: Mask | None = None
) -> Float[Tensor, "*batch"]:
    """Mean absolute difference of images (..., h, w) within the mask."""
    _require_alike(a, b)
    return _mean((a - b).abs(), mask)


def ncc(
    a: Float[Tensor, "*batch h w"], b: Float[Tensor, "*batch h w"], mask: Mask | None = None
) -> Float[Tensor, "*batch"]:
    """Normalised cross-correlation (Pearson's r, -1 to 1) of images (..., h, w) in the mask; 0 if one is constant.

    Raises:
        InputError: for images of two shapes, and a mask of another shape or without a pixel.
    """
    _require_alike(a, b)
    (a, std_a), (b, std_b) = _standardise(a, mask), _standardise(b, mask)
    covariance = _mean(a * b, mask)
    varied = (std_a > 0) & (std_b > 0)
    return torch.where(varied, covariance / torch.where(varied, std_a * std_b, 1.0), 0.0)


def ssim(
    a: Float[Tensor, "*batch h w"],
    b: Float[Tensor, "*batch h w"],
    mask: Mask | None = None,
    *,
    data_range: float = 1.0,
) -> Float[Tensor, "*batch"]:
    """Structural similarity, averaged within the mask (Wang et al. 2004, IEEE TIP 13(4), eq. 13).

    Gaussian window of sigma 1.5 cut at 5 pixels, K1 0.01, K2 0.03, population covariance; the mean leaves out the
    5 pixels at the border, which have no whole window.

    Args:
        a, b: (..., h, w), each at least 11 pixels wide and high.
        mask: bool or weights.
        data_range: of the grey levels.

    Raises:
        InputError: for smaller images or shapes that do not fit.
    """
    _require_alike(a, b)
    size = 2 * SSIM_RADIUS + 1
    if min(a.shape[-2:]) < size:
        raise InputError(
            _("SSIM needs images of at least {size} x {size} pixels, not {shape}."),
            size=size,
            shape=tuple(a.shape[-2:]),
        )
    products = torch.stack([a, b, a * a, b * b, a * b])
    means = gaussian_blur(products, SSIM_SIGMA, ends="valid", half=SSIM_RADIUS)
    mean_a, mean_b, mean_aa, mean_bb, mean_ab = means
    var_a, var_b, covariance = mean_aa - mean_a**2, mean_bb - mean_b**2, mean_ab - mean_a * mean_b
    c1, c2 = (SSIM_K1 * data_range) ** 2, (SSIM_K2 * data_range) ** 2
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    structure = (2 * covariance + c2) / (var_a + var_b + c2)
    inner = slice(SSIM_RADIUS, -SSIM_RADIUS)
    return _mean(luminance * structure, None if mask is None else mask[..., inner, inner])


def phase_correlation_shift(a: Float[Tensor, "*batch h w"], b: Float[Tensor, "*batch h w"]) -> Int[Tensor, "*batch 2"]:
    """Whole-pixel (rows, columns) shift, (..., 2), that moves `b` onto `a` (`torch.roll`), images (..., h, w).

    The peak of the phase-only cross-correlation (Kuglin and Hines 1975); not differentiable.
    """
    _require_alike(a, b)
    cross = torch.fft.rfft2(a.detach()) * torch.fft.rfft2(b.detach()).conj()
    cross = cross / cross.abs().clamp(min=100 * torch.finfo(a.dtype).eps)
    rows, columns = a.shape[-2:]
    peak = torch.fft.irfft2(cross, s=(rows, columns)).flatten(-2).argmax(-1)
    shift = torch.stack([peak // columns, peak % columns], -1)
    size = torch.tensor([rows, columns], device=a.device)
    return torch.where(shift > size // 2, shift - size, shift)


def ssim_after_phase_correlation(
    a: Float[Tensor, "*batch h w"],
    b: Float[Tensor, "*batch h w"],
    mask: Mask | None = None,
    *,
    data_range: float = 1.0,
) -> Float[Tensor, "*batch"]:
    """SSIM of `a` and `b` moved onto it by the phase correlation's shift, where the two then overlap.

    The mask belongs to `a`. A shift that leaves less than 11 x 11 pixels of overlap is no alignment: SSIM unshifted.
    """
    _require_alike(a, b)
    shape = a.shape
    shifts = phase_correlation_shift(a, b).reshape(-1, 2).tolist()
    if mask is not None:
        mask = mask.expand(shape).reshape(-1, *shape[-2:])
    flat_a, flat_b = a.reshape(-1, *shape[-2:]), b.reshape(-1, *shape[-2:])
    values = []
    for index, (dy, dx) in enumerate(shifts):
        if min(shape[-2] - abs(dy), shape[-1] - abs(dx)) < 2 * SSIM_RADIUS + 1:
            dy = dx = 0
        here = _overlap(dy, shape[-2]), _overlap(dx, shape[-1])
        there = _overlap(-dy, shape[-2]), _overlap(-dx, shape[-1])
        part = None if mask is None else mask[index][here]
        values.append(ssim(flat_a[index][here], flat_b[index][there], part, data_range=data_range))
    return torch.stack(values).reshape(shape[:-2])


def envelope_snr(envelope: Float[Tensor, "*batch h w"], mask: Mask | None = None) -> Float[Tensor, "*batch"]:
    """Mean over standard deviation of an envelope (before log compression); 1.913 in fully developed speckle."""
    mean = _mean(envelope, mask)
    variance = _mean((envelope - mean[..., None, None]) ** 2, mask)
    return mean / variance.clamp(min=torch.finfo(envelope.dtype).tiny).sqrt()


def nakagami_m(envelope: Float[Tensor, "*batch h w"], mask: Mask | None = None) -> Float[Tensor, "*batch"]:
    """Nakagami shape m of an envelope by the moments estimator; 1 in fully developed speckle.

    m = E[x^2]^2 / Var[x^2] (Nakagami 1960; Shankar 2000).
    """
    power = envelope**2
    mean = _mean(power, mask)
    return mean**2 / _mean((power - mean[..., None, None]) ** 2, mask).clamp(min=torch.finfo(power.dtype).tiny)


def gcnr(image: Float[Tensor, "h w"], inside: Region, outside: Region, *, bins: int = 100) -> Float[Tensor, ""]:
    """Generalised contrast-to-noise ratio, 0 to 1, of two regions (bool masks) of one image (h, w).

    1 minus the overlap of the regions' histograms over their common range; not changed by monotonic
    compression up to the binning. Source: Rodriguez-Molares et al. 2020, IEEE TUFFC 67(4). Not differentiable.
    """
    regions = [image.detach()[mask.bool()].double().cpu() for mask in (inside, outside)]
    if min(len(values) for values in regions) == 0:
        raise InputError(_("gCNR needs at least one pixel in each of the two regions."))
    low, high = torch.cat(regions).aminmax()
    if low == high:
        return image.new_zeros(())
    densities = [torch.histc(values, bins, low.item(), high.item()) / len(values) for values in regions]
    return (1 - torch.minimum(*densities).sum()).to(image)


def histogram_distance(a: Float[Tensor, "*n"], b: Float[Tensor, "*m"], *, levels: int = 512) -> Float[Tensor, ""]:
    """Earth mover's distance between the grey levels of two sets of pixels, any shapes, in the units of the pixels.

    The mean distance of equal quantiles (Wasserstein-1), taken at `levels` of them. Differentiable.
    """
    if min(a.numel(), b.numel()) == 0:
        raise InputError(_("A histogram distance needs at least one pixel of each image."))
    probability = (torch.arange(levels, dtype=a.dtype, device=a.device) + 0.5) / levels

    def quantiles(values: Tensor) -> Tensor:
        ordered = values.flatten().sort().values
        return ordered[(probability * ordered.numel()).long().clamp(max=ordered.numel() - 1)]

    return (quantiles(a) - quantiles(b.to(a))).abs().mean()


def patch_kl(
    a: Float[Tensor, "n h w"], b: Float[Tensor, "m h w"], mask: Region | None = None, *, block: int = 32, bins: int = 50
) -> Float[Tensor, ""]:
    """Kullback-Leibler divergence of b's grey levels from a's, nats, block by block (pKL), averaged over the blocks.

    Every block that lies in the mask has one histogram over all images of a set; half a count in every bin keeps it
    finite (Jeffreys' prior). Not differentiable. Source: the measure of Zhang et al. 2020 (learned ultrasound
    rendering), 50 bins in 32 x 32 blocks.

    Args:
        a, b: (n, h, w) and (m, h, w) in [0, 1].
        mask: (h, w).
        block: pixels of its edge.
        bins: of a histogram.

    Raises:
        InputError: for images of two sizes, and where no block lies in the mask.
    """
    if a.shape[1:] != b.shape[1:] or a.ndim != 3 or b.ndim != 3:
        raise InputError(
            _("The images must be (n, h, w) of one size, not {shape} and {other}."),
            shape=tuple(a.shape),
            other=tuple(b.shape),
        )
    rows, columns = a.shape[1] // block, a.shape[2] // block
    whole = torch.ones(a.shape[1:], dtype=torch.bool) if mask is None else mask.bool().cpu()

    def blocks(images: Tensor) -> Tensor:
        cut = images[:, : rows * block, : columns * block].reshape(-1, rows, block, columns, block)
        return cut.permute(1, 3, 0, 2, 4).reshape(rows * columns, -1)

    inside = blocks(whole[None]).all(1)
    if not inside.any():
        raise InputError(_("No block of {block} x {block} pixels lies in the mask; use smaller blocks."), block=block)

    def histograms(images: Tensor) -> Tensor:
        level = (blocks(images.detach().cpu())[inside] * bins).long().clamp(0, bins - 1)
        counts = torch.zeros(len(level), bins, dtype=torch.float64)
        counts.scatter_add_(1, level, torch.ones(level.shape, dtype=torch.float64))
        return (counts + 0.5) / (counts + 0.5).sum(1, keepdim=True)

    p, q = histograms(a), histograms(b)
    return (p * (p / q).log()).sum(1).mean().to(a)


def autocorrelation_width(
    image: Float[Tensor, "*batch h w"], dim: int = -1, *, spacing: float = 1.0
) -> Float[Tensor, "*batch"]:
    """Full width at half maximum of the autocovariance along one axis, mean over the other.

    Lags are unbiased; the half-way crossing is interpolated.

    Args:
        image: (..., h, w), one uniform region.
        dim: -1 or -2.
        spacing: of the pixels along it, the unit of the result.

    Raises:
        InputError: where the autocovariance does not fall to one half within the image.
    """
    if dim not in (-1, -2):
        raise InputError(
            _("dim is {dim}; choose -1 (along the columns' index) or -2 (along the rows' index)."), dim=dim
        )
    values = image if dim == -1 else image.transpose(-1, -2)
    values = values - values.mean((-2, -1), keepdim=True)
    n = values.shape[-1]
    power = torch.fft.rfft(values, 2 * n).abs().square().sum(-2)
    lags = torch.fft.irfft(power, 2 * n)[..., :n] / torch.arange(n, 0, -1, device=image.device)
    lags = lags / lags[..., :1]
    below = lags < 0.5
    if not below.any(-1).all():
        raise InputError(_("The image's autocovariance does not fall to one half; use a larger uniform region."))
    after = below.to(torch.uint8).argmax(-1, keepdim=True)
    high, low = lags.gather(-1, after - 1), lags.gather(-1, after)
    half = (after - 1) + (high - 0.5) / (high - low)
    return 2 * spacing * half[..., 0]


def _standardise(image: Tensor, mask: Mask | None) -> tuple[Tensor, Tensor]:
    """The image less its mean, and its standard deviation: exactly 0 where that is no more than rounding."""
    mean = _mean(image, mask)
    centred = image - mean[..., None, None]
    variance = _mean(centred**2, mask)
    rounding = (8 * torch.finfo(image.dtype).eps * mean.detach()) ** 2
    varied = variance > rounding
    # The square root is never taken at zero, where its gradient is infinite.
    return centred, torch.where(varied, torch.where(varied, variance, 1.0).sqrt(), 0.0)


def _mean(values: Tensor, mask: Mask | None) -> Tensor:
    if mask is None:
        return values.mean((-2, -1))
    if mask.shape[-2:] != values.shape[-2:]:
        raise InputError(
            _("The mask is {shape}, the image {other} pixels."),
            shape=tuple(mask.shape[-2:]),
            other=tuple(values.shape[-2:]),
        )
    weights = mask.to(values)
    total = weights.sum((-2, -1))
    if not (total > 0).all():
        raise InputError(_("The mask selects no pixel; choose a larger region."))
    return (values * weights).sum((-2, -1)) / total


def _overlap(shift: int, size: int) -> slice:
    return slice(max(shift, 0), size + min(shift, 0))


def _require_alike(a: Tensor, b: Tensor) -> None:
    if a.shape != b.shape or a.ndim < 2:
        raise InputError(
            _("The images must have one shape (..., rows, columns), not {shape}, {other}."),
            shape=tuple(a.shape),
            other=tuple(b.shape),
        )
