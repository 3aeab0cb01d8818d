"""A point target shows at its own millimetre of the slice node, however probe and volume lie in the world."""

from __future__ import annotations

import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import headless
import numpy as np
import slicer
import vtk
from DiffUSLib.render.logic import RenderLogic
from DiffUSLib.render.parameters import ProbeType
from headless.fixtures import addParameterNode, addTransform, addVolume, rotation, sliceArray
from headless.register_fixtures import pixelInWorld

SHAPE = (104, 110, 118)  # k, j, i: the whole fan lies inside
TARGET_IJK = (63, 50, 54)
TARGET_IN_PROBE = np.array([7.0, 32.0, 0.0])  # mm
PROBE_POSE = rotation(35, -20, 50)
TOLERANCE_MM = 0.5
QUIET = {"speckle": False, "noise": False, "depthMm": 50.0, "focusMm": 32.0, "rays": 192, "samples": 400}
VOLUMES = {
    "RAS": np.array([[1.0, 0, 0, -58], [0, 1, 0, -52], [0, 0, 1, -47], [0, 0, 0, 1]]),
    "LPS": np.array([[-1.0, 0, 0, 58], [0, -1, 0, 52], [0, 0, 1, -47], [0, 0, 0, 1]]),
    "oblique": rotation(25, 15, -70, (12, -7, 20)) @ np.diag([0.9, 1.1, 1.2, 1.0]),
}


class PointTargetTest(unittest.TestCase):
    def setUp(self):
        headless.newScene()
        self.logic = RenderLogic()

    def tearDown(self):
        self.logic.forgetScene()

    def testAllProbesInAllVolumes(self):
        for orientation, ijkToRas in VOLUMES.items():
            volume = self.addTarget(ijkToRas)
            target = (ijkToRas @ [*TARGET_IJK, 1.0])[:3]
            probe = self.addProbeBefore(target)
            for probeType in ProbeType:
                with self.subTest(volume=orientation, probe=probeType.value):
                    self.assertSeenAt(target, volume, probe, probeType=probeType)

    def testTransformsAboveVolumeAndProbe(self):
        patient = addTransform(rotation(10, 40, -15, (30, -20, 10)), name="Patient")
        table = addTransform(rotation(-60, 5, 25, (-100, 50, 300)), name="Table")
        patient.SetAndObserveTransformNodeID(table.GetID())
        volume = self.addTarget(VOLUMES["oblique"])
        volume.SetAndObserveTransformNodeID(patient.GetID())
        patientToWorld = rotation(-60, 5, 25, (-100, 50, 300)) @ rotation(10, 40, -15, (30, -20, 10))
        target = (patientToWorld @ VOLUMES["oblique"] @ [*TARGET_IJK, 1.0])[:3]
        tracker = addTransform(rotation(80, -30, 5, (500, 0, -200)), name="Tracker")
        probe = self.addProbeBefore(target, parent=tracker)
        self.assertSeenAt(target, volume, probe)

    def testScaledVolumeTransform(self):
        stretch = addTransform(np.diag([1.15, 0.9, 1.05, 1.0]), name="Stretch")
        volume = self.addTarget(VOLUMES["LPS"])
        volume.SetAndObserveTransformNodeID(stretch.GetID())
        target = (np.diag([1.15, 0.9, 1.05, 1.0]) @ VOLUMES["LPS"] @ [*TARGET_IJK, 1.0])[:3]
        self.assertSeenAt(target, volume, self.addProbeBefore(target))

    def testNonlinearTransformAboveTheVolume(self):
        volume = self.addTarget(VOLUMES["RAS"])
        bend, warp = self.addBend()
        volume.SetAndObserveTransformNodeID(bend.GetID())
        local = (VOLUMES["RAS"] @ [*TARGET_IJK, 1.0])[:3]
        target = np.array(warp.TransformPoint(local))
        self.assertGreater(np.linalg.norm(target - local), 4.0)
        self.assertSeenAt(target, volume, self.addProbeBefore(target))

    def testNonlinearTransformAboveTheProbe(self):
        volume = self.addTarget(VOLUMES["RAS"])
        bend, warp = self.addBend()
        target = (VOLUMES["RAS"] @ [*TARGET_IJK, 1.0])[:3]
        # The probe aims at the point that the bend takes to the target.
        aim = np.array(warp.GetInverse().TransformPoint(target))
        probe = self.addProbeBefore(aim, parent=bend)
        pixel, _brightness = self.brightest(volume, probe)
        flat = aim + PROBE_POSE[:3, :3] @ (pixel - TARGET_IN_PROBE)
        self.assertLess(np.linalg.norm(warp.TransformPoint(flat) - target), 2 * TOLERANCE_MM)

    def testHardenedTransformIsReadAfresh(self):
        volume = self.addTarget(VOLUMES["RAS"])
        moved = rotation(0, 0, 30, (15, 5, -10))
        before = (VOLUMES["RAS"] @ [*TARGET_IJK, 1.0])[:3]
        self.assertSeenAt(before, volume, self.addProbeBefore(before))
        volume.SetAndObserveTransformNodeID(addTransform(moved, name="Correction").GetID())
        volume.HardenTransform()
        self.assertIsNone(volume.GetParentTransformNode())
        after = (moved @ [*before, 1.0])[:3]
        self.assertSeenAt(after, volume, self.addProbeBefore(after))

    # --- what they use

    def addTarget(self, ijkToRas):
        hu = np.full(SHAPE, 40.0, np.float32)
        hu[TARGET_IJK[::-1]] = 160.0  # weak, so that its back echoes as its front does
        return addVolume(hu, ijkToRas, "CT target")

    def addProbeBefore(self, target, parent=None):
        """A turned and shifted probe that has `target` (world, or the parent's frame if that bends) there."""
        pose = PROBE_POSE.copy()
        pose[:3, 3] = target - pose[:3, :3] @ TARGET_IN_PROBE
        if parent is not None and parent.IsTransformToWorldLinear():
            toWorld = vtk.vtkMatrix4x4()
            parent.GetMatrixTransformToWorld(toWorld)
            pose = np.linalg.inv(slicer.util.arrayFromVTKMatrix(toWorld)) @ pose
        return addTransform(pose, parent, "Probe")

    def addBend(self):
        """A transform node that bends space by some millimetres, and its transform to world."""
        warp = vtk.vtkThinPlateSplineTransform()
        warp.SetBasisToR()
        corners = np.array([[x, y, z] for x in (-60, 60) for y in (-60, 60) for z in (-60, 60)] + [[0, 0, 0]], float)
        shifts = np.zeros_like(corners)
        shifts[-1] = (9.0, -6.0, 4.0)
        for points, setter in ((corners, warp.SetSourceLandmarks), (corners + shifts, warp.SetTargetLandmarks)):
            landmarks = vtk.vtkPoints()
            landmarks.SetDataTypeToDouble()
            for point in points:
                landmarks.InsertNextPoint(point)
            setter(landmarks)
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTransformNode", "Bend")
        node.SetAndObserveTransformToParent(warp)
        return node, warp

    def brightest(self, volume, probe, **settings):
        """Probe-frame mm of the centre of the brightest spot, and its brightness."""
        parameters = addParameterNode(volume, probe, **{**QUIET, **settings})
        node = self.logic.render(parameters)
        pixels = sliceArray(node)[0].astype(float)
        weights = np.where(pixels > 0.5 * pixels.max(), pixels, 0.0)
        rows, columns = np.indices(pixels.shape)
        column, row = ((weights * index).sum() / weights.sum() for index in (columns, rows))
        self.spot = (node, column, row)
        ijkToRas = vtk.vtkMatrix4x4()
        node.GetIJKToRASMatrix(ijkToRas)
        return (slicer.util.arrayFromVTKMatrix(ijkToRas) @ [column, row, 0, 1])[:3], pixels.max()

    def assertSeenAt(self, target, volume, probe, **settings):
        _pixel, brightness = self.brightest(volume, probe, **settings)
        found = pixelInWorld(*self.spot)
        self.assertGreater(brightness, 60)
        self.assertLess(np.linalg.norm(found - target), TOLERANCE_MM, f"found at {found}, is at {target}")


if __name__ == "__main__":
    unittest.main()
