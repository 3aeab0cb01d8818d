"""The simulated slice: a scalar volume of one plane that hangs under the probe transform."""

from __future__ import annotations

import numpy as np
import slicer
import slicer.util

from ..i18n import _
from .transforms import ijkToRas, toVtk

WINDOW, LEVEL = 255.0, 127.5
SHOWN = 1, 255  # 0 is outside of the fan, and transparent: black in 3-D otherwise
SLICE_ATTRIBUTE = "DiffUSRender.SimulatedSlice"  # of every simulated image, so that none is taken for a real one
OWN_SLICE, RECORDED_SLICE = "1", "recorded"


def createSliceNode(scene, name: str | None = None):
    """A new, empty slice node in `scene`, shown in grey with a window that maps 0-255 to black-white."""
    node = _addGrey(scene, name or _("Simulated ultrasound"))
    _markOwn(node)
    return node


def createOverlayNode(scene, name: str):
    """A new, empty volume node for an overlay, in grey: it is not saved with the scene, but made again."""
    node = _addGrey(scene, name)
    for saved in (node, node.GetDisplayNode()):
        saved.SetSaveWithScene(False)
    return node


def mayBeOverwritten(node) -> bool:
    """Whether a volume node is a simulated slice of no recording, or empty: no other image is ever written over."""
    return node.GetAttribute(SLICE_ATTRIBUTE) == OWN_SLICE or node.GetImageData() is None


def updateSliceNode(sliceNode, pixels: np.ndarray, pixelToParent: np.ndarray, parentNode) -> None:
    """Puts simulated pixels into the node; see `putPixels`."""
    if sliceNode.GetAttribute(SLICE_ATTRIBUTE) is None:  # an empty volume that the user has made for it
        _displayInGrey(sliceNode)
        _markOwn(sliceNode)
    putPixels(sliceNode, pixels, pixelToParent, parentNode)


def showFanOnly(display) -> None:
    """Makes the display node of a simulated slice map 0-255 to black-white, transparent outside of the fan."""
    display.AutoWindowLevelOff()
    display.SetWindowLevel(WINDOW, LEVEL)
    display.AutoThresholdOff()
    display.SetThreshold(*SHOWN)
    display.ApplyThresholdOn()


def putPixels(volumeNode, pixels: np.ndarray, pixelToParent: np.ndarray, parentNode) -> None:
    """Gives a volume node one slice of pixels, with its geometry.

    Args:
        pixels: uint8 (rows, columns).
        pixelToParent: (4, 4), (column, row, 0, 1) to mm under `parentNode`: it becomes the node's IJKToRAS.
        parentNode: the transform above, the probe's; None is world.
    """
    if not np.array_equal(ijkToRas(volumeNode), pixelToParent):
        volumeNode.SetIJKToRASMatrix(toVtk(pixelToParent))
    parentId = None if parentNode is None else parentNode.GetID()
    if volumeNode.GetTransformNodeID() != parentId:
        volumeNode.SetAndObserveTransformNodeID(parentId)
    slicer.util.updateVolumeFromArray(volumeNode, pixels[np.newaxis])


def _markOwn(node) -> None:
    """Marks a node as a simulated slice, which is transparent outside of the fan."""
    node.SetAttribute(SLICE_ATTRIBUTE, OWN_SLICE)
    showFanOnly(node.GetDisplayNode())


def _addGrey(scene, name: str):
    node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", scene.GenerateUniqueName(name))
    _displayInGrey(node)
    return node


def _displayInGrey(node) -> None:
    node.CreateDefaultDisplayNodes()
    display = node.GetDisplayNode()
    if node.GetScene().GetNodeByID("vtkMRMLColorTableNodeGrey"):
        display.SetAndObserveColorNodeID("vtkMRMLColorTableNodeGrey")
    display.AutoWindowLevelOff()
    display.SetWindowLevel(WINDOW, LEVEL)
    display.SetInterpolate(1)
