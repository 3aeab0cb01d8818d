"""From the complex echo to what a screen shows: envelope, gain, compression, grey map, edges, persistence."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..geometry.filters import gaussian_blur

if TYPE_CHECKING:
    from jaxtyping import Float

POWER_FLOOR = 1e-14  # -140 dB: keeps the logarithm and its gradient finite where nothing echoes
EDGE_PIXELS = 2.0  # standard deviation of what edge enhancement takes for the surroundings
REFERENCE_BRIGHTNESS = 0.6  # of unit echo power (0 dB: white-matter speckle without attenuation) at 0 dB gain


def log_compress(
    iq: Float[Tensor, "batch 2 rays samples"],
    gain_db: Float[Tensor, " samples"] | float | Tensor,
    dynamic_range_db: float | Tensor,
    contrast: float | Tensor = 1.0,
    black: float | Tensor = 0.0,
) -> Float[Tensor, "batch rays samples"]:
    """Brightness of the complex echo: 20 log10 |x| + gain over the dynamic range, clipped to [0, 1].

    Args:
        iq: (B, 2, rays, samples), real and imaginary part; |x| = 1 (0 dB) shows as `REFERENCE_BRIGHTNESS`.
        gain_db: one number, or one per sample (time gain compensation).
        dynamic_range_db: of the display.
        contrast: of the grey map.
        black: brightness of what is black.
    """
    re, im = iq.unbind(-3)
    power = (re * re).addcmul_(im, im).add_(POWER_FLOOR)
    level_db = torch.log10(power).mul_(10) + gain_db
    return grey_map((level_db / dynamic_range_db + REFERENCE_BRIGHTNESS).clamp(0, 1), contrast, black)


def grey_map(
    brightness: Float[Tensor, "*batch"], contrast: float | Tensor, black: float | Tensor = 0.0
) -> Float[Tensor, "*batch"]:
    """A scanner's S-shaped grey map of brightness in [0, 1], b^c / (b^c + (1 - b)^c); contrast 1 is a straight line.

    It begins at `black`: video recorders keep 16 of 255.
    """
    if isinstance(contrast, Tensor) or contrast != 1:
        low = brightness**contrast
        brightness = low / (low + (1 - brightness) ** contrast)
    if isinstance(black, Tensor) or black != 0:
        brightness = black + (1 - black) * brightness
    return brightness


def enhance_edges(
    images: Float[Tensor, "batch rows columns"], amount: float | Tensor, inside: Tensor
) -> Float[Tensor, "batch rows columns"]:
    """Adds `amount` times what stands out from the surroundings (unsharp masking), within the fan.

    Args:
        images: (B, rows, columns) in [0, 1].
        amount: 0 leaves them as they are.
        inside: (rows, columns), true in the fan; what lies outside does not count as surroundings.
    """
    if not isinstance(amount, Tensor) and amount == 0:
        return images
    mask = inside.to(images)
    around = gaussian_blur(images * mask, EDGE_PIXELS) / gaussian_blur(mask, EDGE_PIXELS).clamp(min=1e-3)
    return (images + amount * (images - around)).clamp(0, 1) * mask


class Persistence:
    """Frame averaging as scanners do: each shown image is a mean of the new one and the last shown.

    Args:
        weight: of the last shown, 0 to 0.95; 0 shows every frame as it comes.
    """

    def __init__(self, weight: float) -> None:
        self.weight = weight
        self._shown: Tensor | None = None

    def __call__(self, images: Float[Tensor, "batch rows columns"]) -> Float[Tensor, "batch rows columns"]:
        """The images to be shown, frame after frame of the batch; one of another size begins anew."""
        shown = []
        for image in images:
            if self._shown is not None and self._shown.shape == image.shape:
                image = torch.lerp(image, self._shown.to(image), self.weight)
            self._shown = image.detach()
            shown.append(image)
        return torch.stack(shown)


def linear_brightness(
    iq: Float[Tensor, "batch 2 rays samples"], gain_db: Float[Tensor, " samples"] | float | Tensor
) -> Float[Tensor, "batch rays samples"]:
    """Brightness proportional to the envelope, |x| 10^(gain/20), clipped to [0, 1] (the display of DiffUS 2508.06768).

    Args:
        iq: (B, 2, rays, samples), real and imaginary part.
        gain_db: one number, or one per sample.
    """
    envelope = ((iq * iq).sum(-3) + POWER_FLOOR).sqrt()
    gain = torch.as_tensor(gain_db, dtype=iq.dtype, device=iq.device)
    return (envelope * 10 ** (gain / 20)).clamp(0, 1)
