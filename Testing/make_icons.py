"""Draws the icon of DiffUSRender: a fan of ultrasound with tissue in it. Run: python Testing/make_icons.py"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

SIZE, FINE = 128, 4  # drawn four times as large, then reduced: smooth edges
ICON = Path(__file__).resolve().parents[1] / "DiffUSRender" / "Resources" / "Icons" / "DiffUSRender.png"


def renderIcon() -> Image.Image:
    """A convex fan with speckle, two boundaries and a cyst, on a rounded dark ground; RGBA, 128 x 128."""
    size = SIZE * FINE
    y, x = np.mgrid[:size, :size] / size - np.array([-0.14, 0.5])[:, None, None]
    radius, angle = np.hypot(x, y), np.arctan2(x, y)
    fan = (radius > 0.30) & (radius < 1.0) & (np.abs(angle) < math.radians(37))
    noise = np.random.default_rng(7).normal(size=(2, SIZE // 2, SIZE // 2))
    speckle = np.kron(np.hypot(*noise), np.ones((2 * FINE, 2 * FINE))) / 2.2
    tissue = (0.30 + 0.35 * speckle) * (1.15 - 0.6 * radius)
    for depth, width in ((0.47, 0.010), (0.80, 0.014)):
        tissue += 0.75 * np.exp(-(((radius - depth - 0.05 * np.cos(5 * angle)) / width) ** 2) / 2)
    cyst = np.hypot(x - 0.10, y - 0.66) < 0.085
    tissue = np.where(cyst, 0.08, tissue).clip(0, 1)[..., None]
    ground, dark, bright = (np.array(color) for color in ((18, 32, 47), (8, 38, 58), (214, 243, 255)))
    pixels = np.where(fan[..., None], dark + tissue * (bright - dark), ground).astype(np.uint8)
    mask = Image.new("L", (size, size), 0)
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, size - 1, size - 1), radius=size // 7, fill=255)
    image = Image.fromarray(pixels)
    image.putalpha(mask)
    return image.resize((SIZE, SIZE), Image.LANCZOS)


if __name__ == "__main__":
    ICON.parent.mkdir(parents=True, exist_ok=True)
    renderIcon().save(ICON, optimize=True)
