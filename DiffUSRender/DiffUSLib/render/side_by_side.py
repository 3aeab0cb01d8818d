"""Two pictures of one size beside each other, with their names above them."""

from __future__ import annotations

import numpy as np

from ..i18n import _

GAP = 8  # pixels between the two
HEADING_FRACTION = 0.06  # of the height


def sideBySide(real: np.ndarray, simulated: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both images beside each other in one picture.

    Args:
        real: uint8 (rows, columns).
        simulated: uint8, of the same shape.

    Returns:
        The picture, uint8, and (4, 4), its (column, row, 0, 1) to those of the real image.
    """
    rows, columns = real.shape
    heading = max(14, round(HEADING_FRACTION * rows))
    picture = np.zeros((rows + heading, 2 * columns + GAP), np.uint8)
    picture[heading:, :columns], picture[heading:, columns + GAP :] = real, simulated
    for left, text in ((0, _("REAL")), (columns + GAP, _("SIMULATED"))):
        _write(picture[:heading, left : left + columns], text)
    shift = np.eye(4)
    shift[1, 3] = -heading
    return picture, shift


def _write(strip: np.ndarray, text: str) -> None:
    """Writes a word into the middle of a strip of pixels, as large as it fits."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default()
    left, top, right, bottom = font.getbbox(text)
    word = Image.new("L", (int(right - left) + 2, int(bottom - top) + 2))
    ImageDraw.Draw(word).text((1 - left, 1 - top), text, fill=255, font=font)
    scale = min(0.8 * strip.shape[0] / word.height, 0.9 * strip.shape[1] / word.width)
    size = max(1, round(word.width * scale)), max(1, round(word.height * scale))
    pixels = np.asarray(word.resize(size, Image.BICUBIC))
    row, column = (strip.shape[0] - size[1]) // 2, (strip.shape[1] - size[0]) // 2
    strip[row : row + size[1], column : column + size[0]] = pixels
