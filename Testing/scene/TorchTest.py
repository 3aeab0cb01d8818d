"""PyTorch: used as it is, brought by the extension, or asked for in one sentence; never needed to load the module."""

from __future__ import annotations

import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import builtins
import subprocess
import textwrap
from types import ModuleType, SimpleNamespace
from unittest import mock

import headless
from DiffUSLib import torch_support
from DiffUSLib.errors import RenderError

# torch, and what the development environment has but Slicer has not
NOT_IN_SLICER = ("torch", "PySide6", "click", "rich", "jaxtyping", "skimage", "matplotlib", "nilearn", "pandas")
LOAD_WITHOUT_TORCH = textwrap.dedent(
    """
    import importlib.abc, sys

    class Absent(importlib.abc.MetaPathFinder):
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] in {absent}:
                raise ModuleNotFoundError("No module named " + repr(name), name=name)

    sys.meta_path.insert(0, Absent())
    sys.path[:0] = {paths}
    import headless
    import slicer
    import DiffUSRender
    scene = headless.newScene(needsTorch=False)
    logic = DiffUSRender.DiffUSRenderLogic()
    from DiffUSLib.errors import RenderError
    from headless.fixtures import addHead, addParameterNode, addTransform
    parameters = addParameterNode(addHead(), addTransform())
    count = scene.GetNumberOfNodes()
    try:
        logic.render(parameters)
    except RenderError as error:
        print(error)
    assert scene.GetNumberOfNodes() == count
    from DiffUSLib.render.settings_file import saveSettings
    try:
        saveSettings(parameters, "settings.json")
    except RenderError as error:
        assert "PyTorch is not installed" in str(error)
    probe = logic.createProbe(parameters)
    assert probe is not None and "diffus.render.renderer" not in sys.modules
    """
)


def withoutTorch(installer: ModuleType | None):
    """Makes `torch` absent, and `PyTorchUtils` what is given."""

    def importModule(name):
        if name == "PyTorchUtils" and installer is not None:
            return installer
        raise ModuleNotFoundError(f"No module named {name!r}")

    return mock.patch.object(torch_support.importlib, "import_module", importModule)


class TorchTest(unittest.TestCase):
    def testATorchThatImportsIsUsedWithoutAsking(self):
        headless.skipWithoutTorch()
        with mock.patch.object(builtins, "input", side_effect=AssertionError):
            torch_support.requireTorch()

    def testWithoutTheExtensionItIsNamed(self):
        with withoutTorch(None), self.assertRaisesRegex(RenderError, "install the 'PyTorch' extension"):
            torch_support.requireTorch()

    def testTheExtensionInstallsIt(self):
        asked = []
        installer = ModuleType("PyTorchUtils")
        answer = SimpleNamespace(installTorch=lambda **options: asked.append(options) or object())
        installer.PyTorchUtilsLogic = lambda: answer
        with withoutTorch(installer):
            torch_support.requireTorch()
        self.assertEqual(asked, [{"askConfirmation": True, "torchVersionRequirement": ">=2.2"}])

    def testTheUserMayDecline(self):
        installer = ModuleType("PyTorchUtils")
        installer.PyTorchUtilsLogic = lambda: SimpleNamespace(installTorch=lambda **options: None)
        with withoutTorch(installer), self.assertRaisesRegex(RenderError, "was not installed"):
            torch_support.requireTorch()

    def testAFailedInstallationIsOneSentence(self):
        def fail(**options):
            raise OSError("no network")

        installer = ModuleType("PyTorchUtils")
        installer.PyTorchUtilsLogic = lambda: SimpleNamespace(installTorch=fail)
        with withoutTorch(installer), self.assertRaisesRegex(RenderError, r"could not be installed \(no network\)"):
            torch_support.requireTorch()

    @unittest.skipIf(headless.insideSlicer(), "needs an interpreter of its own")
    def testTheModuleLoadsAndSpeaksWithoutTorch(self):
        testing = Path(__file__).resolve().parents[1]
        code = LOAD_WITHOUT_TORCH.format(
            absent=NOT_IN_SLICER,
            paths=[str(testing), str(testing.parent / "DiffUSRender")],
        )
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertIn("install the 'PyTorch' extension", run.stdout)


if __name__ == "__main__":
    unittest.main()
