"""The fan that real ultrasound images show: the probe that made them, and where it was."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from .. import engine
from ..errors import RenderError
from ..i18n import _
from ..scene.tracked import TrackedImages, turnedRows
from .parameters import ProbeSettings

MAX_FRAMES = 16  # of a recording, to see the fan in
FAN = ("probeType", "depthMm", "fovDeg", "radiusMm", "widthMm")  # what a real image shows of its probe
SQUARE_TOLERANCE = 0.005  # how far, relatively, the two sides of a square pixel may differ


@dataclass(frozen=True)
class ImageFan:
    """The probe that made an image: its settings, and (column, row, 0, 1) to probe mm, (4, 4).

    isDepthCertain: false where the far edge does not show clearly, so that a black far field may be missing.
    """

    probe: ProbeSettings
    imageToProbe: np.ndarray
    isDepthCertain: bool

    @property
    def isUpsideDown(self) -> bool:
        """Whether the rows of the image run towards the probe, as some recorders write them."""
        return self.imageToProbe[1, 1] < 0

    def upsideDown(self, rows: int) -> ImageFan:
        """The fan in the image whose `rows` stand in the other order."""
        return replace(self, imageToProbe=self.imageToProbe @ turnedRows(rows))


def estimateFan(images: TrackedImages, present: ProbeSettings) -> ImageFan:
    """The fan that all of the images show together.

    Args:
        images: frames of one size.
        present: settings that a fan does not show (frequency, f-numbers, number of lines) stay as they are here.

    Raises:
        RenderError: where no fan is seen, or the images cannot be ultrasound.
    """
    sweep = engine.trackedSweep(images, wholeImage(images))
    pixels, toSquare, mmPerPixel = _squarePixels(sweep.frames.numpy(), images.imageToReference[0])
    try:
        probe, squareToProbe, certain = engine.fanSettings(pixels, mmPerPixel, present)
    except RenderError as error:
        try:  # some recorders write the rows from the bottom up
            probe, squareToProbe, certain = engine.fanSettings(pixels[:, ::-1], mmPerPixel, present)
        except RenderError:
            raise error from None
        squareToProbe = squareToProbe @ turnedRows(pixels.shape[1])
    return ImageFan(probe, squareToProbe @ toSquare, certain)


def uncertainDepth() -> str:
    """What to tell where a fan's far edge does not show."""
    return _("The far edge does not show: check the depth.")


def wholeImage(images: TrackedImages) -> np.ndarray:
    """The mask (rows, columns) of all pixels, for images whose fan is not known yet."""
    return np.ones(images.pixels.shape[1:], dtype=bool)


def _squarePixels(pixels: np.ndarray, imageToReference: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Images with square pixels, (column, row, 0, 1) to theirs, (4, 4), and their size in mm."""
    sizes = np.linalg.norm(imageToReference[:3, :2], axis=0)
    finer = float(sizes.min())
    factors = sizes / finer
    if factors.max() - 1 < SQUARE_TOLERANCE:
        return pixels, np.eye(4), float(sizes.mean())
    from scipy import ndimage

    rows, columns = pixels.shape[1:]
    shape = round((rows - 1) * factors[1]) + 1, round((columns - 1) * factors[0]) + 1
    # The mean says as much of the fan as its frames, and is quicker to resample.
    square = ndimage.affine_transform(pixels.mean(0), 1 / factors[::-1], output_shape=shape, order=1, mode="nearest")
    return square[np.newaxis], np.diag([*factors, 1.0, 1.0]), finer
