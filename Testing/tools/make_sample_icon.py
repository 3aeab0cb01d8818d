"""Draws the picture of the sample case in Sample Data: a head, and a fan of ultrasound through an opening in its skull.

Run: python Testing/tools/make_sample_icon.py
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from PIL import Image

WIDTH, HEIGHT, FINE = 240, 160, 4  # drawn four times as large, then reduced: smooth edges
ICON = Path(__file__).resolve().parents[2] / "DiffUSRegister" / "Resources" / "Icons" / "DiffUSSampleCase.png"
GROUND, WARM, DARK, BRIGHT = (
    np.array(color) for color in ((18, 32, 47), (196, 178, 150), (8, 38, 58), (214, 243, 255))
)


def sampleIcon() -> Image.Image:
    """A coronal head of ellipses (scalp, skull, brain, ventricles), and the fan with speckle over it; RGB."""
    y, x = np.mgrid[: HEIGHT * FINE, : WIDTH * FINE] / (HEIGHT * FINE)
    x, y = x - WIDTH / HEIGHT / 2, y - 0.56

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
    noise = np.random.default_rng(7).normal(size=(2, HEIGHT, WIDTH))
    speckle = np.kron(np.hypot(*noise), np.ones((FINE, FINE))) / 2.2
    echo = np.where(brain, 0.25 + 0.35 * speckle, 0.10) * (1.2 - 0.5 * radius)
    echo = np.where(falx, 0.95, np.where(ventricles, 0.04, echo)).clip(0, 1)[..., None]

    pixels = GROUND + level[..., None] * (WARM - GROUND)
    pixels = np.where(fan[..., None], DARK + echo * (BRIGHT - DARK), pixels)
    return Image.fromarray(pixels.astype(np.uint8)).resize((WIDTH, HEIGHT), Image.LANCZOS)


if __name__ == "__main__":
    ICON.parent.mkdir(parents=True, exist_ok=True)
    sampleIcon().save(ICON, optimize=True)
