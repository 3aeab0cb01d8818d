"""The probe's fan as a model under the probe transform: seen in 3-D, and cut by the slice views."""

from __future__ import annotations

import numpy as np
import vtk

from ..i18n import _

HALF_THICKNESS_MM = 0.25  # a thin slab, so that a slice view in the very plane of the fan shows its outline too
MARKER_MM = 4.0
COLOR = (0.25, 0.8, 1.0)
OPACITY = 0.15  # in 3-D, where the slice is seen through it
FAN_ATTRIBUTE = "DiffUSRender.Fan"


def createFanModel(scene, probeNode):
    """A new model node for the fan of `probeNode`; `updateFanModel` gives it its shape."""
    node = scene.AddNewNodeByClass(
        "vtkMRMLModelNode", scene.GenerateUniqueName(_("{probe} fan").format(probe=probeNode.GetName()))
    )
    node.SetAttribute(FAN_ATTRIBUTE, "1")
    node.SetSelectable(False)  # a click places points on the patient behind the fan, not on the fan
    node.CreateDefaultDisplayNodes()
    display = node.GetDisplayNode()
    display.SetColor(*COLOR)
    display.SetOpacity(OPACITY)
    display.SetSliceIntersectionOpacity(1.0)
    display.SetLighting(False)
    display.SetVisibility2D(True)
    display.SetSliceIntersectionThickness(2)
    return node


def updateFanModel(modelNode, outline: np.ndarray, probeNode) -> None:
    """Gives the model the shape of the fan, and puts it under the probe.

    Args:
        outline: (n, 2), mm in the probe's plane.
    """
    modelNode.SetAndObservePolyData(fanPolyData(outline))
    if modelNode.GetTransformNodeID() != probeNode.GetID():
        modelNode.SetAndObserveTransformNodeID(probeNode.GetID())


def fanPolyData(outline: np.ndarray) -> vtk.vtkPolyData:
    """A closed slab around the fan, with a small notch outside of the face on the marked side (positive x)."""
    append = vtk.vtkAppendPolyData()
    append.AddInputData(_slab(outline, HALF_THICKNESS_MM))
    append.AddInputData(_slab(_marker(outline), 2 * HALF_THICKNESS_MM))
    append.Update()
    return append.GetOutput()


def _marker(outline: np.ndarray) -> np.ndarray:
    """A triangle that points at the face's end on the marked side."""
    face = outline[np.argmax(outline[:, 0] - outline[:, 1])]  # the upper right corner
    size = MARKER_MM
    return face + np.array([[0.5, -0.5], [0.5 + size, -0.5 - size / 2], [0.5 + size / 2, -0.5 - size]])


def _slab(outline: np.ndarray, half: float) -> vtk.vtkPolyData:
    points = vtk.vtkPoints()
    polygon = vtk.vtkIdList()
    for x, y in outline:
        polygon.InsertNextId(points.InsertNextPoint(float(x), float(y), -half))
    cells = vtk.vtkCellArray()
    cells.InsertNextCell(polygon)
    plane = vtk.vtkPolyData()
    plane.SetPoints(points)
    plane.SetPolys(cells)
    triangles = vtk.vtkTriangleFilter()  # the face of a convex array makes the polygon concave
    triangles.SetInputData(plane)
    extrusion = vtk.vtkLinearExtrusionFilter()
    extrusion.SetInputConnection(triangles.GetOutputPort())
    extrusion.SetExtrusionTypeToVectorExtrusion()
    extrusion.SetVector(0, 0, 1)
    extrusion.SetScaleFactor(2 * half)
    extrusion.CappingOn()
    surface = vtk.vtkTriangleFilter()
    surface.SetInputConnection(extrusion.GetOutputPort())
    surface.Update()
    return surface.GetOutput()
