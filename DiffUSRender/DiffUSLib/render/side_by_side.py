"""Two pictures of one size beside each other, with their names above them."""

from __future__ import annotations

import numpy as np

from ..i18n import _

GAP = 8  # pixels between the two


def sideBySide(real: np.ndarray, simulated: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both images beside each other in one picture.

    Args:
        real: uint8 (rows, columns).
        simulated: uint8, of the same shape.

    Returns:
        The picture, uint8, and (4, 4), its (column, row, 0, 1) to those of the real image.
    """
    from diffus.export.annotation import draw_word

    rows, columns = real.shape
    words = [draw_word(text, rows, columns) for text in (_("REAL"), _("SIMULATED"))]
    heading = max(len(word) for word in words)
    picture = np.zeros((rows + heading, 2 * columns + GAP), np.uint8)
    picture[heading:, :columns], picture[heading:, columns + GAP :] = real, simulated
    for left, word in zip((0, columns + GAP), words):
        width = min(columns, word.shape[1])
        start = left + (columns - width) // 2
        picture[: len(word), start : start + width] = word[:, :width]
    shift = np.eye(4)
    shift[1, 3] = -heading
    return picture, shift
