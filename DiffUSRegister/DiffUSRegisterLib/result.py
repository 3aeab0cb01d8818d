"""The result: a transform that is offered, accepted by one click or two, and undone by one."""

from __future__ import annotations

import json

import numpy as np
from DiffUSRenderLib.errors import RenderError
from DiffUSRenderLib.geometry import ijkToRas, isLinearToWorld, nodeToWorld, toVtk

from .engine import Outcome
from .i18n import _
from .start import LandmarkPairs

VOLUME_ROLE = "DiffUSRegister.Volume"
REFERENCE_ROLE = "DiffUSRegister.Reference"
VERDICT_ATTRIBUTE = "DiffUSRegister.Verdict"
GEOMETRY_ATTRIBUTE = "DiffUSRegister.IJKToRAS"
REFERENCE_ATTRIBUTE = "DiffUSRegister.ReferenceToWorld"
LANDMARK_LIMIT_MM = 3.0  # a result that leaves landmarks further apart is never trusted
MOVED_MM = 1e-3


class ConfirmationNeeded(RenderError):
    """A result whose verdict is `check` needs the user's word; the sentence repeats the reasons."""


def weighLandmarks(outcome: Outcome, pairs: LandmarkPairs | None, volumeToWorld: np.ndarray) -> Outcome:
    """The outcome, lowered from `trusted` to `check` where landmarks contradict it."""
    if pairs is None or outcome.verdict != "trusted":
        return outcome
    apart = pairs.distancesMm(volumeToWorld)
    mean, worst = float(apart.mean()), float(apart.max())
    if mean <= LANDMARK_LIMIT_MM:
        return outcome
    # The engine's reasons are those for trusting it: they no longer hold, and neither do its expected errors.
    reasons = (_("The landmarks are still {mean:.1f} mm apart on average.").format(mean=mean),)
    report = {
        **outcome.report,
        "verdict": "check",
        "reasons": list(reasons),
        "expected_error_mm": max(mean, outcome.report["expected_error_mm"]),
        "expected_error_worst_mm": max(worst, outcome.report["expected_error_worst_mm"]),
    }
    return Outcome(outcome.mriToReference, "check", reasons, report)


def createResultTransform(
    scene, volume, volumeToWorld: np.ndarray, verdict: str, referenceNode, referenceToWorld, geometry: np.ndarray
):
    """A new linear transform node from the volume's own RAS to world. It is not yet applied to anything.

    geometry: the volume's IJKToRAS (4, 4) as it was registered; one that was hardened since cannot be accepted.
    """
    name = _("{volume} to ultrasound").format(volume=volume.GetName())
    node = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", scene.GenerateUniqueName(name))
    node.SetMatrixTransformToParent(toVtk(volumeToWorld))
    node.SetAttribute(VERDICT_ATTRIBUTE, verdict)
    node.SetNodeReferenceID(VOLUME_ROLE, volume.GetID())
    if referenceNode is not None:
        node.SetNodeReferenceID(REFERENCE_ROLE, referenceNode.GetID())
        node.SetAttribute(REFERENCE_ATTRIBUTE, json.dumps(np.asarray(referenceToWorld).tolist()))
    if not volume.IsA("vtkMRMLSegmentationNode"):
        node.SetAttribute(GEOMETRY_ATTRIBUTE, json.dumps(np.asarray(geometry).tolist()))
    return node


def readReport(parameterNode) -> dict | None:
    """The last result's report, or None."""
    return json.loads(parameterNode.report) if parameterNode.report else None


def whyNotAcceptable(parameterNode) -> str:
    """Why the last result cannot be accepted now, in one sentence; empty if it can be."""
    report, node = readReport(parameterNode), parameterNode.resultTransform
    if report is None:
        return _("There is no result yet.")
    if report["verdict"] == "rejected" or (node is not None and node.GetAttribute(VERDICT_ATTRIBUTE) == "rejected"):
        return _("The result was rejected and cannot be accepted.")
    if node is None:
        return _("The result's transform was deleted; register again.")
    volume = node.GetNodeReference(VOLUME_ROLE)
    if volume is None:
        return _("The volume that was registered was deleted.")
    if volume.GetTransformNodeID() == node.GetID():
        return _("The result is accepted already.")
    known = node.GetAttribute(GEOMETRY_ATTRIBUTE)
    if known and not np.allclose(json.loads(known), ijkToRas(volume), atol=1e-6):
        return _("The volume '{name}' has been changed since it was registered; register again.").format(
            name=volume.GetName()
        )
    if not _referenceStands(node):
        return _("The reference of the ultrasound has moved since the registration; register again.")
    return ""


def acceptResult(parameterNode, confirmed: bool = False) -> None:
    """Puts the registered volume under the result; what it hung under before stays as it is, for `undoResult`.

    Raises ConfirmationNeeded, with the reasons, for the verdict `check` unless `confirmed`; RenderError where there is
    nothing that may be accepted.
    """
    if sentence := whyNotAcceptable(parameterNode):
        raise RenderError(sentence)
    report, node = readReport(parameterNode), parameterNode.resultTransform
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
    """Puts the volume back under what it hung under before the result was accepted."""
    if not canUndo(parameterNode):
        raise RenderError(_("There is no accepted result to undo."))
    previous = parameterNode.previousTransform
    if previous is None and parameterNode.hadPrevious:
        raise RenderError(
            _("The transform that the volume hung under before was deleted: choose another in the module Transforms.")
        )
    volume = parameterNode.acceptedTransform.GetNodeReference(VOLUME_ROLE)
    volume.SetAndObserveTransformNodeID(previous.GetID() if previous is not None else None)
    parameterNode.acceptedTransform = None


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
