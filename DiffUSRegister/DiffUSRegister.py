"""The module DiffUSRegister as Slicer loads it: everything it does stands in DiffUSLib.register and diffus.register."""

import sys
import unittest
from pathlib import Path

import slicer

# Loaded from the source tree, this module may come before the one that it rests on; installed, both share a folder.
if (_render := Path(__file__).resolve().parents[1] / "DiffUSRender").is_dir() and str(_render) not in sys.path:
    sys.path.append(str(_render))

from DiffUSLib.i18n import _, translate
from DiffUSLib.panel import runSoon
from DiffUSLib.register.logic import RegisterLogic
from DiffUSLib.register.sample import registerSampleData
from DiffUSLib.register.widget import RegisterWidget
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
)

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


class DiffUSRegisterTest(ScriptedLoadableModuleTest):
    """Runs the scene tests, where they are installed beside the module (the generic self-test of Slicer)."""

    def runTest(self) -> None:
        tests = Path(__file__).resolve().parents[1] / "Testing" / "scene"
        suite = unittest.defaultTestLoader.discover(str(tests), pattern="register*Test.py") if tests.is_dir() else None
        if suite is not None:
            result = unittest.TextTestRunner(verbosity=2).run(suite)
            self.assertTrue(result.wasSuccessful())
        self.delayDisplay(_("Test passed"))
