"""The module DiffUSRender as Slicer loads it: everything it does stands in DiffUSLib and diffus."""

import numpy as np
import slicer
import slicer.util
from DiffUSLib.i18n import _, translate
from DiffUSLib.panel import runSoon
from DiffUSLib.render.logic import RenderLogic
from DiffUSLib.render.parameter_node import RenderParameterNode
from DiffUSLib.render.widget import RenderWidget
from DiffUSLib.self_test import ModuleTest
from slicer.ScriptedLoadableModule import ScriptedLoadableModule, ScriptedLoadableModuleLogic

DOCUMENTATION = "https://github.com/gduguey/DiffUS/blob/main/Docs/render.md"


class DiffUSRender(ScriptedLoadableModule):
    """Name, category and help of the module."""

    def __init__(self, parent) -> None:
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = _("DiffUS Render")
        parent.categories = [translate("qSlicerAbstractCoreModule", "Ultrasound")]
        parent.dependencies = []
        parent.contributors = ["The DiffUS developers"]
        parent.helpText = _(
            "Shows the ultrasound image that a probe at its present pose would show of a loaded MRI, CT or "
            "segmentation. Choose the volume and the probe's transform (or create a probe and place it on the skin), "
            "then Apply, or tick Live to follow the probe. For research; not for clinical decisions."
        )
        parent.helpText += f' <a href="{DOCUMENTATION}">{_("Documentation")}</a>'
        parent.acknowledgementText = _(
            "Simulation after DiffUS: Differentiable Ultrasound Rendering from Volumetric Imaging, N. Bertramo, "
            "G. Duguey and V. Gopalakrishnan, 2025, arXiv:2508.06768."
        )


class DiffUSRenderWidget(RenderWidget):
    """The panel."""

    def createLogic(self):
        return DiffUSRenderLogic()


class DiffUSRenderLogic(ScriptedLoadableModuleLogic, RenderLogic):
    """The scene layer with Slicer's event loop: usable from a script, without the panel."""

    def __init__(self, parent=None) -> None:
        ScriptedLoadableModuleLogic.__init__(self, parent)
        RenderLogic.__init__(self, schedule=runSoon)


class DiffUSRenderTest(ModuleTest):
    """What Slicer's self-test of the module runs: one slice of a ball of tissue, from nodes to pixels."""

    def test_module(self) -> None:
        self.delayDisplay(_("Rendering a slice"))
        k, j, i = np.indices((60, 60, 60)) - 30
        volume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "CT")
        slicer.util.updateVolumeFromArray(volume, np.where(i * i + j * j + k * k < 25**2, 40, -1000).astype(np.int16))
        volume.SetOrigin(-30, -30, -30)
        logic = DiffUSRenderLogic()
        parameters = RenderParameterNode(logic.getParameterNode())
        parameters.inputVolume = volume
        logic.createProbe(parameters)
        logic.placeOnSkin(parameters, np.array([0.0, 25.0, 0.0]))
        pixels = slicer.util.arrayFromVolume(logic.render(parameters))
        self.assertEqual(pixels.dtype, np.uint8)
        self.assertGreater(float(pixels.std()), 5.0)
        logic.forgetScene()
