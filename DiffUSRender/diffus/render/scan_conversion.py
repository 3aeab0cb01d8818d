"""From the polar echo or image to the slice in the probe plane; the mapping itself is `sweep.probe_sweep`'s."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor, nn

from ..sweep.probe_sweep import frame_grid, inside_fan, to_pixels

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

    from ..probe import Probe
    from .lookup import Lookup


class Pixels(nn.Module):
    """The pixels of an image that lie in the fan: where they are among samples and lines, and their gain.

    Args:
        lines: where they lie on the lines of speckle and noise.
        constants: inside: (rows, columns), which pixels of the image they are. where: (1, 1, pixels, 2), as
            `polar_grid`. index: (pixels,), in the flattened image. gain_db: (pixels,).
    """

    inside: Tensor
    where: Tensor
    index: Tensor
    gain_db: Tensor

    def __init__(self, lines: Lookup, **constants: Tensor) -> None:
        super().__init__()
        self.lines = lines
        for name, constant in constants.items():
            self.register_buffer(name, constant, persistent=False)

    def sampled(
        self, polar: Float[Tensor, "b n rays samples"], where: Float[Tensor, "1 1 pixels 2"] | None = None
    ) -> Float[Tensor, "b n pixels"]:
        """Smooth polar maps at the pixels, bilinear; `where` they lie, if not among straight rays."""
        where = (self.where if where is None else where).expand(len(polar), -1, -1, -1)
        return F.grid_sample(polar, where, padding_mode="border", align_corners=True)[:, :, 0]

    def image(self, values: Float[Tensor, "b pixels"]) -> Float[Tensor, "b rows columns"]:
        """The image of its pixels' values, zero outside of the fan."""
        image = values.new_zeros(len(values), self.inside.numel())
        return image.index_copy(1, self.index, values).view(-1, *self.inside.shape)


def scan_grid(probe: Probe) -> tuple[Float[Tensor, "rows columns 2"], Bool[Tensor, "rows columns"]]:
    """Where each pixel of the probe's slice lies in its polar image, as `polar_grid`, and whether it is in the fan."""
    geometry = probe.slice_geometry()
    grid = frame_grid(probe, geometry.pixel_to_probe, geometry.rows, geometry.columns)
    return grid, inside_fan(grid)


def scan_convert(
    polar: Float[Tensor, "batch rays samples"],
    grid: Float[Tensor, "rows columns 2"],
    inside: Bool[Tensor, "rows columns"],
) -> Float[Tensor, "batch rows columns"]:
    """Bilinear slice (B, rows, columns) of polar images (B, rays, samples), zero outside the fan."""
    return to_pixels(polar, grid) * inside
