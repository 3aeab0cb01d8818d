"""Gain, time gain, range and frequency of a recording come into the parameter node, and go again."""

from __future__ import annotations

import re
import sys
import unittest
from dataclasses import replace
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import headless
import numpy as np
import slicer.util
from DiffUSLib.errors import RenderError
from DiffUSLib.render import match as appearance
from DiffUSLib.render.image_fan import estimateFan
from DiffUSLib.render.logic import RenderLogic
from DiffUSLib.render.match import readSweep
from DiffUSLib.render.parameters import ImagePreset, ProbePreset, readParameters
from DiffUSLib.run import RunState
from DiffUSLib.scene.sequences import sequenceOf
from DiffUSLib.scene.transforms import ijkToRas, toVtk
from headless.fixtures import addHead, addParameterNode, addTransform, addVolume, rotation, sliceArray
from headless.match_fixtures import PROBE, SCANNER, addRecording, poseOf


class AppearanceTest(unittest.TestCase):
    def setUp(self):
        headless.newScene()
        quick = mock.patch.multiple(appearance, STEPS=6, FITTED_FRAMES=3)
        quick.start()
        self.addCleanup(quick.stop)
        self.loop, self.said, self.states = headless.EventLoop(), [], []
        self.logic = RenderLogic(self.loop.schedule)
        self.match = self.logic.appearance
        self.match.onEnded, self.match.onState = self.said.append, self.states.append
        self.head = addHead()
        self.parameters = addParameterNode(
            self.head,
            None,
            rays=96,
            samples=220,
            preset=ProbePreset.CRANIOTOMY_CONVEX,
            **{**PROBE, "frequencyMhz": 5.0},
        )

    def tearDown(self):
        self.logic.forgetScene()

    def runToEnd(self) -> str:
        for _ in range(60):
            if self.match.state is RunState.IDLE:
                return self.said[-1]
            self.loop.run()
        self.fail("the match does not end")

    def testTheScannersSettingsAreFoundAndUndone(self):
        self.parameters.realImage = addRecording(self.head)
        before = readParameters(self.parameters)
        self.match.start(self.parameters)
        said = re.search(r"NCC of 1 held-out frames .* \(smoothed (-?[\d.]+), (-?[\d.]+)\)", self.runToEnd())
        # Time gain that ends leaves both alike in this measure, which no gain or range changes: 0.99 before.
        self.assertGreaterEqual(float(said[2].rstrip(".")), max(0.9, float(said[1]) - 0.01))
        found = readParameters(self.parameters)
        self.assertAlmostEqual(found.image.gainDb, SCANNER["gainDb"], delta=1.0)
        self.assertAlmostEqual(found.image.dynamicRangeDb, SCANNER["dynamicRangeDb"], delta=5.0)
        # One tissue: time gain and attenuation are told only together, frequency by the texture.
        lost = 2 * 0.54
        self.assertAlmostEqual(
            found.image.tgcDbPerCm - lost * found.probe.frequencyMhz, SCANNER["tgcDbPerCm"] - lost * 4.0, delta=0.4
        )
        self.assertFalse(found.image.automaticTgc)
        self.assertEqual(self.parameters.preset, ProbePreset.CUSTOM)
        self.assertEqual(self.parameters.imagePreset, ImagePreset.CUSTOM)
        self.assertAlmostEqual(found.probe.radiusMm, 30.0, delta=2.0)
        self.assertEqual(found.image.seed, before.image.seed)
        self.assertEqual([state.progress for state in self.states], sorted(state.progress for state in self.states))
        self.assertTrue(self.match.undoable)
        self.match.undo(self.parameters)
        self.assertEqual(readParameters(self.parameters), before)
        self.assertEqual(self.parameters.preset, ProbePreset.CRANIOTOMY_CONVEX)
        self.assertEqual(self.parameters.imagePreset, ImagePreset.DEFAULT)
        self.assertFalse(self.match.undoable)
        with self.assertRaisesRegex(RenderError, "no match to undo"):
            self.match.undo(self.parameters)

    def testWhatTheUserChangesMeanwhileStays(self):
        """Only what was fitted is written, and only that is undone."""
        self.parameters.realImage = addRecording(self.head, 1)
        before = readParameters(self.parameters)
        self.match.start(self.parameters)
        self.loop.run()
        changed = {"seed": 9, "rays": 64, "startDepthMm": 3.0, "speckle": False, "elevationLayers": 3}
        for name, value in changed.items():
            setattr(self.parameters, name, value)
        self.assertIn("NCC", self.runToEnd())
        self.assertEqual({name: getattr(self.parameters, name) for name in changed}, changed)
        self.match.undo(self.parameters)
        self.assertEqual({name: getattr(self.parameters, name) for name in changed}, changed)
        for name in ("gainDb", "tgcDbPerCm", "automaticTgc", "tgcReach", "noiseDb"):
            self.assertEqual(getattr(self.parameters, name), getattr(before.image, name))
        self.assertEqual(self.parameters.frequencyMhz, before.probe.frequencyMhz)

    def testASingleImageIsMatchedToItself(self):
        self.parameters.realImage = addRecording(self.head, 1)
        self.match.start(self.parameters)
        self.assertIn("NCC of the frame itself", self.runToEnd())
        self.assertAlmostEqual(self.parameters.gainDb, SCANNER["gainDb"], delta=2.0)

    def readSweep(self, image):
        return readSweep(image, self.head, readParameters(self.parameters).probe)

    def testFramesLieWhereTheSceneSays(self):
        image = addRecording(self.head)
        above = addTransform(rotation(10, -20, 30, (5, 6, 7)), name="World moved")
        image.GetParentTransformNode().SetAndObserveTransformNodeID(above.GetID())
        self.head.SetAndObserveTransformNodeID(above.GetID())
        sweep, _fan = self.readSweep(image)
        self.assertEqual(len(sweep), 6)
        for number, place in enumerate(sweep.image_to_reference.numpy()):
            wanted = poseOf(number) @ ijkToRas(image)
            self.assertTrue(np.allclose(place[:3, [0, 1, 3]], wanted[:3, [0, 1, 3]], atol=1e-6))
            self.assertGreater(np.linalg.det(place[:3, :3]), 0)

    def testFramesOfOtherThanEightBitHaveOneScale(self):
        """The same tissue is as bright in every frame, however bright the brightest pixel of a frame is."""
        image = addRecording(self.head, 3)
        images, _browser = sequenceOf(image)
        for number, scale in enumerate((1, 4, 1)):
            node = images.GetNthDataNode(number)
            pixels = 3 * sliceArray(node).astype(np.int16)
            pixels[0, -20:-10, 40:50] = 200  # tissue
            pixels[0, 40:44, 40:44] = 900 * scale
            slicer.util.updateVolumeFromArray(node, pixels)
        sweep, _fan = self.readSweep(image)
        tissue = sweep.frames[:, -15, 45].numpy()
        self.assertGreater(tissue[0], 0)
        np.testing.assert_array_equal(tissue, tissue[0])

    def testADepthThatDoesNotShowStaysThatOfThePanel(self):
        def uncertain(images, present):
            return replace(estimateFan(images, present), isDepthCertain=False)

        self.parameters.realImage = addRecording(self.head, 1)
        self.parameters.depthMm = 91.0
        with mock.patch.object(appearance, "estimateFan", uncertain):
            self.match.start(self.parameters)
            while self.match.state is not RunState.IDLE:
                self.loop.run()
        self.assertEqual(self.parameters.depthMm, 91.0)
        self.assertAlmostEqual(self.parameters.fovDeg, PROBE["fovDeg"], delta=2)
        self.assertIn("check the depth", self.said[-1])

    def testRowsFromTheBottomUpAreTurned(self):
        image = addRecording(self.head)
        straight, fan = self.readSweep(image)
        rows = sliceArray(image).shape[1]
        turned = np.eye(4)
        turned[1, 1], turned[1, 3] = -1.0, rows - 1.0
        one = addVolume(sliceArray(image)[:, ::-1], ijkToRas(image) @ turned, "Bottom up")
        one.SetAndObserveTransformNodeID(image.GetTransformNodeID())
        sweep, turnedFan = self.readSweep(one)
        self.assertTrue(np.allclose(sweep.frames[0], straight.frames[0]))
        self.assertTrue(np.allclose(sweep.image_to_reference[0], straight.image_to_reference[0], atol=1e-6))
        self.assertTrue(np.allclose(turnedFan.imageToProbe, fan.imageToProbe, atol=0.5))

    def testCancelAndClosingChangeNothing(self):
        self.parameters.realImage = addRecording(self.head)
        before = readParameters(self.parameters)
        self.match.start(self.parameters)
        self.loop.run()
        with self.assertRaisesRegex(RenderError, "running"):
            self.match.start(self.parameters)
        self.match.cancel()
        self.assertEqual(self.runToEnd(), "The match was cancelled; nothing was changed.")
        self.match.start(self.parameters)
        self.loop.run()
        self.logic.forgetScene()
        self.assertIs(self.match.state, RunState.IDLE)
        self.assertIn("scene was closed", self.said[-1])
        self.assertEqual(readParameters(self.parameters), before)
        self.assertFalse(self.match.undoable)

    def testWhatIsMissingOrWrongIsSaid(self):
        with self.assertRaisesRegex(RenderError, "real ultrasound image"):
            self.match.start(self.parameters)
        image = addRecording(self.head, 1)
        self.parameters.realImage = image
        image.GetParentTransformNode().SetMatrixTransformToParent(toVtk(rotation(0, 0, 0, (500, 0, 0))))
        self.match.start(self.parameters)
        self.assertIn("outside of the volume", self.runToEnd())
        self.parameters.inputVolume = None
        with self.assertRaisesRegex(RenderError, "Choose a volume"):
            self.match.start(self.parameters)


if __name__ == "__main__":
    unittest.main()
