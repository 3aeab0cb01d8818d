"""The patient's surface near a point: where the body begins, and in which direction it lies. World RAS, mm."""

from __future__ import annotations

import numpy as np
import vtk
from scipy import ndimage
from vtk.util.numpy_support import numpy_to_vtk

from ..kinds import MediumKind
from .transforms import mapPoints, toVtk, transformBetween
from .voxels import Voxels, guessKind, readVoxels

CT_SKIN_HU = -300.0
MRI_SKIN_FRACTION = 0.12  # of the 99th percentile: above the noise in air, below the scalp
NEIGHBOURHOOD_MM = 15.0
STEP_MM = 0.5
SNAP_MM = 20.0
COARSE_MM = 2.0  # of the surface that is shown


class BodySurface:
    """Inside and outside of the patient in a volume or segmentation node, transforms above it included.

    Raises:
        RenderError: the node has no voxels that can be used.
    """

    def __init__(self, node, kind: MediumKind = MediumKind.AUTO) -> None:
        if kind is MediumKind.AUTO:
            kind = guessKind(node)
        voxels: Voxels = readVoxels(node, kind)
        self._array, self._ijkToRas = voxels.array, voxels.ijkToRas
        self._rasToIjk = np.linalg.inv(voxels.ijkToRas)
        self._worldToNode = transformBetween(None, node.GetParentTransformNode())
        self._threshold = _threshold(voxels.array, kind)
        bounds = np.zeros(6)
        node.GetRASBounds(bounds)
        self.centre = (bounds[::2] + bounds[1::2]) / 2
        self.diagonalMm = float(np.linalg.norm(bounds[1::2] - bounds[::2]))

    def inside(self, points: np.ndarray) -> np.ndarray:
        """Whether world points, (..., 3), lie in the body; (...) bool, false outside of the volume."""
        local = mapPoints(self._worldToNode, points)
        ijk = np.rint(local @ self._rasToIjk[:3, :3].T + self._rasToIjk[:3, 3]).astype(int)
        size = np.array(self._array.shape[2::-1])
        valid = ((ijk >= 0) & (ijk < size)).all(-1)
        i, j, k = np.where(valid[..., None], ijk, 0).transpose(-1, *range(ijk.ndim - 1))
        return valid & (self._array[k, j, i] > self._threshold)

    def polyData(self) -> vtk.vtkPolyData:
        """The outer surface of the largest part, smooth, in the node's own RAS; voxels of about `COARSE_MM`."""
        steps = [max(1, round(COARSE_MM / size)) for size in np.linalg.norm(self._ijkToRas[:3, :3], axis=0)]
        inside = self._array[tuple(slice(None, None, step) for step in reversed(steps))] > self._threshold
        parts, count = ndimage.label(inside)
        if count > 1:
            inside = parts == 1 + np.argmax(np.bincount(parts.ravel())[1:])
        inside = np.pad(ndimage.binary_fill_holes(inside), 2)  # closed at the volume's faces too
        smooth = ndimage.gaussian_filter(inside.astype(np.float32), 1.0)
        image = vtk.vtkImageData()
        image.SetDimensions(*smooth.shape[::-1])
        image.GetPointData().SetScalars(numpy_to_vtk(smooth.ravel(), deep=True))
        coarseToRas = self._ijkToRas @ np.diag([*steps, 1.0])
        coarseToRas[:3, 3] -= coarseToRas[:3, :3] @ [2, 2, 2]
        transform = vtk.vtkTransform()
        transform.SetMatrix(toVtk(coarseToRas))
        contour, placed, normals = vtk.vtkFlyingEdges3D(), vtk.vtkTransformPolyDataFilter(), vtk.vtkPolyDataNormals()
        contour.SetInputData(image)
        contour.SetValue(0, 0.5)
        contour.ComputeNormalsOff()
        placed.SetInputConnection(contour.GetOutputPort())
        placed.SetTransform(transform)
        normals.SetInputConnection(placed.GetOutputPort())
        normals.SplittingOff()
        normals.AutoOrientNormalsOn()
        normals.Update()
        return normals.GetOutput()

    def inwardDirection(self, point: np.ndarray) -> np.ndarray:
        """Unit vector into the body at a point on its surface; towards the volume's centre where no surface is near."""
        offsets = _ball(NEIGHBOURHOOD_MM, 2.0)
        inside = self.inside(point + offsets)
        if inside.any() and not inside.all():
            direction = offsets[inside].mean(0)
            if np.linalg.norm(direction) > 0.05 * NEIGHBOURHOOD_MM:
                return direction / np.linalg.norm(direction)
        direction = self.centre - point
        length = np.linalg.norm(direction)
        return direction / length if length > 1e-6 else np.array([0.0, 0.0, -1.0])

    def snap(self, point: np.ndarray, inward: np.ndarray) -> np.ndarray | None:
        """The nearest point on the line along `inward` where the body begins, within `SNAP_MM` of `point`, or None."""
        steps = np.arange(-SNAP_MM, SNAP_MM + STEP_MM / 2, STEP_MM)
        inside = self.inside(point + steps[:, None] * inward)
        entries = np.flatnonzero(inside[1:] & ~inside[:-1])
        if not len(entries):
            return None
        boundary = (steps[entries] + steps[entries + 1]) / 2
        return point + boundary[np.argmin(np.abs(boundary))] * inward

    def outermost(self, point: np.ndarray, outward: np.ndarray) -> np.ndarray | None:
        """The last point of the body on the line from `point` in the unit direction `outward`, or None."""
        steps = np.arange(-self.diagonalMm, self.diagonalMm, STEP_MM)
        inside = np.flatnonzero(self.inside(point + steps[:, None] * outward))
        return point + steps[inside[-1]] * outward if len(inside) else None


def _threshold(array: np.ndarray, kind: MediumKind) -> float:
    if kind is MediumKind.LABELS:
        return 0.5
    if kind is MediumKind.CT:
        return CT_SKIN_HU
    coarse = array[tuple(slice(None, None, max(1, size // 64)) for size in array.shape)]
    low, high = np.percentile(coarse, [1.0, 99.0])
    return float(low + MRI_SKIN_FRACTION * (high - low))


def _ball(radius: float, spacing: float) -> np.ndarray:
    axis = np.arange(-radius, radius + spacing / 2, spacing)
    points = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    return points[np.linalg.norm(points, axis=1) <= radius]
