"""An A-mode line as a file: a table or a picture of the curve."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..io.atomic import replacing, require_writable
from ..io.tables import write_csv
from .annotation import TEXT
from .pictures import save_png

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from ..render.a_mode import AMode

A_MODE_SUFFIXES = (".csv", ".png")
SIZE = (900, 420)
LEFT, TOP, RIGHT, BOTTOM = 64, 44, 20, 56  # margins of the plot, pixels
SHOWN_DB = 100.0  # below the highest echo; what is fainter lies on the bottom
INK, GRID, CURVE = (30, 30, 30), (218, 218, 218), (0, 90, 160)


def write_a_mode(path: str | Path, line: AMode, made: Mapping[str, object] | None = None) -> None:
    """Writes a line as `.csv` (depth_mm, time_us, level_db) or draws it as `.png`.

    Args:
        path: its ending chooses.
        line: to be written.
        made: its provenance, which stands in a `.png`; a table has no header for it.

    Raises:
        InputError: another ending, or a place that cannot be written.
    """
    target = require_writable(path, A_MODE_SUFFIXES)
    depth, time, level = (part.detach().double().cpu().tolist() for part in line)
    with replacing(target) as temporary:
        if target.suffix.lower() == ".csv":
            write_csv(temporary, line._fields, zip(depth, time, level))
        else:
            save_png(np.asarray(_drawn(depth, time, level)), temporary, made)


def _drawn(depth: list[float], time: list[float], level: list[float]) -> Image.Image:
    """The curve over depth, with the time on the upper edge."""
    image = Image.new("RGB", SIZE, "white")
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(13)
    top = 10 * math.ceil(max(level) / 10)
    low = max(10 * math.floor(min(level) / 10), top - SHOWN_DB)
    low = min(low, top - 10)
    right, bottom = SIZE[0] - RIGHT, SIZE[1] - BOTTOM

    def x_of(share: float) -> float:
        return LEFT + share * (right - LEFT)

    def y_of(value: float) -> float:
        return TOP + (top - max(value, low)) / (top - low) * (bottom - TOP)

    for mm in _ticks(depth[-1]):
        x = x_of(mm / depth[-1])
        draw.line([(x, TOP), (x, bottom)], fill=GRID)
        draw.text((x, bottom + 5), f"{mm:g}", fill=INK, font=font, anchor="mt")
    for us in _ticks(time[-1]):
        x = x_of(us / time[-1])
        draw.line([(x, TOP - 5), (x, TOP)], fill=INK)
        draw.text((x, TOP - 8), f"{us:g}", fill=INK, font=font, anchor="mb")
    every = 10 if top - low <= 60 else 20
    for db in range(math.ceil(low / every) * every, int(top) + 1, every):
        draw.line([(LEFT, y_of(db)), (right, y_of(db))], fill=GRID)
        draw.text((LEFT - 6, y_of(db)), f"{db}", fill=INK, font=font, anchor="rm")
    draw.line([(x_of(at / depth[-1]), y_of(value)) for at, value in zip(depth, level)], fill=CURVE, width=2)
    draw.rectangle([LEFT, TOP, right, bottom], outline=INK)
    draw.text((right, SIZE[1] - 8), "depth, mm", fill=INK, font=font, anchor="rb")
    draw.text((right, 6), "time, microseconds", fill=INK, font=font, anchor="rt")
    draw.text((8, 6), "echo, dB re white-matter speckle", fill=INK, font=font, anchor="lt")
    draw.text((LEFT, SIZE[1] - 8), TEXT, fill=INK, font=font, anchor="lb")
    return image


def _ticks(last: float) -> list[float]:
    """Round numbers from 0 to `last`, ten or so."""
    step = 10 ** math.floor(math.log10(last / 5))
    step *= next((each for each in (1, 2, 5) if last / (step * each) <= 12), 10)
    return [number * step for number in range(int(last / step) + 1)]
