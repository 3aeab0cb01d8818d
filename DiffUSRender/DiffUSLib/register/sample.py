"""The sample case of Sample Data: a tracked sweep simulated at load on the head MRI that Slicer provides itself.

Nothing is shipped, and nothing downloaded but Slicer's own sample.
"""

from __future__ import annotations

import importlib
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import slicer
import slicer.util

from ..engine import engineErrors, probeSettings
from ..errors import RenderError
from ..i18n import _
from ..scene.sequences import addTrackedSweep
from ..scene.transforms import ijkToRas, nodeToWorld, toVtk
from ..torch_support import requireTorch

CATEGORY, SAMPLE_NAME, HEAD = "DiffUS", "DiffUSBrainSweep", "MRHead"
THUMBNAIL = "DiffUSSampleCase.png"
TARGETS_ATTRIBUTE = "DiffUSRegister.Targets"
FRAMES_PER_S = 10.0
START_DEPTH_MM = 2.0  # gel and dura under the probe's face, for DiffUS Render

# Takes what is being done and the fraction done, 0..1; says whether to go on.
Progress = Callable[[str, float], bool]


@dataclass(frozen=True)
class SampleNodes:
    """What the case puts into the scene; the transforms bring the volume onto the ultrasound."""

    volume: object
    browser: object
    image: object
    probe: object
    firstGuess: object
    truth: object


def registerSampleData(iconsFolder: str | Path) -> None:
    """Adds the case to the module Sample Data, once; nothing where that module is absent."""
    try:
        sampleData = importlib.import_module("SampleData")
    except ImportError:
        return
    sampleData.SampleDataLogic.registerCustomSampleDataSource(
        category=CATEGORY,
        sampleName=SAMPLE_NAME,
        uris="",
        fileNames=SAMPLE_NAME,
        customDownloader=loadFromSampleData,
        thumbnailFileName=str(Path(iconsFolder) / THUMBNAIL),
    )


def loadFromSampleData(source=None) -> list:
    """What the button of Sample Data does: the case with a progress dialog, or one sentence on why not."""
    dialog = slicer.util.createProgressDialog(
        labelText=_("Preparing the DiffUS sample case"), windowTitle=_("DiffUS sample case"), modal=True
    )

    def show(text: str, fraction: float) -> bool:
        dialog.setLabelText(text)
        dialog.setValue(round(100 * fraction))
        slicer.app.processEvents()
        return not dialog.wasCanceled

    nodes, sentence = None, ""
    try:
        nodes = loadSampleCase(progress=show)
    except RenderError as error:
        sentence = str(error)
    finally:
        dialog.close()
    if sentence:
        slicer.util.errorDisplay(sentence)
    return [nodes.volume, nodes.browser] if nodes is not None else []


def loadSampleCase(
    loadHead: Callable[[], object] | None = None, progress: Progress = lambda text, fraction: True
) -> SampleNodes | None:
    """Loads the head, simulates the sweep, and makes everything ready in both modules.

    Args:
        loadHead: adds a T1-weighted MRI of a head to the scene and returns its node; Slicer's MRHead by default.
        progress: gets what is being done.

    Returns:
        The nodes; None if it was cancelled.

    Raises:
        RenderError: without torch, without the head, or for a volume that is none; nothing is added then.
    """
    progress(_("Loading PyTorch"), 0.0)
    requireTorch()
    progress(_("Downloading the head MRI"), 0.05)
    volume = (loadHead or downloadHead)()
    try:
        case = _simulate(volume, progress)
    except RenderError:
        _remove(volume)
        raise
    if case is None:
        _remove(volume)
        return None
    return _addToScene(volume, case)


def downloadHead():
    """The node of Slicer's sample MRHead, downloaded or from the cache; raises RenderError if there is none."""
    sampleData = importlib.import_module("SampleData")
    try:
        nodes = sampleData.SampleDataLogic().downloadSamples(HEAD)
    except Exception as error:  # whatever the network, the cache and the reader may raise
        logging.exception("DiffUS sample case")
        nodes, reason = [], str(error)
    else:
        reason = _("no data came")
    for node in nodes:
        if hasattr(node, "IsA") and node.IsA("vtkMRMLScalarVolumeNode"):
            return node
    raise RenderError(
        _("The head MRI could not be downloaded ({reason}): check the network connection and try again.").format(
            reason=reason
        )
    )


def errorMm(transformNode) -> float:
    """Mean distance, mm, at the last loaded case's targets between a transform of the volume to world and the truth."""
    scene = transformNode.GetScene()
    nodes = slicer.util.getNodesByClass("vtkMRMLLinearTransformNode", scene)
    truth = next((node for node in reversed(nodes) if node.GetAttribute(TARGETS_ATTRIBUTE)), None)
    if truth is None:
        raise RenderError(_("There is no sample case in the scene: load it in the module Sample Data."))
    difference = nodeToWorld(transformNode) - nodeToWorld(truth)
    targets = np.array(json.loads(truth.GetAttribute(TARGETS_ATTRIBUTE)))
    return float(np.linalg.norm(targets @ difference[:3, :3].T + difference[:3, 3], axis=1).mean())


def _simulate(volume, progress: Progress):
    from diffus.sweep.simulated_head import SampleCaseSimulation

    texts = {"finding the brain": _("Finding the brain"), "tissue": _("Making tissue of the MRI")}
    with engineErrors():
        simulation = SampleCaseSimulation(slicer.util.arrayFromVolume(volume), ijkToRas(volume))
        for stage, fraction in simulation:
            if not progress(texts.get(stage, _("Scanning the head")), 0.2 + 0.8 * fraction):
                return None
    return simulation.result


def _addToScene(volume, case) -> SampleNodes:
    from diffus.sweep.simulated_head import first_guess

    scene = volume.GetScene()
    volume.SetName(scene.GenerateUniqueName(_("DiffUS sample head")))
    times = [n / FRAMES_PER_S for n in range(len(case.sweep))]
    browser = addTrackedSweep(
        scene,
        _("DiffUS sample sweep"),
        case.sweep.frames.mul(255).round().byte().numpy(),
        case.pixel_to_probe,
        case.sweep.image_to_reference.numpy() @ np.linalg.inv(case.pixel_to_probe),
        "ProbeToReference",
        times,
    )
    browser.SetPlaybackRateFps(FRAMES_PER_S)
    image = browser.GetProxyNode(browser.GetMasterSequenceNode())
    probe = image.GetParentTransformNode()
    probe.SetName(scene.GenerateUniqueName(_("DiffUS sample probe")))
    guess = _addTransform(scene, _("DiffUS first guess"), first_guess(case))
    truth = _addTransform(scene, _("DiffUS truth"), case.mri_to_reference)
    truth.SetAttribute(TARGETS_ATTRIBUTE, json.dumps(case.targets.tolist()))
    truth.SetDescription(_("Where the head really lies: put it under this transform to check a registration."))
    volume.SetAndObserveTransformNodeID(guess.GetID())
    nodes = SampleNodes(volume, browser, image, probe, guess, truth)
    _prepareModules(nodes)
    return nodes


def _prepareModules(nodes: SampleNodes) -> None:
    """Chooses the case's nodes in both modules, and gives DiffUS Render the probe that the sweep was made with."""
    from diffus.sweep.simulated_head import PROBE

    from ..kinds import MediumKind
    from ..render.logic import RenderLogic
    from ..render.parameter_node import RenderParameterNode
    from ..render.parameters import ProbePreset, ProbeSettings, writeProbe
    from .parameter_node import RegisterParameterNode
    from .parameters import StartFrom

    scene = nodes.volume.GetScene()
    register = RegisterParameterNode(_moduleNode(scene, "DiffUSRegister"))
    register.inputVolume, register.kind, register.ultrasound = nodes.volume, MediumKind.MRI, nodes.browser
    register.startFrom, register.initialTransform = StartFrom.PRESENT, nodes.firstGuess
    register.poseSequence = register.imageToProbe = None
    register.volumeLandmarks = register.ultrasoundLandmarks = None
    render = RenderParameterNode(_moduleNode(scene, "DiffUSRender"))
    render.inputVolume, render.kind, render.probeTransform = nodes.volume, MediumKind.MRI, nodes.probe
    render.realImage = nodes.image
    render.preset, render.startDepthMm = ProbePreset.CUSTOM, START_DEPTH_MM
    shape = ("frequency_mhz", "depth_mm", "fov_deg", "radius_mm", "focus_mm", "elevation_mm")  # the resolution stays
    writeProbe(render, probeSettings(PROBE, ProbeSettings(), shape))
    RenderLogic().updateFan(render)


def _moduleNode(scene, moduleName: str):
    """The one parameter node of a module, as its logic would find or make it."""
    node = scene.GetSingletonNode(moduleName, "vtkMRMLScriptedModuleNode")
    if node is None:
        node = scene.CreateNodeByClass("vtkMRMLScriptedModuleNode")
        node.UnRegister(None)
        node.SetName(moduleName)
        node.SetSingletonTag(moduleName)
        node = scene.AddNode(node)
    node.SetAttribute("ModuleName", moduleName)
    return node


def _addTransform(scene, name: str, matrix: np.ndarray):
    node = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", scene.GenerateUniqueName(name))
    node.SetMatrixTransformToParent(toVtk(matrix))
    return node


def _remove(volume) -> None:
    """Takes a volume and its display out of the scene again."""
    scene = volume.GetScene()
    for n in reversed(range(volume.GetNumberOfDisplayNodes())):
        scene.RemoveNode(volume.GetNthDisplayNode(n))
    scene.RemoveNode(volume)
