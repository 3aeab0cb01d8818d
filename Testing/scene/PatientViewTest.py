"""What the 3-D views show: the slice without black around it, and the patient around the slice, given back again."""

from __future__ import annotations

import sys
import unittest
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import headless
import numpy as np
import slicer
import slicer.util
from DiffUSLib.errors import RenderError
from DiffUSLib.kinds import MediumKind, PatientDisplay
from DiffUSLib.render.logic import RenderLogic
from DiffUSLib.scene.patient_view import PatientView
from DiffUSLib.scene.transforms import fromVtk
from headless.fixtures import addHead, addParameterNode, addSegmentation, addTransform, rotation, sliceArray
from headless.register_fixtures import addView
from vtk.util.numpy_support import vtk_to_numpy

MODELS = "vtkMRMLModelNode"


class PatientViewTest(unittest.TestCase):
    def setUp(self):
        headless.newScene(needsTorch=False)
        self.head = addHead()
        self.view = PatientView()

    def testTheSurfaceIsTheSkinWhereTheVolumeIs(self):
        moved = addTransform(rotation(0, 0, 30, (10, 0, 0)))
        self.head.SetAndObserveTransformNodeID(moved.GetID())
        self.view.update(self.head, MediumKind.AUTO, PatientDisplay.SURFACE)
        model = slicer.mrmlScene.GetFirstNodeByClass(MODELS)
        self.assertEqual(model.GetTransformNodeID(), moved.GetID())
        points = vtk_to_numpy(model.GetPolyData().GetPoints().GetData())
        radii = np.linalg.norm(points, axis=1)
        self.assertAlmostEqual(float(radii.mean()), 60.0, delta=1.5)
        self.assertLess(float(radii.std()), 1.5)
        self.assertLess(model.GetDisplayNode().GetOpacity(), 0.5)
        self.assertFalse(model.GetSaveWithScene())

    def testItFollowsTheVolumeAndGoesAgain(self):
        for display in (PatientDisplay.SURFACE, PatientDisplay.SURFACE):
            self.view.update(self.head, MediumKind.AUTO, display)
            self.assertEqual(slicer.mrmlScene.GetNumberOfNodesByClass(MODELS), 1)
        first = slicer.mrmlScene.GetFirstNodeByClass(MODELS).GetPolyData().GetNumberOfPoints()
        slicer.util.arrayFromVolume(self.head)[:20] = -1000
        slicer.util.arrayFromVolumeModified(self.head)
        self.view.update(self.head, MediumKind.AUTO, PatientDisplay.SURFACE)
        self.assertEqual(slicer.mrmlScene.GetNumberOfNodesByClass(MODELS), 1)
        self.assertLess(slicer.mrmlScene.GetFirstNodeByClass(MODELS).GetPolyData().GetNumberOfPoints(), first)
        self.view.update(self.head, MediumKind.AUTO, PatientDisplay.HIDDEN)
        self.assertEqual(slicer.mrmlScene.GetNumberOfNodesByClass(MODELS), 0)
        self.view.update(self.head, MediumKind.AUTO, PatientDisplay.SURFACE)
        slicer.mrmlScene.RemoveNode(slicer.mrmlScene.GetFirstNodeByClass(MODELS))  # by the user
        self.view.update(None, MediumKind.AUTO, PatientDisplay.SURFACE)

    def testASegmentationHasASurfaceToo(self):
        ball = slicer.util.arrayFromVolume(self.head) > 0
        segments = addSegmentation({"Brain": ball.astype(np.uint8)}, np.diag([4.0, 4.0, 4.0, 1.0]))
        self.view.update(segments, MediumKind.AUTO, PatientDisplay.SURFACE)
        self.assertEqual(slicer.mrmlScene.GetNumberOfNodesByClass(MODELS), 1)
        for kind in (MediumKind.AUTO, MediumKind.MRI):
            with volumeRendering(), self.assertRaisesRegex(RenderError, "choose its surface"):
                self.view.update(segments, kind, PatientDisplay.VOLUME_RENDERING)

    def testVolumeRenderingIsMadeAndTakenAway(self):
        with volumeRendering() as logic:
            before = slicer.mrmlScene.GetNumberOfNodes()
            self.view.update(self.head, MediumKind.AUTO, PatientDisplay.VOLUME_RENDERING)
            self.assertTrue(logic.GetFirstVolumeRenderingDisplayNode(self.head).GetVisibility())
            self.view.hide()
            self.assertIsNone(logic.GetFirstVolumeRenderingDisplayNode(self.head))
            self.assertEqual(slicer.mrmlScene.GetNumberOfNodes(), before)

    def testTheUsersVolumeRenderingIsGivenBack(self):
        with volumeRendering() as logic:
            for visible in (True, False):
                with self.subTest(visible=visible):
                    display = logic.GetFirstVolumeRenderingDisplayNode(self.head)
                    display = display or logic.CreateDefaultVolumeRenderingNodes(self.head)
                    display.SetVisibility(visible)
                    self.view.update(self.head, MediumKind.AUTO, PatientDisplay.VOLUME_RENDERING)
                    self.assertTrue(display.GetVisibility())
                    self.view.hide()
                    self.assertEqual(bool(display.GetVisibility()), visible)

    def testWithoutTheModuleItIsSaid(self):
        without = mock.patch.object(slicer, "modules", SimpleNamespace(), create=True)
        with without, self.assertRaisesRegex(RenderError, "choose the surface"):
            self.view.update(self.head, MediumKind.AUTO, PatientDisplay.VOLUME_RENDERING)


class ClickOnSkinTest(unittest.TestCase):
    def testTheSurfaceIsClickedWhileAPointOnTheSkinIsAwaited(self):
        headless.newScene()
        logic, ended = RenderLogic(), []
        parameters = addParameterNode(addHead(), addTransform(), patientIn3D=PatientDisplay.SURFACE)
        logic.updatePatient(parameters)
        model = next(node for node in slicer.util.getNodesByClass(MODELS) if "surface" in node.GetName())
        self.assertFalse(model.GetSelectable())
        logic.startPicking(parameters, lambda: ended.append(True))
        self.assertTrue(model.GetSelectable())
        parameters.skinPoint.AddControlPoint(0.0, 60.0, 0.0)
        self.assertEqual((model.GetSelectable(), ended), (0, [True]))
        logic.startPicking(parameters)
        logic.cancelPicking()
        self.assertFalse(model.GetSelectable())
        logic.forgetScene()


class SliceIn3DTest(unittest.TestCase):
    def setUp(self):
        headless.newScene()
        self.logic = RenderLogic()
        self.view, self.layers = addView()
        probe = addTransform(rotation(180, 0, 0, (0, 58, 0)), name="Probe")
        self.parameters = addParameterNode(addHead(), probe, sliceView=self.view)

    def tearDown(self):
        self.logic.forgetScene()

    def testOutsideOfTheFanIsTransparentAndInsideIsNot(self):
        node = self.logic.render(self.parameters)
        display, pixels = node.GetDisplayNode(), sliceArray(node)[0]
        self.assertTrue(display.GetApplyThreshold())
        self.assertEqual((display.GetLowerThreshold(), display.GetUpperThreshold()), (1, 255))
        self.parameters.gainDb = -120.0  # all of it is black
        dark = sliceArray(self.logic.render(self.parameters))[0]
        self.assertEqual(dark.max(), 1)
        self.assertTrue(np.array_equal(dark > 0, pixels > 0))
        self.assertEqual(dark[-1, 0], 0)

    def testTheTextureOf3DViewsIsTransparentOutsideOfTheFan(self):
        """As Slicer makes it for its 3-D views, of the layers of the view that follows."""
        colors = slicer.vtkMRMLColorLogic()
        colors.SetMRMLScene(slicer.mrmlScene)
        colors.AddDefaultColorNodes()
        inside = sliceArray(self.logic.render(self.parameters))[0] > 0
        slices = slicer.vtkMRMLSliceLogic()
        slices.SetMRMLScene(slicer.mrmlScene)
        slices.SetSliceNode(self.view)
        slices.SetSliceCompositeNode(self.layers)
        self.view.SetDimensions(256, 256, 1)
        self.view.UpdateMatrices()
        slices.UpdateImageData()
        texture = slices.GetExtractModelTexture()
        texture.Update()
        alpha = vtk_to_numpy(texture.GetOutput().GetPointData().GetScalars())[:, 3].reshape(256, 256)
        self.assertEqual(set(np.unique(alpha)), {0, 255})
        self.assertTrue((alpha[[0, -1]] == 0).all())
        size = np.linalg.norm(fromVtk(self.view.GetXYToRAS())[:3, :2], axis=0)
        area = inside.sum() * np.prod(self.parameters.outputSlice.GetSpacing()[:2])
        self.assertAlmostEqual((alpha > 0).sum() * np.prod(size) / area, 1.0, delta=0.05)

    def testTheSliceIsIn3DWhileTheViewFollows(self):
        self.logic.render(self.parameters)
        self.assertTrue(self.view.GetSliceVisible())
        self.parameters.sliceIn3D = False
        self.logic.updateDriving(self.parameters)
        self.assertFalse(self.view.GetSliceVisible())
        self.parameters.sliceIn3D = True
        self.logic.updateDriving(self.parameters)
        self.assertTrue(self.view.GetSliceVisible())
        self.parameters.driveSliceView = False
        self.logic.updateDriving(self.parameters)
        self.assertFalse(self.view.GetSliceVisible())


def volumeRendering():
    """Slicer's module Volume Rendering, with its real logic."""
    logic = slicer.vtkSlicerVolumeRenderingLogic()
    logic.SetMRMLScene(slicer.mrmlScene)
    module = SimpleNamespace(logic=lambda: logic)
    patched = mock.patch.object(slicer, "modules", SimpleNamespace(volumerendering=module), create=True)

    class Context:
        def __enter__(self):
            patched.start()
            return logic

        def __exit__(self, *_error):
            patched.stop()

    return Context()


if __name__ == "__main__":
    unittest.main()
