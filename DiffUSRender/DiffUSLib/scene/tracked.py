"""The tracked ultrasound of the scene: its pixels, and where every frame lies. Nothing in the scene is changed."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import slicer.util

from ..errors import RenderError
from ..i18n import _
from .chain import (
    Chain,
    Link,
    browserOf,
    browsers,
    chosenChain,
    holds,
    matrixToParent,
    recordedChain,
    requireRigid,
    staticToWorld,
    synchronizedSequences,
    taggedChain,
    transformsAbove,
    withCalibration,
)
from .transforms import ijkToRas, isLinearToWorld

SKIPPED_ATTRIBUTE = "DiffUSRegister.FramesSkipped"
NOTES_ATTRIBUTE = "DiffUSRegister.Notes"
CALIBRATION_ROLE = "DiffUSRegister.ImageToProbe"


@dataclass(frozen=True)
class SceneUltrasound:
    """Frames (K, rows, columns) with image_to_reference (K, 4, 4), or one 3-D volume (K, J, I) with (1, 4, 4).

    imageToReference maps (column, row, 0, 1), of a volume (i, j, k, 1), to the reference frame, mm. referenceNode is
    the transform whose frame the reference is; None is world, for which referenceToWorld is the identity.
    """

    frames: np.ndarray
    imageToReference: np.ndarray
    referenceToWorld: np.ndarray
    name: str
    referenceNode: object = None
    isVolume: bool = False
    itemNumbers: tuple[int, ...] = (0,)
    skipped: int = 0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Origin:
    """What is known of the file that an image sequence came from: frames left out, and plain sentences."""

    skipped: int = 0
    notes: tuple[str, ...] = ()


def readOrigin(sequence) -> Origin:
    """What `writeOrigin` wrote down on an image sequence, which a saved scene keeps; nothing for other sequences."""
    skipped, notes = sequence.GetAttribute(SKIPPED_ATTRIBUTE), sequence.GetAttribute(NOTES_ATTRIBUTE)
    return Origin(int(skipped or 0), tuple(json.loads(notes or "[]")))


def calibrationOf(sequence):
    """The transform node that a file was loaded with as its image calibration, or None."""
    return sequence.GetNodeReference(CALIBRATION_ROLE)


def writeOrigin(sequence, origin: Origin, calibrationNode) -> None:
    """Writes down on an image sequence where it came from, and the calibration (a node or None) it was read with."""
    sequence.SetAttribute(SKIPPED_ATTRIBUTE, str(origin.skipped))
    sequence.SetAttribute(NOTES_ATTRIBUTE, json.dumps(list(origin.notes)))
    if calibrationNode is not None:
        sequence.SetNodeReferenceID(CALIBRATION_ROLE, calibrationNode.GetID())


def readUltrasound(parameterNode) -> SceneUltrasound:
    """What the parameter node names as ultrasound; raises RenderError for what is not tracked or cannot be read."""
    node = parameterNode.ultrasound
    sequence, browser = imageSequence(node)
    if sequence is None and node.IsA("vtkMRMLSequenceBrowserNode"):
        raise RenderError(
            _("The sequence browser '{name}' plays no images; choose the one of the ultrasound.").format(
                name=node.GetName()
            )
        )
    if sequence is not None and (not parameterNode.presentFrameOnly or _isFlat(sequence.GetNthDataNode(0))):
        return _readSequence(sequence, browser, parameterNode)
    if sequence is not None:
        node = browser.GetProxyNode(sequence) if browser is not None else None
        if node is None:
            raise _noPresentFrame(sequence)
    calibration = parameterNode.imageToProbe
    return _readFrame(node, calibration) if _isFlat(node) else _readVolume(node, calibration)


def imageSequence(node) -> tuple:
    """The image sequence behind a browser, a sequence or a played volume, and its browser; None where there is none."""
    if node.IsA("vtkMRMLSequenceBrowserNode"):
        images = [s for s in synchronizedSequences(node) if holds(s, "vtkMRMLVolumeNode")]
        tracked = (s for s in images if (proxy := node.GetProxyNode(s)) and recordedChain(proxy, node))
        return next(tracked, images[0] if images else None), node
    if node.IsA("vtkMRMLSequenceNode"):
        if not holds(node, "vtkMRMLVolumeNode"):
            raise RenderError(
                _("The sequence '{name}' holds no images; choose the image sequence of the ultrasound.").format(
                    name=node.GetName()
                )
            )
        return node, browserOf(node.GetScene(), node)
    for browser in browsers(node.GetScene()):
        if (sequence := browser.GetSequenceNode(node)) is not None:
            return sequence, browser
    return None, None


def _readSequence(sequence, browser, parameterNode) -> SceneUltrasound:
    name = (browser or sequence).GetName()
    chain = _chain(sequence, browser, parameterNode)
    count = sequence.GetNumberOfDataNodes()
    chosen = np.unique(np.linspace(0, count - 1, min(count, parameterNode.maximumFrames)).round().astype(int))
    present = _presentItem(sequence, browser) if parameterNode.presentFrameOnly else None
    if present is not None:  # the others tell which transforms move, and so which pose is a lost one
        chosen = np.union1d(chosen, [present])
    steps = [[link.matrixAt(sequence.GetNthIndexValue(int(n))) for link in chain.links] for n in chosen]
    valid = _tracked(steps)
    if not any(valid):
        raise RenderError(
            _("No frame of '{name}' has valid tracking; record the sweep in view of the tracker.").format(name=name)
        )
    if present is not None:
        valid = [good and number == present for number, good in zip(chosen, valid)]
        chosen, steps, valid = ([values[list(chosen).index(present)]] for values in (chosen, steps, valid))
        if not valid[0] or (not chain.links and count > 1):
            raise RenderError(
                _("The present frame of '{name}' is not tracked; browse to another one, or use all frames.").format(
                    name=name
                )
            )
    frames, poses = [], []
    for number, matrices in ((n, m) for n, m, good in zip(chosen, steps, valid) if good):
        _requireTools(chain.links, matrices)
        volume = sequence.GetNthDataNode(int(number))
        frames.append(_pixels(volume))
        poses.append(_product(matrices) @ _frameToRas(volume))
    if any(frame.shape != frames[0].shape for frame in frames):
        raise RenderError(_("The frames of '{name}' differ in size; choose another recording.").format(name=name))
    poses = np.stack(poses)
    if len(poses) > 1 and np.abs(poses - poses[0]).max() < 1e-9:
        raise RenderError(
            _(
                "The frames of '{name}' are not tracked: all have the same pose. Put the image under the transform "
                "that was recorded with it, or name the recorded poses under Advanced."
            ).format(name=name)
        )
    origin = readOrigin(sequence)
    return SceneUltrasound(
        np.stack(frames),
        poses,
        chain.referenceToWorld,
        name,
        chain.referenceNode,
        itemNumbers=tuple(int(n) for n, good in zip(chosen, valid) if good),
        skipped=0 if present is not None else len(valid) - sum(valid) + origin.skipped,
        notes=(*chain.notes, *origin.notes, *_lateNotes(chain, sequence, chosen)),
    )


def _presentItem(sequence, browser) -> int:
    """Which item of a sequence its browser shows now."""
    master = browser.GetMasterSequenceNode() if browser is not None else None
    item = browser.GetSelectedItemNumber() if master is not None else -1
    if item < 0:
        raise _noPresentFrame(sequence)
    return sequence.GetItemNumberFromIndexValue(master.GetNthIndexValue(item), False)


def _noPresentFrame(sequence) -> RenderError:
    return RenderError(
        _("'{name}' shows no present frame: choose a sequence browser, or use all frames.").format(
            name=sequence.GetName()
        )
    )


def _lateNotes(chain: Chain, sequence, chosen) -> list[str]:
    """Which poses were recorded at other times than the images; a sequence of one item does not move."""
    notes, times = [], [sequence.GetNthIndexValue(int(n)) for n in chosen]
    for poses in (link.sequence for link in chain.links if link.sequence is not None):
        late = sum(poses.GetDataNodeAtValue(time, True) is None for time in times)
        if late and poses.GetNumberOfDataNodes() > 1:
            note = _("{n} frames have no pose of their own time in '{name}': the one before was taken.")
            notes.append(note.format(n=late, name=poses.GetName()))
    return notes


def _chain(sequence, browser, parameterNode) -> Chain:
    """Which transforms lead from the frames to the reference, by the first of three ways that applies."""
    poses, calibration = parameterNode.poseSequence, parameterNode.imageToProbe
    if poses is not None:
        if not holds(poses, "vtkMRMLTransformNode"):
            raise RenderError(_("The sequence '{name}' holds no transforms.").format(name=poses.GetName()))
        return chosenChain(poses, calibration, browser)
    proxy = browser.GetProxyNode(sequence) if browser is not None else None
    given = None if calibration is calibrationOf(sequence) else calibration
    chain = recordedChain(proxy, browser, given) if proxy is not None else None
    if chain is None and browser is not None:
        chain = taggedChain(browser, calibration)
    if chain is None:  # the poses may stand in the images' own matrices
        above = proxy.GetParentTransformNode() if proxy is not None else None
        _links, notes = withCalibration([], transformsAbove(proxy) if proxy is not None else [], calibration)
        chain = Chain((), staticToWorld(above), above, notes)
    return chain


def _tracked(steps: list[list[np.ndarray | None]]) -> list[bool]:
    """Which items have a pose: every step recorded, and no moving step exactly the identity, as trackers write loss."""
    complete = [all(matrix is not None for matrix in matrices) for matrices in steps]
    columns = list(zip(*(matrices for matrices, good in zip(steps, complete) if good)))
    moving = [any(not np.array_equal(matrix, column[0]) for matrix in column) for column in columns]
    return [
        good and not any(moves and np.array_equal(m, np.eye(4)) for m, moves in zip(matrices, moving))
        for matrices, good in zip(steps, complete)
    ]


def _requireTools(links: tuple[Link, ...], matrices: list[np.ndarray]) -> None:
    for link, matrix in list(zip(links, matrices))[1:]:
        requireRigid(matrix, link.name)


def _readFrame(volume, calibration) -> SceneUltrasound:
    above = transformsAbove(volume)
    links, notes = withCalibration([Link(t.GetName(), t) for t in above], above, calibration)
    matrices = [matrixToParent(link.node, link.name) for link in links]
    _requireTools(tuple(links), matrices)
    local = _frameToRas(volume)
    directions = np.abs(local[:3, :3]) > 1e-6 * np.abs(local[:3, :3]).max()
    if not above and directions.sum() == 3:
        raise RenderError(
            _("The frame '{name}' is not tracked: put it under the transform of its probe.").format(
                name=volume.GetName()
            )
        )
    pose = (_product(matrices) @ local)[None]
    return SceneUltrasound(_pixels(volume)[None], pose, np.eye(4), volume.GetName() or "", notes=notes)


def _readVolume(volume, calibration) -> SceneUltrasound:
    parent = volume.GetParentTransformNode()
    if not isLinearToWorld(parent):
        raise RenderError(
            _("The ultrasound '{name}' hangs under a nonlinear transform; harden or remove it.").format(
                name=volume.GetName()
            )
        )
    return SceneUltrasound(
        _array(volume),
        ijkToRas(volume)[None],
        staticToWorld(parent),
        volume.GetName() or "",
        parent,
        isVolume=True,
        notes=withCalibration([], transformsAbove(volume), calibration)[1],
    )


def _product(matrices: list[np.ndarray]) -> np.ndarray:
    """The steps, nearest first, as one matrix."""
    product = np.eye(4)
    for matrix in matrices:
        product = matrix @ product
    return product


def _isFlat(volume) -> bool:
    image = volume.GetImageData()
    return image is not None and image.GetDimensions()[2] == 1


def _frameToRas(volume) -> np.ndarray:
    """Pixel to the volume's own RAS; the third axis of a flat image means nothing, so it may be turned over."""
    matrix = ijkToRas(volume)
    if np.linalg.det(matrix[:3, :3]) < 0:
        matrix[:3, 2] *= -1
    return matrix


def _pixels(volume) -> np.ndarray:
    array = _array(volume)
    if array.shape[0] != 1:
        raise RenderError(
            _("The frames of '{name}' are volumes: choose 'Only the present frame' to register one of them.").format(
                name=volume.GetName()
            )
        )
    return array[0]


def _array(volume) -> np.ndarray:
    """Grey values (K, J, I), a copy; colours are averaged."""
    image = volume.GetImageData()
    if image is None or image.GetNumberOfPoints() == 0 or image.GetPointData().GetScalars() is None:
        raise RenderError(_("The ultrasound image '{name}' is empty; choose another.").format(name=volume.GetName()))
    array = slicer.util.arrayFromVolume(volume)
    return array[..., :3].mean(-1).round().astype(array.dtype) if array.ndim == 4 else array.copy()
