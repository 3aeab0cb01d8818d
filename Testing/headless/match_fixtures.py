"""A recording of a head as a scanner with other settings would have made it, in its place in the scene."""

from __future__ import annotations

import numpy as np
import slicer
from DiffUSLib.render.logic import RenderLogic
from DiffUSLib.scene.transforms import ijkToRas

from .fixtures import addParameterNode, addTransform, rotation, sliceArray
from .register_fixtures import addBrowser, imageSequence, poseSequence

PROBE = {"radiusMm": 30.0, "fovDeg": 60.0, "depthMm": 70.0, "frequencyMhz": 4.0, "focusMm": 35.0}
SCANNER = {"gainDb": -9.0, "dynamicRangeDb": 75.0, "automaticTgc": False, "tgcDbPerCm": 3.5, "seed": 7}
MARGIN = 12  # pixels around the fan


def poseOf(number: int) -> np.ndarray:
    """probeToWorld (4, 4) of a frame: a rocking probe on top of the head."""
    return rotation(180, 0, 0, (0, 58, 0)) @ rotation(2.0 * number - 5, 3, 0, (0, 0, 0.5 * number))


def addRecording(head, count: int = 6, **changes):
    """The recorded ultrasound's volume node; a browser plays `count` frames and poses (one frame alone has none)."""
    logic, probe = RenderLogic(), addTransform(poseOf(0), name="Scanner's probe")
    scanner = addParameterNode(head, probe, rays=96, samples=220, **{**PROBE, **SCANNER, **changes})
    frames = []
    for number in range(count):
        placed = addTransform(poseOf(number), name="Scanner's pose")
        scanner.probeTransform = placed
        node = logic.render(scanner)
        pixels = np.pad(np.maximum(sliceArray(node)[0], 6) * (sliceArray(node)[0] > 0), MARGIN)[::2, ::2]
        frames.append(pixels)
        matrix = ijkToRas(node)
        matrix[:3, 3] -= MARGIN * matrix[:3, :2].sum(1)
        scanner.outputSlice = None
        for each in (node, placed):
            slicer.mrmlScene.RemoveNode(each)
    logic.forgetScene()
    slicer.mrmlScene.RemoveNode(probe)
    matrix = matrix @ np.diag([2.0, 2.0, 2.0, 1.0])
    images = imageSequence(frames, matrix, "Image")
    poses = poseSequence([poseOf(n) for n in range(count)], "ProbeToReference")
    browser = addBrowser(images, poses, name="Recorded sweep")
    image = browser.GetProxyNode(images)
    image.SetAndObserveTransformNodeID(browser.GetProxyNode(poses).GetID())
    if count == 1:
        slicer.mrmlScene.RemoveNode(browser)
    return image
