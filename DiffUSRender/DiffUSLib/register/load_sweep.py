"""A recorded sweep from a file (`.igs.mha`, `.seq.nrrd`, ...) as sequence nodes, without SlicerIGSIO."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import slicer

from ..engine import readSweepFile
from ..i18n import _
from ..scene.chain import matrixToParent
from ..scene.sequences import addTrackedSweep
from ..scene.tracked import writeOrigin
from ..torch_support import requireTorch


def loadSweep(path: str | Path, calibrationNode=None):
    """Reads a tracked sequence file into the scene and returns its sequence browser.

    calibrationNode: a transform ImageToProbe (pixels to probe mm), for a file that tracks the probe but not the image.

    The images hang under the transform ImageToReference, both played by the browser. Frames without valid tracking
    are left out; the browser's description says how many, and the image sequence keeps it for the report
    (`readOrigin`). Raises RenderError, and adds nothing, for a bad file.
    """
    requireTorch()
    scene = slicer.mrmlScene
    calibration = None if calibrationNode is None else matrixToParent(calibrationNode, calibrationNode.GetName())
    sweep = readSweepFile(str(path), calibration)
    name = Path(path).name.split(".")[0]
    frames = (sweep.frames.numpy() * 255).round().astype(np.uint8)
    poses = sweep.image_to_reference.numpy()
    browser = addTrackedSweep(scene, name, frames, np.eye(4), poses, "ImageToReference", sweep.timestamps.tolist())
    report = sweep.report
    writeOrigin(browser.GetMasterSequenceNode(), report.frames_skipped, report.notes, calibrationNode)
    browser.SetDescription(
        " ".join(
            [
                _("{n} of {all} frames with valid tracking.").format(n=len(sweep), all=report.frames_in_file),
                *report.notes,
            ]
        )
    )
    return browser
