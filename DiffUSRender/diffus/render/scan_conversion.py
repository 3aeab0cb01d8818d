"""From the polar image to the slice in the probe plane; the mapping itself is `sweep.probe_sweep`'s."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from ..sweep.probe_sweep import frame_grid, inside_fan, to_pixels

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

    from ..probe import Probe


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
