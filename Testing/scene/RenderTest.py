"""One slice on request: what it is, where it hangs, what it follows, and what comes back with a saved scene."""

from __future__ import annotations

import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import headless
import numpy as np
import slicer
import slicer.util
import vtk
from diffus.render.settings import make_settings
from DiffUSLib import engine
from DiffUSLib.kinds import MediumKind
from DiffUSLib.render.logic import RenderLogic
from DiffUSLib.render.parameters import (
    Compression,
    EchoModel,
    ImagePreset,
    ProbePreset,
    ProbeType,
    imageValues,
    readParameters,
)
from headless.fixtures import addHead, addParameterNode, addTransform, rotation, sliceArray

ON_TOP = rotation(180, 0, 0, (0, 58, 0))  # on the front of the head, looking to the back


class RenderTest(unittest.TestCase):
    def setUp(self):
        headless.newScene()
        self.logic = RenderLogic()
        self.head = addHead()
        self.probe = addTransform(ON_TOP, name="Probe")
        self.parameters = addParameterNode(self.head, self.probe)

    def tearDown(self):
        self.logic.forgetScene()

    def testTheSliceIsABytePlaneUnderTheProbe(self):
        node = self.logic.render(self.parameters)
        pixels = sliceArray(node)
        self.assertTrue(node.IsA("vtkMRMLScalarVolumeNode"))
        self.assertEqual((pixels.dtype, pixels.ndim, pixels.shape[0]), (np.uint8, 3, 1))
        self.assertEqual(max(pixels.shape), 512)
        self.assertEqual(node.GetTransformNodeID(), self.probe.GetID())
        self.assertIs(self.parameters.outputSlice, node)
        self.assertGreater(pixels.std(), 5)
        display = node.GetDisplayNode()
        self.assertEqual((display.GetWindow(), display.GetLevel()), (255, 127.5))

    def testTheSameNodeIsWrittenAgain(self):
        first = self.logic.render(self.parameters)
        before = sliceArray(first)
        self.parameters.gainDb = 20.0
        self.assertIs(self.logic.render(self.parameters), first)
        self.assertGreater(sliceArray(first).mean(), before.mean() + 10)
        self.parameters.probeType = ProbeType.LINEAR
        self.logic.render(self.parameters)
        self.assertNotEqual(sliceArray(first).shape, before.shape)

    def testItWritesImageDataModifiedAndTheRightPixels(self):
        node = self.logic.render(self.parameters)
        events = []
        tag = node.AddObserver(slicer.vtkMRMLVolumeNode.ImageDataModifiedEvent, lambda *_: events.append(1))
        before = sliceArray(node)
        self.probe.SetMatrixTransformToParent(_matrix(rotation(160, 10, 0, (10, 50, 5))))
        self.logic.render(self.parameters)
        node.RemoveObserver(tag)
        self.assertEqual(len(events), 1)
        self.assertFalse(np.array_equal(before, sliceArray(node)))

    def testEverySettingChangesTheImage(self):
        node = self.logic.render(self.parameters)
        before = sliceArray(node)
        changes = {
            "frequencyMhz": 3.0,
            "depthMm": 60.0,
            "focusMm": 10.0,
            "fovDeg": 50.0,
            "radiusMm": 40.0,
            "fNumber": 6.0,
            "transmitFNumber": 9.0,
            "elevationLayers": 3,
            "raysPerLine": 2,
            "rays": 64,
            "samples": 150,
            "echoModel": EchoModel.REVERBERATION,
            "gainDb": 12.0,
            "dynamicRangeDb": 40.0,
            "automaticTgc": False,
            "speckle": False,
            "noise": False,
            "noiseDb": -20.0,
            "reflectionDb": 20.0,
            "startDepthMm": 20.0,
            "specularExponent": 0.0,
            "seed": 5,
            "clutter": False,
            "clutterDb": -10.0,
            "greyContrast": 2.0,
            "blackLevel": 0.2,
            "tgcReach": 0.1,
            "compounding": 3,
            "cycles": 5.0,
            "edgeEnhancement": 1.0,
            "automaticAperture": False,
            "attenuation": False,
            "psf": False,
            "compression": Compression.LINEAR,
            "paperArtefacts": True,
        }
        for name, value in changes.items():
            with self.subTest(setting=name):
                former = getattr(self.parameters, name)
                setattr(self.parameters, name, value)
                self.logic.render(self.parameters)
                self.assertFalse(np.array_equal(before, sliceArray(node)))
                setattr(self.parameters, name, former)
        self.logic.render(self.parameters)
        self.assertTrue(np.array_equal(before, sliceArray(node)))

    def testSliceThicknessAndItsDepthCount(self):
        node = self.logic.render(self.parameters)
        shown = [sliceArray(node)]
        self.parameters.automaticElevationFocus = False
        for name, value in (("elevationMm", 8.0), ("elevationFocusMm", 60.0)):
            setattr(self.parameters, name, value)
            self.logic.render(self.parameters)
            shown.append(sliceArray(node))
            self.assertFalse(np.array_equal(*shown[-2:]))

    def testTheMediumIsBuiltAgainOnlyWhenTheVolumeChanges(self):
        media = self.logic._media
        first = media.medium(self.head, MediumKind.AUTO)
        self.assertIs(media.medium(self.head, MediumKind.CT), first)
        slicer.util.arrayFromVolume(self.head)[20:25] = 500
        slicer.util.arrayFromVolumeModified(self.head)
        second = media.medium(self.head, MediumKind.CT)
        self.assertIsNot(second, first)
        self.head.SetSpacing(3, 4, 5)
        third = media.medium(self.head, MediumKind.CT)
        self.assertIsNot(third, second)
        self.assertIs(media.medium(self.head, MediumKind.CT), third)

    def testPresetsAreTheEnginesAndTheDefaultsAreTheFirst(self):
        from diffus.probe.presets import preset_names

        names = {preset.value for preset in ProbePreset if preset is not ProbePreset.CUSTOM}
        self.assertEqual(names, set(preset_names()))
        fresh = addParameterNode(rays=192, samples=400)
        default = readParameters(fresh).probe
        for preset in ProbePreset:
            if preset is not ProbePreset.CUSTOM:
                self.logic.applyPreset(fresh, preset)
                self.logic.updateFan(fresh)
        self.logic.applyPreset(fresh, fresh.preset)
        self.assertEqual(readParameters(fresh).probe.frequencyMhz, default.frequencyMhz)
        again = addParameterNode(rays=192, samples=400)
        self.logic.applyPreset(again, again.preset)
        self.assertEqual(readParameters(again).probe, default)

    def testImagePresetsAreTheEnginesAndWhole(self):
        from diffus.render.settings import PRESETS

        names = {preset.value for preset in ImagePreset if preset is not ImagePreset.CUSTOM}
        self.assertEqual(names, set(PRESETS))
        for name in names:
            with self.subTest(preset=name):
                self.logic.applyImagePreset(self.parameters, ImagePreset(name))
                image = readParameters(self.parameters).image
                theirs = vars(make_settings(name))
                self.assertEqual(imageValues(image), theirs)

    def testThePublishedLookIsTheEnginesPicture(self):
        from diffus.render.renderer import UltrasoundRenderer

        self.logic.applyImagePreset(self.parameters, ImagePreset.PAPER)
        pixels = sliceArray(self.logic.render(self.parameters))[0]
        probe = engine.buildProbe(readParameters(self.parameters).probe)
        renderer = UltrasoundRenderer(probe, preset="paper")
        medium = self.logic._media.medium(self.head, MediumKind.CT)
        theirs = engine.renderPixels(renderer, medium, ON_TOP)
        self.assertTrue(np.array_equal(pixels, theirs))
        self.logic.applyImagePreset(self.parameters, ImagePreset.DEFAULT)
        self.assertFalse(np.array_equal(pixels, sliceArray(self.logic.render(self.parameters))[0]))

    def testASavedSceneComesBackWhole(self):
        self.logic.applyImagePreset(self.parameters, ImagePreset.PAPER)
        self.parameters.imagePreset = ImagePreset.PAPER
        self.parameters.depthMm = 90.0
        self.parameters.probeType = ProbeType.PHASED
        self.parameters.kind = MediumKind.CT
        self.parameters.seed = 4
        self.logic.render(self.parameters)
        scene = slicer.mrmlScene
        scene.SetSaveToXMLString(1)
        scene.Commit()
        saved = scene.GetSceneXMLString()
        scene.SetSaveToXMLString(0)
        identifier = self.parameters.parameterNode.GetID()

        from DiffUSLib.render.parameter_node import RenderParameterNode

        other = slicer.vtkMRMLScene()
        other.SetLoadFromXMLString(1)
        other.SetSceneXMLString(saved)
        other.Import()
        back = RenderParameterNode(other.GetNodeByID(identifier))
        self.assertEqual(readParameters(back), readParameters(self.parameters))
        self.assertTrue(readParameters(back).image.paperArtefacts)
        self.assertEqual((back.kind, back.imagePreset), (MediumKind.CT, ImagePreset.PAPER))
        for name in ("inputVolume", "probeTransform", "outputSlice", "fanModel"):
            self.assertEqual(getattr(back, name).GetID(), getattr(self.parameters, name).GetID())


def _matrix(array):
    matrix = vtk.vtkMatrix4x4()
    slicer.util.updateVTKMatrixFromArray(matrix, array)
    return matrix


if __name__ == "__main__":
    unittest.main()
