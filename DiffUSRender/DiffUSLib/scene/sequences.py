"""Sequences and the browsers that play them: found in the scene, and made of a tracked sweep."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import slicer
import slicer.util
import vtk

from ..engine import risingTimes
from ..errors import RenderError
from ..i18n import _
from .slice_node import RECORDED_SLICE, SLICE_ATTRIBUTE
from .transforms import toVtk

MIN_STEP_S = 0.002  # a sequence takes two items that are less than 0.001 apart for one
SOURCE_ATTRIBUTE = "Sequences.Source"  # the name that a transform had on the tracker, whatever the node is called
SKIPPED_ATTRIBUTE = "DiffUSRegister.FramesSkipped"
NOTES_ATTRIBUTE = "DiffUSRegister.Notes"
CALIBRATION_ROLE = "DiffUSRegister.ImageToProbe"


def browsers(scene) -> list:
    """All sequence browsers of a scene."""
    return slicer.util.getNodesByClass("vtkMRMLSequenceBrowserNode", scene)


def browserOf(sequence):
    """The first sequence browser that plays a sequence, or None."""
    found = (browser for browser in browsers(sequence.GetScene()) if sequence in synchronizedSequences(browser))
    return next(found, None)


def sequenceOf(node) -> tuple:
    """The sequence that a node of the scene is played from, and its browser; (None, None) where it is not played."""
    for browser in browsers(node.GetScene()):
        if (sequence := browser.GetSequenceNode(node)) is not None:
            return sequence, browser
    return None, None


def synchronizedSequences(browser) -> list:
    """All sequences of a browser, its master first."""
    collection = vtk.vtkCollection()
    browser.GetSynchronizedSequenceNodes(collection, True)
    return [collection.GetItemAsObject(n) for n in range(collection.GetNumberOfItems())]


def holds(sequence, className: str) -> bool:
    """Whether the items of a sequence are nodes of a class."""
    first = sequence.GetNthDataNode(0) if sequence.GetNumberOfDataNodes() else None
    return first is not None and bool(first.IsA(className))


def indexTimes(indexValues: Sequence[str]) -> list[float] | None:
    """Index values of a sequence as numbers, s; None where one is no number, such as a label."""
    try:
        return [float(value) for value in indexValues]
    except ValueError:
        return None


def readOrigin(sequence) -> tuple[int, tuple[str, ...]]:
    """What `writeOrigin` wrote on an image sequence, which a saved scene keeps: frames skipped, and notes."""
    skipped, notes = sequence.GetAttribute(SKIPPED_ATTRIBUTE), sequence.GetAttribute(NOTES_ATTRIBUTE)
    return int(skipped or 0), tuple(json.loads(notes or "[]"))


def writeOrigin(sequence, skipped: int, notes: tuple[str, ...], calibrationNode=None) -> None:
    """Writes on an image sequence what is known of its file.

    Args:
        skipped: how many frames of the file were left out.
        notes: sentences for the report.
        calibrationNode: the image calibration that the file was read with, or None.
    """
    sequence.SetAttribute(SKIPPED_ATTRIBUTE, str(skipped))
    sequence.SetAttribute(NOTES_ATTRIBUTE, json.dumps(list(notes)))
    if calibrationNode is not None:
        sequence.SetNodeReferenceID(CALIBRATION_ROLE, calibrationNode.GetID())


def calibrationOf(sequence):
    """The transform node that a file was loaded with as its image calibration, or None."""
    return sequence.GetNodeReference(CALIBRATION_ROLE)


def addTrackedSweep(
    scene,
    name: str,
    frames: np.ndarray,
    ijkToRas: np.ndarray,
    poses: np.ndarray,
    poseName: str,
    times: Sequence[float],
    simulated: bool = False,
):
    """Adds a recording as two sequences with their browser.

    Args:
        frames: pixels (K, rows, columns), of the type that the sequence is to hold.
        ijkToRas: of every frame, (4, 4), mm.
        poses: (K, 4, 4) mm, of the transform `poseName` above the frames, which is played with them.
        times: s; by the rule of `risingTimes`, since a sequence takes two that are nearly equal for one.
        simulated: whether the frames are marked as such, and never taken for real ones.

    Returns:
        The sequence browser.

    Raises:
        RenderError: where sequences cannot be played; nothing is added then.
    """
    images = _addSequence(scene, f"{name} Image", "Image")
    transforms = _addSequence(scene, f"{name} {poseName}", poseName)
    volume, transform = slicer.vtkMRMLScalarVolumeNode(), slicer.vtkMRMLLinearTransformNode()
    volume.SetIJKToRASMatrix(toVtk(ijkToRas))
    if simulated:  # every item tells, since playing one copies its attributes
        volume.SetAttribute(SLICE_ATTRIBUTE, RECORDED_SLICE)
    for pixels, pose, time in zip(frames, poses, risingTimes(times, MIN_STEP_S)[0]):
        slicer.util.updateVolumeFromArray(volume, pixels[np.newaxis])
        images.SetDataNodeAtValue(volume, value := f"{time:.6f}")
        transform.SetMatrixTransformToParent(toVtk(pose))
        transforms.SetDataNodeAtValue(transform, value)
    return _addBrowser(scene, name, images, transforms)


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
