"""The result: a transform that is offered, accepted by one click or two, and undone by one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import slicer.util

from ..errors import RenderError
from ..i18n import _
from ..scene.chain import transformsAbove
from ..scene.fingerprint import Fingerprint, fingerprint
from ..scene.sequences import browsers, synchronizedSequences
from ..scene.transforms import ijkToRas, isLinearToWorld, nodeToWorld, toVtk
from .start import LandmarkPairs

if TYPE_CHECKING:
    from .session import Session

SOURCE_GEOMETRY_ROLE = "referenceImageGeometryRef"  # by which a segmentation names the volume that it was drawn on
VOLUME_ROLE = "DiffUSRegister.Volume"
REFERENCE_ROLE = "DiffUSRegister.Reference"
VERDICT_ATTRIBUTE = "DiffUSRegister.Verdict"
GEOMETRY_ATTRIBUTE = "DiffUSRegister.IJKToRAS"
CHECKSUM_ATTRIBUTE = "DiffUSRegister.Checksum"
REFERENCE_ATTRIBUTE = "DiffUSRegister.ReferenceToWorld"
LANDMARK_LIMIT_MM = 3.0  # a result that leaves landmarks further apart on average is never trusted
WORST_LANDMARK_LIMIT_MM = 5.0  # nor one that leaves any pair so far apart: more than the error of a click
NAMES_SHOWN = 3  # of nodes in a sentence
MOVED_MM = 1e-3


class ConfirmationNeeded(RenderError):
    """A result whose verdict is `check` needs the user's word; the sentence repeats the reasons."""


def weighLandmarks(report: dict, pairs: LandmarkPairs | None, volumeToWorld: np.ndarray) -> dict:
    """The report, lowered from `trusted` to `check` where landmarks contradict it; they raise its expected errors.

    Args:
        pairs: landmarks of the volume and of the ultrasound, or None.
        volumeToWorld: (4, 4), the volume's own RAS to world, mm, by the report.
    """
    if pairs is None or report["verdict"] == "rejected":
        return report
    apart = pairs.distancesMm(volumeToWorld)
    mean, worst = float(apart.mean()), float(apart.max())
    if mean <= LANDMARK_LIMIT_MM and worst <= WORST_LANDMARK_LIMIT_MM:
        return report
    if mean > LANDMARK_LIMIT_MM:
        contradiction = _("The landmarks are still {mean:.1f} mm apart on average.").format(mean=mean)
    else:
        contradiction = _("One pair of landmarks is still {worst:.1f} mm apart.").format(worst=worst)
    # Reasons for trusting it no longer hold, and neither do its expected errors.
    return {
        **report,
        "verdict": "check",
        "reasons": [contradiction, *(report["reasons"] if report["verdict"] == "check" else ())],
        "expected_error_mm": max(mean, report["expected_error_mm"]),
        "expected_error_worst_mm": max(worst, report["expected_error_worst_mm"]),
    }


def createResultTransform(session: Session, volumeToWorld: np.ndarray, verdict: str):
    """A new linear transform node from the volume's own RAS to world (4, 4), mm. It is not yet applied to anything.

    It keeps the ultrasound's reference and the volume as they were registered: one that was moved, hardened, edited
    or replaced since cannot be accepted.
    """
    volume, scene = session.volume, session.volume.GetScene()
    name = _("{volume} to ultrasound").format(volume=volume.GetName())
    node = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", scene.GenerateUniqueName(name))
    node.SetMatrixTransformToParent(toVtk(volumeToWorld))
    node.SetAttribute(VERDICT_ATTRIBUTE, verdict)
    node.SetNodeReferenceID(VOLUME_ROLE, volume.GetID())
    if session.referenceNode is not None:
        node.SetNodeReferenceID(REFERENCE_ROLE, session.referenceNode.GetID())
        node.SetAttribute(REFERENCE_ATTRIBUTE, json.dumps(session.referenceToWorld.tolist()))
    node.SetAttribute(GEOMETRY_ATTRIBUTE, json.dumps(session.fingerprint.matrix.tolist()))
    node.SetAttribute(CHECKSUM_ATTRIBUTE, str(session.fingerprint.checksum))
    return node


def readReport(parameterNode) -> dict | None:
    """The last result's report, or None."""
    return json.loads(parameterNode.report) if parameterNode.report else None


def whyNotAcceptable(parameterNode) -> str:
    """Why the last result cannot be accepted now, in one sentence; empty if it can be, as far as is seen quickly."""
    report, node = readReport(parameterNode), parameterNode.resultTransform
    if report is None:
        return _("There is no result yet.")
    if report["verdict"] == "rejected" or (node is not None and node.GetAttribute(VERDICT_ATTRIBUTE) == "rejected"):
        return _("The result was rejected and cannot be accepted.")
    if node is None:
        return _("The result's transform was deleted; register again.")
    if not isLinearToWorld(node) or not np.allclose(nodeToWorld(node), report["volume_to_world"], atol=MOVED_MM):
        return _("The result's transform has been changed since the registration; register again.")
    volume = node.GetNodeReference(VOLUME_ROLE)
    if volume is None:
        return _("The volume that was registered was deleted.")
    if volume.GetTransformNodeID() == node.GetID():
        return _("The result is accepted already.")
    known = node.GetAttribute(GEOMETRY_ATTRIBUTE)
    quick = known and not volume.IsA("vtkMRMLSegmentationNode")
    if quick and not np.allclose(json.loads(known), ijkToRas(volume), atol=1e-6):
        return _changed(volume)
    if not _referenceStands(node):
        return _("The reference of the ultrasound has moved since the registration; register again.")
    return ""


def _changed(volume) -> str:
    return _("The volume '{name}' has been changed since it was registered; register again.").format(
        name=volume.GetName()
    )


def _requireUnchanged(resultNode) -> None:
    """Raises RenderError unless the volume holds, voxel by voxel, what was registered."""
    matrix, checksum = resultNode.GetAttribute(GEOMETRY_ATTRIBUTE), resultNode.GetAttribute(CHECKSUM_ATTRIBUTE)
    volume = resultNode.GetNodeReference(VOLUME_ROLE)
    if matrix and checksum and not Fingerprint(np.array(json.loads(matrix)), int(checksum)).fits(fingerprint(volume)):
        raise RenderError(_changed(volume))


def acceptResult(parameterNode, confirmed: bool = False) -> None:
    """Puts the registered volume under the result; what it hung under before stays as it is, for `undoResult`.

    Raises:
        ConfirmationNeeded: the verdict is `check`, and it is not `confirmed`; the sentence holds the reasons.
        RenderError: there is nothing that may be accepted.
    """
    if sentence := whyNotAcceptable(parameterNode):
        raise RenderError(sentence)
    report, node = readReport(parameterNode), parameterNode.resultTransform
    _requireUnchanged(node)
    if report["verdict"] != "trusted" and not confirmed:
        raise ConfirmationNeeded(
            _("This result must be checked by eye before it is used:") + "\n" + "\n".join(report["reasons"])
        )
    volume = node.GetNodeReference(VOLUME_ROLE)
    previous = volume.GetParentTransformNode()
    parameterNode.previousTransform = previous
    parameterNode.acceptedTransform = node
    parameterNode.hadPrevious = previous is not None
    volume.SetAndObserveTransformNodeID(node.GetID())


def canUndo(parameterNode) -> bool:
    """Whether the volume hangs under an accepted result."""
    node = parameterNode.acceptedTransform
    volume = node.GetNodeReference(VOLUME_ROLE) if node is not None else None
    return volume is not None and volume.GetTransformNodeID() == node.GetID()


def undoResult(parameterNode) -> None:
    """Puts the volume back under what it hung under before the result was accepted.

    Raises:
        RenderError: nothing is accepted, or the transform before was deleted.
    """
    if not canUndo(parameterNode):
        raise RenderError(_("There is no accepted result to undo."))
    previous = parameterNode.previousTransform
    if previous is None and parameterNode.hadPrevious:
        raise RenderError(
            _("The transform that the volume hung under before was deleted: choose another in the module Transforms.")
        )
    volume = parameterNode.acceptedTransform.GetNodeReference(VOLUME_ROLE)
    volume.SetAndObserveTransformNodeID(previous.GetID() if previous is not None else None)
    parameterNode.acceptedTransform = parameterNode.previousTransform = None
    parameterNode.hadPrevious = False


def leftBehind(parameterNode) -> str:
    """Which nodes an accepted result has parted from the volume, and what to do, in one sentence; empty for none."""
    node, previous = parameterNode.acceptedTransform, parameterNode.previousTransform
    volume = node.GetNodeReference(VOLUME_ROLE)
    found = _companions(parameterNode, volume, previous)
    if previous is None:  # everything that is not moved hangs under none: only what names the volume is sure to belong
        own = (parameterNode.volumeLandmarks,)
        found = [other for other in found if other in own or other.GetNodeReference(SOURCE_GEOMETRY_ROLE) is volume]
    if not found:
        return ""
    return _("Only '{volume}' has moved: what belongs to it ({names}) must be put under '{result}' too.").format(
        volume=volume.GetName(), names=_names(found), result=node.GetName()
    )


def stillMoved(parameterNode) -> str:
    """Which other nodes hang under the accepted result, which undo leaves there, in one sentence; empty for none."""
    if not canUndo(parameterNode):
        return ""
    node = parameterNode.acceptedTransform
    found = _companions(parameterNode, node.GetNodeReference(VOLUME_ROLE), node)
    if not found:
        return ""
    return _("Put back yourself what still hangs under '{result}' ({names}).").format(
        result=node.GetName(), names=_names(found)
    )


def _companions(parameterNode, volume, parent) -> list:
    """The other nodes under a transform (None is world), without the ultrasound and what moves it."""
    played = [
        browser.GetProxyNode(s) for browser in browsers(volume.GetScene()) for s in synchronizedSequences(browser)
    ]
    tracked = [node for node in (parameterNode.ultrasound, *played) if node is not None]
    tracked = [node for node in tracked if node.IsA("vtkMRMLTransformableNode")]
    moving = [transform for node in tracked for transform in transformsAbove(node)]
    others = (volume, *tracked, *moving, parameterNode.ultrasoundLandmarks)
    return [
        node
        for node in slicer.util.getNodesByClass("vtkMRMLTransformableNode")
        if node.GetParentTransformNode() is parent and node not in others and not node.GetHideFromEditors()
    ]


def _names(nodes: list) -> str:
    more = [_("{n} more").format(n=len(nodes) - NAMES_SHOWN)] if len(nodes) > NAMES_SHOWN else []
    return ", ".join([f"'{node.GetName()}'" for node in nodes[:NAMES_SHOWN]] + more)


def _referenceStands(resultNode) -> bool:
    """Whether the transforms above the ultrasound's reference are as they were."""
    known = resultNode.GetAttribute(REFERENCE_ATTRIBUTE)
    if known is None:  # the reference is world
        return True
    reference = resultNode.GetNodeReference(REFERENCE_ROLE)
    return (
        reference is not None
        and isLinearToWorld(reference)
        and bool(np.allclose(nodeToWorld(reference), json.loads(known), atol=MOVED_MM))
    )
