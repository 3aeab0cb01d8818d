"""A recorded sweep from a file (`.igs.mha`, `.seq.nrrd`, ...) as sequence nodes, without SlicerIGSIO."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import slicer
import slicer.util
from DiffUSRenderLib.errors import RenderError
from DiffUSRenderLib.geometry import toVtk
from DiffUSRenderLib.torch_support import requireTorch

from .chain import SOURCE_ATTRIBUTE, matrixToParent
from .engine import readSweepFile
from .i18n import _


def loadSweep(path: str | Path, calibrationNode=None):
    """Reads a tracked sequence file into the scene and returns its sequence browser.

    calibrationNode: a transform ImageToProbe (pixels to probe mm), for a file that tracks the probe but not the image.

    The images hang under the transform ImageToReference, both played by the browser. Frames without valid tracking
    are left out; the browser's description says how many. Raises RenderError, and adds nothing, for a bad file.
    """
    requireTorch()
    scene = slicer.mrmlScene
    calibration = None if calibrationNode is None else matrixToParent(calibrationNode, calibrationNode.GetName())
    sweep = readSweepFile(str(path), calibration)
    name = Path(path).name.split(".")[0]
    frames = (sweep.frames.numpy() * 255).round().astype(np.uint8)
    times = _distinct(sweep.timestamps.tolist())
    images = _addSequence(scene, f"{name} Image", "Image")
    poses = _addSequence(scene, f"{name} ImageToReference", "ImageToReference")
    volume, transform = slicer.vtkMRMLScalarVolumeNode(), slicer.vtkMRMLLinearTransformNode()
    for pixels, pose, time in zip(frames, sweep.image_to_reference.numpy(), times):
        slicer.util.updateVolumeFromArray(volume, pixels[np.newaxis])
        images.SetDataNodeAtValue(volume, time)
        transform.SetMatrixTransformToParent(toVtk(pose))
        poses.SetDataNodeAtValue(transform, time)
    browser = _addBrowser(scene, name, images, poses)
    report = sweep.report
    browser.SetDescription(
        " ".join(
            [
                _("{n} of {all} frames with valid tracking.").format(n=len(sweep), all=report.frames_in_file),
                *report.notes,
            ]
        )
    )
    return browser


def _addSequence(scene, name: str, source: str):
    node = scene.AddNewNodeByClass("vtkMRMLSequenceNode", scene.GenerateUniqueName(name))
    node.SetIndexName("time")
    node.SetIndexUnit("s")
    node.SetIndexType(node.NumericIndex)
    node.SetAttribute(SOURCE_ATTRIBUTE, source)
    return node


def _addBrowser(scene, name: str, images, poses):
    browser = scene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode", scene.GenerateUniqueName(name))
    if browser is None:
        for sequence in (images, poses):
            scene.RemoveNode(sequence)
        raise RenderError(_("Sequences cannot be played here: the Sequences module is not loaded."))
    browser.SetAndObserveMasterSequenceNodeID(images.GetID())
    browser.AddSynchronizedSequenceNode(poses)
    browser.SetSelectedItemNumber(0)
    # With the application's logic the browser has made its proxies by now; without, they are made here.
    volume, transform = (_proxy(browser, sequence) for sequence in (images, poses))
    volume.SetName(scene.GenerateUniqueName(_("{name} ultrasound").format(name=name)))
    volume.SetAndObserveTransformNodeID(transform.GetID())
    volume.CreateDefaultDisplayNodes()
    return browser


def _proxy(browser, sequence):
    proxy = browser.GetProxyNode(sequence)
    if proxy is None:
        proxy = browser.AddProxyNode(sequence.GetNthDataNode(0), sequence, True)
    return proxy


def _distinct(times: list[float]) -> list[str]:
    """The times as index values, in seconds; numbers instead where two frames have the same time."""
    values = [f"{time:.6f}" for time in times]
    increasing = all(a < b for a, b in pairwise(times))
    return values if increasing and len(set(values)) == len(values) else [str(n) for n in range(len(times))]
