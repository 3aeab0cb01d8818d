"""What a node becomes for sound: the kind is told, labels find their tissue, the geometry is right."""

from __future__ import annotations

import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from unittest import mock

import headless
import numpy as np
import slicer
import slicer.util
import vtk
from DiffUSLib.errors import RenderError
from DiffUSLib.kinds import MediumKind, TissueTable
from DiffUSLib.render.logic import RenderLogic
from DiffUSLib.scene.voxels import MediumCache, explainKind, guessKind, maskOnVolume, readVoxels
from headless.fixtures import (
    addHead,
    addParameterNode,
    addSegmentation,
    addTransform,
    addVolume,
    rotation,
    sliceArray,
)

OBLIQUE = rotation(20, -35, 60, (10, 20, -30)) @ np.diag([1.5, 2.0, 2.5, 1.0])


def box(shape, low, high):
    array = np.zeros(shape, np.uint8)
    array[low[0] : high[0], low[1] : high[1], low[2] : high[2]] = 1
    return array


def nameLabels(node, names: dict[int, str]):
    """The colour table that gives the labels of a label map these names."""
    node.CreateDefaultDisplayNodes()
    colors = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLColorTableNode", "Names")
    colors.SetTypeToUser()
    colors.SetNumberOfColors(max(names) + 1)
    for label, name in names.items():
        colors.SetColor(label, name, 1, 1, 1, 1)
    node.GetDisplayNode().SetAndObserveColorNodeID(colors.GetID())
    return colors


class MediaTest(unittest.TestCase):
    def setUp(self):
        headless.newScene()
        self.noise = np.random.default_rng(1).normal(300, 80, (16, 16, 16)).astype(np.float32)

    def testTheKindIsTold(self):
        shifted = self.noise.copy()
        shifted[0] = -1000
        for array, name, className, kind in (
            (shifted, "Anything", "ScalarVolume", MediumKind.CT),
            (self.noise, "Brain CT masked", "ScalarVolume", MediumKind.CT),
            (self.noise, "CTChest", "ScalarVolume", MediumKind.MRI),
            (self.noise, "MRBrainTumor1", "ScalarVolume", MediumKind.MRI),
            (self.noise, "Sub1_T2w", "ScalarVolume", MediumKind.MRI_T2),
            (self.noise, "t2_FLAIR", "ScalarVolume", MediumKind.MRI),
            (self.noise.astype(np.int16), "Any", "LabelMapVolume", MediumKind.LABELS),
        ):
            with self.subTest(name=name):
                self.assertIs(guessKind(addVolume(array, None, name, className)), kind)
        self.assertIs(guessKind(slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")), MediumKind.LABELS)
        self.assertIs(guessKind(slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode")), MediumKind.MRI)

    def testTheGuessSaysWhatItRestsOn(self):
        shifted = self.noise.copy()
        shifted[0] = -1000
        for array, name, words in (
            (shifted, "Anything", "Hounsfield"),
            (self.noise, "Brain CT masked", "name"),
            (self.noise, "Sub1_T2w", "name"),
            (self.noise, "Anything", "nothing says otherwise"),
        ):
            self.assertIn(words, explainKind(addVolume(array, None, name))[1])

    def testDicomSaysTheKindBeforeAllElse(self):
        hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
        attribute = slicer.vtkMRMLSubjectHierarchyConstants.GetDICOMSeriesModalityAttributeName()
        shifted = self.noise.copy()
        shifted[0] = -1000  # an MRI that was filtered below zero
        for array, name, modality, kind in (
            (shifted, "5: AX T2 TSE", "MR", MediumKind.MRI_T2),
            (shifted, "5: AX T1", "MR", MediumKind.MRI),
            (self.noise, "Head", "CT", MediumKind.CT),
            (shifted, "Head", "OT", MediumKind.CT),
        ):
            with self.subTest(modality=modality, name=name):
                node = addVolume(array, None, name)
                item = hierarchy.GetItemByDataNode(node) or hierarchy.CreateItem(hierarchy.GetSceneItemID(), node)
                hierarchy.SetItemAttribute(item, attribute, modality)
                self.assertIs(guessKind(node), kind)
                self.assertEqual("DICOM" in explainKind(node)[1], modality in ("CT", "MR"))

    def testWhatLiesOutsideOfTheMaskIsGel(self):
        volume = addVolume(np.full((20, 20, 20), 40, np.float32) + self.ripple((20, 20, 20)), OBLIQUE, "CT")
        labels = addVolume(box((20, 20, 20), (0, 0, 0), (20, 20, 10)), OBLIQUE, "Brain", "LabelMapVolume")
        segments = addSegmentation({"Brain": box((20, 20, 20), (0, 0, 0), (20, 20, 10))}, OBLIQUE)
        for mask in (labels, segments):
            with self.subTest(mask=mask.GetClassName()):
                medium = MediumCache().medium(volume, MediumKind.CT, mask)
                inside, outside = (self.sample(medium, (OBLIQUE @ [i, 10, 10, 1])[:3])[3] for i in (4, 16))
                self.assertGreater(inside, 0.1)
                self.assertAlmostEqual(outside, 0.0, places=5)

    def testAMaskOnAnotherGridUnderAnotherTransformLiesWhereItIs(self):
        volume = addVolume(np.full((20, 20, 20), 40, np.float32), OBLIQUE, "CT")
        moved = rotation(5, 10, 15, (7, 8, 9))
        volume.SetAndObserveTransformNodeID(addTransform(moved).GetID())
        finer = moved @ OBLIQUE @ np.diag([0.5, 0.5, 0.5, 1.0])
        mask = addVolume(box((40, 40, 40), (0, 0, 0), (40, 20, 40)), finer, "Brain", "LabelMapVolume")
        found = maskOnVolume(mask, volume, readVoxels(volume, MediumKind.CT))
        self.assertTrue(found[:, :10].all())
        self.assertFalse(found[:, 10:].any())

    def testTheMediumFollowsItsMask(self):
        volume = addVolume(np.full((16, 16, 16), 40, np.float32) + self.ripple((16, 16, 16)), None, "CT")
        mask = addVolume(box((16, 16, 16), (2, 2, 2), (14, 14, 14)), None, "Brain", "LabelMapVolume")
        cache = MediumCache()
        whole = cache.medium(volume, MediumKind.CT)
        masked = cache.medium(volume, MediumKind.CT, mask)
        self.assertIsNot(masked, whole)
        self.assertIs(cache.medium(volume, MediumKind.CT, mask), masked)
        slicer.util.arrayFromVolume(mask)[5] = 0
        slicer.util.arrayFromVolumeModified(mask)
        self.assertIsNot(cache.medium(volume, MediumKind.CT, mask), masked)
        empty = addVolume(np.zeros((16, 16, 16), np.uint8), None, "Nothing", "LabelMapVolume")
        with self.assertRaisesRegex(RenderError, "'Nothing' covers nothing"):
            cache.medium(volume, MediumKind.CT, empty)

    def testAddedTissuesReplaceWhatTheVolumeSays(self):
        """On a finer grid, under another transform: in an MRI, in a CT, as segments and as a label map."""
        from diffus.medium import tissue_table

        shape, moved = (20, 20, 20), rotation(5, 10, 15, (7, 8, 9))
        finer = moved @ OBLIQUE @ np.diag([0.5, 0.5, 0.5, 1.0])
        big = (40, 40, 40)
        parts = {"Tumor": box(big, (20, 20, 20), (32, 32, 32)), "Bone": box(big, (2, 2, 2), (12, 12, 12))}
        segments = addSegmentation(parts, finer)
        labels = addVolume(parts["Tumor"] + 2 * parts["Bone"], finer, "Labels", "LabelMapVolume")
        nameLabels(labels, {1: "tumour", 2: "bone"})
        for kind in (MediumKind.CT, MediumKind.MRI):
            grey = np.full(shape, 40, np.float32) + self.ripple(shape)
            volume = addVolume(grey, OBLIQUE, "Volume")
            volume.SetAndObserveTransformNodeID(addTransform(moved).GetID())
            plain = MediumCache().medium(volume, kind)
            for added in (segments, labels):
                with self.subTest(kind=kind, added=added.GetClassName()):
                    medium = MediumCache().medium(volume, kind, added=added)
                    for at, tissue in ((13, "tumour"), (3, "bone")):
                        found = self.sample(medium, (OBLIQUE @ [at, at, at, 1])[:3])
                        self.assertAlmostEqual(found[0], tissue_table()[tissue].impedance_mrayl, places=3)
                    elsewhere = (OBLIQUE @ [8, 15, 6, 1])[:3]
                    found, former = self.sample(medium, elsewhere), self.sample(plain, elsewhere)
                    # The slow texture of an MRI is measured around: what a segmentation says there counts, a little.
                    self.assertTrue(np.allclose(found[:4], former[:4], rtol=0.01), (found, former))

    def testTheTissueTablesAreTheEngines(self):
        from diffus.medium import TISSUE_TABLES, tissue_table

        self.assertEqual(tuple(table.value for table in TissueTable), TISSUE_TABLES)
        shape, cache = (20, 20, 20), MediumCache()
        node = addSegmentation({"Liver": box(shape, (2, 2, 2), (18, 18, 18))}, np.eye(4))
        for table in TissueTable:
            medium = cache.medium(node, MediumKind.AUTO, tissues=table)
            impedance = tissue_table(table.value)["liver"].impedance_mrayl
            self.assertAlmostEqual(self.sample(medium, (10.0, 10.0, 10.0))[0], impedance, places=3)
        self.assertEqual(impedance, 1.66)

    def testTheMediumFollowsItsAddedTissues(self):
        shape = (16, 16, 16)
        volume = addVolume(np.full(shape, 40, np.float32) + self.ripple(shape), None, "CT")
        added = addSegmentation({"Tumour": box(shape, (2, 2, 2), (9, 9, 9))}, np.eye(4))
        cache = MediumCache()
        first = cache.medium(volume, MediumKind.CT, added=added)
        self.assertIs(cache.medium(volume, MediumKind.CT, added=added), first)
        added.GetSegmentation().GetNthSegment(0).SetName("Dark matter")
        with self.assertRaisesRegex(RenderError, "No tissue is called 'Dark matter': rename"):
            cache.medium(volume, MediumKind.CT, added=added)
        added.GetSegmentation().GetNthSegment(0).SetName("Blood")
        self.assertIsNot(cache.medium(volume, MediumKind.CT, added=added), first)
        added.SetAndObserveTransformNodeID(addTransform(rotation(0, 0, 0, (500, 0, 0))).GetID())
        with self.assertRaisesRegex(RenderError, "covers nothing of the volume"):
            cache.medium(volume, MediumKind.CT, added=added)
        self.assertIsNotNone(cache.medium(volume, MediumKind.CT))

    def testSegmentsBecomeTheirTissues(self):
        shape = (20, 22, 24)
        liver, bone = box(shape, (2, 2, 2), (18, 12, 20)), box(shape, (4, 13, 4), (16, 20, 18))
        node = addSegmentation({"Liver": liver, "vertebrae_L3": bone}, OBLIQUE)
        medium = MediumCache().medium(node, MediumKind.AUTO)
        for array, low, high in ((liver, 1.6, 1.8), (bone, 3.0, 8.0)):
            k, j, i = (int(index.mean()) for index in np.nonzero(array))
            impedance = self.sample(medium, (OBLIQUE @ [i, j, k, 1.0])[:3])[0]
            self.assertTrue(low < impedance < high, impedance)
        outside = self.sample(medium, (OBLIQUE @ [0.0, 0.0, 0.0, 1.0])[:3])
        self.assertAlmostEqual(outside[3], 0.0, places=5)

    def testLaterSegmentsLieOnTop(self):
        shape = (12, 12, 12)
        whole, part = box(shape, (1, 1, 1), (11, 11, 11)), box(shape, (4, 4, 4), (8, 8, 8))
        voxels = readVoxels(addSegmentation({"Liver": whole, "Spleen": part}, np.eye(4)), MediumKind.LABELS)
        self.assertEqual(voxels.names, {1: "Liver", 2: "Spleen"})
        self.assertEqual((voxels.array == 2).sum(), part.sum())

    def testALabelMapThatStartsElsewhereLiesWhereItIs(self):
        array, corner = box((10, 12, 14), (2, 3, 4), (7, 9, 11)), np.array([20, -5, 8])
        voxels = readVoxels(addSegmentation({"Liver": array}, OBLIQUE, corner=corner), MediumKind.LABELS)
        middle = np.argwhere(array).mean(0)[::-1] + corner
        found = voxels.ijkToRas @ [*np.argwhere(voxels.array).mean(0)[::-1], 1.0]
        self.assertLess(np.linalg.norm(found - OBLIQUE @ [*middle, 1.0]), 1e-6)

    def testAnEditedSegmentIsNoticed(self):
        node = addSegmentation({"Liver": box((12, 12, 12), (1, 1, 1), (11, 11, 11))}, np.eye(4))
        cache = MediumCache()
        first = cache.medium(node, MediumKind.AUTO)
        self.assertIs(cache.medium(node, MediumKind.AUTO), first)
        node.GetSegmentation().GetNthSegment(0).SetName("Spleen")
        second = cache.medium(node, MediumKind.AUTO)
        self.assertIsNot(second, first)
        image = node.GetSegmentation().GetNthSegment(0).GetRepresentation("Binary labelmap")
        image.SetScalarComponentFromDouble(5, 5, 5, 0, 0)
        image.Modified()
        self.assertIsNot(cache.medium(node, MediumKind.AUTO), second)

    def testABadVolumeIsExaminedOnceUntilItChanges(self):
        node = addVolume(np.full((16, 16, 16), 7, np.int16), None, "Constant")
        cache = MediumCache()
        with self.assertRaisesRegex(RenderError, "constant"):
            cache.medium(node, MediumKind.CT)
        with (
            mock.patch("DiffUSLib.scene.voxels.readVoxels", side_effect=AssertionError),
            self.assertRaisesRegex(RenderError, "constant"),
        ):
            cache.medium(node, MediumKind.CT)
        slicer.util.updateVolumeFromArray(node, self.noise)
        self.assertIsNotNone(cache.medium(node, MediumKind.CT))

    def testReadingASegmentationLeavesItAsItIs(self):
        node = addSegmentation({"Liver": box((12, 12, 12), (1, 1, 1), (11, 11, 11))}, OBLIQUE)
        before = node.GetSegmentation().GetMTime()
        readVoxels(node, MediumKind.LABELS)
        self.assertEqual(node.GetSegmentation().GetMTime(), before)

    def testSurfacesAreConvertedInACopy(self):
        if not headless.insideSlicer():  # Slicer's Segmentations module does this when it starts
            factory = slicer.vtkSegmentationConverterFactory.GetInstance()
            factory.RegisterConverterRule(slicer.vtkClosedSurfaceToBinaryLabelmapConversionRule())
        sphere = vtk.vtkSphereSource()
        sphere.SetRadius(20)
        sphere.SetCenter(5, -10, 15)
        sphere.SetThetaResolution(32)
        sphere.SetPhiResolution(32)
        sphere.Update()
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Surfaces")
        node.GetSegmentation().SetSourceRepresentationName("Closed surface")
        node.AddSegmentFromClosedSurfaceRepresentation(sphere.GetOutput(), "Liver", [1.0, 0.0, 0.0], "")
        voxels = readVoxels(node, MediumKind.LABELS)
        volume = voxels.array.astype(bool).sum() * abs(np.linalg.det(voxels.ijkToRas[:3, :3]))
        self.assertAlmostEqual(volume / (4 / 3 * np.pi * 20**3), 1.0, delta=0.05)
        centre = voxels.ijkToRas @ [*np.argwhere(voxels.array).mean(0)[::-1], 1.0]
        self.assertLess(np.linalg.norm(centre[:3] - [5, -10, 15]), 0.5)
        self.assertFalse(node.GetSegmentation().ContainsRepresentation("Binary labelmap"))

    def testALabelMapTakesItsNamesFromItsColours(self):
        labels = box((16, 16, 16), (2, 2, 2), (14, 14, 14)) * 3
        node = addVolume(labels, OBLIQUE, "Labels", "LabelMapVolume")
        colors = nameLabels(node, {3: "white matter"})
        cache = MediumCache()
        medium = cache.medium(node, MediumKind.AUTO)
        self.assertAlmostEqual(self.sample(medium, (OBLIQUE @ [8.0, 8.0, 8.0, 1.0])[:3])[3], 1.0, places=4)
        colors.SetColor(3, "cerebrospinal fluid", 1, 1, 1, 1)
        self.assertIsNot(cache.medium(node, MediumKind.AUTO), medium)

    def testASegmentationRendersUnderATransform(self):
        logic = RenderLogic()
        shape = (30, 30, 30)
        node = addSegmentation({"Liver": box(shape, (2, 2, 2), (28, 28, 28))}, np.diag([4.0, 4.0, 4.0, 1.0]))
        node.SetAndObserveTransformNodeID(addTransform(rotation(0, 0, 20, (30, 0, 0))).GetID())
        probe = addTransform(rotation(0, 0, 20, (30, 0, 0)) @ rotation(0, 0, 0, (60, 10, 60)), name="Probe")
        parameters = addParameterNode(node, probe)
        inside = sliceArray(logic.render(parameters))
        self.assertGreater(inside.mean(), 20)
        logic.forgetScene()

    def testAHeadOfAnMriRendersByTheNetwork(self):
        logic = RenderLogic()
        head = addHead(name="T1")
        array = slicer.util.arrayFromVolume(head)
        array[:] = np.where(array > 50, 90, np.where(array > -500, 60, 1)) + np.random.default_rng(2).normal(
            0, 2, array.shape
        )
        slicer.util.arrayFromVolumeModified(head)
        parameters = addParameterNode(head, addTransform(rotation(180, 0, 0, (0, 58, 0)), name="Probe"))
        self.assertIs(guessKind(head), MediumKind.MRI)
        self.assertGreater(sliceArray(logic.render(parameters)).std(), 5)
        logic.forgetScene()

    def ripple(self, shape):
        return np.random.default_rng(3).normal(0, 3, shape).astype(np.float32)

    def sample(self, medium, point):
        import torch

        return medium.sample(torch.as_tensor(point, dtype=torch.float32)[None])[:, 0].tolist()


if __name__ == "__main__":
    unittest.main()
