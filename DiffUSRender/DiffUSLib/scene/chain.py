"""The transforms above a tracked image, sampled at every item of its recording. Matrices are (4, 4), mm."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import numpy as np
import slicer
import vtk

from ..errors import RenderError
from ..i18n import _
from .transforms import fromVtk, isLinearToWorld, isRigid, nodeToWorld

SOURCE_ATTRIBUTE = "Sequences.Source"  # the name that a transform had on the tracker, whatever the node is called
_SOURCE = re.compile(r"^([A-Za-z0-9]+?)To([A-Za-z0-9]+?)(Transform)?$")


@dataclass(frozen=True)
class Link:
    """One step of the way up: a recorded transform (`sequence`) or one that does not move (`node`)."""

    name: str
    node: object = None
    sequence: object = None
    inverted: bool = False

    def matrixAt(self, indexValue: str) -> np.ndarray | None:
        """The step's matrix at an item, as a sequence browser would show it; None where nothing was recorded."""
        node = self.node if self.sequence is None else self.sequence.GetDataNodeAtValue(indexValue, False)
        if node is None:
            return None
        matrix = matrixToParent(node, self.name)
        return np.linalg.inv(matrix) if self.inverted else matrix


@dataclass(frozen=True)
class Chain:
    """The way from a frame's own RAS up to the reference (`links`, nearest first), and from there to world."""

    links: tuple[Link, ...]
    referenceToWorld: np.ndarray
    referenceNode: object = None
    notes: tuple[str, ...] = ()


def transformsAbove(node) -> list:
    """Every transform node above a node, the nearest first."""
    found = []
    while (node := node.GetParentTransformNode()) is not None:
        found.append(node)
    return found


def matrixToParent(transformNode, name: str) -> np.ndarray:
    """The node's matrix; raises RenderError for a nonlinear or singular transform."""
    if not transformNode.IsLinear():
        raise RenderError(
            _("The transform '{name}' above the ultrasound is nonlinear; harden or remove it.").format(name=name)
        )
    matrix = vtk.vtkMatrix4x4()
    transformNode.GetMatrixTransformToParent(matrix)
    result = fromVtk(matrix)
    if not np.isfinite(result).all():
        raise RenderError(
            _("The transform '{name}' holds NaN or infinite numbers; record the sweep again.").format(name=name)
        )
    if abs(np.linalg.det(result[:3, :3])) < 1e-12:
        raise RenderError(
            _("The transform '{name}' is singular (it flattens space); choose another.").format(name=name)
        )
    return result


def requireRigid(matrix: np.ndarray, name: str) -> None:
    """Raises RenderError, naming the transform, unless the matrix is a rotation and a translation to 1 %."""
    if not isRigid(matrix):
        raise RenderError(
            _(
                "The transform '{name}' scales, shears or mirrors: above the ultrasound only the transform next to "
                "the image may scale; check the calibration."
            ).format(name=name)
        )


def staticToWorld(node) -> np.ndarray:
    """From the frame under a transform node (None is world) to world; raises RenderError unless it is rigid."""
    if node is None:
        return np.eye(4)
    if not isLinearToWorld(node):
        raise RenderError(
            _("A transform above '{name}' is nonlinear; harden or remove it.").format(name=node.GetName())
        )
    matrix = nodeToWorld(node)
    requireRigid(matrix, node.GetName())
    return matrix


def withCalibration(links: list[Link], above: list, calibrationNode) -> tuple[list[Link], tuple[str, ...]]:
    """The links with the image calibration (a node or None) before them where they begin at the probe, and notes.

    above: the transform nodes over the image. A chain that begins at the image has no place for another calibration.
    """
    if calibrationNode is None or calibrationNode in above or any(link.node is calibrationNode for link in links):
        return links, ()
    first = links[0] if links else None
    source = first.sequence.GetAttribute(SOURCE_ATTRIBUTE) if first is not None and first.sequence is not None else None
    match = _SOURCE.match(source or first.name or "") if first is not None else None
    if match and match[1] == "Probe":
        return [Link(calibrationNode.GetName(), calibrationNode), *links], ()
    note = _("The calibration '{name}' was left out: the image has its place without it.")
    return links, (note.format(name=calibrationNode.GetName()),)


def recordedChain(proxy, browser, calibrationNode=None) -> Chain | None:
    """The chain above the browser's proxy of the images, up to the last transform that moves; None if none does.

    calibrationNode: goes between the image and a chain that begins at the probe, see `withCalibration`.
    """
    links, moving = [], 0
    above = transformsAbove(proxy)
    for transform in above:
        sequence = browser.GetSequenceNode(transform)
        links.append(Link(transform.GetName(), None if sequence else transform, sequence))
        if sequence is not None:
            moving = len(links)
    if not moving:
        return None
    reference = above[moving] if moving < len(above) else None
    links, notes = withCalibration(links[:moving], above, calibrationNode)
    return Chain(tuple(links), staticToWorld(reference), reference, notes)


def chosenChain(poseSequence, calibrationNode, browser) -> Chain:
    """The chain of transforms that the user has named: an image calibration (or None), then a recorded pose."""
    links = [] if calibrationNode is None else [Link(calibrationNode.GetName(), calibrationNode)]
    links.append(Link(poseSequence.GetName(), sequence=poseSequence))
    return _closed(links, poseSequence, browser)


def taggedChain(browser, calibrationNode) -> Chain | None:
    """The chain told by the tracker's names of the transforms that were recorded beside the images, or None.

    ImageToReference; or ImageToProbe and ProbeToReference; or ImageToProbe, ProbeToTracker and ReferenceToTracker.
    """
    tagged = _taggedSequences(browser)
    if direct := tagged.get(("Image", "Reference")):
        links, notes = withCalibration([Link(direct.GetName(), sequence=direct)], [], calibrationNode)
        return replace(_closed(links, direct, browser), notes=notes)
    if calibrationNode is not None:
        links = [Link(calibrationNode.GetName(), calibrationNode)]
    elif calibration := tagged.get(("Image", "Probe")):
        links = [Link(calibration.GetName(), sequence=calibration)]
    else:
        return None
    if pose := tagged.get(("Probe", "Reference")):
        return _closed([*links, Link(pose.GetName(), sequence=pose)], pose, browser)
    pose = tagged.get(("Probe", "Tracker"))
    if pose is None:
        return None
    links.append(Link(pose.GetName(), sequence=pose))
    if reference := tagged.get(("Reference", "Tracker")):
        return Chain((*links, Link(reference.GetName(), sequence=reference, inverted=True)), np.eye(4))
    note = _("The recording tracks no reference: poses are relative to the tracker.")
    return replace(_closed(links, pose, browser), notes=(note,))


def synchronizedSequences(browser) -> list:
    """All sequences of a browser, its master first."""
    collection = vtk.vtkCollection()
    browser.GetSynchronizedSequenceNodes(collection, True)
    return [collection.GetItemAsObject(n) for n in range(collection.GetNumberOfItems())]


def holds(sequence, className: str) -> bool:
    """Whether the items of a sequence are nodes of a class."""
    first = sequence.GetNthDataNode(0) if sequence.GetNumberOfDataNodes() else None
    return first is not None and bool(first.IsA(className))


def browserOf(scene, sequence):
    """The first sequence browser that plays a sequence, or None."""
    for browser in browsers(scene):
        if sequence in synchronizedSequences(browser):
            return browser
    return None


def browsers(scene) -> list:
    """All sequence browsers of a scene."""
    count = scene.GetNumberOfNodesByClass("vtkMRMLSequenceBrowserNode")
    return [scene.GetNthNodeByClass(n, "vtkMRMLSequenceBrowserNode") for n in range(count)]


def _closed(links: list[Link], lastSequence, browser) -> Chain:
    """Ends a chain at what stands above the proxy of its last sequence, if that does not move."""
    proxy = browser.GetProxyNode(lastSequence) if browser is not None else None
    reference = proxy.GetParentTransformNode() if proxy is not None else None
    above = (reference, *transformsAbove(reference)) if reference is not None else ()
    if any(browser.GetSequenceNode(transform) is not None for transform in above):
        reference = None
    return Chain(tuple(links), staticToWorld(reference), reference)


def _taggedSequences(browser) -> dict[tuple[str, str], slicer.vtkMRMLSequenceNode]:
    tagged = {}
    for sequence in synchronizedSequences(browser):
        match = _SOURCE.match(sequence.GetAttribute(SOURCE_ATTRIBUTE) or sequence.GetName() or "")
        if match and holds(sequence, "vtkMRMLTransformNode"):
            tagged.setdefault((match[1], match[2]), sequence)
    return tagged
