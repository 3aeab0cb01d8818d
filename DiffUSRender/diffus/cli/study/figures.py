"""Figures of the studies: matplotlib where it is installed, images side by side, small PNG files."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ...errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.figure import Figure

COLOURS = 256
SHOWN = 3  # frames of a sweep, in a figure


def pyplot():
    """matplotlib for files alone; InputError where it is not installed."""
    try:
        import matplotlib
    except ImportError as error:
        raise InputError("Figures are drawn with matplotlib; install it, or leave --figure out.") from error
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def spread(count: int, wanted: int = SHOWN) -> list[int]:
    """At most `wanted` different numbers from 0 to `count` - 1, spread evenly and away from both ends."""
    return np.unique(np.linspace(0, count - 1, wanted + 2)[1:-1].round().astype(int)).tolist()


def save_images(
    path: str | Path,
    images: Sequence[Sequence[np.ndarray]],
    *,
    names: Sequence[str],
    titles: Sequence[str] = (),
    captions: Sequence[Sequence[str]] = (),
    inch: float = 2.5,
) -> None:
    """Draws grey images in lines and columns, and writes them as a small PNG.

    Args:
        path: of the file.
        images: in each line, arrays in [0, 1].
        names: of the lines, at their left.
        titles: of the columns, above the first line.
        captions: below each image.
        inch: width of an image.
    """
    rows, columns = images[0][0].shape
    size = (inch * len(images[0]), (inch * rows / columns + 0.25) * len(images) + 0.4)
    figure, axes = pyplot().subplots(len(images), len(images[0]), figsize=size, squeeze=False, layout="constrained")
    for line, (shown, name) in enumerate(zip(images, names)):
        for column, image in enumerate(shown):
            axis = axes[line, column]
            axis.imshow(image, cmap="gray", vmin=0, vmax=1)
            axis.set(xticks=[], yticks=[])
            if captions:
                axis.set_xlabel(captions[line][column], fontsize=6)
        axes[line, 0].set_ylabel(name, fontsize=7)
    for axis, title in zip(axes[0], titles):
        axis.set_title(title, fontsize=7)
    save_small(figure, path)


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
