"""PNG: one picture, or a folder of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ..io.atomic import making_folder, replacing
from ..io.provenance import header_keys
from .annotation import make_canvas

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import numpy as np
    from jaxtyping import UInt8

    from .frames import SimulatedFrames


def write_png(path: Path, frames: SimulatedFrames) -> Iterator[int]:
    """The first frame as one picture that carries the word SIMULATED."""
    with replacing(path) as temporary:
        save_png(make_canvas(frames.inside).draw(frames.pixels[0]), temporary, frames.provenance)
        yield 1


def save_png(picture: UInt8[np.ndarray, "rows columns *rgb"], path: Path, made: Mapping[str, object] | None) -> None:
    """One picture, grey (rows, columns) or RGB (rows, columns, 3), with its provenance as text chunks."""
    chunks = PngInfo()
    for key, text in header_keys(made).items():
        chunks.add_itxt(key, text)
    Image.fromarray(picture).save(path, format="PNG", pnginfo=chunks)


def series_folder(path: Path) -> Path:
    """The folder that a series named `path` goes into: `sweep.png` becomes `sweep/sweep_0000.png`, ..."""
    return path.with_suffix("")


def write_png_series(path: Path, frames: SimulatedFrames) -> Iterator[int]:
    """Every frame as a picture in a new folder; raises InputError where there is one with something in it."""
    canvas = make_canvas(frames.inside)
    with making_folder(series_folder(path)) as folder:
        for number, pixels in enumerate(frames.pixels):
            save_png(canvas.draw(pixels), folder / f"{path.stem}_{number:04d}.png", frames.provenance)
            yield number + 1
