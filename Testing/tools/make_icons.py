"""Draws the icons of both modules, a fan of ultrasound each. Run: python Testing/tools/make_icons.py"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

SIZE, FINE = 128, 4  # drawn four times as large, then reduced: smooth edges
ROOT = Path(__file__).resolve().parents[2]
GROUND = np.array((18, 32, 47))


def fanPixels() -> tuple[np.ndarray, ...]:
    """x, y in 0..1, radius and angle about the fan's apex, true within the fan, and speckle, at every fine pixel."""
    size = SIZE * FINE
    y, x = np.mgrid[:size, :size] / size - np.array([-0.14, 0.5])[:, None, None]
    radius, angle = np.hypot(x, y), np.arctan2(x, y)
    fan = (radius > 0.30) & (radius < 1.0) & (np.abs(angle) < math.radians(37))
    noise = np.random.default_rng(7).normal(size=(2, SIZE // 2, SIZE // 2))
    speckle = np.kron(np.hypot(*noise), np.ones((2 * FINE, 2 * FINE))) / 2.2
    return x, y, radius, angle, fan, speckle


def onGround(fan: np.ndarray, colors: np.ndarray) -> Image.Image:
    """The fan's colours on a rounded dark ground; RGBA, 128 x 128."""
    size = SIZE * FINE
    image = Image.fromarray(np.where(fan[..., None], colors, GROUND).astype(np.uint8))
    mask = Image.new("L", (size, size), 0)
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, size - 1, size - 1), radius=size // 7, fill=255)
    image.putalpha(mask)
    return image.resize((SIZE, SIZE), Image.LANCZOS)


def renderIcon() -> Image.Image:
    """A convex fan with speckle, two boundaries and a cyst."""
    x, y, radius, angle, fan, speckle = fanPixels()
    tissue = (0.30 + 0.35 * speckle) * (1.15 - 0.6 * radius)
    for depth, width in ((0.47, 0.010), (0.80, 0.014)):
        tissue += 0.75 * np.exp(-(((radius - depth - 0.05 * np.cos(5 * angle)) / width) ** 2) / 2)
    cyst = np.hypot(x - 0.10, y - 0.66) < 0.085
    tissue = np.where(cyst, 0.08, tissue).clip(0, 1)[..., None]
    dark, bright = (np.array(color) for color in ((8, 38, 58), (214, 243, 255)))
    return onGround(fan, dark + tissue * (bright - dark))


def registerIcon() -> Image.Image:
    """A checkerboard of a smooth, warm MRI and a speckled, cool ultrasound of one anatomy."""
    x, y, radius, angle, fan, speckle = fanPixels()
    boundary = sum(
        np.exp(-(((radius - depth - 0.05 * np.cos(5 * angle)) / width) ** 2) / 2)
        for depth, width in ((0.50, 0.018), (0.80, 0.022))
    )
    ultrasound = (0.25 + 0.30 * speckle + 0.7 * boundary).clip(0, 1)[..., None]
    layers = np.where(radius > 0.50 + 0.05 * np.cos(5 * angle), 0.75, 0.45)
    layers = np.where(radius > 0.80 + 0.05 * np.cos(5 * angle), 0.55, layers)
    mri = (layers - 0.35 * boundary).clip(0, 1)[..., None]
    field = (np.floor((x + 0.5) * 4) + np.floor((y - 0.14) * 4)) % 2 == 0
    cool = np.array((8, 38, 58)) + ultrasound * np.array((206, 205, 197))
    warm = np.array((52, 26, 8)) + mri * np.array((203, 190, 160))
    return onGround(fan, np.where(field[..., None], warm, cool))


if __name__ == "__main__":
    for module, icon in (("DiffUSRender", renderIcon()), ("DiffUSRegister", registerIcon())):
        path = ROOT / module / "Resources" / "Icons" / f"{module}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        icon.save(path, optimize=True)
