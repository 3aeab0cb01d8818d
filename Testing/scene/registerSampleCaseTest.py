"""The sample case of Sample Data: what it puts into the scene, and that a registration finds its truth."""

from __future__ import annotations

import dataclasses
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from importlib.util import find_spec
from types import ModuleType, SimpleNamespace
from unittest import mock

import headless
import numpy as np
import slicer
import slicer.util
from DiffUSLib.errors import RenderError
from DiffUSLib.register import sample as sample_case
from DiffUSLib.register.parameter_node import RegisterParameterNode
from DiffUSLib.register.parameters import missingInput
from DiffUSLib.register.session import openSession
from DiffUSLib.render.logic import RenderLogic
from DiffUSLib.render.parameter_node import RenderParameterNode
from DiffUSLib.scene.transforms import ijkToRas, nodeToWorld, toVtk
from headless.fixtures import addVolume
from headless.register_fixtures import addView, snapshot

NILEARN = Path(spec.origin).parent / "datasets" / "data" if (spec := find_spec("nilearn")) else None
MNI152 = "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
WHOLE_HEAD = Path(__file__).resolve().parents[3] / "shared" / "data" / "mri" / "colin27_ch2_t1_1mm.nii.gz"
STAGES = ["Loading PyTorch", "Downloading the head MRI", "Finding the brain", "Making tissue of the MRI"]


def loadHead(path: Path | None = None, step: int = 2):
    """Stands for Slicer's download: a head from a file, nilearn's MNI152 without one, every `step`-th voxel."""
    storage = slicer.vtkMRMLVolumeArchetypeStorageNode()
    storage.SetFileName(str(path or NILEARN / MNI152))
    full = slicer.vtkMRMLScalarVolumeNode()
    slicer.vtkMRMLScene().AddNode(full)
    storage.ReadData(full)
    geometry = ijkToRas(full) @ np.diag([step, step, step, 1.0])
    return addVolume(slicer.util.arrayFromVolume(full)[::step, ::step, ::step].copy(), geometry, "MRHead")


def moduleParameters():
    scene = slicer.mrmlScene
    return (
        RegisterParameterNode(scene.GetSingletonNode("DiffUSRegister", "vtkMRMLScriptedModuleNode")),
        RenderParameterNode(scene.GetSingletonNode("DiffUSRender", "vtkMRMLScriptedModuleNode")),
    )


@unittest.skipIf(NILEARN is None, "skipped: nilearn, which brings the head, is not installed")
class RegisterSampleCaseTest(unittest.TestCase):
    def setUp(self):
        headless.newScene()

    def testTheCaseIsReadyInBothModules(self):
        said = []
        nodes = sample_case.loadSampleCase(loadHead, lambda text, share: said.append((text, share)) or True)
        self.assertEqual(list(dict.fromkeys(text for text, _share in said)), [*STAGES, "Scanning the head"])
        shares = [share for _text, share in said]
        self.assertEqual(shares, sorted(shares))
        register, render = moduleParameters()
        self.assertEqual(missingInput(register), "")
        self.assertIs(register.inputVolume, nodes.volume)
        self.assertIs(register.ultrasound, nodes.browser)
        self.assertIs(render.probeTransform, nodes.probe)
        self.assertIs(nodes.volume.GetParentTransformNode(), nodes.firstGuess)
        self.assertAlmostEqual(sample_case.errorMm(nodes.firstGuess), 8.0, delta=2.5)
        self.assertEqual(sample_case.errorMm(nodes.truth), 0.0)
        image = nodes.browser.GetProxyNode(nodes.browser.GetMasterSequenceNode())
        self.assertIs(image.GetParentTransformNode(), nodes.probe)
        self.assertEqual(nodes.browser.GetNumberOfItems(), 24)
        self.assertIsNotNone(render.fanModel)

        # DiffUS Render compares its own slice with the sweep's frame: they are more alike where the head belongs.
        comparison = RenderLogic().comparison
        render.compareView = addView()[0]
        apart = comparison.compare(render).ncc
        nodes.volume.SetAndObserveTransformNodeID(nodes.truth.GetID())
        self.assertGreater(comparison.compare(render).ncc, apart + 0.02)

        problem = openSession(register)
        self.assertEqual(len(problem.sweep), 24)
        np.testing.assert_allclose(problem.initial, nodeToWorld(nodes.truth), atol=1e-9)
        self._registers(problem, nodes)

    def _registers(self, problem, nodes):
        """A short search from the first guess, without the judging, comes to the truth."""
        from diffus.register.registration import RigidRegistration, Settings

        search = dataclasses.replace(Settings().search, samples=2048, around=64, copies=6, starts=12)
        settings = dataclasses.replace(Settings(), translation_mm=10.0, rotation_deg=8.0, search=search)
        initial = nodeToWorld(nodes.firstGuess)
        registration = RigidRegistration(
            problem.voxels, problem.ijkToRas, problem.sweep, initial=initial, settings=settings
        )
        found = next(state.mri_to_reference for state in registration if state.stage == "judging")
        result = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "found")
        result.SetMatrixTransformToParent(toVtk(found.numpy()))
        self.assertLess(sample_case.errorMm(result), 1.0)

    @unittest.skipUnless(WHOLE_HEAD.is_file(), "skipped: the shared test data (a whole head) is not present")
    def testAWholeHeadIsScannedBeneathItsSkull(self):
        nodes = sample_case.loadSampleCase(lambda: loadHead(WHOLE_HEAD))
        volume = slicer.util.arrayFromVolume(nodes.volume)
        rasToIjk = np.linalg.inv(ijkToRas(nodes.volume)) @ np.linalg.inv(nodeToWorld(nodes.truth))
        depth = np.stack([0 * np.arange(40.0), np.arange(-15.0, 25.0), 0 * np.arange(40.0), np.ones(40)])
        i, j, k = (rasToIjk @ nodeToWorld(nodes.probe) @ depth)[:3].round().astype(int)
        along = volume[k, j, i].astype(float)
        brain, scalp = np.median(along[22:]), along[:12].max()
        self.assertGreater(scalp, brain)  # the scalp's fat lies outside of the probe's face
        self.assertLess(along[8:16].min(), 0.6 * brain)  # and so does the skull
        frames = slicer.util.arrayFromVolume(nodes.browser.GetProxyNode(nodes.browser.GetMasterSequenceNode()))[0]
        self.assertGreater(frames[frames > 0].std(), 25)

    def testCancellingLeavesNothingBehind(self):
        before = snapshot()
        for allowed in (3, 6):
            said = []
            nodes = sample_case.loadSampleCase(
                lambda: loadHead(step=3),
                lambda text, share, said=said, most=allowed: not said.append(text) and len(said) < most,
            )
            self.assertIsNone(nodes)
            self.assertEqual(snapshot()[2], before[2])

    def testWhatIsNoHeadIsRefusedInOneSentence(self):
        before = snapshot()
        noise = np.random.default_rng(0).normal(100, 20, (40, 40, 40)).astype(np.float32)
        with self.assertRaisesRegex(RenderError, "No brain was found"):
            sample_case.loadSampleCase(lambda: addVolume(noise, np.diag([3.0, 3, 3, 1])))
        self.assertEqual(snapshot()[2], before[2])

    def testWithoutTorchNothingIsDownloaded(self):
        with (
            mock.patch.object(sample_case, "requireTorch", side_effect=RenderError("PyTorch is not installed.")),
            self.assertRaisesRegex(RenderError, "PyTorch"),
        ):
            sample_case.loadSampleCase(lambda: self.fail("downloaded"))


class SampleDataTest(unittest.TestCase):
    """The side of Sample Data: a stand-in with the calls of Slicer 5.8."""

    def setUp(self):
        headless.newScene()
        self.registered, self.downloaded = [], []
        module = ModuleType("SampleData")
        outer = self

        class SampleDataLogic:
            @staticmethod
            def registerCustomSampleDataSource(**source):
                outer.registered.append(source)

            def downloadSamples(self, name):
                outer.downloaded.append(name)
                return outer.nodes

        module.SampleDataLogic = SampleDataLogic
        self.nodes = []
        patch = mock.patch.dict(sys.modules, {"SampleData": module})
        patch.start()
        self.addCleanup(patch.stop)

    def testTheTileHasAPictureAndALoader(self):
        icons = headless.ROOT / "DiffUSRegister" / "Resources" / "Icons"
        sample_case.registerSampleData(icons)
        (source,) = self.registered
        self.assertTrue(Path(source["thumbnailFileName"]).is_file())
        self.assertIs(source["customDownloader"], sample_case.loadFromSampleData)

    def testWithoutSampleDataNothingHappens(self):
        with mock.patch.dict(sys.modules, {"SampleData": None}):
            sample_case.registerSampleData("icons")

    def testNoNetworkIsToldInOneSentenceAndNothingIsAdded(self):
        before = snapshot()
        for nodes in ([], [None], ["/cache/MR-head.nrrd"]):
            self.nodes = nodes
            self.assertIn("network", self._click())
        self.assertEqual(self.downloaded, ["MRHead"] * 3)
        self.assertEqual(snapshot()[2], before[2])

    @unittest.skipIf(NILEARN is None, "skipped: nilearn, which brings the head, is not installed")
    def testTheButtonLoadsTheCase(self):
        self.nodes = [loadHead(step=3)]
        self.assertEqual(self._click(), "")
        self.assertEqual(self.result[0].GetName(), "DiffUS sample head")

    def _click(self) -> str:
        """Presses the tile's button; returns what an error dialog said."""
        said = []
        dialog = mock.Mock(wasCanceled=False)
        with (
            mock.patch.object(slicer.util, "createProgressDialog", return_value=dialog, create=True),
            mock.patch.object(slicer.util, "errorDisplay", said.append, create=True),
            mock.patch.object(slicer, "app", SimpleNamespace(processEvents=lambda: None)),
        ):
            self.result = sample_case.loadFromSampleData()
        dialog.close.assert_called_once_with()
        self.assertLessEqual(len(said), 1)
        return "".join(said)


if __name__ == "__main__":
    unittest.main()
