"""The result: where it puts the volume, when it may be accepted, and how it is undone."""

from __future__ import annotations

import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import json
import tempfile

import headless
import numpy as np
import slicer
import slicer.util
from DiffUSLib.errors import RenderError
from DiffUSLib.register.logic import RegisterLogic
from DiffUSLib.register.parameter_node import RegisterParameterNode
from DiffUSLib.register.result import ConfirmationNeeded, canUndo, leftBehind, stillMoved, whyNotAcceptable
from DiffUSLib.scene.transforms import toVtk
from headless.fixtures import addSegmentation, addTransform, addVolume, rotation
from headless.register_fixtures import (
    addBrowser,
    fakeEngine,
    frameArray,
    hang,
    imageSequence,
    poseSequence,
    registerParameters,
    snapshot,
    toWorld,
)
from vtk.util.numpy_support import vtk_to_numpy

POSES = [rotation(0, 5 * k, 0, (2 * k + 1, 0, 0)) for k in range(3)]
TO_RAS = rotation(0, 0, 90, (100, 0, 0))  # (x, y, z) of the reference lies at (100 - y, x, z)
TARGET = rotation(0, 0, 0, (10, 20, 30))  # mri_to_reference


class RegisterResultTest(unittest.TestCase):
    def setUp(self):
        self.scene = headless.newScene()
        self.parent = addTransform(rotation(7, 0, 0, (1, 2, 3)), name="Planning")
        self.volume = addVolume(np.random.default_rng(0).random((20, 20, 20), np.float32), name="MRI")
        hang(self.volume, self.parent)
        images = imageSequence([frameArray(k) for k in range(3)])
        poses = poseSequence(POSES, "p", "ImageToReference")
        browser = addBrowser(images, poses)
        self.reference = addTransform(TO_RAS, name="ReferenceToRAS")
        hang(browser.GetProxyNode(images), browser.GetProxyNode(poses), self.reference)
        self.parameters = registerParameters(self.volume, browser)

    def register(self, **settings):
        self.logic = RegisterLogic(buildRegistration=fakeEngine(**{"target": TARGET, **settings}))
        self.logic.schedule = lambda call: None
        self.logic.runToEnd(self.parameters)
        return self.parameters.resultTransform

    def testTheResultTakesTheVolumesOwnPointsToWorld(self):
        result = self.register()
        # (1, 2, 3) of the volume is (11, 22, 33) of the reference, and that is (100 - 22, 11, 33) in the world.
        transformed = result.GetTransformToParent().TransformPoint((1.0, 2.0, 3.0))
        np.testing.assert_allclose(transformed, (78, 11, 33), atol=1e-9)
        self.assertIsNone(result.GetParentTransformNode())

    def testUntilItIsAcceptedNothingMoves(self):
        was = toWorld(self.volume, (1, 2, 3))
        self.register()
        np.testing.assert_allclose(toWorld(self.volume, (1, 2, 3)), was)
        self.assertIs(self.volume.GetParentTransformNode(), self.parent)

    def testAcceptReplacesTheParentAndUndoBringsItBack(self):
        was = toWorld(self.volume, (1, 2, 3))
        self.register()
        self.logic.accept(self.parameters)
        np.testing.assert_allclose(toWorld(self.volume, (1, 2, 3)), (78, 11, 33), atol=1e-9)
        matrix = slicer.util.arrayFromTransformMatrix(self.parent)
        np.testing.assert_allclose(matrix, rotation(7, 0, 0, (1, 2, 3)), atol=1e-12)  # not overwritten
        self.logic.undo(self.parameters)
        np.testing.assert_allclose(toWorld(self.volume, (1, 2, 3)), was, atol=1e-12)
        self.assertFalse(canUndo(self.parameters))
        self.assertEqual(whyNotAcceptable(self.parameters), "")

    def testAVolumeWithoutParentGoesBackToNone(self):
        self.volume.SetAndObserveTransformNodeID(None)
        self.register()
        self.logic.accept(self.parameters)
        self.logic.undo(self.parameters)
        self.assertIsNone(self.volume.GetParentTransformNode())

    def testASecondRunStartsFromTheAcceptedResultAndKeepsIt(self):
        first = self.register()
        self.logic.accept(self.parameters)
        second = self.register(target=None)  # stays where it starts
        self.assertIsNot(second, first)
        np.testing.assert_allclose(second.GetTransformToParent().TransformPoint((1.0, 2.0, 3.0)), (78, 11, 33))
        self.logic.accept(self.parameters)
        self.logic.undo(self.parameters)
        self.assertIs(self.volume.GetParentTransformNode(), first)

    def testARejectedResultHasNothingToAccept(self):
        self.assertIsNone(self.register(verdict="rejected", reasons=("Nothing overlaps.",)))
        self.assertIn("rejected", whyNotAcceptable(self.parameters))
        for confirmed in (False, True):
            with self.assertRaises(RenderError):
                self.logic.accept(self.parameters, confirmed)
        self.assertIs(self.volume.GetParentTransformNode(), self.parent)
        self.assertIsNotNone(self.parameters.resultTable)

    def testNobodyKnowsTheErrorOfARejectedResult(self):
        self.register(verdict="rejected", reasons=("Nothing overlaps.",))
        report = json.loads(self.parameters.report)
        self.assertEqual((report["expected_error_mm"], report["expected_error_worst_mm"]), (None, None))
        rows = self.rows()
        self.assertIn(["Expected error", "not known", ""], rows)
        self.assertIn(["Expected error, worst 5 %", "not known", ""], rows)
        self.assertIn(["Calibrated on", "simulated sweeps", ""], rows)

    def testACheckNeedsTheUsersWordAfterTheReasons(self):
        self.register(verdict="check", reasons=("One frame only.", "Weakest left-right."))
        with self.assertRaises(ConfirmationNeeded) as caught:
            self.logic.accept(self.parameters)
        self.assertIn("One frame only.\nWeakest left-right.", str(caught.exception))
        self.assertIs(self.volume.GetParentTransformNode(), self.parent)
        self.logic.accept(self.parameters, confirmed=True)
        np.testing.assert_allclose(toWorld(self.volume, (1, 2, 3)), (78, 11, 33), atol=1e-9)

    def testUndoRestoresEverythingThroughAChainWithAScaledCalibration(self):
        """With transforms above the ultrasound and the volume and pixels of 0.5 mm, Undo leaves no trace of Accept."""
        images = imageSequence([frameArray(k) for k in range(3)])
        poses = poseSequence(POSES, "p", "ProbeToReference")
        browser = addBrowser(images, poses, name="Scaled")
        scaled = addTransform(rotation(0, 0, 30, (4, 5, 6)) @ np.diag([0.5, 0.5, 0.5, 1.0]), name="ImageToProbe")
        hang(browser.GetProxyNode(images), scaled, browser.GetProxyNode(poses), self.reference)
        hang(self.parent, addTransform(rotation(0, 12, 0, (-9, 8, 7)), name="Above"))
        self.parameters.ultrasound = browser
        self.register()
        before = snapshot()
        self.logic.accept(self.parameters)
        np.testing.assert_allclose(toWorld(self.volume, (1, 2, 3)), (78, 11, 33), atol=1e-9)
        self.assertNotEqual(snapshot(), before)
        self.logic.undo(self.parameters)
        self.assertEqual(snapshot(), before)

    def assertNotAcceptable(self, words, quickly=True):
        if quickly:
            self.assertIn(words, whyNotAcceptable(self.parameters))
        for confirmed in (False, True):
            with self.assertRaisesRegex(RenderError, words):
                self.logic.accept(self.parameters, confirmed)
        self.assertIs(self.volume.GetParentTransformNode(), self.parent)

    def testVoxelsThatWereEditedOrReplacedSinceAreNoticed(self):
        self.register(verdict="check")
        voxels = slicer.util.arrayFromVolume(self.volume).copy()
        changed = voxels.copy()
        changed[3, 4, 5] += 1
        for array in (changed, voxels[1:], np.zeros_like(voxels)):
            slicer.util.updateVolumeFromArray(self.volume, array)
            self.assertNotAcceptable("has been changed", quickly=False)
        self.volume.SetAndObserveImageData(None)
        self.assertNotAcceptable("has been changed", quickly=False)
        slicer.util.updateVolumeFromArray(self.volume, voxels)
        self.volume.GetImageData().Modified()  # touched, not changed
        self.logic.accept(self.parameters, confirmed=True)
        self.assertIs(self.volume.GetParentTransformNode(), self.parameters.resultTransform)

    def testVoxelsThatWereEditedDuringTheRunAreNoticed(self):
        pending = []
        self.logic = RegisterLogic(buildRegistration=fakeEngine(target=TARGET))
        self.logic.schedule = pending.append
        self.logic.start(self.parameters)
        slicer.util.arrayFromVolume(self.volume)[3, 4, 5] += 1
        while pending:
            pending.pop()()
        self.assertNotAcceptable("has been changed", quickly=False)

    def testASegmentationThatWasEditedSinceIsNoticed(self):
        labels = np.zeros((20, 20, 20), np.uint8)
        labels[5:15, 5:15, 5:15] = 1
        matrix = np.diag([2.0, 2.0, 2.0, 1.0])
        self.volume = addSegmentation({"skull": labels}, matrix, name="Segments")
        hang(self.volume, self.parent)
        self.parameters.inputVolume = self.volume
        self.register()
        segmentation = self.volume.GetSegmentation()
        image = segmentation.GetNthSegment(0).GetRepresentation("Binary labelmap")
        pixels = vtk_to_numpy(image.GetPointData().GetScalars())
        place = int(np.flatnonzero(pixels)[0])
        pixels[place] = 0
        image.Modified()
        self.assertNotAcceptable("has been changed", quickly=False)
        pixels[place] = 1
        image.SetImageToWorldMatrix(toVtk(rotation(0, 0, 0, (0, 0, 1)) @ matrix))
        self.assertNotAcceptable("has been changed", quickly=False)
        image.SetImageToWorldMatrix(toVtk(matrix))
        self.logic.accept(self.parameters)
        self.logic.undo(self.parameters)
        segmentation.RemoveAllSegments()
        self.assertNotAcceptable("has been changed", quickly=False)

    def testWhatHungBesideTheVolumeIsNamed(self):
        self.register()
        self.logic.accept(self.parameters)
        self.assertEqual(leftBehind(self.parameters), "")
        self.logic.undo(self.parameters)
        marks = [self.scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", name) for name in ("tumour", "b", "c", "d")]
        hang(marks[0], self.parent)
        self.logic.accept(self.parameters)
        sentence = leftBehind(self.parameters)
        self.assertIn("Only 'MRI' has moved: what belongs to it ('tumour')", sentence)
        self.assertIn("'MRI to ultrasound'", sentence)
        hang(marks[0], self.parameters.resultTransform)
        self.assertEqual(leftBehind(self.parameters), "")
        self.assertIn("'tumour'", stillMoved(self.parameters))
        for node in marks:
            hang(node, self.parent)
        self.assertIn("('tumour', 'b', 'c', 1 more)", leftBehind(self.parameters))
        self.assertEqual(stillMoved(self.parameters), "")

    def testTheUltrasoundIsNeverNamedAsPartOfTheVolume(self):
        """Volume, landmarks and tracked ultrasound hang under one transform, as in a navigated theatre."""
        hang(self.volume, self.reference)
        marks = [self.scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", name) for name in ("in MRI", "in US")]
        for node, point in ((n, p) for n in marks for p in ((0, 0, 0), (9, 0, 0), (0, 9, 9))):
            node.AddControlPoint(point)
        for node in marks:
            hang(node, self.reference)
        self.parameters.volumeLandmarks, self.parameters.ultrasoundLandmarks = marks
        self.register()
        self.logic.accept(self.parameters, confirmed=True)
        self.assertIn("belongs to it ('in MRI') must", leftBehind(self.parameters))

    def testOfAVolumeUnderNoTransformItsOwnSegmentationsAreNamed(self):
        self.volume.SetAndObserveTransformNodeID(None)
        own, other = (addSegmentation({"a": np.ones((9, 9, 9), np.uint8)}, np.eye(4), n) for n in ("own", "other"))
        own.SetReferenceImageGeometryParameterFromVolumeNode(self.volume)
        self.register()
        self.logic.accept(self.parameters)
        self.assertIn("('own')", leftBehind(self.parameters))
        self.assertIsNone(other.GetParentTransformNode())

    def testAVolumeThatWasHardenedMeanwhileIsNotMoved(self):
        self.register()
        self.volume.SetIJKToRASMatrix(toVtk(rotation(0, 0, 5)))
        self.assertNotAcceptable("has been changed")

    def testAVolumeThatWasHardenedDuringTheRunIsNotMoved(self):
        pending = []
        self.logic = RegisterLogic(buildRegistration=fakeEngine(target=TARGET))
        self.logic.schedule = pending.append
        self.logic.start(self.parameters)
        pending.pop()()
        self.volume.SetIJKToRASMatrix(toVtk(rotation(0, 0, 5)))
        while pending:
            pending.pop()()
        self.assertNotAcceptable("has been changed")

    def testAReferenceThatMovedMeanwhileIsNoticed(self):
        self.register()
        self.reference.SetMatrixTransformToParent(toVtk(rotation(0, 0, 91, (100, 0, 0))))
        self.assertNotAcceptable("reference of the ultrasound has moved")
        self.scene.RemoveNode(self.reference)
        self.assertNotAcceptable("reference of the ultrasound has moved")

    def testAResultThatWasChangedMeanwhileIsNotAccepted(self):
        """The verdict is on what was found, not on what somebody made of it."""
        result = self.register()
        result.SetMatrixTransformToParent(toVtk(rotation(0, 0, 0, (0, 0, 0.1)) @ TO_RAS @ TARGET))
        self.assertNotAcceptable("result's transform has been changed")
        result.SetMatrixTransformToParent(toVtk(TO_RAS @ TARGET))
        hang(result, self.reference)
        self.assertNotAcceptable("result's transform has been changed")

    def testWithoutAResultThereIsNothingToAcceptOrUndo(self):
        logic = RegisterLogic()
        for action in (logic.accept, logic.undo):
            with self.assertRaises(RenderError):
                action(self.parameters)

    def testADeletedParentCannotBeBroughtBack(self):
        self.register()
        self.logic.accept(self.parameters)
        self.scene.RemoveNode(self.parent)
        with self.assertRaisesRegex(RenderError, "deleted"):
            self.logic.undo(self.parameters)
        self.assertIs(self.volume.GetParentTransformNode(), self.parameters.resultTransform)

    def testTheTableSaysTheVerdictTheReasonsAndTheUnits(self):
        self.register(verdict="check", reasons=("One frame only.",))
        rows = self.rows()
        self.assertEqual(rows[0], ["Verdict", "Check", ""])
        self.assertIn(["Reason", "One frame only.", ""], rows)
        self.assertIn(["Expected error", "0.8", "mm"], rows)

    def rows(self):
        table = self.parameters.resultTable
        return [[table.GetCellText(r, c) for c in range(3)] for r in range(table.GetNumberOfRows())]

    def landmarks(self, offset, last=0.0):
        for name, points in (
            ("volumeLandmarks", [toWorld(self.volume, p) for p in ((0, 0, 0), (9, 0, 0), (0, 9, 9))]),
            ("ultrasoundLandmarks", [(80 + offset, 10, 30), (80 + offset, 19, 30), (71 + offset, 10, 39 + last)]),
        ):
            node = self.scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode")
            for point in points:
                node.AddControlPoint(point)
            setattr(self.parameters, name, node)

    def testLandmarksAreReportedBeforeAndAfter(self):
        self.landmarks(offset=1.5)
        self.register()
        report = json.loads(self.parameters.report)
        np.testing.assert_allclose(report["landmarks_after_mm"], 1.5, atol=1e-9)
        self.assertGreater(min(report["landmarks_before_mm"]), 60)
        self.assertEqual(report["verdict"], "trusted")

    def testLandmarksThatContradictATrustedResultLowerItToCheck(self):
        self.landmarks(offset=4.0)
        result = self.register()
        report = json.loads(self.parameters.report)
        self.assertEqual(report["verdict"], "check")
        self.assertIn("4.0 mm apart", report["reasons"][0])
        self.assertEqual(len(report["reasons"]), 1)
        self.assertGreaterEqual(report["expected_error_mm"], 4.0 - 1e-6)
        self.assertGreaterEqual(report["expected_error_worst_mm"], 4.0 - 1e-6)
        self.assertEqual(result.GetAttribute("DiffUSRegister.Verdict"), "check")

    def testOneLandmarkThatIsFarOffIsEnough(self):
        self.landmarks(offset=0.0, last=6.0)  # 2 mm on average
        self.register()
        report = json.loads(self.parameters.report)
        self.assertEqual(report["verdict"], "check")
        self.assertIn("One pair of landmarks is still 6.0 mm apart", report["reasons"][0])
        self.assertGreaterEqual(report["expected_error_worst_mm"], 6.0 - 1e-6)

    def testLandmarksAreHeldAgainstACheckToo(self):
        self.landmarks(offset=4.0)
        self.register(verdict="check", reasons=("One frame only.",))
        report = json.loads(self.parameters.report)
        self.assertIn("4.0 mm apart", report["reasons"][0])
        self.assertEqual(report["reasons"][1:], ["One frame only."])
        self.assertGreaterEqual(report["expected_error_mm"], 4.0 - 1e-6)

    def saveAndLoad(self, change=lambda volume: None):
        """The scene after a result was saved and loaded; `change` is done to the volume before it is saved."""
        self.register()
        change(self.volume)
        result = self.parameters.resultTransform
        with tempfile.TemporaryDirectory() as folder:
            for node in (result, self.parent, self.reference, self.volume):
                node.AddDefaultStorageNode()
                extension = ".nrrd" if node is self.volume else ".h5"
                node.GetStorageNode().SetFileName(f"{folder}/{node.GetName()}{extension}")
                self.assertTrue(node.GetStorageNode().WriteData(node))
            self.scene.SetURL(f"{folder}/scene.mrml")
            self.scene.SetRootDirectory(folder)
            self.scene.Commit()
            scene = headless.newScene()
            scene.SetURL(f"{folder}/scene.mrml")
            scene.Connect()
        return scene, RegisterParameterNode(scene.GetFirstNodeByName("DiffUSRegister"))

    def testAVolumeThatWasEditedBeforeSavingIsNoticedAfterLoading(self):
        def edit(volume):
            slicer.util.arrayFromVolume(volume)[3, 4, 5] += 1

        _scene, parameters = self.saveAndLoad(edit)
        with self.assertRaisesRegex(RenderError, "has been changed"):
            RegisterLogic().accept(parameters)

    def testASavedSceneComesBackWithTheResultAndCanStillAcceptAndUndo(self):
        scene, parameters = self.saveAndLoad()
        volume = scene.GetFirstNodeByName("MRI")
        was = toWorld(volume, (1, 2, 3))
        self.assertEqual(whyNotAcceptable(parameters), "")
        logic = RegisterLogic()
        logic.accept(parameters)
        np.testing.assert_allclose(toWorld(volume, (1, 2, 3)), (78, 11, 33), atol=1e-6)
        logic.undo(parameters)
        np.testing.assert_allclose(toWorld(volume, (1, 2, 3)), was, atol=1e-6)


if __name__ == "__main__":
    unittest.main()
