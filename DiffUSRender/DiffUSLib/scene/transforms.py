"""Where things are: matrices of nodes, and from the probe to the voxels, as numpy arrays in mm."""

from __future__ import annotations

import numpy as np
import slicer
import slicer.util
import vtk
from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy

from ..errors import RenderError
from ..i18n import _

RIGID_TOLERANCE = 0.01  # relative; what tracker calibrations and re-saved matrices stay within
MIN_DETERMINANT = 1e-6


def fromVtk(matrix: vtk.vtkMatrix4x4) -> np.ndarray:
    """A (4, 4) float64 copy of a VTK matrix."""
    return np.array(slicer.util.arrayFromVTKMatrix(matrix), dtype=np.float64)


def toVtk(matrix: np.ndarray) -> vtk.vtkMatrix4x4:
    """A VTK matrix with the numbers of a (4, 4) array."""
    result = vtk.vtkMatrix4x4()
    slicer.util.updateVTKMatrixFromArray(result, np.asarray(matrix, dtype=np.float64))
    return result


def ijkToRas(volumeNode) -> np.ndarray:
    """Voxel centre (i, j, k, 1) to the node's own RAS, mm, (4, 4), without the transforms above the node."""
    matrix = vtk.vtkMatrix4x4()
    volumeNode.GetIJKToRASMatrix(matrix)
    return fromVtk(matrix)


def imageToRas(volumeNode) -> np.ndarray:
    """`ijkToRas` of a flat image, right-handed: its third axis means nothing, so it may be turned over.

    Raises RenderError for a geometry that is not of numbers, which a volume without a pixel size has.
    """
    matrix = ijkToRas(volumeNode)
    if not np.isfinite(matrix).all():
        raise RenderError(
            _("The geometry of '{name}' is singular (pixels without a size); choose another image.").format(
                name=volumeNode.GetName()
            )
        )
    return rightHanded(matrix)


def rightHanded(matrices: np.ndarray) -> np.ndarray:
    """Matrices of flat images, (..., 4, 4), each with its third axis turned over where it was left-handed."""
    sign = np.where(np.linalg.det(matrices[..., :3, :3]) < 0, -1.0, 1.0)
    turned = matrices.copy()
    turned[..., :3, 2] *= sign[..., None]
    return turned


def isLinearToWorld(transformNode) -> bool:
    """Whether everything from this transform node (None is world) up to world is one matrix."""
    return transformNode is None or bool(transformNode.IsTransformToWorldLinear())


def nodeToWorld(transformNode) -> np.ndarray:
    """The matrix from the frame under a linear transform node (None is world) to world, (4, 4)."""
    return _matrixBetween(transformNode, None)


def probeToVolume(probeNode, volumeNode) -> np.ndarray | vtk.vtkGeneralTransform:
    """From the probe's frame to the volume node's own RAS.

    Returns:
        A matrix (4, 4) mm where every transform is linear, else a transform.

    Raises:
        RenderError: if the probe is scaled, mirrored or singular, or a transform above the volume is singular.
    """
    parent = volumeNode.GetParentTransformNode()
    if isLinearToWorld(probeNode):
        requireRigid(nodeToWorld(probeNode), probeNode.GetName())
    if isLinearToWorld(parent):
        requireInvertible(nodeToWorld(parent), parent.GetName() if parent else "")
    if isLinearToWorld(probeNode) and isLinearToWorld(parent):
        return _matrixBetween(probeNode, parent)
    return transformBetween(probeNode, parent)


def poseInVolume(probeToWorld: np.ndarray, volumeNode) -> np.ndarray | vtk.vtkGeneralTransform:
    """As `probeToVolume`, of a pose (4, 4) in the world that no node has."""
    parent = volumeNode.GetParentTransformNode()
    if isLinearToWorld(parent):
        return worldToVolume(volumeNode) @ probeToWorld
    transform = vtk.vtkGeneralTransform()
    transform.Concatenate(transformBetween(None, parent))
    transform.Concatenate(toVtk(probeToWorld))  # the last is applied first
    return transform


def worldToVolume(volumeNode) -> np.ndarray:
    """World to the volume's own RAS, (4, 4), where all above it is linear; raises RenderError where it is singular."""
    parent = volumeNode.GetParentTransformNode()
    matrix = nodeToWorld(parent)
    requireInvertible(matrix, parent.GetName() if parent is not None else "")
    return np.linalg.inv(matrix)


def transformBetween(source, target) -> vtk.vtkGeneralTransform:
    """The transform, linear or not, from the frame under `source` to the frame under `target` (None is world)."""
    transform = vtk.vtkGeneralTransform()
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(source, target, transform)
    return transform


def mapPoints(transform: vtk.vtkAbstractTransform, points: np.ndarray) -> np.ndarray:
    """Points (..., 3) in mm through a VTK transform; float64, same shape."""
    flat = np.ascontiguousarray(points, dtype=np.float64).reshape(-1, 3)
    source, target = vtk.vtkPoints(), vtk.vtkPoints()
    target.SetDataTypeToDouble()
    source.SetData(numpy_to_vtk(flat, deep=False))  # `flat` lives until the end of this function
    transform.TransformPoints(source, target)
    return np.array(vtk_to_numpy(target.GetData())).reshape(np.shape(points))


def isRigid(matrix: np.ndarray) -> bool:
    """Whether a (4, 4) matrix is a rotation and a translation, to `RIGID_TOLERANCE`."""
    rotation = matrix[:3, :3]
    gram = rotation.T @ rotation
    return bool(np.abs(gram - np.eye(3)).max() <= 2 * RIGID_TOLERANCE and np.linalg.det(rotation) > 0)


def requireRigid(matrix: np.ndarray, name: str) -> None:
    """Raises RenderError, naming the transform, unless its matrix to world is rigid."""
    if not np.isfinite(matrix).all():
        raise RenderError(
            _("The probe transform '{name}' holds NaN or infinite numbers; choose another transform.").format(name=name)
        )
    determinant = np.linalg.det(matrix[:3, :3])
    if abs(determinant) < MIN_DETERMINANT:
        raise RenderError(
            _("The probe transform '{name}' is singular (it flattens space); choose a rigid transform.").format(
                name=name
            )
        )
    if determinant < 0:
        raise RenderError(
            _("The probe transform '{name}' mirrors space; choose a rigid transform without reflection.").format(
                name=name
            )
        )
    if not isRigid(matrix):
        raise RenderError(
            _(
                "The probe transform '{name}' scales or shears; choose the rigid transform of the probe, "
                "not that of its image."
            ).format(name=name)
        )


def requireInvertible(matrix: np.ndarray, name: str) -> None:
    """Raises RenderError, naming the transform, unless the matrix above a volume can be inverted."""
    if not np.isfinite(matrix).all() or abs(np.linalg.det(matrix[:3, :3])) < MIN_DETERMINANT:
        raise RenderError(
            _("The transform '{name}' above the volume is singular; remove it or choose another.").format(name=name)
        )


def _matrixBetween(source, target) -> np.ndarray:
    matrix = vtk.vtkMatrix4x4()
    slicer.vtkMRMLTransformNode.GetMatrixTransformBetweenNodes(source, target, matrix)
    return fromVtk(matrix)
