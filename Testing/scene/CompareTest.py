"""Real and simulated frame at one pose: the fan is seen, the pixels are the same ones, and the likeness is told."""

from __future__ import annotations

import sys
import unittest
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import headless
import numpy as np
import slicer
import slicer.util
import vtk
from DiffUSLib import engine
from DiffUSLib.errors import RenderError
from DiffUSLib.render.image_fan import MAX_FRAMES, estimateFan
from DiffUSLib.render.logic import RenderLogic
from DiffUSLib.render.parameters import CompareMode, ProbePreset, ProbeType, readParameters
from DiffUSLib.scene.tracked import readShownFrames
from DiffUSLib.scene.transforms import fromVtk, ijkToRas, toVtk
from headless.fixtures import addHead, addParameterNode, addTransform, addVolume, observerCount, rotation, sliceArray
from headless.register_fixtures import addBrowser, addView, hang, imageSequence, poseSequence
from vtk.util.numpy_support import vtk_to_numpy

POSE = rotation(180, 0, 0, (0, 58, 0))
PROBE = {"probeType": ProbeType.CONVEX, "radiusMm": 30.0, "fovDeg": 60.0, "depthMm": 80.0, "frequencyMhz": 4.0}


class CompareTest(unittest.TestCase):
    def setUp(self):
        headless.newScene()
        self.loop, self.lines, self.said = headless.EventLoop(), [], []
        self.logic = RenderLogic(self.loop.schedule, self.said.append, self.loop.clock)
        self.logic.onCompared = self.lines.append
        self.head = addHead()
        self.view, self.layers = addView()
        self.parameters = addParameterNode(self.head, None, compareView=self.view, rays=128, samples=300, **PROBE)
        self.frame, self.pixelToProbe = self.realFrame(POSE)

    def tearDown(self):
        self.logic.forgetScene()

    def realFrame(self, pose: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pixels (1, rows, columns) of what a probe at `pose` sees with a margin around them, and to probe mm."""
        probe = addTransform(pose, name="Recording probe")
        self.parameters.probeTransform = probe
        node = self.logic.render(self.parameters)
        pixels = np.pad(np.maximum(sliceArray(node)[0], 20) * (sliceArray(node)[0] > 0), 12)
        matrix = ijkToRas(node)
        matrix[:3, 3] -= 12 * matrix[:3, :2].sum(1)
        self.parameters.outputSlice = self.parameters.probeTransform = None
        slicer.mrmlScene.RemoveNode(node)
        slicer.mrmlScene.RemoveNode(probe)
        return pixels[::3, ::3][np.newaxis], matrix @ np.diag([3.0, 3.0, 3.0, 1.0])

    def addFrame(self, pixels=None, ijk=None, *parents):
        """A volume node of the frame under its transforms, the nearest first."""
        node = addVolume(
            self.frame if pixels is None else pixels, self.pixelToProbe if ijk is None else ijk, "US frame"
        )
        node.CreateDefaultDisplayNodes()
        above = parents or (addTransform(POSE, name="ProbeToReference"),)
        hang(node, *above)
        self.parameters.realImage = node
        return node

    def seeFan(self, node):
        return estimateFan(readShownFrames(node, MAX_FRAMES), readParameters(self.parameters).probe)

    def pixels(self, node):
        """The present frame in the engine's grey scale."""
        return engine.trackedSweep(readShownFrames(node), np.ones(self.frame.shape[1:], bool)).frames[0].numpy()

    def compare(self):
        return self.logic.comparison.compare(self.parameters)

    def assertSimulatedIsReal(self):
        found = self.compare()
        self.assertGreater(found.ncc, 0.85)
        self.assertGreater(found.coverage, 0.95)
        return found

    def testTheFanIsSeenAndTheSimulatedFrameLiesOnItsPixels(self):
        node = self.addFrame()
        found = self.assertSimulatedIsReal()
        self.assertGreater(found.ssim, 0.5)
        simulated = self.parameters.comparedSlice
        self.assertEqual(sliceArray(simulated).shape, sliceArray(node).shape)
        self.assertTrue(np.allclose(ijkToRas(simulated), ijkToRas(node)))
        self.assertEqual(simulated.GetTransformNodeID(), node.GetTransformNodeID())
        self.head.SetAndObserveTransformNodeID(addTransform(rotation(0, 12, 9, (6, 0, 4))).GetID())
        self.assertLess(self.compare().ncc, found.ncc - 0.1)

    def testTheChainOfATrackerIsFollowed(self):
        """Pixels of 1 mm under ImageToProbe, which scales, under two tools that turn."""
        tracker, reference = rotation(10, 20, 30, (40, 50, 60)), rotation(-50, 10, 5, (-3, 9, 11))
        world = addTransform(np.linalg.inv(reference @ tracker) @ np.eye(4), name="Undo")
        world.SetMatrixTransformToParent(toVtk(POSE @ np.linalg.inv(reference @ tracker)))
        chain = [
            addTransform(self.pixelToProbe, name="ImageToProbe"),
            addTransform(tracker, name="ProbeToTracker"),
            addTransform(reference, name="TrackerToReference"),
            world,
        ]
        self.addFrame(None, np.eye(4), *chain)
        self.assertSimulatedIsReal()

    def testRowsFromTheBottomUp(self):
        turned = np.eye(4)
        turned[1, 1], turned[1, 3] = -1.0, self.frame.shape[1] - 1
        self.addFrame(self.frame[:, ::-1], self.pixelToProbe @ turned)
        self.assertSimulatedIsReal()

    def testLongPixelsAreSquaredToSeeTheFan(self):
        long = self.pixelToProbe @ np.diag([2.0, 1.0, 1.0, 1.0])
        node = self.addFrame(self.frame[:, :, ::2], long)
        seen = self.seeFan(node)
        self.assertAlmostEqual(seen.probe.radiusMm, 30, delta=1.5)
        self.assertLess(np.abs(seen.imageToProbe - long)[:2].max(), 0.3)
        self.assertLess(
            np.abs(engine.probePose(engine.trackedSweep(readShownFrames(node)), seen.imageToProbe) - POSE).max(), 0.3
        )

    def testColoursAndOtherNumbersAreGreyValues(self):
        colours = np.repeat(self.frame[..., np.newaxis], 3, -1)
        node = addVolume(colours, self.pixelToProbe, "Colour", "VectorVolume")
        node.SetAndObserveTransformNodeID(addTransform(POSE).GetID())
        self.assertTrue(np.allclose(self.pixels(node), self.frame[0] / 255))
        node = self.addFrame(self.frame.astype(np.int16) * 100)
        self.assertAlmostEqual(self.pixels(node).max(), 1.0)
        fractions = addVolume(colours.astype(np.float32) / 255, self.pixelToProbe, "Float colour", "VectorVolume")
        fractions.SetAndObserveTransformNodeID(addTransform(POSE).GetID())
        self.assertTrue(np.allclose(self.pixels(fractions), self.frame[0] / 255, atol=1e-5))

    def testTheProbeTakesTheFanOver(self):
        self.addFrame()
        for name, value in {"radiusMm": 50.0, "fovDeg": 90.0, "depthMm": 120.0, "frequencyMhz": 6.0}.items():
            setattr(self.parameters, name, value)
        line = self.logic.probeFromImage(self.parameters)
        probe = readParameters(self.parameters).probe
        self.assertIs(probe.probeType, ProbeType.CONVEX)
        self.assertAlmostEqual(probe.radiusMm, 30, delta=1.5)
        self.assertAlmostEqual(probe.fovDeg, 60, delta=1.5)
        self.assertAlmostEqual(probe.depthMm, 80, delta=1.5)
        self.assertEqual(probe.frequencyMhz, 6.0)
        self.assertIs(self.parameters.preset, ProbePreset.CUSTOM)
        self.assertIn("Convex, radius 30 mm, 60°, 80 mm deep", line)

    def testAFarFieldThatIsBlackLeavesTheDepthUncertain(self):
        self.addFrame()
        self.assertNotIn("check the depth", self.logic.probeFromImage(self.parameters))
        dark = self.frame.copy()
        row, column = np.indices(dark.shape[1:])
        x, y = (line[0] * column + line[1] * row + line[3] for line in self.pixelToProbe[:2])
        dark[0, np.hypot(x, y + PROBE["radiusMm"]) > PROBE["radiusMm"] + 55] = 0
        self.addFrame(dark)
        self.assertIn("check the depth", self.logic.probeFromImage(self.parameters))

    def testAFrameOfARecordingHasTheGreyScaleOfAllOfIt(self):
        """Each frame alone would be stretched to its own brightest pixel."""
        frames = [self.frame[0].astype(np.uint16) * 16 for _n in range(3)]
        frames[1] = frames[1] // 4
        browser = addBrowser(
            imageSequence(frames, self.pixelToProbe), poseSequence([POSE] * 3, "p", "ImageToReference")
        )
        images = browser.GetMasterSequenceNode()
        proxy = browser.GetProxyNode(images)
        if proxy.GetParentTransformNode() is None:
            hang(proxy, addTransform(POSE))
        self.parameters.realImage = proxy
        self.parameters.compareMode = CompareMode.SIDE_BY_SIDE
        shown = []
        with mock.patch(
            "DiffUSLib.render.compare.sideBySide", lambda real, other: (shown.append(real), (real, np.eye(4)))[1]
        ):
            for item in range(3):
                browser.SetSelectedItemNumber(item)
                self.logic.comparison.compare(self.parameters)
        bright = [frame.astype(float).mean() for frame in shown]
        self.assertAlmostEqual(bright[1] / bright[0], 0.25, delta=0.02)
        self.assertAlmostEqual(bright[2], bright[0])

    def testFramesOfAnotherDepthOfTheRecordingAreLeftOut(self):
        other = np.zeros((40, 50), np.uint8)
        browser = addBrowser(imageSequence([self.frame[0], other, self.frame[0]], self.pixelToProbe))
        proxy = browser.GetProxyNode(browser.GetMasterSequenceNode())
        hang(proxy, addTransform(POSE))
        self.assertEqual(readShownFrames(proxy, MAX_FRAMES).pixels.shape, (2, *self.frame.shape[1:]))

    def testARecordingShowsTheFanBetterThanOneDarkFrame(self):
        dark = self.frame.copy()
        dark[:, :, self.frame.shape[2] // 2 :] = 0
        browser = addBrowser(imageSequence([dark[0], self.frame[0], self.frame[0]], self.pixelToProbe))
        proxy = browser.GetProxyNode(browser.GetMasterSequenceNode())
        seen = self.seeFan(proxy)
        self.assertAlmostEqual(seen.probe.fovDeg, 60, delta=2)

    def testWhatCannotBeComparedIsSaid(self):
        far = addTransform(rotation(180, 0, 0, (0, 5000, 0)))
        beside = addTransform(rotation(180, 0, 0, (117, 58, 0)))
        noise = np.random.default_rng(0).integers(0, 255, (40, 60, 60)).astype(np.uint8)
        for pixels, ijk, parents, words in (
            (None, None, (far,), "outside the volume"),
            (None, None, (beside,), "covers|outside"),
            (np.zeros_like(self.frame), None, (), "same value"),
            (noise, np.eye(4), (), "not a frame"),
            (None, np.eye(4) * [30, 30, 1, 1], (), "5 and 400 mm .*image calibration"),
            (None, np.diag([1.0, 0.0, 1.0, 1.0]), (), "singular"),
        ):
            with self.subTest(words=words):
                self.addFrame(pixels, ijk, *parents)
                with self.assertRaisesRegex(RenderError, words):
                    self.compare()
        self.parameters.realImage = None
        with self.assertRaisesRegex(RenderError, "real ultrasound image"):
            self.compare()

    def testANonlinearTransformAboveTheVolumeIsHonoured(self):
        self.addFrame()
        straight = self.compare()
        grid = slicer.vtkOrientedGridTransform()
        field = vtk.vtkImageData()
        field.SetDimensions(3, 3, 3)
        field.SetOrigin(-200, -200, -200)
        field.SetSpacing(200, 200, 200)
        field.AllocateScalars(vtk.VTK_DOUBLE, 3)
        vtk_to_numpy(field.GetPointData().GetScalars())[:] = [0.0, 0.0, 0.0]
        grid.SetDisplacementGridData(field)
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLGridTransformNode", "Warp")
        node.SetAndObserveTransformToParent(grid)
        self.head.SetAndObserveTransformNodeID(node.GetID())
        self.assertFalse(node.IsTransformToWorldLinear())
        self.assertAlmostEqual(self.compare().ncc, straight.ncc, places=2)

    def testTheSimulatedFrameIsNoRealOne(self):
        self.addFrame()
        self.compare()
        self.parameters.realImage = self.parameters.comparedSlice
        with self.assertRaisesRegex(RenderError, "simulated image"):
            self.compare()

    def testBlendedInTheirPlane(self):
        node = self.addFrame()
        self.parameters.compareFade = 0.3
        self.compare()
        self.assertEqual(self.layers.GetBackgroundVolumeID(), node.GetID())
        self.assertEqual(self.layers.GetForegroundVolumeID(), self.parameters.comparedSlice.GetID())
        self.assertAlmostEqual(self.layers.GetForegroundOpacity(), 0.3)
        plane = fromVtk(self.view.GetSliceToRAS())
        self.assertTrue(np.allclose(plane[:3, 0], POSE[:3, 0]))  # marked side to the right
        self.assertTrue(np.allclose(plane[:3, 1], -POSE[:3, 1]))  # depth down the screen

    def testSideBySideWithNames(self):
        self.parameters.compareMode = CompareMode.SIDE_BY_SIDE
        node = self.addFrame()
        self.compare()
        pair = sliceArray(self.parameters.comparedPair)[0]
        rows, columns = self.frame.shape[1:]
        heading = pair.shape[0] - rows
        self.assertTrue(np.array_equal(pair[heading:, :columns], self.frame[0]))
        self.assertTrue(np.array_equal(pair[heading:, -columns:], sliceArray(self.parameters.comparedSlice)[0]))
        self.assertGreater(pair[:heading].max(), 200)
        self.assertEqual(self.layers.GetBackgroundVolumeID(), self.parameters.comparedPair.GetID())
        left = ijkToRas(self.parameters.comparedPair) @ [0, heading, 0, 1]
        self.assertTrue(np.allclose(left, ijkToRas(node) @ [0, 0, 0, 1]))

    def testAPlayedRecordingIsFollowedOnceForManyItems(self):
        poses = [POSE @ rotation(0, 0, 0, (0.5 * n, 0, 0)) for n in range(10)]
        images = imageSequence([np.roll(self.frame[0], n, 0) for n in range(10)], self.pixelToProbe)
        browser = addBrowser(images, poseSequence(poses, "ImageToReference"))
        proxies = [browser.GetProxyNode(s) for s in (images, slicer.mrmlScene.GetFirstNodeByName("ImageToReference"))]
        proxies[0].SetAndObserveTransformNodeID(proxies[1].GetID())
        self.parameters.realImage = proxies[0]
        self.logic.startComparison(self.parameters)
        self.loop.wait(5)
        rendered = []
        former = engine.renderAt
        with mock.patch.object(engine, "renderAt", lambda *a: rendered.append(a[2][:3, 3]) or former(*a)):
            for item in range(10):
                browser.SetSelectedItemNumber(item)
            self.assertEqual(len(self.loop.pending), 1)
            self.loop.wait(5)
        self.assertEqual(len(rendered), 1)
        self.assertAlmostEqual(rendered[0][0], poses[9][0, 3], places=0)
        self.assertRegex(self.lines[-1], r"NCC -?0\.\d\d, SSIM -?0\.\d\d, over \d+% of the fan")

    def testTheLiveLineSaysWhyThereIsNone(self):
        node = self.addFrame()
        self.logic.startComparison(self.parameters)
        self.loop.wait(5)
        self.assertIn("NCC", self.lines[-1])
        before = sliceArray(self.parameters.comparedSlice)
        self.assertGreater(before.max(), 0)
        node.GetParentTransformNode().SetMatrixTransformToParent(toVtk(rotation(0, 0, 0, (0, 4000, 0))))
        self.loop.wait(5)
        self.assertRegex(self.lines[-1], "Not comparable: The probe's fan lies entirely outside the volume")
        self.assertEqual(sliceArray(self.parameters.comparedSlice).max(), 0)  # no old picture over a new frame
        self.assertTrue(self.logic.comparison.live.running)
        node.GetParentTransformNode().SetMatrixTransformToParent(toVtk(POSE))
        self.loop.wait(5)
        self.assertGreater(sliceArray(self.parameters.comparedSlice).max(), 0)
        singular = addTransform(np.diag([1.0, 1.0, 0.0, 1.0]), name="Flat")
        self.head.SetAndObserveTransformNodeID(singular.GetID())
        self.loop.wait(5)
        self.assertRegex(self.lines[-1], "Not comparable: The transform 'Flat' above the volume is singular")
        self.assertEqual(sliceArray(self.parameters.comparedSlice).max(), 0)

    def testStoppingGivesTheViewBackAndLeavesNoObserver(self):
        node = self.addFrame()
        watched = [node, self.head, self.parameters.parameterNode, slicer.mrmlScene]
        self.layers.SetBackgroundVolumeID(self.head.GetID())
        before = [observerCount(item) for item in watched], fromVtk(self.view.GetSliceToRAS())
        self.logic.startComparison(self.parameters)
        self.loop.wait(5)
        self.assertEqual(self.layers.GetBackgroundVolumeID(), node.GetID())
        self.logic.stopComparison()
        self.assertEqual(self.layers.GetBackgroundVolumeID(), self.head.GetID())
        self.assertTrue(np.allclose(fromVtk(self.view.GetSliceToRAS()), before[1]))
        self.assertEqual([observerCount(item) for item in watched], before[0])

    def testADeletedImageOrAClosedSceneEndsItWithASentence(self):
        for end, words in (
            (lambda: slicer.mrmlScene.RemoveNode(self.parameters.realImage), "'US frame' was deleted"),
            (lambda: slicer.mrmlScene.Clear(0), "the scene was closed"),
        ):
            with self.subTest(words=words):
                self.tearDown()
                self.setUp()
                self.addFrame()
                self.parameters.compare = True
                self.logic.startComparison(self.parameters)
                self.loop.wait(5)
                end()
                self.loop.wait(5)
                self.assertIn(f"The comparison has stopped: {words}", self.said[-1])
                self.assertFalse(self.logic.comparison.live.running)
                self.assertEqual(self.logic.comparison.live.observerCount, 0)


if __name__ == "__main__":
    unittest.main()
