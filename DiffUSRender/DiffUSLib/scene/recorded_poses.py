"""Where the probe was at every item of a recording: read from the sequences, so that nothing in the scene moves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import vtk

from ..errors import RenderError
from ..i18n import _
from .transforms import fromVtk, isLinearToWorld, nodeToWorld, probeToVolume, requireRigid, toVtk, transformBetween


@dataclass(frozen=True)
class ProbePose:
    """probeToWorld (4, 4) mm; the way to the volume's own RAS, a matrix or a transform; and the time, s."""

    probeToWorld: np.ndarray
    probeToVolume: np.ndarray | vtk.vtkAbstractTransform
    seconds: float


def presentPose(probeNode, volumeNode) -> ProbePose:
    """The pose of this moment; raises RenderError for a probe that no rigid matrix takes to world."""
    _requireLinear(probeNode)
    return ProbePose(nodeToWorld(probeNode), probeToVolume(probeNode, volumeNode), 0.0)


def recordedPoses(probeNode, volumeNode, browserNode) -> list[ProbePose]:
    """The poses at the items of a sequence browser that plays a transform above the probe or the volume.

    Items at which such a transform was not recorded are left out. Raises RenderError where the browser moves neither,
    or where a pose cannot be used.
    """
    _requireLinear(probeNode)
    parent = volumeNode.GetParentTransformNode()
    above = [*_upwards(probeNode), *_upwards(parent)]
    moving = [node for node in above if browserNode.GetSequenceNode(node) is not None]
    if not moving:
        raise RenderError(
            _(
                "The recording '{name}' does not move the probe '{probe}': choose the one that plays its transform."
            ).format(name=browserNode.GetName(), probe=probeNode.GetName())
        )
    if not isLinearToWorld(parent) and any(node in moving for node in _upwards(parent)):
        raise RenderError(
            _("A nonlinear transform above the volume '{name}' is played too; harden it, or take it away.").format(
                name=volumeNode.GetName()
            )
        )
    master = browserNode.GetMasterSequenceNode()
    values = [master.GetNthIndexValue(item) for item in range(browserNode.GetNumberOfItems())]
    poses = [_poseAt(probeNode, parent, browserNode, value, n) for n, value in enumerate(values)]
    found = [pose for pose in poses if pose is not None]
    if not found:
        raise RenderError(_("The recording '{name}' holds no pose.").format(name=browserNode.GetName()))
    return found


def _poseAt(probeNode, parent, browserNode, value: str, number: int) -> ProbePose | None:
    probeToWorld = toWorldAt(probeNode, browserNode, value)
    if probeToWorld is None:
        return None
    requireRigid(probeToWorld, probeNode.GetName())
    if isLinearToWorld(parent):
        volumeToWorld = toWorldAt(parent, browserNode, value)
        if volumeToWorld is None:
            return None
        way = np.linalg.inv(volumeToWorld) @ probeToWorld
    else:
        way = vtk.vtkGeneralTransform()
        way.Concatenate(transformBetween(None, parent))
        way.Concatenate(toVtk(probeToWorld))  # the last one is applied first
    return ProbePose(probeToWorld, way, _seconds(value, number))


def toWorldAt(transformNode, browserNode, value: str) -> np.ndarray | None:
    """The matrix from under a transform (None is world) to world as the browser would show it, or None."""
    matrix = np.eye(4)
    for node in _upwards(transformNode):
        sequence = browserNode.GetSequenceNode(node)
        recorded = node if sequence is None else sequence.GetDataNodeAtValue(value, False)
        if recorded is None:
            return None
        step = vtk.vtkMatrix4x4()
        recorded.GetMatrixTransformToParent(step)
        matrix = fromVtk(step) @ matrix
    return matrix


def _upwards(transformNode) -> list:
    """A transform node and all above it, the nearest first."""
    nodes = []
    while transformNode is not None:
        nodes.append(transformNode)
        transformNode = transformNode.GetParentTransformNode()
    return nodes


def _requireLinear(probeNode) -> None:
    if not isLinearToWorld(probeNode):
        raise RenderError(
            _("The probe '{name}' is moved by a nonlinear transform: its pose cannot be written; harden it.").format(
                name=probeNode.GetName()
            )
        )
    requireRigid(nodeToWorld(probeNode), probeNode.GetName())


def _seconds(value: str, number: int) -> float:
    try:
        return float(value)
    except ValueError:  # a text index, such as a label
        return float(number)
