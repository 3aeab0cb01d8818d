"""Draws the icon of DiffUSRegister: one fan, brain on one side and ultrasound on the other, that meet at a boundary.

Run: python Testing/make_register_icon.py
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

SIZE, FINE = 128, 4  # drawn four times as large, then reduced: smooth edges
ICON = Path(__file__).resolve().parents[1] / "DiffUSRegister" / "Resources" / "Icons" / "DiffUSRegister.png"


def registerIcon() -> Image.Image:
    """A checkerboard of a smooth, warm MRI and a speckled, cool ultrasound of one anatomy; RGBA, 128 x 128."""
    size = SIZE * FINE
    y, x = np.mgrid[:size, :size] / size - np.array([-0.14, 0.5])[:, None, None]
    radius, angle = np.hypot(x, y), np.arctan2(x, y)
    fan = (radius > 0.30) & (radius < 1.0) & (np.abs(angle) < math.radians(37))
    boundary = sum(
        np.exp(-(((radius - depth - 0.05 * np.cos(5 * angle)) / width) ** 2) / 2)
        for depth, width in ((0.50, 0.018), (0.80, 0.022))
    )
    noise = np.random.default_rng(7).normal(size=(2, SIZE // 2, SIZE // 2))
    speckle = np.kron(np.hypot(*noise), np.ones((2 * FINE, 2 * FINE))) / 2.2
    ultrasound = (0.25 + 0.30 * speckle + 0.7 * boundary).clip(0, 1)[..., None]
    layers = np.where(radius > 0.50 + 0.05 * np.cos(5 * angle), 0.75, 0.45)
    layers = np.where(radius > 0.80 + 0.05 * np.cos(5 * angle), 0.55, layers)
    mri = (layers - 0.35 * boundary).clip(0, 1)[..., None]
    field = (np.floor((x + 0.5) * 4) + np.floor((y - 0.14) * 4)) % 2 == 0
    ground = np.array((18, 32, 47))
    cool = np.array((8, 38, 58)) + ultrasound * np.array((206, 205, 197))
    warm = np.array((52, 26, 8)) + mri * np.array((203, 190, 160))
    pixels = np.where(fan[..., None], np.where(field[..., None], warm, cool), ground).astype(np.uint8)
    mask = Image.new("L", (size, size), 0)
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, size - 1, size - 1), radius=size // 7, fill=255)
    image = Image.fromarray(pixels)
    image.putalpha(mask)
    return image.resize((SIZE, SIZE), Image.LANCZOS)


if __name__ == "__main__":
    ICON.parent.mkdir(parents=True, exist_ok=True)
    registerIcon().save(ICON, optimize=True)
