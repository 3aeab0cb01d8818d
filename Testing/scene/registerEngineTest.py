"""The real engine behind the scene layer: what it is given, and a whole registration through a chain of transforms."""

from __future__ import annotations

import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import json

import headless
import numpy as np
import slicer
import slicer.util
from DiffUSLib.errors import RenderError
from DiffUSLib.kinds import MediumKind
from DiffUSLib.register.logic import RegisterLogic
from DiffUSLib.register.parameters import OverlayMode, VolumeSource
from DiffUSLib.register.session import readVolume
from headless.fixtures import addHead, addSegmentation, addTransform, addVolume, rotation
from headless.register_fixtures import (
    addBrowser,
    hang,
    imageSequence,
    poseSequence,
    registerParameters,
    toWorld,
)
from scipy import ndimage

SPACING = 1.5
TRUTH = rotation(10, -15, 20, (30, -10, 5))  # mri_to_reference
TO_RAS = rotation(-40, 20, 70, (100, 50, -20))
OFF = rotation(2, -2, 1, (2, -1, 1.5))  # in the reference, between truth and start


def blobs() -> tuple[np.ndarray, np.ndarray]:
    """A random volume of two tissues, 90 mm, centred on its own origin."""
    noise = np.random.default_rng(3).normal(size=(60, 60, 60))
    voxels = np.tanh(100 * ndimage.gaussian_filter(noise, 2.5)).astype(np.float32)
    ijkToRas = np.diag([SPACING, SPACING, SPACING, 1.0])
    ijkToRas[:3, 3] = -SPACING * 29.5
    return 100 + 50 * voxels, ijkToRas


def cut(voxels, ijkToRas, imageToMri, shape=(64, 72)) -> np.ndarray:
    """A frame of the volume with speckle, uint8."""
    matrix = np.linalg.inv(ijkToRas) @ imageToMri
    c, r = np.meshgrid(np.arange(shape[1]), np.arange(shape[0]))
    i, j, k = (row[0] * c + row[1] * r + row[3] for row in matrix[:3])
    clean = ndimage.map_coordinates(voxels, [k, j, i], order=1)
    speckle = np.random.default_rng(int(abs(imageToMri[2, 3]) * 1000)).normal(1.0, 0.2, shape)
    return np.clip(clean * speckle, 1, 255).astype(np.uint8)


class RegisterEngineTest(unittest.TestCase):
    def setUp(self):
        headless.newScene()

    def scene(self):
        """A tracked sweep through the blobs, and the blobs a few mm away from where they belong."""
        voxels, ijkToRas = blobs()
        pixels = np.diag([0.8, 0.8, 0.8, 1.0])
        pixels[:3, 3] = (-28.8, -25.6, 0)
        inMri = [rotation(-20 + 5 * k, 3 * k, 0, (k - 4, 0, 2 * k - 8)) for k in range(9)]
        images = imageSequence([cut(voxels, ijkToRas, pose @ pixels) for pose in inMri], pixels)
        poses = poseSequence([TRUTH @ pose for pose in inMri], "p", "ProbeToReference")
        browser = addBrowser(images, poses)
        hang(browser.GetProxyNode(images), browser.GetProxyNode(poses), addTransform(TO_RAS, name="ReferenceToRAS"))
        volume = addVolume(voxels, ijkToRas, "MRI")
        hang(volume, addTransform(TO_RAS @ OFF @ TRUTH, name="Start"))
        return registerParameters(volume, browser, overlayMode=OverlayMode.OFF, translationMm=6.0, rotationDeg=6.0)

    def errorMm(self, volume):
        points = np.array([[0, 0, 0], [20, 0, 0], [0, 20, 0], [0, 0, 20]], float)
        wanted = [(TO_RAS @ TRUTH @ np.append(p, 1))[:3] for p in points]
        return np.linalg.norm([toWorld(volume, p) - w for p, w in zip(points, wanted)], axis=1).mean()

    def testARegistrationThroughAChainOfTransformsBringsTheVolumeToTheUltrasound(self):
        parameters = self.scene()
        volume = parameters.inputVolume
        self.assertGreater(self.errorMm(volume), 2.0)
        logic = RegisterLogic()
        logic.runToEnd(parameters)
        # Whatever the verdict on such a toy: the pose must be right.
        hang(volume, addTransform(np.array(json.loads(parameters.report)["volume_to_world"])))
        self.assertLess(self.errorMm(volume), 0.5)

    def testAConstantVolumeIsRefusedInOneSentence(self):
        parameters = self.scene()
        slicer.util.updateVolumeFromArray(parameters.inputVolume, np.ones((20, 20, 20), np.float32))
        with self.assertRaisesRegex(RenderError, "constant"):
            RegisterLogic(lambda call: None).start(parameters)

    def testVoxelsGoToTheEngineAsTheyAre(self):
        head = addHead()
        voxels, ijkToRas, kind = readVolume(head, MediumKind.AUTO, VolumeSource.RAW)
        self.assertEqual(kind, "ct")
        self.assertEqual(voxels.min(), -1000)
        np.testing.assert_allclose(ijkToRas @ (0, 0, 0, 1), (-76, -76, -76, 1), atol=2.1)

    def testTheMediumIsImpedanceOnTheSameGrid(self):
        head = addHead()
        voxels, ijkToRas, kind = readVolume(head, MediumKind.AUTO, VolumeSource.MEDIUM)
        self.assertEqual((kind, voxels.shape), ("generic", slicer.util.arrayFromVolume(head).shape))
        i, j, k, _one = (np.linalg.inv(ijkToRas) @ (0, 0, 0, 1)).round().astype(int)
        self.assertTrue(1.4 < voxels[k, j, i] < 1.8)  # MRayl of soft tissue

    def testASegmentationBecomesImpedance(self):
        labels = np.zeros((20, 20, 20), np.uint8)
        labels[5:15, 5:15, 5:15] = 1
        node = addSegmentation({"skull": labels}, np.diag([2.0, 2, 2, 1]))
        voxels, ijkToRas, kind = readVolume(node, MediumKind.AUTO, VolumeSource.RAW)
        self.assertEqual(kind, "generic")
        i, j, k, _one = (np.linalg.inv(ijkToRas) @ (20, 20, 20, 1)).round().astype(int)
        self.assertGreater(voxels[k, j, i], 3.0)


if __name__ == "__main__":
    unittest.main()
