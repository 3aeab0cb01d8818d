"""PNG: one picture, or a folder of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PIL import Image

from ..io.atomic import making_folder, replacing
from .annotation import make_canvas

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .frames import SimulatedFrames


def write_png(path: Path, frames: SimulatedFrames) -> Iterator[int]:
    """The first frame as one picture that carries the word SIMULATED."""
    with replacing(path) as temporary:
        Image.fromarray(make_canvas(frames.inside).draw(frames.pixels[0])).save(temporary, format="PNG")
        yield 1


def series_folder(path: Path) -> Path:
    """The folder that a series named `path` goes into: `sweep.png` becomes `sweep/sweep_0000.png`, ..."""
    return path.with_suffix("")


def write_png_series(path: Path, frames: SimulatedFrames) -> Iterator[int]:
    """Every frame as a picture in a new folder; raises InputError where there is one with something in it."""
    canvas = make_canvas(frames.inside)
    with making_folder(series_folder(path)) as folder:
        for number, pixels in enumerate(frames.pixels):
            Image.fromarray(canvas.draw(pixels)).save(folder / f"{path.stem}_{number:04d}.png")
            yield number + 1
