"""The simulated slice: a scalar volume of one plane that hangs under the probe transform."""

from __future__ import annotations

import numpy as np
import slicer
import slicer.util

from ..i18n import _
from .transforms import ijkToRas, toVtk

WINDOW, LEVEL = 255.0, 127.5
SLICE_ATTRIBUTE = "DiffUSRender.SimulatedSlice"  # of every simulated image, so that none is taken for a real one
OWN_SLICE, RECORDED_SLICE = "1", "recorded"


def createSliceNode(scene, name: str | None = None):
    """A new, empty slice node in `scene`, shown in grey with a window that maps 0-255 to black-white."""
    node = scene.AddNewNodeByClass(
        "vtkMRMLScalarVolumeNode", scene.GenerateUniqueName(name or _("Simulated ultrasound"))
    )
    _markAndDisplay(node)
    return node


def mayBeOverwritten(node) -> bool:
    """Whether a volume node is a simulated slice of no recording, or empty: no other image is ever written over."""
    return node.GetAttribute(SLICE_ATTRIBUTE) == OWN_SLICE or node.GetImageData() is None


def _markAndDisplay(node) -> None:
    scene = node.GetScene()
    node.SetAttribute(SLICE_ATTRIBUTE, OWN_SLICE)
    node.CreateDefaultDisplayNodes()
    display = node.GetDisplayNode()
    if scene.GetNodeByID("vtkMRMLColorTableNodeGrey"):
        display.SetAndObserveColorNodeID("vtkMRMLColorTableNodeGrey")
    display.AutoWindowLevelOff()
    display.SetWindowLevel(WINDOW, LEVEL)
    display.SetInterpolate(1)


def updateSliceNode(sliceNode, pixels: np.ndarray, pixelToParent: np.ndarray, parentNode) -> None:
    """Puts `pixels`, uint8 (rows, columns), into the node, with its geometry in mm, under a transform (None is world).

    `pixelToParent` (4, 4) maps (column, row, 0) to the frame under it, the probe's: it becomes the node's IJKToRAS.
    """
    if sliceNode.GetAttribute(SLICE_ATTRIBUTE) is None:  # an empty volume that the user has made for it
        _markAndDisplay(sliceNode)
    if not np.array_equal(ijkToRas(sliceNode), pixelToParent):
        sliceNode.SetIJKToRASMatrix(toVtk(pixelToParent))
    parentId = None if parentNode is None else parentNode.GetID()
    if sliceNode.GetTransformNodeID() != parentId:
        sliceNode.SetAndObserveTransformNodeID(parentId)
    slicer.util.updateVolumeFromArray(sliceNode, pixels[np.newaxis])
