"""The transforms above a node, sampled at every item of its recording, so that nothing in the scene moves."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce

import numpy as np
import slicer
import vtk

from ..errors import RenderError
from ..i18n import _
from .sequences import SOURCE_ATTRIBUTE, calibrationOf, holds, synchronizedSequences
from .transforms import fromVtk, isLinearToWorld, isRigid, nodeToWorld

MIN_DETERMINANT = 1e-12  # of a calibration from pixels to mm
_SOURCE = re.compile(r"^([A-Za-z0-9]+?)To([A-Za-z0-9]+?)(Transform)?$")


@dataclass(frozen=True)
class Link:
    """One transform of a chain above a node: recorded (`sequence`) or one that does not move (`node`)."""

    name: str
    node: object = None
    sequence: object = None
    inverted: bool = False

    def matrixAt(self, indexValue: str) -> np.ndarray | None:
        """The matrix at an item, (4, 4), as a sequence browser would show it; None where nothing was recorded."""
        node = self.node if self.sequence is None else self.sequence.GetDataNodeAtValue(indexValue, False)
        if node is None:
            return None
        matrix = matrixToParent(node, self.name)
        return np.linalg.inv(matrix) if self.inverted else matrix


# Links nearest first, the transform in whose frame the reference is (None is world), and notes for the report.
SweepLinks = tuple[list[Link], object, tuple[str, ...]]


def sample(links: list[Link], indexValues: Iterable[str], rigidTools: bool = False) -> list[np.ndarray | None]:
    """The matrices from a node's own RAS through links, nearest first, at some items of a recording.

    Args:
        indexValues: of the items, as the sequence holds them.
        rigidTools: whether every transform but the nearest must be rigid.

    Returns:
        A (4, 4) for every item, mm; None where the tracking was lost: a transform was not recorded, or one that
        moves is exactly the identity, which trackers write then.

    Raises:
        RenderError: for a transform that is nonlinear, singular, not of numbers, or not rigid where it must be.
    """
    steps = [[link.matrixAt(value) for link in links] for value in indexValues]
    tracked = _tracked(steps)
    if rigidTools:
        for matrices in (m for m, good in zip(steps, tracked) if good):
            for link, matrix in list(zip(links, matrices))[1:]:
                _requireRigidTool(matrix, link.name)
    return [reduce(lambda to, matrix: matrix @ to, m, np.eye(4)) if good else None for m, good in zip(steps, tracked)]


def linksOf(transforms: list, browser=None) -> list[Link]:
    """These transforms as links: recorded where the browser (or None) plays them."""
    sequences = [None if browser is None else browser.GetSequenceNode(transform) for transform in transforms]
    return [Link(t.GetName(), None if sequence else t, sequence) for t, sequence in zip(transforms, sequences)]


def plays(browser, transformNode) -> bool:
    """Whether a browser moves a transform (None is world) or one above it."""
    return any(browser.GetSequenceNode(node) is not None for node in transformsFrom(transformNode))


def sweepLinks(sequence, browser, poses, calibrationNode) -> SweepLinks:
    """Which transforms lead from the frames of an image sequence to the reference, by the first rule that applies.

    The recorded poses that the user names; the transforms over the browser's proxy, up to the last that moves; those
    recorded beside the images, by the tracker's names; else none: poses may stand in the images' own matrices.

    Args:
        poses: a transform sequence, or None.
        calibrationNode: the image calibration, a transform node or None.
    """
    calibration = [] if calibrationNode is None else [Link(calibrationNode.GetName(), calibrationNode)]
    if poses is not None:
        if not holds(poses, "vtkMRMLTransformNode"):
            raise RenderError(_("The sequence '{name}' holds no transforms.").format(name=poses.GetName()))
        return [*calibration, Link(poses.GetName(), sequence=poses)], _referenceOf(poses, browser), ()
    proxy = browser.GetProxyNode(sequence) if browser is not None else None
    above = [] if proxy is None else transformsAbove(proxy)
    links = linksOf(above, browser)
    moving = max((n for n, link in enumerate(links, 1) if link.sequence is not None), default=0)
    if moving:
        if calibrationNode is calibrationOf(sequence):
            calibrationNode = None
    elif browser is not None and (tagged := _taggedLinks(browser, calibrationNode, calibration)):
        return tagged
    links, notes = withCalibration(links[:moving], above, calibrationNode)
    return links, above[moving] if moving < len(above) else None, notes


def _taggedLinks(browser, calibrationNode, calibration: list[Link]) -> SweepLinks | None:
    """The links by the tracker's names of the transforms that were recorded beside the images, or None.

    ImageToReference; or ImageToProbe and ProbeToReference; or ImageToProbe, ProbeToTracker and ReferenceToTracker.
    """
    tagged = _taggedSequences(browser)
    if direct := tagged.get(("Image", "Reference")):
        links, notes = withCalibration([Link(direct.GetName(), sequence=direct)], [], calibrationNode)
        return links, _referenceOf(direct, browser), notes
    if not calibration and (recorded := tagged.get(("Image", "Probe"))):
        calibration = [Link(recorded.GetName(), sequence=recorded)]
    pose = tagged.get(("Probe", "Reference")) or tagged.get(("Probe", "Tracker"))
    if not calibration or pose is None:
        return None
    links, toTracker = [*calibration, Link(pose.GetName(), sequence=pose)], ("Probe", "Reference") not in tagged
    if toTracker and (reference := tagged.get(("Reference", "Tracker"))):
        return [*links, Link(reference.GetName(), sequence=reference, inverted=True)], None, ()
    note = _("The recording tracks no reference: poses are relative to the tracker.")
    return links, _referenceOf(pose, browser), (note,) if toTracker else ()


def withCalibration(links: list[Link], above: list, calibrationNode) -> tuple[list[Link], tuple[str, ...]]:
    """The links with the image calibration (a node or None) before them where they begin at the probe, and notes.

    above: the transform nodes over the image. A chain that begins at the image needs no other calibration.
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


def transformsFrom(transformNode) -> list:
    """A transform node (None is world) and every one above it, the nearest first."""
    found = []
    while transformNode is not None:
        found.append(transformNode)
        transformNode = transformNode.GetParentTransformNode()
    return found


def transformsAbove(node) -> list:
    """Every transform node above a node, the nearest first."""
    return transformsFrom(node.GetParentTransformNode())


def matrixToParent(transformNode, name: str) -> np.ndarray:
    """The matrix of a transform node to what it hangs under, (4, 4); RenderError if nonlinear, singular or NaN."""
    if not transformNode.IsLinear():
        raise RenderError(_("The transform '{name}' is nonlinear; harden or remove it.").format(name=name))
    matrix = vtk.vtkMatrix4x4()
    transformNode.GetMatrixTransformToParent(matrix)
    result = fromVtk(matrix)
    if not np.isfinite(result).all():
        raise RenderError(
            _("The transform '{name}' holds NaN or infinite numbers; record the sweep again.").format(name=name)
        )
    if abs(np.linalg.det(result[:3, :3])) < MIN_DETERMINANT:
        raise RenderError(
            _("The transform '{name}' is singular (it flattens space); choose another.").format(name=name)
        )
    return result


def staticToWorld(node) -> np.ndarray:
    """From the frame under a transform node (None is world) to world, (4, 4); RenderError unless it is rigid."""
    if node is None:
        return np.eye(4)
    if not isLinearToWorld(node):
        raise RenderError(
            _("A transform above '{name}' is nonlinear; harden or remove it.").format(name=node.GetName())
        )
    matrix = nodeToWorld(node)
    _requireRigidTool(matrix, node.GetName())
    return matrix


def _requireRigidTool(matrix: np.ndarray, name: str) -> None:
    if not isRigid(matrix):
        raise RenderError(
            _(
                "The transform '{name}' scales, shears or mirrors: above the ultrasound only the transform next to "
                "the image may scale; check the calibration."
            ).format(name=name)
        )


def _tracked(steps: list[list[np.ndarray | None]]) -> list[bool]:
    """Which items have a pose: every step recorded, and no moving step exactly the identity."""
    complete = [all(matrix is not None for matrix in matrices) for matrices in steps]
    columns = list(zip(*(matrices for matrices, good in zip(steps, complete) if good)))
    moving = [any(not np.array_equal(matrix, column[0]) for matrix in column) for column in columns]
    return [
        good and not any(moves and np.array_equal(m, np.eye(4)) for m, moves in zip(matrices, moving))
        for matrices, good in zip(steps, complete)
    ]


def _referenceOf(poses, browser):
    """What stands above the proxy of a sequence of poses, if that does not move; None is world."""
    proxy = browser.GetProxyNode(poses) if browser is not None else None
    reference = proxy.GetParentTransformNode() if proxy is not None else None
    return reference if reference is None or not plays(browser, reference) else None


def _taggedSequences(browser) -> dict[tuple[str, str], slicer.vtkMRMLSequenceNode]:
    tagged = {}
    for sequence in synchronizedSequences(browser):
        match = _SOURCE.match(sequence.GetAttribute(SOURCE_ATTRIBUTE) or sequence.GetName() or "")
        if match and holds(sequence, "vtkMRMLTransformNode"):
            tagged.setdefault((match[1], match[2]), sequence)
    return tagged
