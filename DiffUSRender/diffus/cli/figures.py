"""Figures of the command line: matplotlib where it is installed, small PNG files."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from PIL import Image

from ..errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.figure import Figure

COLOURS = 256


def pyplot():
    """matplotlib for files alone; InputError where it is not installed."""
    try:
        import matplotlib
    except ImportError as error:
        raise InputError("Figures are drawn with matplotlib; install it, or leave --figure out.") from error
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def save_small(figure: Figure, path: str | Path, *, dpi: int = 90) -> None:
    """Writes the figure as a PNG with a palette, which is a third of the size, and closes it.

    Args:
        figure: of matplotlib.
        path: of the file.
        dpi: pixels per inch.
    """
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=dpi, format="png")
    pyplot().close(figure)
    picture = (
        Image.open(drawn).convert("RGB").quantize(COLOURS, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    )
    picture.save(path, format="png", optimize=True)
