"""Figures of the studies: images side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..figures import pyplot, save_small

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SHOWN = 3  # frames of a sweep, in a figure


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
