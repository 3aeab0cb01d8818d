"""The tracked images of the scene: raw pixels, and where every one lies. Nothing in the scene is changed.

Grey scale, times and pose are the engine's rules: `engine.trackedSweep` makes a sweep of what is read here.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from ..errors import RenderError
from ..i18n import _
from .chain import linksOf, plays, sample, staticToWorld, sweepLinks, transformsAbove, transformsFrom, withCalibration
from .sequences import browserOf, holds, indexTimes, readOrigin, sequenceOf, synchronizedSequences
from .slice_node import SLICE_ATTRIBUTE
from .transforms import ijkToRas, imageToRas, isLinearToWorld, rightHanded
from .voxels import isFlat, scalarArray


@dataclass(frozen=True)
class TrackedImages:
    """Images of the scene as they are stored, and where they lie.

    pixels: (K, rows, columns) of frames, or one 3-D volume (K, J, I). imageToReference: (K, 4, 4), of a volume
    (1, 4, 4), from (column, row, 0, 1), of a volume (i, j, k, 1), to the reference, mm. times: (K,) s, or None.
    referenceNode: the transform whose frame the reference is; None is world, or the RAS of a volume that was asked for.
    itemNumbers: of the frames in their sequence. skipped: how many frames were left out, for want of tracking.
    """

    pixels: np.ndarray
    imageToReference: np.ndarray
    name: str
    times: list[float] | None = None
    referenceToWorld: np.ndarray = field(default_factory=lambda: np.eye(4))
    referenceNode: object = None
    isVolume: bool = False
    itemNumbers: tuple[int, ...] = (0,)
    skipped: int = 0
    notes: tuple[str, ...] = ()

    def upsideDown(self) -> TrackedImages:
        """The same images with their rows in the other order."""
        turned = turnedRows(self.pixels.shape[1])
        matrices = rightHanded(self.imageToReference @ turned)
        return replace(self, pixels=np.ascontiguousarray(self.pixels[:, ::-1]), imageToReference=matrices)


def turnedRows(rows: int) -> np.ndarray:
    """(column, row, 0, 1) of an image to that of the image whose `rows` stand in the other order, (4, 4)."""
    matrix = np.eye(4)
    matrix[1, 1], matrix[1, 3] = -1.0, rows - 1.0
    return matrix


# --- what is registered


def readUltrasound(parameterNode) -> TrackedImages:
    """The images that a parameter node names as ultrasound: a sequence, its browser, a frame or a 3-D volume.

    Args:
        parameterNode: has `ultrasound`, `poseSequence`, `imageToProbe`, `presentFrameOnly` and `maximumFrames`.

    Raises:
        RenderError: for images that are not tracked, or that cannot be read.
    """
    node, calibration = parameterNode.ultrasound, parameterNode.imageToProbe
    sequence, browser = imageSequence(node)
    if sequence is None and node.IsA("vtkMRMLSequenceBrowserNode"):
        raise RenderError(
            _("The sequence browser '{name}' plays no images; choose the one of the ultrasound.").format(
                name=node.GetName()
            )
        )
    if sequence is not None and (not parameterNode.presentFrameOnly or isFlat(sequence.GetNthDataNode(0))):
        return _readSequence(sequence, browser, parameterNode)
    if sequence is not None:
        node = browser.GetProxyNode(sequence) if browser is not None else None
        if node is None:
            raise _noPresentFrame(sequence)
    return _readFrame(node, calibration) if isFlat(node) else _readVolume(node, calibration)


def imageSequence(node) -> tuple:
    """The image sequence behind a browser, a sequence or a played volume, and its browser; None where there is none."""
    if node.IsA("vtkMRMLSequenceBrowserNode"):
        images = [s for s in synchronizedSequences(node) if holds(s, "vtkMRMLVolumeNode")]
        tracked = (s for s in images if (proxy := node.GetProxyNode(s)) and plays(node, proxy.GetParentTransformNode()))
        return next(tracked, images[0] if images else None), node
    if node.IsA("vtkMRMLSequenceNode"):
        if not holds(node, "vtkMRMLVolumeNode"):
            raise RenderError(
                _("The sequence '{name}' holds no images; choose the image sequence of the ultrasound.").format(
                    name=node.GetName()
                )
            )
        return node, browserOf(node)
    return sequenceOf(node)


def _readSequence(sequence, browser, parameterNode) -> TrackedImages:
    name = (browser or sequence).GetName()
    links, reference, notes = sweepLinks(sequence, browser, parameterNode.poseSequence, parameterNode.imageToProbe)
    toWorld = staticToWorld(reference)
    count = sequence.GetNumberOfDataNodes()
    items = _evenly(count, parameterNode.maximumFrames)
    present = _presentItem(sequence, browser) if parameterNode.presentFrameOnly else None
    if present is not None:  # the others tell which transforms move, and so which pose is a lost one
        items = sorted({*items, present})
    values = [sequence.GetNthIndexValue(item) for item in items]
    found = dict(zip(items, sample(links, values, rigidTools=True)))
    tracked = [item for item in items if found[item] is not None]
    if not tracked:
        raise RenderError(
            _("No frame of '{name}' has valid tracking; record the sweep in view of the tracker.").format(name=name)
        )
    fileSkipped, fileNotes = readOrigin(sequence)
    skipped = len(items) - len(tracked) + fileSkipped
    if present is not None:
        if present not in tracked or (not links and count > 1):
            raise RenderError(
                _("The present frame of '{name}' is not tracked; browse to another one, or use all frames.").format(
                    name=name
                )
            )
        tracked, skipped, values = [present], 0, [sequence.GetNthIndexValue(present)]
    images = _read(sequence, tracked, [found[item] for item in tracked], name)
    if len(tracked) > 1 and np.abs(images.imageToReference - images.imageToReference[0]).max() < 1e-9:
        raise RenderError(
            _(
                "The frames of '{name}' are not tracked: all have the same pose. Put the image under the transform "
                "that was recorded with it, or name the recorded poses under Advanced."
            ).format(name=name)
        )
    return replace(
        images,
        referenceToWorld=toWorld,
        referenceNode=reference,
        skipped=skipped,
        notes=(*notes, *fileNotes, *_lateNotes(links, values)),
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


def _lateNotes(links: list, values: list[str]) -> list[str]:
    """Which poses were recorded at other times than the images; a sequence of one item does not move."""
    notes = []
    for poses in (link.sequence for link in links if link.sequence is not None):
        late = sum(poses.GetDataNodeAtValue(value, True) is None for value in values)
        if late and poses.GetNumberOfDataNodes() > 1:
            note = _("{n} frames have no pose of their own time in '{name}': the one before was taken.")
            notes.append(note.format(n=late, name=poses.GetName()))
    return notes


def _readFrame(volume, calibration) -> TrackedImages:
    above = transformsAbove(volume)
    links, notes = withCalibration(linksOf(above), above, calibration)
    matrix, local = sample(links, [""], rigidTools=True)[0], imageToRas(volume)
    directions = np.abs(local[:3, :3]) > 1e-6 * np.abs(local[:3, :3]).max()
    if not links and directions.sum() == 3:
        raise RenderError(
            _("The frame '{name}' is not tracked: put it under the transform of its probe.").format(
                name=volume.GetName()
            )
        )
    pose = (matrix @ local)[np.newaxis]
    return TrackedImages(_pixels(volume)[np.newaxis], pose, volume.GetName() or "", notes=notes)


def _readVolume(volume, calibration) -> TrackedImages:
    parent, name = volume.GetParentTransformNode(), volume.GetName() or ""
    if not isLinearToWorld(parent):
        raise RenderError(
            _("The ultrasound '{name}' hangs under a nonlinear transform; harden or remove it.").format(name=name)
        )
    notes = withCalibration([], transformsAbove(volume), calibration)[1]
    matrix, toWorld = ijkToRas(volume)[np.newaxis], staticToWorld(parent)
    return TrackedImages(
        _grey(volume), matrix, name, referenceToWorld=toWorld, referenceNode=parent, isVolume=True, notes=notes
    )


# --- what is shown


def readShownFrames(node, maximumFrames: int = 0, volume=None) -> TrackedImages:
    """The frames of the recording that plays a real image, where the scene would show them.

    Args:
        node: the image; alone, without a recording, it is the only frame.
        maximumFrames: how many are read, evenly chosen; 0 reads the present frame alone.
        volume: the node in whose own RAS the frames shall lie at every item; without it in world.

    Raises:
        RenderError: if the image is no frame, or the recording holds no pose.
    """
    _requireReal(node)
    name, (sequence, browser) = node.GetName() or "", sequenceOf(node)
    items = [] if sequence is None else _evenly(sequence.GetNumberOfDataNodes(), maximumFrames)
    values, browser = ([sequence.GetNthIndexValue(item) for item in items], browser) if items else ([""], None)
    parents = node.GetParentTransformNode(), None if volume is None else volume.GetParentTransformNode()
    toWorld, volumeToWorld = (sample(linksOf(transformsFrom(parent), browser), values) for parent in parents)
    found = [None if a is None or b is None else np.linalg.inv(b) @ a for a, b in zip(toWorld, volumeToWorld)]
    if not items:
        images = TrackedImages(_pixels(node)[np.newaxis], (found[0] @ imageToRas(node))[np.newaxis], name)
    else:
        tracked = [n for n, matrix in enumerate(found) if matrix is not None]
        if not tracked:
            raise RenderError(_("The recording of '{name}' holds no pose.").format(name=name))
        tracked = _ofSize(sequence, items, tracked, _pixels(node).shape)
        images = _read(sequence, [items[n] for n in tracked], [found[n] for n in tracked], name)
    return replace(images, imageToReference=rightHanded(images.imageToReference))


def _ofSize(sequence, items: list[int], chosen: list[int], shape: tuple) -> list[int]:
    """Those of some items whose frames are as large as the present one, as before the depth was changed; else all."""
    same = [n for n in chosen if _pixels(sequence.GetNthDataNode(items[n])).shape == shape]
    return same or chosen


def _requireReal(node) -> None:
    """Raises RenderError unless a volume node is an image of one slice that was not simulated here."""
    name = node.GetName() or ""
    if node.GetAttribute(SLICE_ATTRIBUTE) is not None:
        raise RenderError(_("'{name}' is a simulated image; choose a real one.").format(name=name))
    if scalarArray(node) is not None and not isFlat(node):
        raise RenderError(_("'{name}' is a volume, not a frame; choose an image of one slice.").format(name=name))


# --- pixels


def _read(sequence, items: list[int], matrices: list[np.ndarray], name: str) -> TrackedImages:
    """Some items of an image sequence, with the matrices (4, 4) that lead from their own RAS to the reference."""
    volumes = [sequence.GetNthDataNode(item) for item in items]
    pixels = [_pixels(volume) for volume in volumes]
    if any(frame.shape != pixels[0].shape for frame in pixels):
        raise RenderError(_("The frames of '{name}' differ in size; choose another recording.").format(name=name))
    poses = np.stack([matrix @ imageToRas(volume) for matrix, volume in zip(matrices, volumes)])
    times = indexTimes([sequence.GetNthIndexValue(item) for item in items])
    return TrackedImages(np.stack(pixels), poses, name, times, itemNumbers=tuple(items))


def _evenly(count: int, maximum: int) -> list[int]:
    return np.unique(np.linspace(0, count - 1, min(count, maximum)).round().astype(int)).tolist()


def _pixels(volume) -> np.ndarray:
    """The pixels (rows, columns) of a flat image, of the node's own type."""
    array = _grey(volume)
    if array.shape[0] != 1:
        raise RenderError(
            _("The frames of '{name}' are volumes: choose 'Only the present frame' to register one of them.").format(
                name=volume.GetName()
            )
        )
    return array[0]


def _grey(volume) -> np.ndarray:
    """Voxels (K, J, I) without a copy; colours are averaged, as the engine's reader does with those of a file."""
    array = scalarArray(volume)
    if array is None:
        raise RenderError(_("The ultrasound image '{name}' is empty; choose another.").format(name=volume.GetName()))
    if array.ndim == 3:
        return array
    grey = array[..., :3].mean(-1)
    return grey if array.dtype.kind == "f" else grey.round().astype(array.dtype)
