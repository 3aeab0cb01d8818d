"""The self-test of a module, that Slicer runs where the extension is installed."""

from __future__ import annotations

import slicer
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleTest

from .i18n import _
from .torch_support import isTorchInstalled


class ModuleTest(ScriptedLoadableModuleTest):
    """Runs `test_module` on an empty scene; skipped in words without torch. Abstract."""

    def setUp(self) -> None:
        slicer.mrmlScene.Clear()

    def runTest(self) -> None:
        self.setUp()
        if not isTorchInstalled():
            self.delayDisplay(_("Skipped: torch is not installed (extension PyTorch)"))
            return
        self.test_module()
        self.delayDisplay(_("Test passed"))

    def test_module(self) -> None:
        """The work of the module, from nodes to its result."""
        raise NotImplementedError
