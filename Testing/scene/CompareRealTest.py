"""Comparing on recorded sweeps: a real liver's fan, and a head whose pose is known."""

from __future__ import annotations

import json
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import headless
import numpy as np
import SimpleITK as sitk
from DiffUSLib.register.load_sweep import loadSweep
from DiffUSLib.render.image_fan import MAX_FRAMES, estimateFan
from DiffUSLib.render.logic import RenderLogic
from DiffUSLib.render.parameters import ProbeType, readParameters
from DiffUSLib.scene.tracked import readShownFrames
from DiffUSLib.scene.transforms import toVtk
from headless.fixtures import addParameterNode, addTransform, addVolume, rotation
from headless.register_fixtures import addBrowser, addView, imageSequence

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


@unittest.skipUnless(SHARED.is_dir(), "skipped: the shared test data is not present")
class CompareRealTest(unittest.TestCase):
    def setUp(self):
        headless.newScene()
        self.loop, self.lines = headless.EventLoop(), []
        self.logic = RenderLogic(self.loop.schedule, clock=self.loop.clock)
        self.logic.onCompared = self.lines.append

    def tearDown(self):
        self.logic.forgetScene()

    def testTheFanOfARealLiverSweep(self):
        image = sitk.ReadImage(str(SHARED / "us_tracked" / "liver_us_sweep_every5th_frame.seq.nrrd"))
        frames = np.moveaxis(sitk.GetArrayFromImage(image)[0], -1, 0)[::4]  # the file keeps frames as components
        browser = addBrowser(imageSequence(np.ascontiguousarray(frames), np.diag([0.315, 0.315, 1.0, 1.0])))
        node = browser.GetProxyNode(browser.GetMasterSequenceNode())
        probe = estimateFan(readShownFrames(node, MAX_FRAMES), readParameters(addParameterNode()).probe).probe
        self.assertIs(probe.probeType, ProbeType.CONVEX)
        self.assertAlmostEqual(probe.radiusMm, 51, delta=2)
        self.assertAlmostEqual(probe.fovDeg, 60, delta=2)
        self.assertAlmostEqual(probe.depthMm, 180, delta=3)

    def testTheRightPoseIsTheMostAlike(self):
        """A sweep with known truth: along the whole recording, the head where it was is more alike than beside it."""
        browser = loadSweep(SHARED / "ius_benchmark" / "mni152_111.igs.mha")
        node = browser.GetProxyNode(browser.GetMasterSequenceNode())
        truth = json.loads((SHARED / "ius_benchmark" / "mni152_111.truth.json").read_text())
        place = addTransform(np.array(truth["mri_to_reference"]), name="Head")
        head = self.addHead()
        head.SetAndObserveTransformNodeID(place.GetID())
        view, _layers = addView("Green")
        parameters = addParameterNode(head, None, rays=96, samples=250, realImage=node, compareView=view)
        self.logic.probeFromImage(parameters)
        self.assertAlmostEqual(parameters.radiusMm, truth["probe"]["radius_mm"], delta=0.3)
        self.assertAlmostEqual(parameters.fovDeg, truth["probe"]["fov_deg"], delta=0.3)
        right, beside = [], []
        for found, shift in ((right, (0, 0, 0)), (beside, (9, -6, 7))):
            moved = rotation(0, 0, 0, shift) @ np.array(truth["mri_to_reference"])
            place.SetMatrixTransformToParent(toVtk(moved))
            for item in range(0, browser.GetNumberOfItems(), 5):
                browser.SetSelectedItemNumber(item)
                found.append(self.logic.comparison.compare(parameters).ncc)
        self.assertGreater(np.mean(right), np.mean(beside) + 0.1)
        self.assertGreater(np.mean(np.array(right) > np.array(beside)), 0.7)

    def addHead(self):
        """The MNI152 average at 2 mm, which is enough here and quick."""
        image = sitk.ReadImage(str(SHARED / "mri" / "mni152_2009a_t1_1mm.nii.gz"), sitk.sitkFloat32)
        lps = np.diag([-1.0, -1.0, 1.0, 1.0])
        matrix = np.eye(4)
        matrix[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
        matrix[:3, 3] = image.GetOrigin()
        array = sitk.GetArrayFromImage(image)[::2, ::2, ::2]
        return addVolume(np.ascontiguousarray(array), lps @ matrix @ np.diag([2.0, 2.0, 2.0, 1.0]), "T1")


if __name__ == "__main__":
    unittest.main()
