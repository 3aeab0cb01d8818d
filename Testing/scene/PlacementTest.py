"""The probe is put onto the patient, its fan follows, and a slice view follows the probe."""

from __future__ import annotations

import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from types import SimpleNamespace

import headless
import numpy as np
import slicer
import slicer.util
import vtk
from DiffUSLib.errors import RenderError
from DiffUSLib.kinds import MediumKind
from DiffUSLib.render.logic import RenderLogic
from DiffUSLib.render.parameters import ProbeType
from DiffUSLib.scene.surface import BodySurface
from DiffUSLib.scene.transforms import fromVtk, nodeToWorld, toVtk
from DiffUSLib.scene.voxels import guessKind
from headless.fixtures import addHead, addParameterNode, addTransform, addVolume, rotation

RADIUS, SPACING = 60.0, 4.0


class PlacementTest(unittest.TestCase):
    def setUp(self):
        headless.newScene()
        self.said: list[str] = []
        self.logic = RenderLogic(onStatus=self.said.append)
        self.head = addHead(RADIUS, SPACING)
        slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(slicer.mrmlScene)
        self.view = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSliceNode", "Red")
        self.view.SetLayoutName("DiffUSTest")
        self.view.SetDimensions(300, 400, 1)
        self.composite = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSliceCompositeNode")
        self.composite.SetLayoutName("DiffUSTest")
        self.parameters = addParameterNode(self.head, None, sliceView=self.view)

    def tearDown(self):
        self.logic.forgetScene()

    def pose(self):
        matrix = vtk.vtkMatrix4x4()
        self.parameters.probeTransform.GetMatrixTransformToWorld(matrix)
        return fromVtk(matrix)

    def assertProbe(self, origin, depth, tolerance=SPACING, degrees=5.0):
        pose = self.pose()
        rotationPart = pose[:3, :3]
        self.assertTrue(np.allclose(rotationPart.T @ rotationPart, np.eye(3), atol=1e-6))
        self.assertGreater(np.linalg.det(rotationPart), 0)
        self.assertLess(np.linalg.norm(pose[:3, 3] - origin), tolerance)
        self.assertGreater(pose[:3, 1] @ depth, np.cos(np.radians(degrees)), f"looks along {pose[:3, 1]}")

    # --- at a slice view

    def testANewProbeLiesOnTheSkinAboveTheView(self):
        self.view.SetOrientationToCoronal()
        probe = self.logic.createProbe(self.parameters, self.view)
        self.assertIs(self.parameters.probeTransform, probe)
        self.assertProbe([0, 0, RADIUS], [0, 0, -1])
        screen = fromVtk(self.view.GetSliceToRAS())
        self.assertTrue(np.allclose(self.pose()[:3, 0], screen[:3, 0]))
        self.assertEqual(probe.GetDisplayNode().GetEditorScalingEnabled(), 0)

    def testItFollowsWhereTheViewIs(self):
        self.logic.createProbe(self.parameters)
        self.view.SetOrientationToSagittal()
        self.view.JumpSliceByCentering(20, 10, 0)
        self.logic.placeAtSliceView(self.parameters, self.view)
        self.assertProbe([20, 10, np.sqrt(RADIUS**2 - 500)], [0, 0, -1])

    def testWithoutABodyItLiesInTheMiddleOfTheView(self):
        self.parameters.inputVolume = None
        self.view.SetOrientationToAxial()
        self.view.JumpSliceByCentering(5, 6, 7)
        self.logic.createProbe(self.parameters, self.view)
        self.assertProbe([5, 6, 7], [0, -1, 0], tolerance=1e-6)

    def testTransformsAboveProbeAndVolumeCount(self):
        patient = addTransform(rotation(30, 10, -40, (40, -30, 20)), name="Patient")
        self.head.SetAndObserveTransformNodeID(patient.GetID())
        parent = addTransform(rotation(-50, 20, 70, (300, 0, 0)), name="Tracker")
        self.logic.createProbe(self.parameters)
        self.parameters.probeTransform.SetAndObserveTransformNodeID(parent.GetID())
        direction = np.array([0.6, 0.0, 0.8])
        self.logic.placeOnSkin(self.parameters, np.array([40, -30, 20]) + RADIUS * direction)
        self.assertProbe(np.array([40, -30, 20]) + RADIUS * direction, -direction)

    # --- on the skin

    def testOnTheSkinItLooksInwards(self):
        self.logic.createProbe(self.parameters)
        for direction in ([1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, 0, 1], [0.48, -0.6, 0.64], [0, -0.8, -0.6]):
            with self.subTest(direction=direction):
                direction = np.array(direction, float)
                for offset in (-6.0, 0.0, 9.0):  # a click is never exactly on the skin
                    self.logic.placeOnSkin(self.parameters, (RADIUS + offset) * direction)
                    self.assertProbe(RADIUS * direction, -direction)

    def testTheImageLiesInAPlaneThatIsKnown(self):
        self.logic.createProbe(self.parameters)
        for point, lateral in (([0, 0, RADIUS], 0), ([0, RADIUS, 0], 0), ([RADIUS, 0, 0], 1), ([-RADIUS, 0, 0], 1)):
            with self.subTest(point=point):
                self.logic.placeOnSkin(self.parameters, np.array(point, float))
                self.assertGreater(self.pose()[lateral, 0], 0.99)

    def testFarFromTheSkinItStaysWhereItIs(self):
        probe = self.logic.createProbe(self.parameters)
        before = nodeToWorld(probe)
        with self.assertRaisesRegex(RenderError, "no skin near this point"):
            self.logic.placeOnSkin(self.parameters, np.array([0.0, 400.0, 300.0]))
        np.testing.assert_array_equal(nodeToWorld(probe), before)

    def testSkinOfAnMriWithNoiseInTheAir(self):
        array = slicer.util.arrayFromVolume(self.head)
        noise = np.random.default_rng(4).normal(0, 4, array.shape)
        mri = addVolume(np.abs(np.where(array > -500, 180, 0) + noise).astype(np.float32), None, "Brain")
        mri.CopyOrientation(self.head)
        self.assertIs(guessKind(mri), MediumKind.MRI)
        surface = BodySurface(mri)
        top = surface.outermost(np.zeros(3), np.array([0.0, 0.0, 1.0]))
        self.assertLess(abs(top[2] - RADIUS), SPACING)

    def testAClickPlacesTheProbe(self):
        self.logic.createProbe(self.parameters)
        ended = []
        self.logic.startPicking(self.parameters, lambda: ended.append(1))
        interaction = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLInteractionNode")
        self.assertEqual(interaction.GetCurrentInteractionMode(), interaction.Place)
        self.assertTrue(self.logic.picking)
        self.parameters.skinPoint.AddControlPointWorld(vtk.vtkVector3d(0, RADIUS + 3, 0))
        self.assertProbe([0, RADIUS, 0], [0, -1, 0])
        self.assertEqual(ended, [1])
        self.assertFalse(self.logic.picking)
        self.parameters.skinPoint.AddControlPointWorld(vtk.vtkVector3d(RADIUS, 0, 0))
        self.assertProbe([0, RADIUS, 0], [0, -1, 0])  # a later point is nobody's click
        interaction.SetCurrentInteractionMode(interaction.ViewTransform)
        self.logic.startPicking(self.parameters)
        self.assertEqual(self.parameters.skinPoint.GetNumberOfControlPoints(), 0)

    def testAnotherToolCancelsTheClick(self):
        self.logic.createProbe(self.parameters)
        ended = []
        self.logic.startPicking(self.parameters, lambda: ended.append(1))
        before = self.pose()
        interaction = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLInteractionNode")
        interaction.SetCurrentInteractionMode(interaction.ViewTransform)
        self.assertEqual((ended, self.logic.picking), ([1], False))
        self.parameters.skinPoint.AddControlPointWorld(vtk.vtkVector3d(RADIUS, 0, 0))
        self.assertTrue(np.array_equal(self.pose(), before))

    # --- the fan

    def testTheFanIsTheProbesAndHangsUnderIt(self):
        self.logic.createProbe(self.parameters)
        model = self.parameters.fanModel
        self.assertEqual(model.GetTransformNodeID(), self.parameters.probeTransform.GetID())
        self.assertTrue(model.GetDisplayNode().GetVisibility2D())
        self.assertFalse(model.GetSelectable())
        for probeType, width in ((ProbeType.LINEAR, 40.0), (ProbeType.CONVEX, 2 * 90 * np.sin(np.radians(35)))):
            self.parameters.probeType = probeType
            self.logic.updateFan(self.parameters)
            bounds = model.GetPolyData().GetBounds()
            self.assertAlmostEqual(-2 * bounds[0], width, delta=0.1)
            self.assertAlmostEqual(bounds[3], 70.0, delta=0.1)
        feature = vtk.vtkFeatureEdges()
        feature.SetInputData(model.GetPolyData())
        feature.ManifoldEdgesOff()
        feature.FeatureEdgesOff()
        clean = vtk.vtkCleanPolyData()
        clean.SetInputData(model.GetPolyData())
        feature.SetInputConnection(clean.GetOutputPort())
        feature.Update()
        self.assertEqual(feature.GetOutput().GetNumberOfCells(), 0)  # closed: every slice view cuts an outline

    def testTheFanTellsTheMarkedSide(self):
        self.logic.createProbe(self.parameters)
        bounds = self.parameters.fanModel.GetPolyData()
        points = np.array([bounds.GetPoint(n) for n in range(bounds.GetNumberOfPoints())])
        above = points[points[:, 1] < -20 * (1 - np.cos(np.radians(35))) - 0.2]
        self.assertGreater(len(above), 0)
        self.assertGreater(above[:, 0].min(), 0)

    def testTheFanMovesToAnotherProbeAndHides(self):
        self.logic.createProbe(self.parameters)
        other = addTransform(name="Other")
        self.parameters.probeTransform = other
        self.logic.updateFan(self.parameters)
        self.assertEqual(self.parameters.fanModel.GetTransformNodeID(), other.GetID())
        self.assertEqual(slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLModelNode"), 1)
        self.parameters.showFan = False
        self.logic.updateFan(self.parameters)
        self.assertFalse(self.parameters.fanModel.GetDisplayVisibility())

    # --- the slice view

    def testTheViewFollowsTheProbe(self):
        self.composite.SetBackgroundVolumeID(self.head.GetID())
        self.logic.createProbe(self.parameters, self.view)
        self.parameters.probeTransform.SetMatrixTransformToParent(toVtk(rotation(20, 150, 60, (30, 20, 10))))
        before = fromVtk(self.view.GetSliceToRAS())
        self.logic.updateDriving(self.parameters)
        self.assertTrue(np.array_equal(fromVtk(self.view.GetSliceToRAS()), before))  # nothing to show yet
        self.logic.render(self.parameters)
        self.assertShowsTheProbePlane()
        self.assertEqual(self.composite.GetBackgroundVolumeID(), self.parameters.outputSlice.GetID())
        self.assertEqual(self.composite.GetForegroundVolumeID(), self.head.GetID())
        columns, rows, _ = self.view.GetDimensions()
        width, height, _ = self.view.GetFieldOfView()
        self.assertAlmostEqual(width / columns, height / rows)
        self.assertGreater(width, 100)
        self.parameters.probeTransform.SetMatrixTransformToParent(toVtk(rotation(70, -25, 130, (30, 20, 10))))
        self.assertShowsTheProbePlane()
        self.parameters.driveSliceView = False
        self.logic.updateDriving(self.parameters)
        self.assertEqual(self.composite.GetBackgroundVolumeID(), self.head.GetID())
        self.assertIsNone(self.composite.GetForegroundVolumeID())
        still = fromVtk(self.view.GetSliceToRAS())
        self.parameters.probeTransform.SetMatrixTransformToParent(toVtk(np.eye(4)))
        self.assertTrue(np.array_equal(fromVtk(self.view.GetSliceToRAS()), still))

    def testUntickingGivesTheViewBackAsItWas(self):
        other, labels = (addVolume(np.zeros((4, 5, 6), np.uint8), name=name) for name in ("PET", "Labels"))
        self.composite.SetBackgroundVolumeID(self.head.GetID())
        self.composite.SetForegroundVolumeID(other.GetID())
        self.composite.SetForegroundOpacity(0.35)
        self.composite.SetLabelVolumeID(labels.GetID())
        self.composite.SetLabelOpacity(0.6)
        self.composite.SetLinkedControl(1)
        self.view.SetOrientationToCoronal()
        self.view.SetFieldOfView(150, 200, 1)
        self.view.SetXYZOrigin(3, 4, 0)
        self.logic.createProbe(self.parameters, self.view)
        before = self.found()
        self.logic.render(self.parameters)
        self.assertEqual(self.composite.GetForegroundVolumeID(), self.head.GetID())
        self.assertEqual(self.composite.GetLinkedControl(), 0)  # the other views stay where they are
        self.parameters.depthMm = 50.0  # another fan is another zoom, of the same view
        self.logic.render(self.parameters)
        self.parameters.driveSliceView = False
        self.logic.updateDriving(self.parameters)
        self.assertEqual(self.found(), before)

    def testALayerThatTheUserHasChosenMeanwhileStays(self):
        other = addVolume(np.zeros((4, 5, 6), np.uint8), name="PET")
        self.composite.SetBackgroundVolumeID(self.head.GetID())
        self.logic.createProbe(self.parameters, self.view)
        self.logic.render(self.parameters)
        self.composite.SetForegroundVolumeID(other.GetID())
        self.composite.SetForegroundOpacity(0.5)
        self.logic.stopDriving()
        self.assertEqual(self.composite.GetBackgroundVolumeID(), self.head.GetID())
        self.assertEqual(self.composite.GetForegroundVolumeID(), other.GetID())
        self.assertEqual(self.composite.GetForegroundOpacity(), 0.5)

    def testAViewOfADeletedSliceIsGivenBack(self):
        self.composite.SetBackgroundVolumeID(self.head.GetID())
        self.logic.createProbe(self.parameters, self.view)
        before = self.found()
        slicer.mrmlScene.RemoveNode(self.logic.render(self.parameters))
        self.logic.updateDriving(self.parameters)
        self.assertEqual(self.found(), before)

    def testNoViewShowsASliceWithoutPixels(self):
        """VTK logs errors for an image node without image data in a slice view."""
        shown = []

        def look(caller, event):
            node = slicer.mrmlScene.GetNodeByID(self.composite.GetBackgroundVolumeID() or "")
            shown.append(node is None or node.GetImageData() is not None)

        self.composite.AddObserver(vtk.vtkCommand.ModifiedEvent, look)
        self.logic.createProbe(self.parameters, self.view)
        self.parameters.outputSlice = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Mine")
        self.logic.updateDriving(self.parameters)
        self.parameters.outputSlice = None
        node = self.parameters.parameterNode  # the panel updates the view whenever a parameter changes
        node.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_event: self.logic.updateDriving(self.parameters))
        self.logic.render(self.parameters)
        self.assertShowsTheProbePlane()
        self.assertTrue(shown)
        self.assertTrue(all(shown))

    def found(self):
        """Everything of the view and its layers that is the user's."""
        layers = self.composite
        volumes = layers.GetBackgroundVolumeID(), layers.GetForegroundVolumeID(), layers.GetLabelVolumeID()
        shown = layers.GetForegroundOpacity(), layers.GetLabelOpacity(), layers.GetLinkedControl()
        zoom = self.view.GetFieldOfView(), self.view.GetXYZOrigin()
        return volumes, shown, zoom, fromVtk(self.view.GetSliceToRAS()).tolist()

    def assertShowsTheProbePlane(self):
        screen, pose = fromVtk(self.view.GetSliceToRAS()), self.pose()
        self.assertTrue(np.allclose(screen[:3, 0], pose[:3, 0], atol=1e-6))  # marked side to the right
        self.assertTrue(np.allclose(screen[:3, 1], -pose[:3, 1], atol=1e-6))  # depth down
        inProbe = np.linalg.inv(pose) @ screen[:, 3]
        self.assertAlmostEqual(inProbe[2], 0.0, places=5)
        self.assertTrue(20 < inProbe[1] < 50)

    @unittest.skipIf(headless.insideSlicer(), "stands in for an extension")
    def testSlicerIgtDrivesTheViewWhereItIs(self):
        for turn in (0, 180):
            with self.subTest(flip=turn):
                self.setUp()
                self.logic.createProbe(self.parameters, self.view)
                driver = ResliceDriver(self.parameters, turn)
                slicer.modules = SimpleNamespace(volumereslicedriver=SimpleNamespace(logic=lambda d=driver: d))
                try:
                    self.logic.render(self.parameters)
                    self.assertEqual(driver.driver, self.parameters.outputSlice.GetID())
                    self.assertShowsTheProbePlane()
                    self.logic.stopDriving()
                    self.assertEqual(driver.driver, "")
                finally:
                    del slicer.modules


class ResliceDriver:
    """Stands for SlicerIGT's logic: transverse is the image's own plane, flip turns it about x or, with `turn`, y."""

    def __init__(self, parameters, turn: int) -> None:
        self.parameters, self.turn = parameters, turn
        self.driver, self.mode, self.flip, self.rotation = "", 0, False, 0

    def SetDriverForSlice(self, nodeId, sliceNode) -> None:
        self.driver = nodeId
        self.update(sliceNode)

    def SetModeForSlice(self, mode, sliceNode) -> None:
        self.mode = mode
        self.update(sliceNode)

    def SetFlipForSlice(self, flip, sliceNode) -> None:
        self.flip = flip
        self.update(sliceNode)

    def SetRotationForSlice(self, rotation, sliceNode) -> None:
        self.rotation = rotation
        self.update(sliceNode)

    def update(self, sliceNode) -> None:
        if not self.driver or self.mode != 6:
            return
        matrix = vtk.vtkMatrix4x4()
        self.parameters.probeTransform.GetMatrixTransformToWorld(matrix)
        pose = fromVtk(matrix)
        pose[:3, 3] += 35 * pose[:3, 1]
        if self.flip:
            pose = pose @ (rotation(180, 0, 0) if not self.turn else rotation(0, 180, 0))
        sliceNode.GetSliceToRAS().DeepCopy(toVtk(pose @ rotation(0, 0, self.rotation)))
        sliceNode.UpdateMatrices()


if __name__ == "__main__":
    unittest.main()
