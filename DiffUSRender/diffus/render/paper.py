"""The paper's optional artefacts on polar images: multiplicative speckle and lateral blur that grow with depth.

They decorate an image rather than simulate scatterers and beams (that is `physics`): use them to reproduce the paper's
pictures, or to augment training data. Source: DiffUS (arXiv 2508.06768), artefacts; depths and widths here in mm.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..errors import InputError, _
from ..geometry.filters import gaussian_kernel
from ..probe.beam import blur_lateral

if TYPE_CHECKING:
    from jaxtyping import Float

KERNEL_SIGMAS = 4.0  # half width of the blur kernel: what is cut off is 6e-5 of its area


def multiplicative_speckle(
    image: Float[Tensor, "batch rays samples"],
    *,
    radial_std: float | Tensor = 0.1,
    radial_power: float | Tensor = 2.0,
    local_std: float | Tensor = 0.02,
    local_power: float | Tensor = 1.5,
    grain_growth: float | Tensor = 0.0,
    depths_mm: Float[Tensor, " samples"] | None = None,
    lateral_spacing_mm: Float[Tensor, " samples"] | None = None,
    seed: int = 0,
) -> Float[Tensor, "batch rays samples"]:
    """Multiplies an image by seeded noise around 1 that grows with depth; negative factors become 0.

    With z from 0 at the face to 1 at full depth, the radial noise, the same for all rays and so an arc in the scan, has
    the standard deviation radial_std (1 + z**radial_power); the grain, local_std (1 + z**local_power). At the face a
    grain is one pixel; deeper it is a Gaussian of sigma grain_growth * depth, in mm both along and across the rays.
    Differentiable in the image and in the numbers.

    Args:
        image: (B, rays, samples); all of the batch get the same noise.
        radial_std, radial_power, local_std, local_power, grain_growth: numbers of 0 or more, or 0-d tensors.
        depths_mm, lateral_spacing_mm: as in `lateral_blur`; needed where grains grow.
        seed: of the noise.

    Raises:
        InputError: for another shape or a negative parameter.
    """
    _require_polar(image)
    parameters = {
        "radial_std": radial_std,
        "radial_power": radial_power,
        "local_std": local_std,
        "local_power": local_power,
        "grain_growth": grain_growth,
    }
    for name, value in parameters.items():
        if not value >= 0:  # also refuses NaN
            raise InputError(_("{name} must be 0 or more, but it is {value}."), name=name, value=value)
    rays, samples = image.shape[1:]
    generator = torch.Generator().manual_seed(seed)
    # Drawn on the CPU in one precision, so that a seed means the same noise on every device.
    # One draw for the whole batch: an image must not depend on its neighbours.
    radial = torch.randn(1, samples, generator=generator).to(image)
    local = torch.randn(rays, samples, generator=generator).to(image)
    if isinstance(grain_growth, Tensor) or grain_growth > 0:
        local = _grown(local, grain_growth, depths_mm, lateral_spacing_mm)
    z = torch.linspace(0.0, 1.0, samples, dtype=image.dtype, device=image.device)
    noise = radial_std * (1 + z**radial_power) * radial + local_std * (1 + z**local_power) * local
    return image * (1 + noise).clamp(min=0.0)


def lateral_blur(
    image: Float[Tensor, "batch rays samples"],
    depths_mm: Float[Tensor, " samples"],
    lateral_spacing_mm: Float[Tensor, " samples"],
    *,
    sigma_mm: float | Tensor = 0.3,
    growth: float | Tensor = 0.01,
) -> Float[Tensor, "batch rays samples"]:
    """Gaussian blur across the rays of an image, sigma = sigma_mm + growth * depth, in mm.

    Equal widths in mm cover fewer rays where the rays diverge. At the sides the kernel is normalised over the rays
    there are, so a constant image stays as it is. A kernel reaches over a quarter of the rays at most: wider ones occur
    only where the rays run together, at a phased array's apex. Differentiable in the image, sigma_mm and growth.

    Args:
        image: (B, rays, samples).
        depths_mm: (samples,), the probe's.
        lateral_spacing_mm: (samples,), distance of neighbouring rays, the probe's.
        sigma_mm, growth: numbers or 0-d tensors.

    Raises:
        InputError: for shapes that do not fit or a width that is not positive.
    """
    _require_polar(image)
    rays, samples = image.shape[1:]
    _require_depths(samples, depths_mm, lateral_spacing_mm)
    spacing = lateral_spacing_mm.to(image)
    sigma = sigma_mm + growth * depths_mm.to(image)
    if not (sigma > 0).all():
        raise InputError(_("The lateral blur's sigma must be positive at every depth; raise sigma_mm or growth."))
    widest = (sigma / spacing.clamp(min=1e-6)).detach().max().item()
    reach = min(math.ceil(KERNEL_SIGMAS * widest), max(rays // 4, 1))

    # A row of ones goes through the same kernel: dividing by it normalises at the sides.
    taps = gaussian_kernel(sigma, reach, spacing)
    blurred = blur_lateral(torch.cat([image, torch.ones_like(image[:1])]), taps, "constant")
    return blurred[:-1] / blurred[-1:]


def _grown(
    noise: Float[Tensor, "rays samples"],
    growth: float | Tensor,
    depths_mm: Float[Tensor, " samples"] | None,
    lateral_spacing_mm: Float[Tensor, " samples"] | None,
) -> Float[Tensor, "rays samples"]:
    """White noise whose grain grows with depth, of unit variance everywhere, also at the sides."""
    rays, samples = noise.shape
    _require_depths(samples, depths_mm, lateral_spacing_mm)
    depth, spacing = depths_mm.to(noise), lateral_spacing_mm.to(noise)
    # Below a third of a pixel the kernel is the pixel itself.
    sigma = (growth * depth).clamp(min=0.3 * float((depth[-1] - depth[0]) / (samples - 1)))
    along = torch.exp(-0.5 * ((depth[:, None] - depth) / sigma).square())  # (from, to)
    noise = noise @ (along / along.norm(dim=0))
    # The rays of a phased array meet at the face, without a spacing there.
    spacing = spacing.clamp(min=1e-6)
    sigma = torch.maximum(growth * depth, 0.3 * spacing)
    widest = (sigma / spacing).detach().max().item()
    taps = gaussian_kernel(sigma, min(math.ceil(KERNEL_SIGMAS * widest), max(rays // 4, 1)), spacing)
    blurred = blur_lateral(noise, taps, "constant")
    return blurred / blur_lateral(torch.ones_like(noise), taps.square(), "constant").sqrt()


def _require_depths(samples: int, *given: Tensor | None) -> None:
    if any(one is None or one.shape != (samples,) for one in given):
        raise InputError(
            _("depths_mm and lateral_spacing_mm need one number for each of the {samples} samples."), samples=samples
        )


def _require_polar(image: Tensor) -> None:
    if image.ndim != 3 or not image.is_floating_point():
        raise InputError(
            _("A polar image must be floating point (batch, rays, samples), not {shape}."), shape=tuple(image.shape)
        )
