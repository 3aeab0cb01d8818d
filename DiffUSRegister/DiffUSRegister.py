"""The module DiffUSRegister as Slicer loads it: everything it does stands in DiffUSLib.register and diffus.register."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import slicer
import slicer.util

# Loaded from the source tree, this module may come before the one that it rests on; installed, both share a folder.
if (_render := Path(__file__).resolve().parents[1] / "DiffUSRender").is_dir() and str(_render) not in sys.path:
    sys.path.append(str(_render))

from DiffUSLib.i18n import _, translate
from DiffUSLib.kinds import MediumKind
from DiffUSLib.panel import runSoon
from DiffUSLib.register.logic import RegisterLogic
from DiffUSLib.register.parameter_node import RegisterParameterNode
from DiffUSLib.register.sample import registerSampleData
from DiffUSLib.register.widget import RegisterWidget
from DiffUSLib.scene.sequences import addTrackedSweep
from DiffUSLib.self_test import ModuleTest
from slicer.ScriptedLoadableModule import ScriptedLoadableModule, ScriptedLoadableModuleLogic

DOCUMENTATION = "https://github.com/gduguey/DiffUS/blob/main/Docs/register.md"


class DiffUSRegister(ScriptedLoadableModule):
    """Name, category and help of the module."""

    def __init__(self, parent) -> None:
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = _("DiffUS Register")
        parent.categories = [translate("qSlicerAbstractCoreModule", "Ultrasound")]
        parent.dependencies = ["DiffUSRender"]
        parent.contributors = ["The DiffUS developers"]
        parent.helpText = _(
            "Registers tracked ultrasound to a loaded MRI or CT, and says how far the result can be trusted. "
            "Choose the volume and the ultrasound, then Apply; look at the overlay and the reasons before accepting. "
            "Accept moves the registered volume only, not what was drawn on it; Undo puts it back. "
            "Sample Data has a case to try it on. For research; not for clinical decisions."
        )
        parent.helpText += f' <a href="{DOCUMENTATION}">{_("Documentation")}</a>'
        parent.acknowledgementText = _("Similarity after Wein et al. 2013 and Fuerst et al. 2014 (LC2).")
        if hasattr(getattr(slicer, "app", None), "connect"):
            slicer.app.connect("startupCompleted()", registerSamples)


def registerSamples() -> None:
    """Puts the sample case into the module Sample Data, which is loaded once the application has started."""
    registerSampleData(Path(__file__).parent / "Resources" / "Icons")


class DiffUSRegisterWidget(RegisterWidget):
    """The panel."""

    def createLogic(self):
        return DiffUSRegisterLogic()


class DiffUSRegisterLogic(ScriptedLoadableModuleLogic, RegisterLogic):
    """The scene layer with Slicer's event loop: usable from a script, without the panel."""

    def __init__(self, parent=None) -> None:
        ScriptedLoadableModuleLogic.__init__(self, parent)
        RegisterLogic.__init__(self, schedule=runSoon)


class DiffUSRegisterTest(ModuleTest):
    """What Slicer's self-test of the module runs: a small sweep of a small volume, from nodes to the verdict."""

    def test_module(self) -> None:
        self.delayDisplay(_("Registering a sweep"))
        shift = np.array([3.0, -2.0, 2.0])  # mm, from where the volume lies to where the sweep was made
        volume, browser = addSweptVolume(slicer.mrmlScene, shift)
        logic = DiffUSRegisterLogic()
        logic._build = shortRegistration
        parameters = RegisterParameterNode(logic.getParameterNode())
        parameters.inputVolume, parameters.kind, parameters.ultrasound = volume, MediumKind.MRI, browser
        logic.runToEnd(parameters)
        report = json.loads(parameters.report)
        self.assertIn(report["verdict"], ("trusted", "check", "rejected"))
        self.assertTrue(report["reasons"])
        np.testing.assert_allclose(np.array(report["volume_to_world"])[:3, 3], shift, atol=0.5)
        logic.forgetScene()


def shortRegistration(problem, _parameters):
    """The engine's registration with a small search, for the self-test."""
    from diffus.register.registration import RigidRegistration, Settings

    search = replace(Settings().search, samples=256, around=8, copies=2, starts=4)
    settings = replace(Settings(), translation_mm=5.0, rotation_deg=4.0, search=search, levels=Settings().levels[:2])
    return RigidRegistration(
        problem.voxels, problem.ijkToRas, problem.sweep, initial=problem.initial, kind=problem.kind, settings=settings
    )


def addSweptVolume(scene, shift: np.ndarray, count: int = 8):
    """A volume of random texture, and a browser that plays `count` slices through it at `shift` (3,) mm."""
    from scipy import ndimage

    size, spacing, pixel = 56, 1.5, 0.8  # voxels, and mm
    texture = ndimage.gaussian_filter(np.random.default_rng(0).standard_normal((size, size, size)), 2.0)
    texture = (100 * (texture - texture.min()) / np.ptp(texture)).astype(np.float32)
    volume = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "MRI")
    slicer.util.updateVolumeFromArray(volume, texture)
    volume.SetSpacing(spacing, spacing, spacing)
    poses = np.tile(np.eye(4), (count, 1, 1))
    poses[:, :3, 3] = [(20.0, 20.0, 25.0 + 2.5 * n) for n in range(count)]
    row, column = np.indices((60, 60)) * pixel
    plane = np.stack([column, row, np.zeros_like(row)])
    voxels = ((plane + (pose[:3, 3] - shift)[:, None, None])[::-1] / spacing for pose in poses)
    frames = np.stack([2 * ndimage.map_coordinates(texture, place, order=1) for place in voxels])
    times = [0.1 * n for n in range(count)]
    pixelToProbe = np.diag([pixel, pixel, pixel, 1.0])
    frames = frames.round().astype(np.uint8)
    return volume, addTrackedSweep(scene, "Sweep", frames, pixelToProbe, poses, "ProbeToReference", times)
