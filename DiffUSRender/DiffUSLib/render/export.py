"""Export of the simulated slice, or of a sweep simulated along a recording, to files or into the scene."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import slicer

from .. import engine
from ..errors import RenderError
from ..i18n import _
from ..run import Schedule, SteppedWork
from ..scene.chain import linksOf, plays, sample, transformsFrom
from ..scene.dicom import sourceOf
from ..scene.sequences import addTrackedSweep, indexTimes
from ..scene.slice_node import showFanOnly
from ..scene.transforms import isLinearToWorld, nodeToWorld, poseInVolume, probeToVolume, requireRigid
from ..scene.voxels import MediumCache
from ..torch_support import requireTorch
from .acoustic_maps import showAcousticMaps
from .parameters import ExportFormat, mediumInputs, missingForExport, readParameters

RENDERING_FRACTION = 0.85  # of the progress bar; the rest is for writing
# What a file of each format ends with: of one slice, and of a sweep.
ENDINGS = {
    ExportFormat.NRRD: (".nrrd", ".seq.nrrd"),
    ExportFormat.IGS: (".igs.mha", ".igs.mha"),
    ExportFormat.PNG: (".png", ".png"),
    ExportFormat.GIF: (".gif", ".gif"),
    ExportFormat.MP4: (".mp4", ".mp4"),
    ExportFormat.DICOM: (".dcm", ".dcm"),
}


@dataclass(frozen=True)
class ExportState:
    """How far an export is: whether it renders or writes already, and the fraction that is done, 0 to 1."""

    writing: bool
    progress: float


def exportPath(parameterNode) -> Path:
    """The file to be written: the chosen one, with the ending that the format needs instead of another format's."""
    path = Path(parameterNode.exportPath.strip()).expanduser()
    name = path.name
    if not name:
        raise RenderError(_("Choose the file to write."))
    known = {ending for pair in ENDINGS.values() for ending in pair}
    for ending in sorted(known, key=len, reverse=True):
        if name.lower().endswith(ending):
            name = name[: -len(ending)]
            break
    return path.with_name(name + ENDINGS[parameterNode.exportFormat][parameterNode.exportBrowser is not None])


@dataclass(frozen=True)
class ProbePoses:
    """Poses of a probe: probeToWorld (K, 4, 4) mm; to the volume's own RAS, each a matrix or a transform; times, s.

    lost: at how many items of the recording there is no pose.
    """

    probeToWorld: np.ndarray
    probeToVolume: list
    times: list[float] | None = None
    lost: int = 0


class SliceExport(SteppedWork):
    """Exports what a parameter node says, in steps; a failed or cancelled export leaves neither file nor node.

    media: where the medium comes from. schedule: calls a function once, soon, from the event loop.
    onState: gets every `ExportState`. onEnded: gets one sentence at the end: what was written, or why nothing was.
    """

    def __init__(self, media: MediumCache, schedule: Schedule) -> None:
        super().__init__(
            schedule,
            busy=_("An export is running: cancel it first."),
            failed=_("The export has stopped after an error: {error}"),
            cancelled=_("The export was cancelled; nothing was written."),
        )
        self._media = media

    def steps(self, parameterNode) -> Iterator[ExportState]:
        if sentence := missingForExport(parameterNode):
            raise RenderError(sentence)
        requireTorch()
        volume, probe, browser = parameterNode.inputVolume, parameterNode.probeTransform, parameterNode.exportBrowser
        if not isLinearToWorld(probe):
            raise RenderError(
                _(
                    "The probe '{name}' is moved by a nonlinear transform: its pose cannot be written; harden it."
                ).format(name=probe.GetName())
            )
        if browser is None:
            poses = ProbePoses(nodeToWorld(probe)[np.newaxis], [probeToVolume(probe, volume)])
        else:
            poses = _recordedPoses(probe, volume, browser)
        write = self._sceneWriter(browser)
        if parameterNode.exportFormat is not ExportFormat.SCENE:
            write = self._fileWriter(parameterNode, len(poses.probeToVolume))
        renderer = engine.buildRenderer(readParameters(parameterNode))
        chosen = mediumInputs(parameterNode)
        return self._steps(poses, renderer, lambda: self._media.medium(*chosen), write)

    def showMaps(self, parameterNode) -> list:
        """The acoustic maps of the input as volumes in the scene; raises RenderError without one."""
        if parameterNode is None or parameterNode.inputVolume is None:
            raise RenderError(_("Choose a volume (MRI, CT) or a segmentation."))
        requireTorch()
        return showAcousticMaps(parameterNode, self._media)

    def _steps(self, poses: ProbePoses, renderer, buildMedium, write) -> Iterator[ExportState]:
        self._report = ""
        yield ExportState(False, 0.0)
        medium = buildMedium()
        weight, pixels = renderer.settings.persistence, []
        persistence = engine.buildPersistence(weight) if weight > 0 else None
        for number, pose in enumerate(poses.probeToVolume, 1):
            pixels.append(engine.renderPixels(renderer, medium, pose, number - 1, persistence))
            yield ExportState(False, RENDERING_FRACTION * number / len(poses.probeToVolume))
        yield from write(engine.simulatedFrames(renderer, np.stack(pixels), poses.probeToWorld, poses.times))
        if poses.lost:
            lost = _("{n} items of the recording have no valid tracking and were left out.").format(n=poses.lost)
            self._report = f"{self._report} {lost}"

    def _fileWriter(self, parameterNode, count: int) -> Callable:
        path = exportPath(parameterNode)
        engine.checkExport(path, count)
        isDicom = parameterNode.exportFormat is ExportFormat.DICOM
        source = sourceOf(parameterNode.inputVolume) if isDicom else None
        includePatient = parameterNode.exportPatient

        def write(frames) -> Iterator[ExportState]:
            for done in engine.exportFrames(frames, path, source, includePatient):
                yield ExportState(True, RENDERING_FRACTION + (1 - RENDERING_FRACTION) * done / count)
            series = path.suffix == ".png" and count > 1
            text = _("Written: {path} (1 slice).") if count == 1 else _("Written: {path} ({n} slices).")
            self._report = text.format(path=path.with_suffix("") if series else path, n=count)

        return write

    def _sceneWriter(self, browser) -> Callable:
        scene = slicer.mrmlScene

        def write(frames) -> Iterator[ExportState]:
            yield ExportState(True, RENDERING_FRACTION)
            added = addTrackedSweep(
                scene,
                scene.GenerateUniqueName(_("Simulated {name}").format(name=browser.GetName())),
                frames.pixels,
                frames.pixel_to_probe,
                frames.probe_to_reference,
                "ProbeToReference",
                frames.timestamps.tolist(),
                simulated=True,
            )
            showFanOnly(added.GetProxyNode(added.GetMasterSequenceNode()).GetDisplayNode())
            self._report = _("'{name}' plays the simulated sweep.").format(name=added.GetName())

        return write


def _recordedPoses(probeNode, volumeNode, browser) -> ProbePoses:
    """The poses at the items of a sequence browser that plays a transform above the probe or the volume.

    Raises RenderError where the browser moves neither, or where a pose cannot be used.
    """
    parent = volumeNode.GetParentTransformNode()
    volumeMoves = plays(browser, parent)
    if not volumeMoves and not plays(browser, probeNode):
        raise RenderError(
            _(
                "The recording '{name}' does not move the probe '{probe}': choose the one that plays its transform."
            ).format(name=browser.GetName(), probe=probeNode.GetName())
        )
    if volumeMoves and not isLinearToWorld(parent):
        raise RenderError(
            _("A nonlinear transform above the volume '{name}' is played too; harden it, or take it away.").format(
                name=volumeNode.GetName()
            )
        )
    master = browser.GetMasterSequenceNode()
    values = [master.GetNthIndexValue(item) for item in range(browser.GetNumberOfItems())]
    toWorld = sample(linksOf(transformsFrom(probeNode), browser), values)
    volumes = sample(linksOf(transformsFrom(parent if volumeMoves else None), browser), values)
    found = [n for n, pose in enumerate(toWorld) if pose is not None and volumes[n] is not None]
    if not found:
        raise RenderError(_("The recording '{name}' holds no pose.").format(name=browser.GetName()))
    poses = [toWorld[n] for n in found]
    for pose in poses:
        requireRigid(pose, probeNode.GetName())
    inVolume = [
        np.linalg.inv(volumes[n]) @ pose if volumeMoves else poseInVolume(pose, volumeNode)
        for n, pose in zip(found, poses)
    ]
    return ProbePoses(np.stack(poses), inVolume, indexTimes([values[n] for n in found]), len(values) - len(found))
