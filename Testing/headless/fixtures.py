"""Scenes to test on: volumes with known anatomy, transforms, parameter nodes."""

from __future__ import annotations

import numpy as np
import slicer
import slicer.util
import vtk
from DiffUSLib.scene.transforms import toVtk
from vtk.util.numpy_support import vtk_to_numpy


def rotation(x: float = 0.0, y: float = 0.0, z: float = 0.0, translation=(0.0, 0.0, 0.0)) -> np.ndarray:
    """A rigid (4, 4): turns about x, y, z in degrees, then the translation in mm."""
    transform = vtk.vtkTransform()
    transform.PostMultiply()
    transform.RotateX(x)
    transform.RotateY(y)
    transform.RotateZ(z)
    transform.Translate(*translation)
    return np.array(slicer.util.arrayFromVTKMatrix(transform.GetMatrix()))


def addVolume(array: np.ndarray, ijkToRas: np.ndarray | None = None, name: str = "CT", className="ScalarVolume"):
    """A volume node in slicer.mrmlScene."""
    node = slicer.mrmlScene.AddNewNodeByClass(f"vtkMRML{className}Node", name)
    slicer.util.updateVolumeFromArray(node, array)
    if ijkToRas is not None:
        node.SetIJKToRASMatrix(toVtk(ijkToRas))
    return node


def addTransform(matrix: np.ndarray | None = None, parent=None, name: str = "Transform"):
    """A linear transform node with this matrix to its parent."""
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", name)
    if matrix is not None:
        node.SetMatrixTransformToParent(toVtk(matrix))
    if parent is not None:
        node.SetAndObserveTransformNodeID(parent.GetID())
    return node


def addHead(radiusMm: float = 60.0, spacing: float = 4.0, name: str = "CT head"):
    """A CT of a ball of tissue in air, centred on the world's origin, with a denser ball off its centre."""
    count = round(2.6 * radiusMm / spacing)
    half = (count - 1) / 2
    k, j, i = (np.indices((count, count, count)) - half) * spacing
    hu = np.full(k.shape, -1000.0, np.float32)
    hu[i**2 + j**2 + k**2 < radiusMm**2] = 35.0
    hu[(i - 15) ** 2 + (j - 10) ** 2 + k**2 < 15.0**2] = 80.0
    ijkToRas = np.diag([spacing, spacing, spacing, 1.0])
    ijkToRas[:3, 3] = -half * spacing
    return addVolume(hu, ijkToRas, name)


def addParameterNode(volume=None, probe=None, **settings):
    """A parameter node with a small, quick image; settings by name."""
    from DiffUSLib.render.parameter_node import RenderParameterNode

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScriptedModuleNode", "DiffUSRender")
    parameters = RenderParameterNode(node)
    parameters.inputVolume, parameters.probeTransform = volume, probe
    for name, value in {"rays": 48, "samples": 100, **settings}.items():
        setattr(parameters, name, value)
    return parameters


def sliceArray(sliceNode) -> np.ndarray:
    """The pixels of a simulated slice, a copy."""
    return np.array(slicer.util.arrayFromVolume(sliceNode))


def addSegmentation(segments: dict[str, np.ndarray], ijkToRas: np.ndarray, name="Segmentation", corner=(0, 0, 0)):
    """A segmentation node with one binary label map, (K, J, I), per segment name; `corner` is the array's first ijk."""
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    for segment, array in segments.items():
        image = slicer.vtkOrientedImageData()
        image.SetExtent(*(end for c, n in zip(corner, array.shape[::-1]) for end in (c, c + n - 1)))
        image.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 1)
        vtk_to_numpy(image.GetPointData().GetScalars())[:] = array.ravel()
        image.SetImageToWorldMatrix(toVtk(ijkToRas))
        node.AddSegmentFromBinaryLabelmapRepresentation(image, segment, [1.0, 0.0, 0.0], "")
    return node


def observerCount(item) -> int:
    """How many observers a VTK object has; tags count up, so that many in a row without one mean the end."""
    count = missing = tag = 0
    while missing < 5000:
        tag += 1
        missing = 0 if item.GetCommand(tag) else missing + 1
        count += not missing
    return count
