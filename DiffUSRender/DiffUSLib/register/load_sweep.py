"""A recorded sweep from a file (`.igs.mha`, `.seq.nrrd`, ...) as sequence nodes, without SlicerIGSIO."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import slicer

from ..engine import readSweepFile, risingTimes
from ..i18n import _
from ..scene.chain import matrixToParent
from ..scene.sequences import MIN_STEP_S, addTrackedSweep, writeOrigin
from ..torch_support import requireTorch


def loadSweep(path: str | Path, calibrationNode=None):
    """Reads a tracked sequence file into the scene.

    The images, of the file's own pixel type, hang under the transform ImageToReference; the browser plays both. Frames
    without valid tracking are left out; the browser's description says how many, and the image sequence keeps it for
    the report (`readOrigin`).

    Args:
        path: the file.
        calibrationNode: a transform ImageToProbe (pixels to probe mm), where the file tracks the probe but not the
            image.

    Returns:
        The sequence browser.

    Raises:
        RenderError: for a bad file; nothing is added then.
    """
    requireTorch()
    scene = slicer.mrmlScene
    calibration = None if calibrationNode is None else matrixToParent(calibrationNode, calibrationNode.GetName())
    file = readSweepFile(str(path), calibration)
    name, report = Path(path).name.split(".")[0], file.report
    times, note = risingTimes(file.timestamps, MIN_STEP_S)
    notes = (*report.notes, note) if note else report.notes
    browser = addTrackedSweep(
        scene, name, file.pixels, np.eye(4), file.image_to_reference, "ImageToReference", times.tolist()
    )
    writeOrigin(browser.GetMasterSequenceNode(), report.frames_skipped, notes, calibrationNode)
    tracked = _("{n} of {all} frames with valid tracking.").format(n=len(file.pixels), all=report.frames_in_file)
    browser.SetDescription(" ".join([tracked, *notes]))
    return browser
