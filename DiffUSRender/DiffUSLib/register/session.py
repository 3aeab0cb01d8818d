"""One registration's inputs, read from the scene once: what is registered, and what the overlay shows of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .. import engine
from ..errors import RenderError
from ..kinds import MediumKind
from ..scene.fingerprint import Fingerprint, fingerprint
from ..scene.tracked import imageSequence, readUltrasound
from ..scene.voxels import MediumCache, guessKind, readVoxels
from .overlay import OverlaySource, commonRange, greyRange
from .parameters import VolumeSource, missingInput
from .start import LandmarkPairs, readLandmarks, startPosition

if TYPE_CHECKING:
    from diffus.sweep.sweep import TrackedSweep


@dataclass(frozen=True)
class Session:
    """What is registered. Matrices (4, 4) in mm.

    voxels: (K, J, I) with ijkToRas and the engine's name of their kind. initial: the first guess of mri_to_reference.
    nodes: those without which the work cannot go on. shown: what is kept after the run.
    """

    volume: object
    fingerprint: Fingerprint
    nodes: tuple
    voxels: np.ndarray
    ijkToRas: np.ndarray
    kind: str
    sweep: TrackedSweep
    initial: np.ndarray
    referenceNode: object
    referenceToWorld: np.ndarray
    landmarks: LandmarkPairs | None
    startToWorld: np.ndarray
    shown: OverlaySource

    def volumeToWorld(self, mriToReference: np.ndarray) -> np.ndarray:
        """Where the volume lies in the world for an mri_to_reference."""
        return self.referenceToWorld @ np.asarray(mriToReference, dtype=np.float64)


def openSession(parameterNode) -> Session:
    """Reads everything; raises RenderError, and changes nothing, for input that cannot be used."""
    if sentence := missingInput(parameterNode):
        raise RenderError(sentence)
    volume = parameterNode.inputVolume
    landmarks = readLandmarks(parameterNode)
    start = startPosition(parameterNode, landmarks)
    images = readUltrasound(parameterNode)
    sweep = engine.trackedSweep(images)
    voxels, ijkToRas, kind = readVolume(volume, parameterNode.kind, parameterNode.volumeSource)
    low, high = greyRange(volume, voxels) if kind != "generic" else commonRange(voxels)
    frames = (sweep.frames.numpy() * 255).round().astype(np.uint8)
    imageToWorld = images.referenceToWorld @ sweep.image_to_reference.numpy()
    key = sessionKey(parameterNode)
    shown = OverlaySource(
        frames, sweep.mask.numpy(), imageToWorld, voxels, ijkToRas, low, high, images.itemNumbers, key
    )
    return Session(
        volume,
        fingerprint(volume),
        _nodes(parameterNode),
        voxels,
        ijkToRas,
        kind,
        sweep,
        np.linalg.inv(images.referenceToWorld) @ start,
        images.referenceNode,
        images.referenceToWorld,
        landmarks,
        start,
        shown,
    )


def readVolume(node, kind: MediumKind, source: VolumeSource) -> tuple[np.ndarray, np.ndarray, str]:
    """Voxels (K, J, I), ijkToRas (4, 4) and the engine's name of their kind; labels always become impedance."""
    if kind is MediumKind.AUTO:
        kind = guessKind(node)
    if source is VolumeSource.RAW and kind is not MediumKind.LABELS:
        voxels = readVoxels(node, kind)
        return voxels.array, voxels.ijkToRas, kind.value
    medium = MediumCache().medium(node, kind)
    return medium.maps[0].cpu().numpy(), medium.ijk_to_ras.numpy(), "generic"


def sessionKey(parameterNode) -> tuple:
    """What tells whether an open session still shows the chosen nodes."""
    nodes = (parameterNode.inputVolume, parameterNode.ultrasound, parameterNode.poseSequence)
    return tuple(node.GetID() if node is not None else None for node in nodes)


def inputNames(parameterNode) -> list[str]:
    """Names of the chosen volume and ultrasound: what tells in a saved report whose result it is."""
    return [node.GetName() if node else "" for node in (parameterNode.inputVolume, parameterNode.ultrasound)]


def _nodes(parameterNode) -> tuple:
    ultrasound = parameterNode.ultrasound
    sequence, browser = imageSequence(ultrasound)
    found = [parameterNode.parameterNode, parameterNode.inputVolume, ultrasound, sequence, browser]
    return tuple(node for n, node in enumerate(found) if node is not None and node not in found[:n])
