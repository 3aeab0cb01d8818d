"""A tracked sweep as sequence nodes with a browser that plays them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import slicer
import slicer.util

from ..errors import RenderError
from ..i18n import _
from .slice_node import RECORDED_SLICE, SLICE_ATTRIBUTE
from .transforms import toVtk

MIN_STEP_S = 0.002  # a sequence takes two items that are less than 0.001 apart for one
SOURCE_ATTRIBUTE = "Sequences.Source"  # the name that a transform had on the tracker, whatever the node is called


def addTrackedSweep(
    scene,
    name: str,
    frames: np.ndarray,
    ijkToRas: np.ndarray,
    poses: np.ndarray,
    poseName: str,
    times: list[float],
    simulated: bool = False,
):
    """A recording as two sequences with their browser, which is returned; raises RenderError, and adds nothing else.

    frames (K, rows, columns) uint8, each with ijkToRas (4, 4), under the transform `poseName`, poses (K, 4, 4), which
    is played with them; times in s. simulated: whether the frames are marked as such, and never taken for real ones.
    """
    images = _addSequence(scene, f"{name} Image", "Image")
    transforms = _addSequence(scene, f"{name} {poseName}", poseName)
    volume, transform = slicer.vtkMRMLScalarVolumeNode(), slicer.vtkMRMLLinearTransformNode()
    volume.SetIJKToRASMatrix(toVtk(ijkToRas))
    if simulated:  # every item tells, since playing one copies its attributes
        volume.SetAttribute(SLICE_ATTRIBUTE, RECORDED_SLICE)
    for pixels, pose, time in zip(frames, poses, separateTimes(times)):
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


def separateTimes(times: Sequence[float]) -> list[float]:
    """The times, s, with those moved that follow less than 2 ms after the one before: a sequence would merge them."""
    separated: list[float] = []
    for time in times:
        separated.append(max(time, separated[-1] + MIN_STEP_S) if separated else time)
    return separated
