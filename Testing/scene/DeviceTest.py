"""The device that the user chose reaches the engine; one that is not there gets one sentence."""

from __future__ import annotations

import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from types import SimpleNamespace
from unittest import mock

import headless
import numpy as np
from DiffUSLib.declared import engineValues
from DiffUSLib.engine import buildRegistration, engineErrors
from DiffUSLib.errors import RenderError
from DiffUSLib.kinds import Device, MediumKind
from DiffUSLib.register.parameter_node import RegisterParameterNode
from DiffUSLib.register.parameters import RegisterParameters, readParameters
from DiffUSLib.render.logic import RenderLogic
from DiffUSLib.render.parameter_node import RenderParameterNode
from DiffUSLib.render.parameters import IMAGE
from DiffUSLib.scene.voxels import MediumCache
from DiffUSLib.torch_support import torchDevice
from headless.fixtures import addHead, addParameterNode


def withGpu(there: bool):
    """A machine with or without a CUDA GPU."""
    return mock.patch("torch.cuda.is_available", return_value=there)


class Moved:
    """Instead of moving media to devices, notes where to."""

    def __init__(self) -> None:
        self.devices: list[str] = []

    def __enter__(self):
        from diffus.medium import AcousticMedium

        def moved(medium, device):
            self.devices.append(device)
            return medium

        self._patch = mock.patch.object(AcousticMedium, "to", moved)
        self._patch.start()
        return self

    def __exit__(self, *error) -> None:
        self._patch.stop()


class DeviceTest(unittest.TestCase):
    def setUp(self):
        self.scene = headless.newScene()

    def testAutomaticTakesAGpuWhereThereIsOne(self):
        for there, name in ((True, "cuda"), (False, "cpu")):
            with withGpu(there):
                self.assertEqual(torchDevice(Device.AUTO), name)
                self.assertEqual(torchDevice(Device.CPU), "cpu")
        with withGpu(True):
            self.assertEqual(torchDevice(Device.CUDA), "cuda")

    def testADeviceThatIsNotThereGetsOneSentence(self):
        mps = mock.patch("torch.backends.mps.is_available", return_value=False)
        with withGpu(False), mps:
            for device, words in ((Device.CUDA, "no NVIDIA GPU"), (Device.MPS, "no Apple GPU")):
                with self.assertRaisesRegex(RenderError, words) as caught:
                    torchDevice(device)
                self.assertEqual(str(caught.exception).count("."), 1)

    def testTheSliceIsRenderedOnTheChosenDevice(self):
        logic, node = RenderLogic(), addParameterNode(addHead(), None)
        logic.createProbe(node)
        logic.placeOnSkin(node, np.array([0.0, 60.0, 0.0]))
        with withGpu(True), Moved() as moved:
            logic.render(node)
            node.device = Device.CPU
            logic.render(node)
            logic.render(node)
            node.device = Device.CUDA
            logic.render(node)
        self.assertEqual(moved.devices, ["cuda", "cpu", "cuda"])
        with withGpu(False), self.assertRaisesRegex(RenderError, "no NVIDIA GPU"):
            logic.render(node)

    def testAMediumIsKeptForItsDevice(self):
        cache, head = MediumCache(), addHead()
        with withGpu(True), Moved():
            first = cache.medium(head, MediumKind.CT, None, Device.CPU)
            self.assertIs(cache.medium(head, MediumKind.CT, None, Device.CPU), first)
            second = cache.medium(head, MediumKind.CT, None, Device.CUDA)
            self.assertIsNot(second, first)
            self.assertIs(cache.medium(head, MediumKind.CT, None, Device.AUTO), second)

    def testTheRegistrationComputesOnTheChosenDevice(self):
        node = RegisterParameterNode(self.scene.AddNewNodeByClass("vtkMRMLScriptedModuleNode"))
        self.assertIs(node.device, Device.AUTO)
        node.device = Device.CUDA
        session = SimpleNamespace(voxels=None, ijkToRas=None, sweep=None, initial=None, kind="mri")
        with mock.patch("diffus.register.registration.RigidRegistration") as registration:
            with withGpu(True):
                buildRegistration(session, readParameters(node))
            self.assertEqual(registration.call_args.kwargs["device"], "cuda")
            with withGpu(False), self.assertRaisesRegex(RenderError, "no NVIDIA GPU"):
                buildRegistration(session, readParameters(node))
            mps = mock.patch("torch.backends.mps.is_available", return_value=True)
            with mps, self.assertRaisesRegex(RenderError, "double precision"):
                buildRegistration(session, RegisterParameters(device=Device.MPS))

    def testAGpuWithoutMemoryGetsOneSentence(self):
        import torch

        with self.assertRaisesRegex(RenderError, "too little memory"), engineErrors():
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
        with self.assertRaisesRegex(RuntimeError, "shapes"), engineErrors():
            raise RuntimeError("shapes do not match")

    def testASceneOfAnEarlierVersionLoads(self):
        """It has no device; its numbers stand under the names that they had."""
        saved = self.scene.AddNewNodeByClass("vtkMRMLScriptedModuleNode")
        for name, text in (("echoModel", "LAYERED"), ("noise", "False"), ("tgcDbPerCm", "7.5"), ("depthMm", "55.0")):
            saved.SetParameter(name, text)
        node = RenderParameterNode(saved)
        image = engineValues(node, IMAGE)
        self.assertEqual((image["echo"], image["noise_db"], image["tgc_db_per_cm"]), ("layered", None, None))
        node.automaticTgc = False
        self.assertEqual(engineValues(node, IMAGE)["tgc_db_per_cm"], 7.5)
        self.assertEqual((node.depthMm, node.device), (55.0, Device.AUTO))
        saved.UnsetParameter("device")
        self.assertIs(node.device, Device.AUTO)


if __name__ == "__main__":
    unittest.main()
