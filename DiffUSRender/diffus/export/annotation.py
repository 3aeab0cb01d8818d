"""The word SIMULATED on a picture, outside of the fan: in a corner that is free, else on a strip above the image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from jaxtyping import Bool, UInt8

TEXT = "SIMULATED"
MIN_FONT, MAX_FONT = 10, 48
FONT_FRACTION = 1 / 24  # of the longer side of the slice


@dataclass(frozen=True)
class Canvas:
    """A picture that carries the word: stamp (rows, columns) uint8, black but for the letters.

    The slice lies in it unchanged, from row `top` and column 0; fan: (rows, columns) bool, its fan on the canvas.
    """

    stamp: UInt8[np.ndarray, "rows columns"]
    fan: Bool[np.ndarray, "rows columns"]
    top: int
    slice_rows: int
    slice_columns: int

    def draw(self, pixels: UInt8[np.ndarray, "slice_rows slice_columns"]) -> UInt8[np.ndarray, "rows columns"]:
        """The slice with the word."""
        picture = self.stamp.copy()
        part = picture[self.top : self.top + self.slice_rows, : self.slice_columns]
        np.maximum(part, pixels, out=part)  # the word lies on black only
        return picture


def make_canvas(inside: Bool[np.ndarray, "slice_rows slice_columns"], *, even: bool = False) -> Canvas:
    """Makes the canvas for slices of one fan.

    Args:
        inside: The pixels of the fan.
        even: Whether rows and columns are to be even numbers, as video wants them.
    """
    rows, columns = inside.shape
    word = draw_word(TEXT, rows, columns)
    height, width = word.shape
    corner = next((box for box in _corners(rows, columns, height, width) if not inside[box].any()), None)
    top = 0 if corner is not None else height
    total = [rows + top, columns if corner is not None else max(columns, width)]
    if even:
        total = [size + size % 2 for size in total]
    stamp, fan = np.zeros(total, np.uint8), np.zeros(total, bool)
    stamp[corner or (slice(0, height), slice(0, width))] = word
    fan[top : top + rows, :columns] = inside
    return Canvas(stamp, fan, top, rows, columns)


def draw_word(text: str, rows: int, columns: int) -> UInt8[np.ndarray, "height width"]:
    """A word in Pillow's own font with a margin, as large as the slice allows, (height, width) uint8."""
    size = int(np.clip(round(max(rows, columns) * FONT_FRACTION), MIN_FONT, MAX_FONT))
    while True:
        font = ImageFont.load_default(size)
        left, top, right, bottom = font.getbbox(text)
        margin = size // 3
        width, height = int(right - left) + 2 * margin, int(bottom - top) + 2 * margin
        if width <= columns or size == MIN_FONT:
            break
        size -= 1
    image = Image.new("L", (width, height))
    ImageDraw.Draw(image).text((margin - left, margin - top), text, fill=255, font=font)
    return np.asarray(image)


def _corners(rows: int, columns: int, height: int, width: int) -> list[tuple[slice, slice]]:
    """The corners of the slice that a box fits into, those at the top first."""
    if height > rows or width > columns:
        return []
    down = (slice(0, height), slice(rows - height, rows))
    across = (slice(0, width), slice(columns - width, columns))
    return [(vertical, horizontal) for vertical in down for horizontal in across]
