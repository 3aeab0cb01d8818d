"""From the scene to a tracked sweep: every pixel must lie where the scene itself shows it."""

from __future__ import annotations

import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import headless
import numpy as np
import slicer
import slicer.util
from DiffUSLib.engine import trackedSweep
from DiffUSLib.errors import RenderError
from DiffUSLib.scene.sequences import writeOrigin
from DiffUSLib.scene.tracked import readUltrasound
from DiffUSLib.scene.transforms import toVtk
from headless.fixtures import addTransform, addVolume, rotation
from headless.register_fixtures import (
    addBrowser,
    addSequence,
    frameArray,
    hang,
    imageSequence,
    pixelInWorld,
    poseSequence,
    registerParameters,
    snapshot,
)

CALIBRATION = rotation(10, -20, 30, (1, 2, 3)) @ np.diag([0.2, 0.25, 0.2, 1.0])  # pixels to probe mm
PROBE = [rotation(5 * k, 30, -10 * k, (10 * k, 5, -3 * k)) for k in range(5)]
REFERENCE_TO_TRACKER = [rotation(0, 40, 3 * k, (k, 100, 7)) for k in range(5)]
TO_RAS = rotation(25, 35, -50, (40, -30, 20))
LPS_SPACING = np.array([[-1.5, 0, 0, 8.0], [0, -2.0, 0, 4.0], [0, 0, 1.0, 0], [0, 0, 0, 1]])
PIXELS = ((0, 0), (31, 0), (0, 23), (17, 9))


def apply(matrix, point):
    return (matrix @ np.append(point, 1.0))[:3]


class RegisterUltrasoundTest(unittest.TestCase):
    def setUp(self):
        headless.newScene()

    def images(self, count: int = 5, ijkToRas=LPS_SPACING):
        return imageSequence([frameArray(k) for k in range(count)], ijkToRas)

    def trackedBrowser(self, toRas=TO_RAS):
        """Image -> ImageToProbe (not moving, scales) -> ProbeToTracker -> TrackerToReference -> ReferenceToRAS."""
        images = self.images()
        probe = poseSequence(PROBE, "ProbeToTracker")
        tracker = poseSequence([np.linalg.inv(m) for m in REFERENCE_TO_TRACKER], "TrackerToReference")
        browser = addBrowser(images, probe, tracker)
        self.calibration = addTransform(CALIBRATION, name="ImageToProbe")
        self.reference = addTransform(toRas, name="ReferenceToRAS")
        volume = browser.GetProxyNode(images)
        hang(volume, self.calibration, browser.GetProxyNode(probe), browser.GetProxyNode(tracker), self.reference)
        return browser, volume

    def assertWhereTheSceneShowsIt(self, ultrasound, browser, volume):
        for item in range(browser.GetNumberOfItems()):
            browser.SetSelectedItemNumber(item)
            for column, row in PIXELS:
                found = apply(ultrasound.referenceToWorld @ ultrasound.imageToReference[item], (column, row, 0))
                np.testing.assert_allclose(found, pixelInWorld(volume, column, row), atol=1e-9)

    def testEveryPixelOfEveryItemLiesWhereTheSceneShowsIt(self):
        browser, volume = self.trackedBrowser()
        ultrasound = readUltrasound(registerParameters(None, browser))
        self.assertWhereTheSceneShowsIt(ultrasound, browser, volume)
        self.assertEqual(ultrasound.pixels.shape, (5, 24, 32))
        np.testing.assert_array_equal(ultrasound.pixels[3], frameArray(3))

    def testTheReferenceIsTheFrameUnderTheLastTransformThatMoves(self):
        browser, _volume = self.trackedBrowser()
        ultrasound = readUltrasound(registerParameters(None, browser))
        self.assertIs(ultrasound.referenceNode, self.reference)
        np.testing.assert_allclose(apply(ultrasound.referenceToWorld, (0, 0, 0)), (40, -30, 20), atol=1e-9)
        tip = apply(CALIBRATION @ LPS_SPACING, (17, 9, 0))
        wanted = apply(np.linalg.inv(REFERENCE_TO_TRACKER[2]), apply(PROBE[2], tip))
        np.testing.assert_allclose(apply(ultrasound.imageToReference[2], (17, 9, 0)), wanted, atol=1e-9)

    def testTheVolumeThatTheBrowserPlaysStandsForTheBrowser(self):
        browser, volume = self.trackedBrowser()
        ultrasound = readUltrasound(registerParameters(None, volume))
        self.assertWhereTheSceneShowsIt(ultrasound, browser, volume)

    def testTheImageSequenceStandsForItsBrowser(self):
        browser, volume = self.trackedBrowser()
        ultrasound = readUltrasound(registerParameters(None, browser.GetMasterSequenceNode()))
        self.assertWhereTheSceneShowsIt(ultrasound, browser, volume)

    def testOnlyThePresentFrame(self):
        browser, volume = self.trackedBrowser()
        browser.SetSelectedItemNumber(3)
        ultrasound = readUltrasound(registerParameters(None, browser, presentFrameOnly=True))
        self.assertEqual(ultrasound.pixels.shape[0], 1)
        np.testing.assert_array_equal(ultrasound.pixels[0], frameArray(3))
        for column, row in PIXELS:
            found = apply(ultrasound.referenceToWorld @ ultrasound.imageToReference[0], (column, row, 0))
            np.testing.assert_allclose(found, pixelInWorld(volume, column, row), atol=1e-9)

    def testThePresentFrameIsReadAsAllFramesAre(self):
        """By the same chain: named poses, calibration, and what the file was read with."""
        images, poses = self.images(5, None), poseSequence([PROBE[0], np.eye(4), *PROBE[2:]], "anything")
        browser = addBrowser(images, poses)
        node = addTransform(CALIBRATION)
        settings = {"poseSequence": poses, "imageToProbe": node}
        whole = readUltrasound(registerParameters(None, browser, **settings))
        browser.SetSelectedItemNumber(3)
        writeOrigin(images, 7, ("From a file.",))
        one = readUltrasound(registerParameters(None, browser, presentFrameOnly=True, **settings))
        self.assertEqual((one.itemNumbers, one.skipped, one.notes), ((3,), 0, ("From a file.",)))
        np.testing.assert_array_equal(one.imageToReference[0], whole.imageToReference[whole.itemNumbers.index(3)])
        np.testing.assert_array_equal(one.pixels[0], frameArray(3))
        browser.SetSelectedItemNumber(1)
        self.assertRefused("present frame of 'Sweep' is not tracked", browser, presentFrameOnly=True, **settings)
        self.assertRefused("present frame", addBrowser(self.images()), presentFrameOnly=True)
        self.assertRefused("no present frame", self.images(), presentFrameOnly=True)

    def testOneOfManyVolumesIsReadAsItIsShown(self):
        nodes = []
        for k in range(3):
            node = slicer.vtkMRMLScalarVolumeNode()
            slicer.util.updateVolumeFromArray(
                node, np.random.default_rng(k).integers(30, 200, (9, 9, 9)).astype(np.uint8)
            )
            nodes.append(node)
        browser = addBrowser(addSequence(nodes, "Image"))
        self.assertRefused("Only the present frame", browser)
        browser.SetSelectedItemNumber(2)
        ultrasound = readUltrasound(registerParameters(None, browser, presentFrameOnly=True))
        self.assertTrue(ultrasound.isVolume)
        np.testing.assert_array_equal(ultrasound.pixels, slicer.util.arrayFromVolume(nodes[2]))

    def testReadingChangesNothing(self):
        browser, _volume = self.trackedBrowser()
        browser.SetSelectedItemNumber(2)
        parameters = registerParameters(None, browser)
        before = snapshot()
        readUltrasound(parameters)
        self.assertEqual(snapshot(), before)
        self.assertEqual(browser.GetSelectedItemNumber(), 2)

    def testTheTrackersNamesTellTheChainOfARecordingWhoseImageHangsNowhere(self):
        images = self.images(5, None)
        quarter = rotation(0, 0, 90, (100, 0, 0))  # reference to tracker: x goes to y
        browser = addBrowser(
            images,
            poseSequence([np.diag([0.5, 0.5, 0.5, 1.0])] * 5, "a", "ImageToProbeTransform"),
            poseSequence([rotation(translation=(100, 10 * k + 1, 0)) for k in range(5)], "b", "ProbeToTracker"),
            poseSequence([quarter] * 5, "c", "ReferenceToTracker"),
        )
        ultrasound = readUltrasound(registerParameters(None, browser))
        # Pixel (4, 6) is (2, 3, 0) for the probe and (102, 4 + 10 k, 0) for the tracker.
        for k in range(5):
            np.testing.assert_allclose(apply(ultrasound.imageToReference[k], (4, 6, 0)), (4 + 10 * k, -2, 0), atol=1e-9)

    def testACalibrationNodeCompletesTheTrackersNames(self):
        browser = addBrowser(self.images(3, None), poseSequence(PROBE[1:4], "x", "ProbeToReference"))
        node = addTransform(CALIBRATION, name="my calibration")
        ultrasound = readUltrasound(registerParameters(None, browser, imageToProbe=node))
        for k in range(3):
            wanted = apply(PROBE[k + 1], apply(CALIBRATION, (17, 9, 0)))
            np.testing.assert_allclose(apply(ultrasound.imageToReference[k], (17, 9, 0)), wanted, atol=1e-9)

    def assertCalibrated(self, ultrasound):
        self.assertEqual(ultrasound.notes, ())
        for k in range(len(ultrasound.pixels)):
            wanted = apply(TO_RAS, apply(PROBE[k + 1], apply(CALIBRATION, (17, 9, 0))))
            found = apply(ultrasound.referenceToWorld @ ultrasound.imageToReference[k], (17, 9, 0))
            np.testing.assert_allclose(found, wanted, atol=1e-9)

    def testACalibrationNodeGoesUnderARecordedChainThatBeginsAtTheProbe(self):
        images, poses = self.images(3, None), poseSequence(PROBE[1:4], "p", "ProbeToReferenceTransform")
        browser = addBrowser(images, poses)
        hang(browser.GetProxyNode(images), browser.GetProxyNode(poses), addTransform(TO_RAS))
        node = addTransform(CALIBRATION, name="my calibration")
        self.assertCalibrated(readUltrasound(registerParameters(None, browser, imageToProbe=node)))
        frame = addVolume(frameArray(0)[np.newaxis], name="Frame")
        hang(frame, addTransform(PROBE[1], name="ProbeToReference"), addTransform(TO_RAS))
        self.assertCalibrated(readUltrasound(registerParameters(None, frame, imageToProbe=node)))

    def testACalibrationNodeThatIsNotNeededIsSaid(self):
        other = addTransform(CALIBRATION, name="Other")
        browser, volume = self.trackedBrowser()
        direct = addBrowser(self.images(), poseSequence(PROBE, "p", "ImageToReference"))
        inImages = addBrowser(self.posesInImages())
        solid = addVolume(np.random.default_rng(0).integers(30, 200, (9, 9, 9)).astype(np.uint8), name="US")
        frame = addVolume(frameArray(0)[np.newaxis], name="Frame")
        hang(frame, addTransform(CALIBRATION, name="ImageToProbe"), addTransform(PROBE[1]))
        for ultrasound in (browser, direct, inImages, solid, frame):
            with self.subTest(ultrasound.GetName()):
                alone = readUltrasound(registerParameters(None, ultrasound))
                both = readUltrasound(registerParameters(None, ultrasound, imageToProbe=other))
                np.testing.assert_array_equal(both.imageToReference, alone.imageToReference)
                self.assertEqual(len(both.notes), 1)
                self.assertIn("'Other' was left out", both.notes[0])
                self.assertEqual(trackedSweep(both).report.notes, both.notes)
        own = readUltrasound(registerParameters(None, browser, imageToProbe=self.calibration))
        self.assertEqual(own.notes, ())
        self.assertWhereTheSceneShowsIt(own, browser, volume)

    def testNamedPosesNeedNoBrowser(self):
        images, poses = self.images(5, None), poseSequence(PROBE, "anything")
        node = addTransform(CALIBRATION)
        parameters = registerParameters(None, images, poseSequence=poses, imageToProbe=node)
        ultrasound = readUltrasound(parameters)
        for k in range(5):
            wanted = apply(PROBE[k], apply(CALIBRATION, (17, 9, 0)))
            np.testing.assert_allclose(apply(ultrasound.imageToReference[k], (17, 9, 0)), wanted, atol=1e-9)

    def testALostPoseIsSkippedAndCounted(self):
        poses = [*PROBE[:2], np.eye(4), *PROBE[3:]]
        browser = addBrowser(self.images(5, None), poseSequence(poses, "p", "ImageToReference"))
        ultrasound = readUltrasound(registerParameters(None, browser))
        self.assertEqual((len(ultrasound.pixels), ultrasound.skipped), (4, 1))
        self.assertEqual(ultrasound.itemNumbers, (0, 1, 3, 4))
        np.testing.assert_array_equal(ultrasound.pixels[2], frameArray(3))
        self.assertEqual(trackedSweep(ultrasound).report.frames_skipped, 1)

    def testPosesOfOtherTimesAreSaid(self):
        poses = poseSequence(PROBE[:3], "short")
        ultrasound = readUltrasound(registerParameters(None, self.images(5, None), poseSequence=poses))
        self.assertEqual(len(ultrasound.notes), 1)
        self.assertIn("2 frames have no pose of their own time in 'short'", ultrasound.notes[0])

    def testALongRecordingIsThinnedEvenly(self):
        browser, _volume = self.trackedBrowser()
        ultrasound = readUltrasound(registerParameters(None, browser, maximumFrames=3))
        self.assertEqual(ultrasound.itemNumbers, (0, 2, 4))
        np.testing.assert_array_equal(ultrasound.pixels[1], frameArray(2))

    def testASingleFrameUnderItsTransforms(self):
        volume = addVolume(frameArray(0)[np.newaxis], LPS_SPACING, "Frame")
        hang(volume, addTransform(CALIBRATION), addTransform(PROBE[1]), addTransform(TO_RAS))
        ultrasound = readUltrasound(registerParameters(None, volume))
        for column, row in PIXELS:
            found = apply(ultrasound.referenceToWorld @ ultrasound.imageToReference[0], (column, row, 0))
            np.testing.assert_allclose(found, pixelInWorld(volume, column, row), atol=1e-9)

    def testAVolumeOfUltrasoundIsCutWhereItLies(self):
        array = np.random.default_rng(0).integers(30, 200, (10, 20, 24)).astype(np.uint8)
        array[6, 12, 15] = 255
        volume = addVolume(array, rotation(20, 0, 10, (5, 6, 7)) @ np.diag([0.5, 0.5, 1.0, 1.0]), "US")
        hang(volume, addTransform(TO_RAS, name="VolumeToWorld"))
        ultrasound = readUltrasound(registerParameters(None, volume))
        self.assertTrue(ultrasound.isVolume)
        sweep = trackedSweep(ultrasound)
        frame, row, column = np.unravel_index(int(sweep.frames.argmax()), sweep.frames.shape)
        found = apply(ultrasound.referenceToWorld @ sweep.image_to_reference[frame].numpy(), (column, row, 0))
        matrix = slicer.vtkMRMLScalarVolumeNode.GetIJKToRASMatrix
        ijkToRas = slicer.util.arrayFromVTKMatrix(_matrixOf(matrix, volume))
        np.testing.assert_allclose(found, apply(TO_RAS, apply(ijkToRas, (15, 12, 6))), atol=1e-9)

    def posesInImages(self):
        nodes = []
        for k in range(3):
            node = slicer.vtkMRMLScalarVolumeNode()
            slicer.util.updateVolumeFromArray(node, frameArray(k)[np.newaxis])
            node.SetIJKToRASMatrix(toVtk(PROBE[k]))
            nodes.append(node)
        return addSequence(nodes, "Image")

    def testPosesMayStandInTheImagesOwnMatrices(self):
        images = self.posesInImages()
        browser = addBrowser(images)
        hang(browser.GetProxyNode(images), addTransform(TO_RAS, name="Static"))
        ultrasound = readUltrasound(registerParameters(None, browser))
        self.assertWhereTheSceneShowsIt(ultrasound, browser, browser.GetProxyNode(images))

    def testColourFramesBecomeGrey(self):
        colour = [np.repeat(frameArray(k)[..., None], 3, -1) for k in range(3)]
        browser = addBrowser(imageSequence(colour), poseSequence(PROBE[:3], "p", "ImageToReference"))
        ultrasound = readUltrasound(registerParameters(None, browser))
        np.testing.assert_array_equal(ultrasound.pixels[1], frameArray(1))

    def testAFlatImageMayHaveALeftHandedMatrix(self):
        browser = addBrowser(
            self.images(3, np.diag([1.0, 1.0, -1.0, 1.0])), poseSequence(PROBE[:3], "p", "ImageToReference")
        )
        trackedSweep(readUltrasound(registerParameters(None, browser)))

    # --- what is refused, in words

    def assertRefused(self, words: str, ultrasound, **settings):
        parameters = registerParameters(None, ultrasound, **settings)
        before = snapshot()
        with self.assertRaises(RenderError) as caught:
            trackedSweep(readUltrasound(parameters))
        self.assertIn(words, str(caught.exception))
        self.assertEqual(snapshot(), before)

    def testNoTracking(self):
        self.assertRefused("not tracked", addBrowser(self.images()))
        self.assertRefused("not tracked", self.images())
        self.assertRefused("not tracked", addVolume(frameArray(0)[np.newaxis], name="Picture"))

    def testAForgottenCalibration(self):
        large = imageSequence([frameArray(k, 480, 640) for k in range(2)])
        self.assertRefused("calibration", addBrowser(large, poseSequence(PROBE[:2], "p", "ImageToReference")))

    def testPixelsOfImpossibleSize(self):
        tiny = [m @ np.diag([0.01, 0.01, 0.01, 1.0]) for m in PROBE]
        self.assertRefused(
            "5 and 400 mm", addBrowser(self.images(5, None), poseSequence(tiny, "p", "ImageToReference"))
        )
        frame = addVolume(frameArray(0)[np.newaxis], name="Frame")
        for scale in (0.01, 100.0):
            hang(frame, addTransform(PROBE[1] @ np.diag([scale, scale, scale, 1.0])))
            self.assertRefused("5 and 400 mm", frame)
        solid = addVolume(np.random.default_rng(0).integers(30, 200, (10, 20, 24)).astype(np.uint8), name="US")
        solid.SetIJKToRASMatrix(toVtk(np.diag([0.01, 0.01, 0.01, 1.0])))
        self.assertRefused("5 and 400 mm", solid)

    def testAProbeThatNeverMoves(self):
        self.assertRefused(
            "not tracked", addBrowser(self.images(), poseSequence([PROBE[1]] * 5, "p", "ImageToReference"))
        )

    def testNoImages(self):
        poses = poseSequence(PROBE, "p")
        self.assertRefused("no images", addBrowser(poses))
        self.assertRefused("no images", poses)

    def testAScaledTool(self):
        browser, _volume = self.trackedBrowser()
        scaled = poseSequence([m @ np.diag([1.05, 1.05, 1.05, 1]) for m in PROBE], "scaled tool")
        browser.AddSynchronizedSequenceNode(scaled)
        browser.SetSelectedItemNumber(1)
        hang(self.calibration, browser.GetProxyNode(scaled))
        self.assertRefused("scales, shears or mirrors", browser)

    def testAScaledReference(self):
        browser, _volume = self.trackedBrowser(np.diag([2.0, 2.0, 2.0, 1.0]))
        self.assertRefused("'ReferenceToRAS' scales", browser)

    def testAMirroredCalibration(self):
        mirror = np.diag([0.2, -0.2, 0.2, 1.0])
        browser = addBrowser(self.images(), poseSequence([m @ mirror for m in PROBE], "p", "ImageToReference"))
        self.assertRefused("mirrors", browser)

    def testASingularPose(self):
        flat = [m @ np.diag([1.0, 0.0, 1.0, 1.0]) for m in PROBE]
        self.assertRefused("singular", addBrowser(self.images(), poseSequence(flat, "p", "ImageToReference")))

    def testNaN(self):
        broken = PROBE[1].copy()
        broken[0, 3] = np.nan
        browser = addBrowser(self.images(2), poseSequence([PROBE[0], broken], "p", "ImageToReference"))
        self.assertRefused("NaN", browser)

    def testANonlinearTransformAbove(self):
        browser, volume = self.trackedBrowser()
        bent = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLGridTransformNode", "Bent")
        hang(volume, bent)
        hang(bent, self.calibration)
        self.assertRefused("'Bent'", browser)

    def testFramesOfDifferentSize(self):
        arrays = [frameArray(0), frameArray(1, 30, 40)]
        browser = addBrowser(imageSequence(arrays), poseSequence(PROBE[:2], "p", "ImageToReference"))
        self.assertRefused("differ in size", browser)

    def testEmptyImages(self):
        empty = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Empty")
        self.assertRefused("'Empty' is empty", empty)
        dark = imageSequence([np.zeros((24, 32), np.uint8)] * 3)
        self.assertRefused("empty", addBrowser(dark, poseSequence(PROBE[:3], "p", "ImageToReference")))


def _matrixOf(method, node):
    import vtk

    matrix = vtk.vtkMatrix4x4()
    method(node, matrix)
    return matrix


if __name__ == "__main__":
    unittest.main()
