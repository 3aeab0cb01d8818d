"""Tracked sequence files as sequence nodes, without SlicerIGSIO."""

from __future__ import annotations

import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import tempfile

import headless
import numpy as np
import SimpleITK as sitk
import slicer
import slicer.util
from DiffUSLib.engine import trackedSweep
from DiffUSLib.errors import RenderError
from DiffUSLib.register.load_sweep import loadSweep
from DiffUSLib.scene.tracked import readUltrasound
from headless.fixtures import addTransform, rotation
from headless.register_fixtures import frameArray, pixelInWorld, registerParameters, snapshot

POSES = np.stack([rotation(5 * k, 30, -10 * k, (10 * k, 5, -3 * k)) @ np.diag([0.2, 0.25, 0.2, 1]) for k in range(4)])


class RegisterLoadTest(unittest.TestCase):
    def setUp(self):
        headless.newScene()
        from diffus.sweep.sweep import TrackedSweep, write_sweep

        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name) / "sweep.igs.mha"
        frames = np.stack([frameArray(k) for k in range(4)])
        write_sweep(TrackedSweep.from_arrays(frames, POSES, timestamps=[3.0, 3.1, 3.2, 3.3]), self.path)

    def testThePlayedImageLiesWhereTheFileSaysAndShowsItsPixels(self):
        browser = loadSweep(self.path)
        volume = browser.GetProxyNode(browser.GetMasterSequenceNode())
        self.assertEqual(browser.GetNumberOfItems(), 4)
        for k in range(4):
            browser.SetSelectedItemNumber(k)
            np.testing.assert_array_equal(slicer.util.arrayFromVolume(volume)[0], frameArray(k))
            for column, row in ((0, 0), (31, 5), (7, 23)):
                wanted = (POSES[k] @ (column, row, 0, 1))[:3]
                np.testing.assert_allclose(pixelInWorld(volume, column, row), wanted, atol=1e-6)

    def testFramesThatFollowTooFastForASequenceAreMovedApartAndTheOthersKeepTheirTimes(self):
        from diffus.sweep.sweep import TrackedSweep, write_sweep

        frames = np.stack([frameArray(k) for k in range(4)])
        times = [3.0, 3.0006, 3.0012, 13.0]
        write_sweep(TrackedSweep.from_arrays(frames, POSES, timestamps=times), self.path)
        browser = loadSweep(self.path)
        self.assertEqual(browser.GetNumberOfItems(), 4)
        images = browser.GetMasterSequenceNode()
        found = [float(images.GetNthIndexValue(k)) for k in range(4)]
        np.testing.assert_allclose(found, [3.0, 3.002, 3.004, 13.0], atol=1e-9)
        self.assertIn("The times of 2 of 4 frames did not rise and were moved.", browser.GetDescription())
        np.testing.assert_allclose(trackedSweep(readUltrasound(registerParameters(None, browser))).timestamps, found)
        volume = browser.GetProxyNode(images)
        for k in range(4):
            browser.SetSelectedItemNumber(k)
            np.testing.assert_array_equal(slicer.util.arrayFromVolume(volume)[0], frameArray(k))

    def testPixelsKeepTheTypeOfTheFile(self):
        image = sitk.ReadImage(str(self.path))
        frames = np.stack([257 * frameArray(k).astype(np.uint16) + 3 for k in range(4)])
        wide = sitk.GetImageFromArray(frames)
        for key in image.GetMetaDataKeys():
            if key.startswith(("Seq_", "Ultrasound")):
                wide.SetMetaData(key, image.GetMetaData(key))
        sitk.WriteImage(wide, str(self.path))
        browser = loadSweep(self.path)
        images = browser.GetMasterSequenceNode()
        for k in range(4):
            found = slicer.util.arrayFromVolume(images.GetNthDataNode(k))[0]
            self.assertEqual(found.dtype, np.uint16)
            np.testing.assert_array_equal(found, frames[k])

    def testWhatIsLoadedCanBeRegistered(self):
        ultrasound = readUltrasound(registerParameters(None, loadSweep(self.path)))
        np.testing.assert_allclose(ultrasound.imageToReference, POSES, atol=1e-9)
        np.testing.assert_array_equal(ultrasound.pixels[2], frameArray(2))

    def loseAFrameAndTheOrientation(self):
        image = sitk.ReadImage(str(self.path))
        image.SetMetaData("Seq_Frame0001_ImageToReferenceTransformStatus", "INVALID")
        image.EraseMetaData("UltrasoundImageOrientation")
        sitk.WriteImage(image, str(self.path))

    def testWhatTheFileLackedIsSaidInTheReport(self):
        self.loseAFrameAndTheOrientation()
        report = trackedSweep(readUltrasound(registerParameters(None, loadSweep(self.path)))).report
        self.assertEqual((report.frames_in_file, report.frames_skipped), (4, 1))
        self.assertEqual(len(report.notes), 1)
        self.assertIn("orientation is not stated", report.notes[0])

    def testALoadedSweepComesBackWithASavedScene(self):
        self.loseAFrameAndTheOrientation()
        browser = loadSweep(self.path)
        scene, folder = slicer.mrmlScene, self.path.parent
        for node in (browser.GetMasterSequenceNode(), browser.GetSequenceNode(_transformOf(browser))):
            node.AddDefaultStorageNode()
            node.GetStorageNode().SetFileName(str(folder / f"{node.GetName()}{_extension(node)}"))
            self.assertTrue(node.GetStorageNode().WriteData(node))
        scene.SetURL(str(folder / "scene.mrml"))
        scene.SetRootDirectory(str(folder))
        scene.Commit()
        headless.newScene()
        slicer.mrmlScene.SetURL(str(folder / "scene.mrml"))
        slicer.mrmlScene.Connect()
        browser = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLSequenceBrowserNode")
        ultrasound = readUltrasound(registerParameters(None, browser))
        np.testing.assert_allclose(ultrasound.imageToReference, POSES[[0, 2, 3]], atol=1e-6)
        self.assertEqual(ultrasound.skipped, 1)
        self.assertIn("orientation is not stated", ultrasound.notes[0])

    def testLostFramesAreLeftOutAndCounted(self):
        image = sitk.ReadImage(str(self.path))
        image.SetMetaData("Seq_Frame0001_ImageToReferenceTransformStatus", "INVALID")
        sitk.WriteImage(image, str(self.path))
        browser = loadSweep(self.path)
        self.assertEqual(browser.GetNumberOfItems(), 3)
        self.assertIn("3 of 4", browser.GetDescription())
        np.testing.assert_array_equal(readUltrasound(registerParameters(None, browser)).pixels[1], frameArray(2))

    def testAFileWithoutCalibrationTakesItFromANode(self):
        image = sitk.GetImageFromArray(np.stack([frameArray(k) for k in range(2)]))
        image.SetMetaData("UltrasoundImageOrientation", "MF")
        for k in range(2):
            numbers = " ".join(str(v) for v in rotation(0, 0, 90, (100 + k, 0, 0)).ravel())
            image.SetMetaData(f"Seq_Frame{k:04d}_ProbeToReferenceTransform", numbers)
            image.SetMetaData(f"Seq_Frame{k:04d}_ProbeToReferenceTransformStatus", "OK")
        sitk.WriteImage(image, str(self.path))
        with self.assertRaisesRegex(RenderError, "calibration"):
            loadSweep(self.path)
        calibration = addTransform(np.diag([0.5, 0.25, 0.5, 1.0]), name="ImageToProbe")
        browser = loadSweep(self.path, calibration)
        volume = browser.GetProxyNode(browser.GetMasterSequenceNode())
        # Pixel (4, 8) is (2, 2, 0) for the probe, and the probe is turned by 90 degrees.
        np.testing.assert_allclose(pixelInWorld(volume, 4, 8), (98, 2, 0), atol=1e-9)
        # The calibration is in the poses by now: that it stays chosen is nothing to remark.
        self.assertEqual(readUltrasound(registerParameters(None, browser, imageToProbe=calibration)).notes, ())
        other = addTransform(np.diag([0.5, 0.25, 0.5, 1.0]), name="Other")
        notes = readUltrasound(registerParameters(None, browser, imageToProbe=other)).notes
        self.assertEqual(notes, ("The calibration 'Other' was left out: the image has its place without it.",))

    def testABadFileAddsNothing(self):
        before = snapshot()
        plain = self.path.parent / "plain.mha"
        sitk.WriteImage(sitk.GetImageFromArray(np.zeros((4, 24, 32), np.uint8)), str(plain))
        (self.path.parent / "text.mha").write_text("no image")
        for name, words in (("plain.mha", "no tracking"), ("text.mha", "cannot be read"), ("none.mha", "no file")):
            with self.assertRaises(RenderError) as caught:
                loadSweep(self.path.parent / name)
            self.assertIn(words, str(caught.exception))
        self.assertEqual(snapshot(), before)


def _transformOf(browser):
    return browser.GetProxyNode(browser.GetMasterSequenceNode()).GetParentTransformNode()


def _extension(sequence) -> str:
    return ".seq.nrrd" if sequence.GetNthDataNode(0).IsA("vtkMRMLVolumeNode") else ".seq.mrb"


if __name__ == "__main__":
    unittest.main()
