"""Slicer without its application: what slicer-core lacks, made small, so that the modules run under pytest.

Inside Slicer itself `prepare` changes nothing, so the same tests run there too.
"""

from __future__ import annotations

import sys
import unittest
from pathlib import Path
from types import ModuleType, SimpleNamespace

import slicer

ROOT = Path(__file__).resolve().parents[2]
_logics: list = []


def insideSlicer() -> bool:
    """Whether this is the real application."""
    return hasattr(slicer, "qMRMLWidget") and not hasattr(slicer, "_headless")


def prepare() -> None:
    """Puts the modules' folders onto the path and, outside of Slicer, the stand-ins into place. Harmless twice."""
    if insideSlicer():
        return
    for folder in ("DiffUSRender", "DiffUSRegister"):
        path = str(ROOT / folder)
        if path not in sys.path:
            sys.path.insert(0, path)
    if hasattr(slicer, "_headless"):
        return
    from . import parameter_node_wrapper, scripted_module

    i18n = ModuleType("slicer.i18n")
    i18n.tr = lambda text: text
    i18n.translate = lambda context, text: text
    for name, module in (
        ("i18n", i18n),
        ("parameterNodeWrapper", parameter_node_wrapper),
        ("ScriptedLoadableModule", scripted_module),
    ):
        sys.modules[f"slicer.{name}"] = module
        setattr(slicer, name, module)
    slicer.app = SimpleNamespace(
        setOverrideCursor=lambda cursor: None,
        restoreOverrideCursor=lambda: None,
        testingEnabled=lambda: True,
    )
    slicer._headless = True
    slicer.mrmlScene = slicer.vtkMRMLScene()


def newScene(needsTorch: bool = True):
    """An empty scene, in which sequences are played: `slicer.mrmlScene`; in Slicer, the application's, cleared.

    Raises:
        unittest.SkipTest: the test needs torch, and it is not installed.
    """
    prepare()
    if needsTorch:
        skipWithoutTorch()
    if insideSlicer():
        slicer.mrmlScene.Clear()
    else:
        slicer.mrmlScene = slicer.vtkMRMLScene()
        _logics[:] = [slicer.vtkSlicerSequencesLogic()]
        _logics[0].SetMRMLScene(slicer.mrmlScene)
    return slicer.mrmlScene


def skipWithoutTorch() -> None:
    """Skips the test, in words, where torch is missing; it is not imported, which takes seconds."""
    from DiffUSLib.torch_support import isTorchInstalled

    if not isTorchInstalled():
        raise unittest.SkipTest("torch is not installed (Slicer's extension PyTorch)")


class EventLoop:
    """Stands for the application's event loop and its clock: calls what was scheduled, when told to."""

    def __init__(self) -> None:
        self.pending: list = []
        self.later: list[tuple[float, object]] = []
        self.now = 0.0

    def schedule(self, call, seconds: float = 0.0) -> None:
        if seconds > 0:
            self.later.append((self.now + seconds, call))
        else:
            self.pending.append(call)

    def clock(self) -> float:
        """Seconds since the loop began; only `wait` makes them pass."""
        return self.now

    def run(self) -> int:
        """Makes the calls that are due now, and returns how many they were."""
        due, self.pending = self.pending, []
        for call in due:
            call()
        return len(due)

    def wait(self, seconds: float) -> int:
        """Lets so much time pass, makes the calls that come due, and returns how many they were."""
        end, count = self.now + seconds, self.run()
        while self.later and (first := min(self.later, key=lambda entry: entry[0]))[0] <= end:
            self.later.remove(first)
            self.now = max(self.now, first[0])
            first[1]()
            count += 1 + self.run()
        self.now = max(self.now, end)
        return count


prepare()
