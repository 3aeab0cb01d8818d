"""A real ultrasound frame of the scene: its pixels, where they lie, and the fan that they show."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import slicer.util

from .. import engine
from ..errors import RenderError
from ..i18n import _
from ..scene.slice_node import SLICE_ATTRIBUTE
from ..scene.transforms import ijkToRas, isLinearToWorld, nodeToWorld
from .parameters import ProbeSettings

SIZE_MM = (5.0, 400.0)  # longer side of an ultrasound frame, and some room
MOST_FRAMES = 16  # of a recording, to see the fan in
SQUARE = 0.005  # how far, relatively, the two sides of a square pixel may differ


@dataclass(frozen=True)
class RealFrame:
    """Grey values (rows, columns), float32 from 0 to 1, and (column, row, 0, 1) to world mm, (4, 4)."""

    pixels: np.ndarray
    imageToWorld: np.ndarray

    @property
    def mmPerPixel(self) -> np.ndarray:
        """Width and height of a pixel."""
        return np.linalg.norm(self.imageToWorld[:3, :2], axis=0)


@dataclass(frozen=True)
class SeenFan:
    """The probe that made an image: its settings, and (column, row, 0, 1) to probe mm, (4, 4)."""

    probe: ProbeSettings
    imageToProbe: np.ndarray

    def probePoints(self, shape: tuple[int, int]) -> np.ndarray:
        """The pixel centres of an image (rows, columns) in the probe plane, (rows, columns, 2) mm."""
        row, column = np.indices(shape)
        pixels = np.stack([column, row], -1)
        return pixels @ self.imageToProbe[:2, :2].T + self.imageToProbe[:2, 3]

    def probeToWorld(self, imageToWorld: np.ndarray) -> np.ndarray:
        """The rigid pose (4, 4) of the probe whose image lies at `imageToWorld` (4, 4)."""
        plane = imageToWorld.copy()
        plane[:3, 2] = np.cross(plane[:3, 0], plane[:3, 1])  # an image's third axis means nothing
        placed = plane @ np.linalg.inv(self.imageToProbe)
        y = placed[:3, 1] / np.linalg.norm(placed[:3, 1])
        x = placed[:3, 0] - (placed[:3, 0] @ y) * y
        x = x / np.linalg.norm(x)
        pose = np.eye(4)
        pose[:3] = np.column_stack([x, y, np.cross(x, y), placed[:3, 3]])
        return pose


def readRealFrame(node) -> RealFrame:
    """The frame of a volume node of one slice; raises RenderError for what is no ultrasound frame in its place."""
    name, matrix = node.GetName() or "", frameToWorld(node)
    pixels = greyPixels(node)
    frame = RealFrame(pixels, matrix)
    width, height = frame.mmPerPixel
    if abs(matrix[:3, 0] @ matrix[:3, 1]) > 0.02 * width * height:
        raise RenderError(_("The transforms above '{name}' shear it; check its calibration.").format(name=name))
    longer = max(pixels.shape[1] * width, pixels.shape[0] * height)
    if not SIZE_MM[0] <= longer <= SIZE_MM[1]:
        raise RenderError(
            _("The image '{name}' would be {size:.3g} mm long: is the image calibration missing?").format(
                name=name, size=longer
            )
        )
    return frame


def frameToWorld(node) -> np.ndarray:
    """(column, row, 0, 1) of a volume node to world mm, (4, 4); raises RenderError where that is no matrix."""
    parent, name = node.GetParentTransformNode(), node.GetName() or ""
    if not isLinearToWorld(parent):
        raise RenderError(
            _("The image '{name}' hangs under a nonlinear transform; harden or remove it.").format(name=name)
        )
    matrix = nodeToWorld(parent) @ ijkToRas(node)
    if not np.isfinite(matrix).all() or np.linalg.norm(np.cross(matrix[:3, 0], matrix[:3, 1])) < 1e-9:
        raise RenderError(_("A transform above '{name}' is singular; choose another image.").format(name=name))
    return matrix


def seeFan(node, present: ProbeSettings) -> SeenFan:
    """The fan in a real image, and in frames of the recording that it is played from; RenderError if none is seen.

    What a fan does not show (frequency, f-numbers, number of lines) stays as in `present`.
    """
    frame = readRealFrame(node)
    images = _recordedFrames(node, frame.pixels)
    images, toSquare, mmPerPixel = _squarePixels(images, frame.mmPerPixel)
    try:
        probe, squareToProbe = engine.fanSettings(images, mmPerPixel, present)
    except RenderError as error:
        turned = np.eye(4)
        turned[1, 1], turned[1, 3] = -1.0, images.shape[1] - 1.0
        try:  # some recorders write the rows from the bottom up
            probe, squareToProbe = engine.fanSettings(images[:, ::-1], mmPerPixel, present)
        except RenderError:
            raise error from None
        squareToProbe = squareToProbe @ turned
    return SeenFan(probe, squareToProbe @ toSquare)


def _recordedFrames(node, present: np.ndarray) -> np.ndarray:
    """The present frame and some of the recording that a sequence browser plays it from, (N, rows, columns)."""
    scene, frames = node.GetScene(), [present]
    for n in range(scene.GetNumberOfNodesByClass("vtkMRMLSequenceBrowserNode")):
        sequence = scene.GetNthNodeByClass(n, "vtkMRMLSequenceBrowserNode").GetSequenceNode(node)
        if sequence is not None:
            count = sequence.GetNumberOfDataNodes()
            chosen = np.unique(np.linspace(0, count - 1, min(count, MOST_FRAMES)).astype(int))
            frames += [greyPixels(sequence.GetNthDataNode(int(item))) for item in chosen]
            break
    return np.stack([frame for frame in frames if frame.shape == present.shape])


def _squarePixels(images: np.ndarray, mmPerPixel: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Images with square pixels, (column, row, 0, 1) to theirs, (4, 4), and their size in mm."""
    finer = float(mmPerPixel.min())
    factors = mmPerPixel / finer
    if factors.max() - 1 < SQUARE:
        return images, np.eye(4), float(mmPerPixel.mean())
    from scipy import ndimage

    rows, columns = images.shape[1:]
    shape = round((rows - 1) * factors[1]) + 1, round((columns - 1) * factors[0]) + 1
    # The mean says as much of the fan as its frames, and is quicker to resample.
    mean = images.mean(0)
    square = ndimage.affine_transform(mean, 1 / factors[::-1], output_shape=shape, order=1, mode="nearest")
    return square[np.newaxis], np.diag([*factors, 1.0, 1.0]), finer


def greyPixels(node) -> np.ndarray:
    """Pixels (rows, columns), float32 0 to 1; colours are averaged, values of other than 8 bits stretched."""
    name, image = node.GetName() or "", node.GetImageData()
    if node.GetAttribute(SLICE_ATTRIBUTE) is not None:
        raise RenderError(_("'{name}' is a simulated image; choose a real one.").format(name=name))
    if image is None or image.GetNumberOfPoints() == 0 or image.GetPointData().GetScalars() is None:
        raise RenderError(_("The image '{name}' is empty; choose another.").format(name=name))
    array = slicer.util.arrayFromVolume(node)
    if array.shape[0] != 1:
        raise RenderError(_("'{name}' is a volume, not a frame; choose an image of one slice.").format(name=name))
    pixels = array[0, ..., :3].mean(-1) if array.ndim == 4 else array[0]
    pixels = pixels.astype(np.float32)
    if array.dtype == np.uint8:
        return pixels / 255
    low, high = float(pixels.min()), float(pixels.max())
    if not np.isfinite([low, high]).all():
        raise RenderError(_("The image '{name}' holds NaN or infinite pixels; load it again.").format(name=name))
    return (pixels - low) / (high - low) if high > low else np.zeros_like(pixels)
