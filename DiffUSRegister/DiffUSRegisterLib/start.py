"""Where the search begins, and the landmark pairs that it can begin from or be checked with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from DiffUSRenderLib.errors import RenderError
from DiffUSRenderLib.geometry import isLinearToWorld, isRigid, nodeToWorld

from .engine import fitLandmarks
from .i18n import _
from .parameters import StartFrom


@dataclass(frozen=True)
class LandmarkPairs:
    """The same places in the volume (n, 3), its own RAS, and in the ultrasound (n, 3), world; mm."""

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
    return nodeToWorld(parent)


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
    """The pairs of the two landmark lists, matched by label where the labels agree, else by order; None without lists.

    The volume's landmarks are taken where they lie on the volume as it is shown now.
    """
    inVolume, inUltrasound = parameterNode.volumeLandmarks, parameterNode.ultrasoundLandmarks
    if inVolume is None or inUltrasound is None:
        return None
    here, there = _points(inVolume), _points(inUltrasound)
    labels = [label for label, _point in there]
    common = [label for label, _point in here if labels.count(label) == 1]
    if len(common) == len(set(common)) >= min(len(here), len(there)) > 0:
        matched = dict(there)
        pairs = [(point, matched[label]) for label, point in here if label in common]
    elif len(here) == len(there) and here:
        pairs = [(a, b) for (_label, a), (_other, b) in zip(here, there)]
    else:
        raise RenderError(
            _("The landmark lists do not match: {a} in the volume, {b} in the ultrasound; pair them up.").format(
                a=len(here), b=len(there)
            )
        )
    worldToVolume = np.linalg.inv(presentPosition(parameterNode.inputVolume))
    volumePoints = np.array([a for a, _b in pairs]) @ worldToVolume[:3, :3].T + worldToVolume[:3, 3]
    return LandmarkPairs(volumePoints, np.array([b for _a, b in pairs]))


def _points(markups) -> list[tuple[str, np.ndarray]]:
    found = []
    for n in range(markups.GetNumberOfControlPoints()):
        if markups.GetNthControlPointPositionStatus(n) == markups.PositionDefined:
            point = np.zeros(3)
            markups.GetNthControlPointPositionWorld(n, point)
            # "F-3" and "U-3" are both number three
            found.append(((markups.GetNthControlPointLabel(n) or "").rpartition("-")[2], point))
    return found
