"""Where the search begins: the present position, a transform, or landmark pairs."""

from __future__ import annotations

import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import headless
import numpy as np
import slicer
from DiffUSLib.errors import RenderError
from DiffUSLib.register.parameters import StartFrom, missingInput
from DiffUSLib.register.start import readLandmarks, startPosition
from DiffUSLib.scene.transforms import isRigid
from headless.fixtures import addTransform, addVolume, rotation
from headless.register_fixtures import hang, registerParameters, toWorld

PARENT = rotation(20, 10, -30, (15, -8, 4))
TRUTH = rotation(-10, 35, 12, (40, 3, -20))
POINTS = np.array([[0.0, 0, 0], [50, 10, 0], [5, 60, 10], [10, 15, 70]])


def addPoints(points, labels=None, parent=None):
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode")
    for n, point in enumerate(points):
        node.AddControlPoint(point, labels[n] if labels else f"F-{n + 1}")
    if parent is not None:
        node.SetAndObserveTransformNodeID(parent.GetID())
    return node


class RegisterStartTest(unittest.TestCase):
    def setUp(self):
        headless.newScene()
        self.parent = addTransform(PARENT, name="Parent")
        self.volume = addVolume(np.ones((8, 8, 8), np.float32), name="MRI")
        hang(self.volume, self.parent)

    def start(self, **settings):
        parameters = registerParameters(self.volume, **settings)
        return startPosition(parameters, readLandmarks(parameters))

    def assertMaps(self, matrix, point, wanted):
        np.testing.assert_allclose((matrix @ np.append(point, 1.0))[:3], wanted, atol=1e-9)

    def testThePresentPositionIsWhereTheSceneShowsTheVolume(self):
        hang(self.parent, addTransform(TRUTH))
        self.assertMaps(self.start(), (1, 2, 3), toWorld(self.volume, (1, 2, 3)))

    def testATransformMeansWhatItWouldMeanAboveTheVolume(self):
        guess = addTransform(rotation(0, 0, 90, (1, 0, 0)), parent=addTransform(TRUTH))
        start = self.start(startFrom=StartFrom.TRANSFORM, initialTransform=guess)
        hang(self.volume, guess)
        for point in ((1, 2, 3), (-7, 0, 11)):
            self.assertMaps(start, point, toWorld(self.volume, point))

    def landmarks(self, points=POINTS, **settings):
        """Points that were clicked on the volume as it is shown, and where they belong."""
        shown = [toWorld(self.volume, point) for point in points]
        there = [(TRUTH @ np.append(point, 1.0))[:3] for point in points]
        return {
            "startFrom": StartFrom.LANDMARKS,
            "volumeLandmarks": addPoints(shown),
            "ultrasoundLandmarks": addPoints(there),
            **settings,
        }

    def testLandmarksBringEveryPointToItsPartner(self):
        start = self.start(**self.landmarks())
        self.assertMaps(start, (1, 2, 3), (TRUTH @ (1, 2, 3, 1))[:3])

    def testLandmarksThatHangUnderTransformsToo(self):
        settings = self.landmarks()
        settings["volumeLandmarks"] = addPoints(POINTS, parent=self.parent)
        turned = [(np.linalg.inv(PARENT) @ TRUTH @ np.append(p, 1.0))[:3] for p in POINTS]
        settings["ultrasoundLandmarks"] = addPoints(turned, parent=self.parent)
        self.assertMaps(self.start(**settings), (1, 2, 3), (TRUTH @ (1, 2, 3, 1))[:3])

    def testLabelsMatchBeforeOrder(self):
        settings = self.landmarks()
        there = [(TRUTH @ np.append(p, 1.0))[:3] for p in POINTS[::-1]]
        settings["ultrasoundLandmarks"] = addPoints(there, labels=["U-4", "U-3", "U-2", "U-1"])
        self.assertMaps(self.start(**settings), (1, 2, 3), (TRUTH @ (1, 2, 3, 1))[:3])

    def testEqualLabelsMatchBeforeTheirNumbers(self):
        """Left and right of one level carry one number, and the lists stand in another order."""
        labels = ["left-1", "right-1", "left-2", "right-2"]
        there = [(TRUTH @ np.append(p, 1.0))[:3] for p in POINTS]
        settings = self.landmarks()
        settings["volumeLandmarks"] = addPoints([toWorld(self.volume, p) for p in POINTS], labels)
        settings["ultrasoundLandmarks"] = addPoints(there[::-1], labels[::-1])
        self.assertMaps(self.start(**settings), (1, 2, 3), (TRUTH @ (1, 2, 3, 1))[:3])

    def testLandmarksThatDifferInSizeStillGiveARigidStart(self):
        settings = self.landmarks()
        larger = [(TRUTH @ np.append(1.1 * point, 1.0))[:3] for point in POINTS]
        start = self.start(**{**settings, "ultrasoundLandmarks": addPoints(larger)})
        ends = start @ np.array([[0, 0, 0, 1], [30, 40, 0, 1]]).T
        self.assertAlmostEqual(float(np.linalg.norm(ends[:3, 0] - ends[:3, 1])), 50.0)

    def testDistancesOfLandmarksAreMeasuredWhereTheVolumeWouldLie(self):
        pairs = readLandmarks(registerParameters(self.volume, **self.landmarks()))
        np.testing.assert_allclose(pairs.distancesMm(TRUTH), 0, atol=1e-9)
        shifted = rotation(translation=(3, 4, 0)) @ TRUTH
        np.testing.assert_allclose(pairs.distancesMm(shifted), 5, atol=1e-9)

    def testTheSceneAndTheEngineCallTheSameMatricesRigid(self):
        import torch
        from diffus.errors import InputError
        from diffus.geometry.pose import require_rigid

        sheared = np.eye(4)
        sheared[0, 1] = 0.021
        for matrix, rigid in (
            (PARENT, True),
            (PARENT @ np.diag([1.0099, 1, 1, 1]), True),
            (PARENT @ np.diag([1.0101, 1, 1, 1]), False),
            (PARENT @ np.diag([1.0, 1, -1, 1]), False),
            (sheared, False),
        ):
            with self.subTest(matrix=matrix):
                self.assertEqual(isRigid(matrix), rigid)
                if rigid:
                    require_rigid(torch.as_tensor(matrix), "it")
                else:
                    with self.assertRaises(InputError):
                        require_rigid(torch.as_tensor(matrix), "it")

    def assertRefused(self, words, **settings):
        with self.assertRaises(RenderError) as caught:
            self.start(**settings)
        self.assertIn(words, str(caught.exception))

    def testWhatCannotBeAStart(self):
        self.assertRefused("three or more", **self.landmarks(POINTS[:2]))
        self.assertRefused("one line", **self.landmarks(np.outer(np.arange(4), (1, 2, 3))))
        odd = {**self.landmarks(), "ultrasoundLandmarks": addPoints(POINTS[:2], labels=["a", "b"])}
        self.assertRefused("differ in length", **odd)
        twice = {**self.landmarks(), "ultrasoundLandmarks": addPoints(POINTS, labels=["U-1", "V-1", "U-2", "U-3"])}
        self.assertRefused("'1' stands for more than one", **twice)
        lost = {**self.landmarks(), "ultrasoundLandmarks": addPoints([[np.nan, 0, 0], *POINTS[1:]])}
        self.assertRefused("NaN or infinite", **lost)
        for matrix in (np.diag([2.0, 2, 2, 1]), np.diag([-1.0, 1, 1, 1])):
            settings = {"startFrom": StartFrom.TRANSFORM, "initialTransform": addTransform(matrix)}
            self.assertRefused("scales, shears or mirrors", **settings)
        self.volume.SetAndObserveTransformNodeID(addTransform(np.diag([1.0, 0, 1, 1]), name="Flat").GetID())
        self.assertRefused("'Flat' above the volume is singular", **self.landmarks())
        bent = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLGridTransformNode", "Bent")
        self.assertRefused("nonlinear", startFrom=StartFrom.TRANSFORM, initialTransform=bent)
        hang(self.volume, bent)
        self.assertRefused("nonlinear")

    def testWhatIsMissingIsNamed(self):
        parameters = registerParameters()
        self.assertIn("volume", missingInput(parameters))
        parameters.inputVolume = self.volume
        self.assertIn("ultrasound", missingInput(parameters))
        parameters.ultrasound = self.volume
        self.assertIn("same node", missingInput(parameters))
        parameters.ultrasound = addVolume(np.ones((8, 8, 8), np.uint8), name="US")
        self.assertEqual(missingInput(parameters), "")
        for choice, word in ((StartFrom.TRANSFORM, "transform"), (StartFrom.LANDMARKS, "landmarks")):
            parameters.startFrom = choice
            self.assertIn(word, missingInput(parameters))
        parameters.volumeLandmarks = parameters.ultrasoundLandmarks = addPoints(POINTS)
        self.assertIn("one list", missingInput(parameters))


if __name__ == "__main__":
    unittest.main()
