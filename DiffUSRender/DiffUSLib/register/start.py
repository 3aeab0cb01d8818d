"""Where the search begins, and the landmark pairs that it can begin from or be checked with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..engine import fitLandmarks, pairNames
from ..errors import RenderError
from ..i18n import _
from ..scene.transforms import isLinearToWorld, isRigid, nodeToWorld, requireInvertible
from .parameters import StartFrom


@dataclass(frozen=True)
class LandmarkPairs:
    """The same points in the volume (n, 3), its own RAS, and in the ultrasound (n, 3), world; mm."""

    volume: np.ndarray
    world: np.ndarray

    def distancesMm(self, volumeToWorld: np.ndarray) -> np.ndarray:
        """Distance of every pair, (n,) mm, when the volume lies at `volumeToWorld` (4, 4)."""
        moved = self.volume @ volumeToWorld[:3, :3].T + volumeToWorld[:3, 3]
        return np.linalg.norm(moved - self.world, axis=1)


def presentPosition(volume) -> np.ndarray:
    """The volume's own RAS to world, (4, 4), as it lies in the scene now."""
    parent = volume.GetParentTransformNode()
    if not isLinearToWorld(parent):
        raise RenderError(
            _("The volume '{name}' hangs under a nonlinear transform; harden or remove it.").format(
                name=volume.GetName()
            )
        )
    matrix = nodeToWorld(parent)
    requireInvertible(matrix, parent.GetName() if parent is not None else "")
    return matrix


def startPosition(parameterNode, landmarks: LandmarkPairs | None) -> np.ndarray:
    """The volume's own RAS to world, (4, 4) rigid, where the search begins; raises RenderError if there is no such."""
    choice = parameterNode.startFrom
    if choice is StartFrom.LANDMARKS:
        return fitLandmarks(landmarks.volume, landmarks.world)
    if choice is StartFrom.TRANSFORM:
        node = parameterNode.initialTransform
        name = node.GetName()
        if not isLinearToWorld(node):
            raise RenderError(
                _("The transform '{name}' of the first guess is nonlinear; choose a rigid one.").format(name=name)
            )
        matrix = nodeToWorld(node)
    else:
        parent = parameterNode.inputVolume.GetParentTransformNode()
        name, matrix = parent.GetName() if parent else "", presentPosition(parameterNode.inputVolume)
    if not np.isfinite(matrix).all() or not isRigid(matrix):
        raise RenderError(
            _("The first guess '{name}' scales, shears or mirrors; choose a rigid transform.").format(name=name)
        )
    return matrix


def readLandmarks(parameterNode) -> LandmarkPairs | None:
    """The pairs of the two landmark lists, matched by label, else by the labels' numbers, else by order.

    The volume's landmarks are taken where they lie on the volume as it is shown now.

    Returns:
        The pairs; None where a list is missing.

    Raises:
        RenderError: for lists that cannot be matched, or a landmark without a position.
    """
    inVolume, inUltrasound = parameterNode.volumeLandmarks, parameterNode.ultrasoundLandmarks
    if inVolume is None or inUltrasound is None:
        return None
    here, there = _points(inVolume), _points(inUltrasound)
    pairs = [
        (here[a][1], there[b][1]) for a, b in pairNames(*([label for label, _p in side] for side in (here, there)))
    ]
    worldToVolume = np.linalg.inv(presentPosition(parameterNode.inputVolume))
    volumePoints = np.array([a for a, _b in pairs]) @ worldToVolume[:3, :3].T + worldToVolume[:3, 3]
    return LandmarkPairs(volumePoints, np.array([b for _a, b in pairs]))


def _points(markups) -> list[tuple[str, np.ndarray]]:
    found = []
    for n in range(markups.GetNumberOfControlPoints()):
        if markups.GetNthControlPointPositionStatus(n) == markups.PositionDefined:
            point = np.zeros(3)
            markups.GetNthControlPointPositionWorld(n, point)
            label = markups.GetNthControlPointLabel(n) or ""
            if not np.isfinite(point).all():
                raise RenderError(
                    _("The landmark '{label}' of '{name}' has no position (NaN or infinite); place it again.").format(
                        label=label, name=markups.GetName()
                    )
                )
            found.append((label, point))
    return found
