"""One registration's inputs, read from the scene once: what is registered, and what the overlay shows of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import RenderError
from ..scene.fingerprint import Fingerprint, fingerprint
from ..scene.tracked import SceneUltrasound, imageSequence, readUltrasound
from .engine import Problem, readVolume, trackedSweep
from .overlay import OverlaySource, commonRange, greyRange
from .parameters import missingInput
from .start import LandmarkPairs, readLandmarks, startPosition


@dataclass(frozen=True)
class Session:
    """The nodes that were read, the engine's problem, and the poses that lead from it into the scene, (4, 4) mm."""

    volume: object
    fingerprint: Fingerprint
    nodes: tuple
    ultrasound: SceneUltrasound
    problem: Problem
    landmarks: LandmarkPairs | None
    startToWorld: np.ndarray
    overlay: OverlaySource
    key: tuple

    def volumeToWorld(self, mriToReference: np.ndarray) -> np.ndarray:
        """Where the volume lies in the world for an mri_to_reference."""
        return self.ultrasound.referenceToWorld @ np.asarray(mriToReference, dtype=np.float64)


def openSession(parameterNode) -> Session:
    """Reads everything; raises RenderError, and changes nothing, for input that cannot be used."""
    if sentence := missingInput(parameterNode):
        raise RenderError(sentence)
    volume = parameterNode.inputVolume
    landmarks = readLandmarks(parameterNode)
    start = startPosition(parameterNode, landmarks)
    ultrasound = readUltrasound(parameterNode)
    sweep = trackedSweep(ultrasound)
    voxels, ijkToRas, kind = readVolume(volume, parameterNode.kind, parameterNode.volumeSource)
    initial = np.linalg.inv(ultrasound.referenceToWorld) @ start
    low, high = greyRange(volume, voxels) if kind != "generic" else commonRange(voxels)
    overlay = OverlaySource(
        sweep.frames.numpy(),
        sweep.mask.numpy(),
        ultrasound.referenceToWorld @ sweep.image_to_reference.numpy(),
        voxels,
        ijkToRas,
        low,
        high,
    )
    return Session(
        volume,
        fingerprint(volume),
        _nodes(parameterNode),
        ultrasound,
        Problem(voxels, ijkToRas, kind, sweep, initial),
        landmarks,
        start,
        overlay,
        sessionKey(parameterNode),
    )


def sessionKey(parameterNode) -> tuple:
    """What tells whether an open session still shows the chosen nodes."""
    nodes = (parameterNode.inputVolume, parameterNode.ultrasound, parameterNode.poseSequence)
    return tuple(node.GetID() if node is not None else None for node in nodes)


def inputNames(parameterNode) -> list[str]:
    """Names of the chosen volume and ultrasound: what tells in a saved report whose result it is."""
    return [node.GetName() if node else "" for node in (parameterNode.inputVolume, parameterNode.ultrasound)]


def _nodes(parameterNode) -> tuple:
    """The nodes without which the work cannot go on."""
    ultrasound = parameterNode.ultrasound
    sequence, browser = imageSequence(ultrasound)
    found = [parameterNode.parameterNode, parameterNode.inputVolume, ultrasound, sequence, browser]
    return tuple(node for n, node in enumerate(found) if node is not None and node not in found[:n])
