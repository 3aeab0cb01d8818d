"""The overlay: every voxel must appear on the frame where the scene puts it, and the view must stand in its plane."""

from __future__ import annotations

import sys
import unittest
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import headless
import numpy as np
import slicer
import slicer.util
from DiffUSLib.errors import RenderError
from DiffUSLib.register.logic import RegisterLogic
from DiffUSLib.register.overlay import OverlaySource, greyRange
from DiffUSLib.register.parameters import OverlayMode, ShownPose
from DiffUSLib.scene.slice_views import BorrowedView, SliceViewDriver, ViewState
from headless.fixtures import addTransform, addVolume, rotation
from headless.register_fixtures import (
    addBrowser,
    addView,
    fakeEngine,
    frameArray,
    hang,
    imageSequence,
    poseSequence,
    registerParameters,
)

IJK_TO_RAS = rotation(0, 0, 90, (50, -20, 5)) @ np.diag([2.0, 1.5, 1.0, 1.0])
POSES = [rotation(0, 0, 30 * k, (100 + k, 10, 20)) @ np.diag([0.5, 0.5, 0.5, 1.0]) for k in range(3)]
TO_RAS = rotation(30, 0, 20, (5, 6, 7))
SPOT = (9, 4, 6)  # i, j, k of the one bright voxel


class RegisterOverlayTest(unittest.TestCase):
    def setUp(self):
        self.scene = headless.newScene()
        self.view, self.composite = addView()
        voxels = np.zeros((12, 14, 16), np.float32)
        voxels[SPOT[::-1]] = 100.0
        self.volume = addVolume(voxels, IJK_TO_RAS, "MRI")
        images = imageSequence([frameArray(k, 48, 64) for k in range(3)])
        poses = poseSequence(POSES, "p", "ImageToReference")
        self.browser = addBrowser(images, poses)
        self.reference = addTransform(TO_RAS)
        hang(self.browser.GetProxyNode(images), self.browser.GetProxyNode(poses), self.reference)
        self.parameters = registerParameters(
            self.volume, self.browser, sliceView=self.view, frameNumber=1, fade=0.4, checkerMm=4.0
        )
        # The bright voxel belongs on pixel (20, 30) of frame 1.
        place = (POSES[1] @ (20, 30, 0, 1))[:3]
        spot = (IJK_TO_RAS @ (*SPOT, 1))[:3]
        self.target = rotation(15, 25, 35)
        self.target[:3, 3] = place - self.target[:3, :3] @ spot
        self.logic = RegisterLogic(lambda call: None, fakeEngine(target=self.target))

    def tearDown(self):
        self.logic.forgetScene()

    def layers(self):
        nodes = (self.composite.GetBackgroundVolumeID(), self.composite.GetForegroundVolumeID())
        return [slicer.mrmlScene.GetNodeByID(node) for node in nodes]

    def pixels(self, node):
        return slicer.util.arrayFromVolume(node)[0]

    def testAfterTheRegistrationTheVoxelAppearsOnItsPixel(self):
        self.logic.runToEnd(self.parameters)
        frame, over = self.layers()
        np.testing.assert_array_equal(self.pixels(frame), frameArray(1, 48, 64))
        row, column = np.unravel_index(self.pixels(over).argmax(), (48, 64))
        self.assertEqual((column, row), (20, 30))
        self.assertAlmostEqual(self.composite.GetForegroundOpacity(), 0.4)

    def testBeforeItIsSomewhereElse(self):
        self.logic.runToEnd(self.parameters)
        self.parameters.shownPose = ShownPose.BEFORE
        self.logic.updateOverlay(self.parameters)
        self.assertEqual(self.pixels(self.layers()[1]).max(), 0)

    def testBothLayersLieWhereTheFrameLies(self):
        self.logic.runToEnd(self.parameters)
        wanted = TO_RAS @ POSES[1] @ (20, 30, 0, 1)
        for node in self.layers():
            matrix = slicer.util.arrayFromVTKMatrix(_ijkToRas(node))
            np.testing.assert_allclose((matrix @ (20, 30, 0, 1))[:3], wanted[:3], atol=1e-9)
            self.assertIsNone(node.GetParentTransformNode())

    def testTheViewStandsInTheFramesPlaneWithTheMarkedSideRightAndDepthDown(self):
        self.logic.runToEnd(self.parameters)
        xyToRas = slicer.util.arrayFromVTKMatrix(self.view.GetXYToRAS())
        rasToPixel = np.linalg.inv(TO_RAS @ POSES[1])
        width, height, _depth = self.view.GetDimensions()
        corners = [(rasToPixel @ xyToRas @ (x, y, 0, 1))[:3] for x in (0, width) for y in (0, height)]
        np.testing.assert_allclose([c[2] for c in corners], 0, atol=1e-9)
        lowerLeft, upperLeft, lowerRight, upperRight = corners
        self.assertGreater(lowerRight[0], lowerLeft[0])  # columns to the right
        self.assertGreater(lowerLeft[1], upperLeft[1])  # rows down
        self.assertLess(max(lowerLeft[0], upperLeft[1]), 0)  # all of the frame in sight
        self.assertGreater(lowerRight[0], 63)
        self.assertGreater(lowerRight[1], 47)
        self.assertLess(upperRight[1], 0)

    def testTheCheckerboardTakesFieldsByTurns(self):
        voxels = np.full((12, 14, 16), 100.0, np.float32)
        image = np.eye(4)
        image[:3, :3] *= 0.5
        fan = np.ones((1, 16, 20), bool)
        fan[0, 15] = False
        source = OverlaySource(np.zeros((1, 16, 20)), fan, image[None], voxels, np.eye(4), 0.0, 100.0)
        board = source.checkerboard(0, np.eye(4), 2.0)  # 4 pixels a field
        self.assertEqual(board[0, 0], 0)
        self.assertEqual((board[3, 3], board[3, 4], board[4, 3], board[4, 4]), (0, 255, 255, 0))
        self.assertEqual(board[15].min(), 255)  # outside of the fan there is no ultrasound to show

    def testTheCheckerboardIsShownWhole(self):
        self.parameters.overlayMode = OverlayMode.CHECKERBOARD
        self.logic.runToEnd(self.parameters)
        over = self.pixels(self.layers()[1])
        self.assertEqual(self.composite.GetForegroundOpacity(), 1.0)
        np.testing.assert_array_equal(over[:8, :8], frameArray(1, 48, 64)[:8, :8])
        self.assertFalse(np.array_equal(over, frameArray(1, 48, 64)))

    def testWhileItRunsTheOverlayShowsTheBestPoseSoFar(self):
        loop = headless.EventLoop()
        logic = RegisterLogic(loop.schedule, fakeEngine(target=self.target, steps=2))
        logic.start(self.parameters)
        loop.run()
        self.assertEqual(self.pixels(self.layers()[1]).max(), 0)
        loop.run()
        self.assertGreater(self.pixels(self.layers()[1])[30, 20], 200)
        logic.forgetScene()

    def testOffGivesTheViewBack(self):
        before = (self.view.GetFieldOfView(), slicer.util.arrayFromVTKMatrix(self.view.GetSliceToRAS()).tolist())
        self.composite.SetBackgroundVolumeID(self.volume.GetID())
        count = slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode")
        self.logic.runToEnd(self.parameters)
        self.parameters.overlayMode = OverlayMode.OFF
        self.logic.updateOverlay(self.parameters)
        self.assertEqual(self.composite.GetBackgroundVolumeID(), self.volume.GetID())
        self.assertEqual(slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode"), count)
        after = (self.view.GetFieldOfView(), slicer.util.arrayFromVTKMatrix(self.view.GetSliceToRAS()).tolist())
        self.assertEqual(after, before)

    def testADeletedOverlayIsMadeAgainAndADeletedBackgroundIsNotBroughtBack(self):
        self.composite.SetBackgroundVolumeID(self.volume.GetID())
        self.logic.runToEnd(self.parameters)
        slicer.mrmlScene.RemoveNode(self.layers()[1])
        self.logic.updateOverlay(self.parameters)
        np.testing.assert_array_equal(self.pixels(self.layers()[0]), frameArray(1, 48, 64))
        slicer.mrmlScene.RemoveNode(self.volume)
        self.logic.forgetScene()
        self.assertIsNone(self.composite.GetBackgroundVolumeID())
        count = self.composite.GetNumberOfNodeReferenceRoles()
        roles = [self.composite.GetNthNodeReferenceRole(n) for n in range(count)]
        kept = [role for role in roles if self.composite.GetNumberOfNodeReferences(role)]
        self.assertEqual(kept, [])  # nothing waits for a volume of the next scene with the same identifier

    def testTheMiddleFrameStandsForNone(self):
        self.parameters.frameNumber = -1
        self.logic.runToEnd(self.parameters)
        np.testing.assert_array_equal(self.pixels(self.layers()[0]), frameArray(1, 48, 64))
        self.parameters.frameNumber = 2
        self.logic.updateOverlay(self.parameters)
        np.testing.assert_array_equal(self.pixels(self.layers()[0]), frameArray(2, 48, 64))

    def testAnotherLogicCanOpenTheOverlayOfAResultAgain(self):
        self.logic.runToEnd(self.parameters)
        self.logic.forgetScene()
        logic = RegisterLogic()
        logic.updateOverlay(self.parameters)
        self.assertEqual(logic.frameCount, 0)
        chosen, self.parameters.inputVolume = (
            self.volume,
            slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Another head"),
        )
        with self.assertRaisesRegex(RenderError, "choose these again"):
            logic.reopen(self.parameters)
        self.parameters.inputVolume = chosen
        logic.reopen(self.parameters)
        row, column = np.unravel_index(self.pixels(self.layers()[1]).argmax(), (48, 64))
        self.assertEqual((column, row), (20, 30))
        logic.forgetScene()

    def testTheOverlayIsAsBrightAsTheVolumeIsDisplayed(self):
        self.assertEqual(greyRange(self.volume, slicer.util.arrayFromVolume(self.volume))[0], 0.0)
        self.volume.CreateDefaultDisplayNodes()
        self.volume.GetDisplayNode().AutoWindowLevelOff()
        self.volume.GetDisplayNode().SetWindowLevel(40, 60)
        self.assertEqual(greyRange(self.volume, slicer.util.arrayFromVolume(self.volume)), (40.0, 80.0))

    def testAViewThatAlsoFollowsTheProbeIsGivenBackInAnyOrder(self):
        simulated = addVolume(np.zeros((1, 8, 8), np.uint8), np.eye(4), "Simulated")
        probe = addTransform(rotation(10, 20, 30, (1, 2, 3)))
        for driverFirst in (True, False):
            for driverStopsFirst in (True, False):
                with self.subTest(driverFirst=driverFirst, driverStopsFirst=driverStopsFirst):
                    self.composite.SetBackgroundVolumeID(self.volume.GetID())
                    self.composite.SetLinkedControl(1)
                    before, driver = ViewState.of(self.view), SliceViewDriver()
                    takers = [
                        lambda driver=driver: driver.start(self.view, probe, simulated, np.full(2, 9.0), np.zeros(2)),
                        lambda: self.logic.runToEnd(self.parameters),
                    ]
                    for take in takers if driverFirst else takers[::-1]:
                        take()
                    stoppers = [driver.stop, self.logic.forgetScene]
                    first, last = stoppers if driverStopsFirst else stoppers[::-1]
                    first()
                    self.assertNotEqual(self.composite.GetBackgroundVolumeID(), self.volume.GetID())
                    self.assertEqual(self.composite.GetLinkedControl(), 0)
                    last()
                    after = ViewState.of(self.view)
                    np.testing.assert_array_equal(after.sliceToRas, before.sliceToRas)
                    self.assertEqual(replace(after, sliceToRas=None), replace(before, sliceToRas=None))

    def testAnOffScreenFrameIsAlignedToo(self):
        borrowed = BorrowedView()
        borrowed.take(self.view)
        borrowed.showImage(np.diag([0.1, 0.1, 1.0, 1.0]), (100, 300))
        width, height, _depth = self.view.GetFieldOfView()
        self.assertGreater(width, 30)
        self.assertAlmostEqual(width / height, self.view.GetDimensions()[0] / self.view.GetDimensions()[1])


def _ijkToRas(node):
    import vtk

    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    return matrix


if __name__ == "__main__":
    unittest.main()
