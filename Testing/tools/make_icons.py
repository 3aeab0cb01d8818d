"""Draws the icons of both modules and the picture of the sample case. Run: python Testing/tools/make_icons.py"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

SIZE, FINE = 128, 4  # drawn four times as large, then reduced: smooth edges
ROOT = Path(__file__).resolve().parents[2]
SAMPLE_SIZE = (240, 160)
GROUND, WARM, DARK, BRIGHT = (
    np.array(color) for color in ((18, 32, 47), (196, 178, 150), (8, 38, 58), (214, 243, 255))
)


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
    return onGround(fan, DARK + tissue * (BRIGHT - DARK))


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
    cool = DARK + ultrasound * np.array((206, 205, 197))
    warm = np.array((52, 26, 8)) + mri * np.array((203, 190, 160))
    return onGround(fan, np.where(field[..., None], warm, cool))


def sampleIcon() -> Image.Image:
    """A coronal head of ellipses, and a fan of ultrasound through an opening in its skull; RGB."""
    width, height = SAMPLE_SIZE
    y, x = np.mgrid[: height * FINE, : width * FINE] / (height * FINE)
    x, y = x - width / height / 2, y - 0.56

    def ellipse(cx, cy, rx, ry):
        return np.hypot((x - cx) / rx, (y - cy) / ry)

    angle = np.arctan2(x, -y)
    brain = ellipse(0, 0, 0.47, 0.40) < 1 - 0.025 * np.cos(26 * angle)
    ventricles = np.minimum(ellipse(-0.07, -0.02, 0.035, 0.10), ellipse(0.07, -0.02, 0.035, 0.10)) < 1
    falx = (np.abs(x) < 0.007) & (y < -0.14) & (y > -0.40)
    scalp = ellipse(0, 0, 0.60, 0.52)
    level = np.where((scalp < 1) & (scalp > 0.94), 0.85, 0.0)
    level = np.where(brain, np.where(ellipse(0, 0, 0.38, 0.31) < 1, 0.75, 0.55), level)
    level = np.where(ventricles | falx, 0.12, level)

    turned = math.radians(24)  # the probe stands to the right of the vertex
    along = -math.sin(turned) * (x - 0.24) + math.cos(turned) * (y + 0.56)
    across = math.cos(turned) * (x - 0.24) + math.sin(turned) * (y + 0.56)
    radius, ray = np.hypot(along, across), np.arctan2(across, along)
    fan = (radius > 0.16) & (radius < 0.80) & (np.abs(ray) < math.radians(25))
    noise = np.random.default_rng(7).normal(size=(2, height, width))
    speckle = np.kron(np.hypot(*noise), np.ones((FINE, FINE))) / 2.2
    echo = np.where(brain, 0.25 + 0.35 * speckle, 0.10) * (1.2 - 0.5 * radius)
    echo = np.where(falx, 0.95, np.where(ventricles, 0.04, echo)).clip(0, 1)[..., None]

    pixels = GROUND + level[..., None] * (WARM - GROUND)
    pixels = np.where(fan[..., None], DARK + echo * (BRIGHT - DARK), pixels)
    return Image.fromarray(pixels.astype(np.uint8)).resize((width, height), Image.LANCZOS)


if __name__ == "__main__":
    register = ROOT / "DiffUSRegister" / "Resources" / "Icons"
    render = ROOT / "DiffUSRender" / "Resources" / "Icons"
    for path, icon in (
        (render / "DiffUSRender.png", renderIcon()),
        (register / "DiffUSRegister.png", registerIcon()),
        (register / "DiffUSSampleCase.png", sampleIcon()),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        icon.save(path, optimize=True)
