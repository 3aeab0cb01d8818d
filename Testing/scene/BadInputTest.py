"""Input that cannot be used gets one clear sentence, and changes nothing."""

from __future__ import annotations

import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import headless
import numpy as np
import slicer
import slicer.util
from DiffUSLib.errors import RenderError
from DiffUSLib.kinds import MediumKind
from DiffUSLib.render.logic import RenderLogic
from DiffUSLib.render.parameters import writeProbe
from DiffUSLib.scene.transforms import toVtk
from headless.fixtures import addHead, addParameterNode, addSegmentation, addTransform, addVolume, rotation, sliceArray

ON_FRONT = rotation(180, 0, 0, (0, 58, 0))


class BadInputTest(unittest.TestCase):
    def setUp(self):
        headless.newScene()
        self.logic = RenderLogic()
        self.head = addHead()
        self.probe = addTransform(ON_FRONT, name="Probe")
        self.parameters = addParameterNode(self.head, self.probe)

    def tearDown(self):
        self.logic.forgetScene()

    def assertRefused(self, *words: str):
        """Rendering is refused in one sentence that holds the words; no node is made and no pixel is changed."""
        scene, output = slicer.mrmlScene, self.parameters.outputSlice
        before = scene.GetNumberOfNodes(), sliceArray(output) if output else None
        with self.assertRaises(RenderError) as caught:
            self.logic.render(self.parameters)
        sentence = str(caught.exception)
        for word in words:
            self.assertIn(word.lower(), sentence.lower())
        self.assertTrue(sentence.endswith("."), sentence)
        self.assertNotIn("\n", sentence)
        self.assertEqual(scene.GetNumberOfNodes(), before[0])
        if output:
            self.assertTrue(np.array_equal(before[1], sliceArray(output)))

    def replaceVolume(self, array=None, name="CT", className="ScalarVolume"):
        if array is None:
            self.parameters.inputVolume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
        else:
            self.parameters.inputVolume = addVolume(array, None, name, className)

    def testNothingChosen(self):
        self.parameters.inputVolume = None
        self.assertRefused("choose a volume")
        self.parameters.inputVolume, self.parameters.probeTransform = self.head, None
        self.assertRefused("probe")

    def testEmptyVolume(self):
        self.replaceVolume(name="Nothing")
        self.assertRefused("'Nothing' is empty")

    def testVolumesWithoutAnatomy(self):
        noise = np.random.default_rng(0).normal(0, 100, (20, 20, 20)).astype(np.float32)
        with_nan = noise.copy()
        with_nan[3, 3, 3] = np.nan
        with_inf = noise.copy()
        with_inf[3, 3, 3] = np.inf
        for kind in (MediumKind.CT, MediumKind.MRI):
            self.parameters.kind = kind
            for array, word in (
                (np.full((20, 20, 20), 7, np.int16), "constant"),
                (with_nan, "NaN"),
                (with_inf, "infinite"),
                (noise[:1], "3-D"),
            ):
                with self.subTest(kind=kind, word=word):
                    self.replaceVolume(array)
                    self.assertRefused(word)

    def testVectorVolume(self):
        self.replaceVolume(np.zeros((3, 20, 20, 20), np.float32), className="VectorVolume")
        self.parameters.kind = MediumKind.MRI
        self.assertRefused("scalar volume")

    def testPoses(self):
        singular, mirrored, infinite = ON_FRONT.copy(), ON_FRONT.copy(), ON_FRONT.copy()
        singular[:3, 1] = 0
        mirrored[:3, 0] *= -1
        infinite[0, 3] = np.nan
        scaled = ON_FRONT @ np.diag([0.2, 0.2, 0.2, 1.0])
        for matrix, word in ((singular, "singular"), (mirrored, "mirrors"), (scaled, "scales"), (infinite, "NaN")):
            with self.subTest(word=word):
                self.probe.SetMatrixTransformToParent(toVtk(matrix))
                self.assertRefused("'Probe'", word)

    def testAScaleAboveTheProbeCounts(self):
        parent = addTransform(np.diag([2.0, 2.0, 2.0, 1.0]), name="Parent")
        self.probe.SetAndObserveTransformNodeID(parent.GetID())
        self.assertRefused("scales")

    def testASingularTransformAboveTheVolume(self):
        flat = addTransform(np.diag([1.0, 1.0, 0.0, 1.0]), name="Flat")
        self.head.SetAndObserveTransformNodeID(flat.GetID())
        self.assertRefused("'Flat'", "singular")

    def testProbeOutside(self):
        self.logic.render(self.parameters)
        self.probe.SetMatrixTransformToParent(toVtk(rotation(180, 0, 0, (0, 1000, 0))))
        self.assertRefused("outside")

    def testOutputIsTheInput(self):
        self.parameters.outputSlice = self.head
        self.assertRefused("another output")

    def testAnotherImageIsNeverWrittenOver(self):
        other = addVolume(np.ones((5, 5, 5)), None, "Yesterday's MRI")
        self.parameters.outputSlice = other
        self.assertRefused("Yesterday's MRI", "lost")
        empty = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "New slice")
        self.parameters.outputSlice = empty
        self.assertIs(self.logic.render(self.parameters), empty)
        self.assertEqual(empty.GetDisplayNode().GetWindow(), 255)
        self.logic.render(self.parameters)

    def testLabelsWithoutATissue(self):
        labels = np.zeros((20, 20, 20), np.uint8)
        labels[5:15, 5:15, 5:15] = 1
        node = addVolume(labels, None, "Labels", "LabelMapVolume")
        node.CreateDefaultDisplayNodes()
        colors = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLColorTableNode", "Names")
        colors.SetTypeToUser()
        colors.SetNumberOfColors(2)
        colors.SetColor(1, "Zorblax", 1, 0, 0, 1)
        node.GetDisplayNode().SetAndObserveColorNodeID(colors.GetID())
        self.parameters.inputVolume = node
        self.assertRefused("1", "Zorblax")

    def testAPlainVolumeIsNoLabelMap(self):
        self.parameters.kind = MediumKind.LABELS
        self.assertRefused("not a label map")

    def testEmptySegmentation(self):
        self.parameters.inputVolume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Organs")
        self.assertRefused("'Organs' has no segments")
        self.parameters.inputVolume = addSegmentation({"Liver": np.zeros((9, 9, 9), np.uint8)}, np.eye(4), "Organs")
        self.assertRefused("'Organs' is empty")

    def testSettingsOutOfRange(self):
        for name, value in (("depthMm", 5000.0), ("frequencyMhz", 0.0), ("rays", 1)):
            with self.subTest(setting=name), self.assertRaises(ValueError):
                setattr(self.parameters, name, value)
        # A scene file may hold what the panel does not allow.
        self.parameters.parameterNode.SetParameter("depthMm", "5000")
        self.assertRefused("depth_mm", "5000")

    def testAProbeBeyondThePanelIsNotHalfWritten(self):
        from dataclasses import replace

        from DiffUSLib.render.parameters import readParameters

        before = readParameters(self.parameters)
        with self.assertRaises(RenderError):
            writeProbe(self.parameters, replace(before.probe, frequencyMhz=3.0, depthMm=900.0))
        self.assertEqual(readParameters(self.parameters), before)

    def testPlacingNeedsAVolumeAndAProbeThatMayBeMoved(self):
        bent = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLGridTransformNode", "Bent")
        with self.assertRaisesRegex(RenderError, "Choose a slice view"):
            self.logic.placeAtSliceView(self.parameters, None)
        self.parameters.probeTransform = bent
        with self.assertRaisesRegex(RenderError, "'Bent' is moved by a nonlinear"):
            self.logic.placeOnSkin(self.parameters, np.zeros(3))
        self.parameters.probeTransform = None
        with self.assertRaisesRegex(RenderError, "probe"):
            self.logic.startPicking(self.parameters)
        self.parameters.probeTransform, self.parameters.inputVolume = self.probe, None
        with self.assertRaisesRegex(RenderError, "Choose a volume"):
            self.logic.startPicking(self.parameters)


if __name__ == "__main__":
    unittest.main()
