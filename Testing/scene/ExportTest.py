"""Export from the scene: the present slice, or a sweep along a recording; poses, cancel, DICOM study, acoustic maps."""

from __future__ import annotations

import shutil
import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import headless
import numpy as np
import slicer
import slicer.util
from DiffUSLib.errors import RenderError
from DiffUSLib.render.export import exportPath
from DiffUSLib.render.logic import RenderLogic
from DiffUSLib.render.parameters import ExportFormat
from DiffUSLib.run import RunState
from DiffUSLib.scene.slice_node import mayBeOverwritten
from DiffUSLib.scene.tracked import readShownFrames
from DiffUSLib.scene.transforms import toVtk
from headless.fixtures import addHead, addParameterNode, addTransform, rotation, sliceArray
from headless.register_fixtures import addBrowser, pixelInWorld, poseSequence

ON_TOP = rotation(180, 0, 0, (0, 58, 0))  # on the front of the head, looking to the back


class ExportTest(unittest.TestCase):
    def setUp(self):
        headless.newScene()
        self.folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)
        self.loop = headless.EventLoop()
        self.logic = RenderLogic(schedule=self.loop.schedule)
        self.said: list[str] = []
        self.states: list = []
        self.logic.export.onEnded = self.said.append
        self.logic.export.onState = self.states.append
        self.head = addHead()
        self.probe = addTransform(ON_TOP, name="Probe")
        self.parameters = addParameterNode(self.head, self.probe, noise=False)  # new in every frame

    def tearDown(self):
        self.logic.forgetScene()

    def record(self, count: int = 4, last=None):
        """A browser that plays the probe itself: it slides along the head; `last` is another last pose."""
        self.poses = [rotation(180, 3.0 * n, 0, (4.0 * n - 6, 56, 0)) for n in range(count)]
        self.poses[-1] = self.poses[-1] if last is None else last
        sequence = poseSequence(self.poses, "ProbeToReference")
        browser = addBrowser(sequence)
        self.probe = self.parameters.probeTransform = browser.GetProxyNode(sequence)
        self.probe.SetMatrixTransformToParent(toVtk(ON_TOP))
        self.parameters.exportBrowser = browser
        return browser

    def choose(self, kind: ExportFormat, name: str = "") -> Path | None:
        self.parameters.exportFormat = kind
        self.parameters.exportPath = str(self.folder / name) if name else ""
        return exportPath(self.parameters) if name else None

    def runToEnd(self) -> str:
        self.logic.export.start(self.parameters)
        for _ in range(200):
            if self.logic.export.state is RunState.IDLE:
                break
            self.loop.run()
        return self.said[-1]

    def left(self) -> list[str]:
        return sorted(file.name for file in self.folder.rglob("*"))

    def poseNow(self):
        return slicer.util.arrayFromTransformMatrix(self.probe)

    def testTheSliceIsThatOfApply(self):
        path = self.choose(ExportFormat.NRRD, "slice")
        self.assertEqual(path.name, "slice.nrrd")
        said = self.runToEnd()
        self.assertIn("slice.nrrd", said)
        self.assertIsNone(self.parameters.outputSlice)  # nothing in the scene is made for it
        shown = self.logic.render(self.parameters)
        storage = slicer.vtkMRMLNRRDStorageNode()
        storage.SetFileName(str(path))
        back = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "back")
        self.assertTrue(storage.ReadData(back))
        np.testing.assert_array_equal(sliceArray(back), sliceArray(shown))
        for pixel in ((0, 0), (101, 55)):
            np.testing.assert_allclose(pixelInWorld(back, *pixel), pixelInWorld(shown, *pixel), atol=1e-3)

    def testASweepHoldsASliceAtEveryRecordedPose(self):
        from diffus.sweep.sweep import read_sweep

        self.record()
        path = self.choose(ExportFormat.IGS, "sweep.igs.mha")
        self.runToEnd()
        back = read_sweep(path)
        self.assertEqual(len(back), 4)
        np.testing.assert_allclose(back.timestamps, [0, 0.1, 0.2, 0.3], atol=1e-6)
        np.testing.assert_array_equal(self.poseNow(), ON_TOP)  # the user's probe has not been moved
        for frame, toWorld, pose in zip(back.frames.numpy(), back.image_to_reference.numpy(), self.poses):
            self.probe.SetMatrixTransformToParent(toVtk(pose))
            shown = self.logic.render(self.parameters)
            np.testing.assert_array_equal((frame * 255).round(), sliceArray(shown)[0])
            np.testing.assert_allclose((toWorld @ (40, 70, 0, 1))[:3], pixelInWorld(shown, 40, 70), atol=1e-6)

    def testItemsWhoseTrackingWasLostAreLeftOut(self):
        """A tracker writes the identity then, where no head is."""
        from diffus.sweep.sweep import read_sweep

        self.record(3, last=np.eye(4))
        path = self.choose(ExportFormat.IGS, "sweep")
        self.assertIn("1 items of the recording have no valid tracking", self.runToEnd())
        back = read_sweep(path)
        self.assertEqual(len(back), 2)
        np.testing.assert_allclose(back.timestamps, [0, 0.1], atol=1e-6)

    def testARecordingMayMoveWhatTheProbeHangsUnder(self):
        """PLUS's chain: the tracked ProbeToReference above a calibration, and the patient under its own transform."""
        from diffus.sweep.sweep import read_sweep

        patient = addTransform(rotation(0, 0, 20, (5, -3, 2)), name="Patient")
        self.head.SetAndObserveTransformNodeID(patient.GetID())
        tracked = [rotation(170, 2.0 * n, 10, (3.0 * n, 50, 4)) for n in range(3)]
        sequence = poseSequence(tracked, "ProbeToReference", "ProbeToReference")
        browser = addBrowser(sequence)
        proxy = browser.GetProxyNode(sequence)
        calibration = addTransform(rotation(0, 5, 0, (1, 2, 3)), parent=proxy, name="Calibration")
        self.parameters.probeTransform, self.parameters.exportBrowser = calibration, browser
        path = self.choose(ExportFormat.IGS, "sweep")
        self.runToEnd()
        back = read_sweep(path)
        for item in range(3):
            browser.SetSelectedItemNumber(item)
            proxy.SetMatrixTransformToParent(toVtk(tracked[item]))
            shown = self.logic.render(self.parameters)
            np.testing.assert_array_equal((back.frames[item].numpy() * 255).round(), sliceArray(shown)[0])
            toWorld = back.image_to_reference[item].numpy()
            np.testing.assert_allclose((toWorld @ (9, 30, 0, 1))[:3], pixelInWorld(shown, 9, 30), atol=1e-6)

    def testANonlinearTransformAboveTheVolumeIsHonoured(self):
        from diffus.sweep.sweep import read_sweep
        from vtk import vtkPoints, vtkThinPlateSplineTransform

        spline = vtkThinPlateSplineTransform()
        spline.SetBasisToR()
        source, target = vtkPoints(), vtkPoints()
        for n, corner in enumerate(np.ndindex(2, 2, 2)):
            point = 120.0 * (np.array(corner) - 0.5)
            source.InsertNextPoint(point)
            target.InsertNextPoint(point + (6.0 if n == 3 else 0.0))
        spline.SetSourceLandmarks(source)
        spline.SetTargetLandmarks(target)
        warp = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTransformNode", "Warp")
        warp.SetAndObserveTransformToParent(spline)
        self.head.SetAndObserveTransformNodeID(warp.GetID())
        self.record(2)
        path = self.choose(ExportFormat.IGS, "sweep")
        self.runToEnd()
        frames = read_sweep(path).frames.numpy()
        for frame, pose in zip(frames, self.poses):
            self.probe.SetMatrixTransformToParent(toVtk(pose))
            shown = sliceArray(self.logic.render(self.parameters))[0]
            np.testing.assert_allclose((frame * 255).round(), shown, atol=1)

    def testASweepBecomesASequenceInTheScene(self):
        self.record()
        self.choose(ExportFormat.SCENE)
        self.assertIn("plays the simulated sweep", self.runToEnd())
        count = slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLSequenceBrowserNode")
        added = slicer.mrmlScene.GetNthNodeByClass(count - 1, "vtkMRMLSequenceBrowserNode")
        self.assertEqual(added.GetNumberOfItems(), 4)
        images = added.GetMasterSequenceNode()
        volume = added.GetProxyNode(images)
        self.assertEqual(volume.GetDisplayNode().GetWindow(), 255)
        added.SetSelectedItemNumber(2)
        self.assertFalse(mayBeOverwritten(volume))
        with self.assertRaisesRegex(RenderError, "simulated image"):
            readShownFrames(volume)
        transform = volume.GetParentTransformNode()
        self.assertIsNotNone(added.GetSequenceNode(transform))
        for item, pose in enumerate(self.poses):
            recorded = added.GetSequenceNode(transform).GetNthDataNode(item)
            np.testing.assert_allclose(slicer.util.arrayFromTransformMatrix(recorded), pose, atol=1e-9)
            self.probe.SetMatrixTransformToParent(toVtk(pose))
            np.testing.assert_array_equal(
                sliceArray(images.GetNthDataNode(item)), sliceArray(self.logic.render(self.parameters))
            )

    def testProgressRisesAndTheEventLoopIsAskedForEveryFrame(self):
        self.record(5)
        self.choose(ExportFormat.PNG, "sweep")
        self.logic.export.start(self.parameters)
        steps = 0
        while self.logic.export.state is not RunState.IDLE:
            steps += self.loop.run()
        self.assertGreaterEqual(steps, 10)
        progress = [state.progress for state in self.states]
        self.assertEqual(progress, sorted(progress))
        self.assertAlmostEqual(progress[-1], 1.0)
        self.assertEqual(self.left(), ["sweep", *(f"sweep_{n:04d}.png" for n in range(5))])

    def testACancelledExportLeavesNothing(self):
        self.record()
        nodes = slicer.mrmlScene.GetNumberOfNodes()
        for kind in ExportFormat:
            for steps in (0, 2, 6):
                with self.subTest(kind=kind, steps=steps):
                    self.choose(kind, "sweep" if kind is not ExportFormat.SCENE else "")
                    self.logic.export.start(self.parameters)
                    for _ in range(steps):
                        self.loop.run()
                    self.assertIs(self.logic.export.state, RunState.RUNNING)
                    self.logic.export.cancel()
                    self.assertIs(self.logic.export.state, RunState.CANCELLING)
                    self.loop.run()
                    self.assertIs(self.logic.export.state, RunState.IDLE)
                    self.assertEqual(self.said[-1], "The export was cancelled; nothing was written.")
                    self.assertEqual(self.left(), [])
                    self.assertEqual(slicer.mrmlScene.GetNumberOfNodes(), nodes)

    def testAClosedSceneEndsTheExport(self):
        self.record()
        self.choose(ExportFormat.PNG, "sweep")
        self.logic.export.start(self.parameters)
        for _ in range(7):
            self.loop.run()
        self.logic.forgetScene()
        self.assertEqual(self.said, ["The export has stopped: the scene was closed."])
        self.loop.run()
        self.assertEqual(self.left(), [])

    def testAFailureIsSaidAndLeavesNothing(self):
        self.record(last=rotation(180, 0, 0, (900, 0, 0)))
        self.choose(ExportFormat.DICOM, "sweep")
        self.assertIn("outside the volume", self.runToEnd())
        self.assertEqual(self.left(), [])

    def testWhatIsMissingIsSaidAndNothingBegins(self):
        other = addBrowser(poseSequence([np.eye(4)] * 2, "OtherToReference"), name="Other")
        cases = [
            (ExportFormat.NRRD, "", None, "file"),
            (ExportFormat.SCENE, "", None, "recording"),
            (ExportFormat.GIF, "film", None, "film"),
            (ExportFormat.NRRD, "none/slice", None, "does not exist"),
            (ExportFormat.NRRD, "slice", other, "'Other' does not move"),
        ]
        for kind, name, browser, sentence in cases:
            with self.subTest(sentence=sentence):
                self.choose(kind, name)
                self.parameters.exportBrowser = browser
                with self.assertRaisesRegex(RenderError, sentence):
                    self.logic.export.start(self.parameters)
                self.assertIs(self.logic.export.state, RunState.IDLE)
        self.parameters.exportBrowser = None
        self.probe.SetMatrixTransformToParent(toVtk(np.diag([2.0, 2.0, 2.0, 1.0])))
        self.choose(ExportFormat.NRRD, "slice")
        with self.assertRaisesRegex(RenderError, "scales"):
            self.logic.export.start(self.parameters)
        self.assertEqual(self.left(), [])

    def testAFolderWithFilesIsToldOfBeforeAnythingIsSimulated(self):
        (self.folder / "sweep").mkdir()
        (self.folder / "sweep" / "mine.txt").write_text("mine")
        self.record()
        self.choose(ExportFormat.PNG, "sweep")
        with self.assertRaisesRegex(RenderError, "not empty"):
            self.logic.export.start(self.parameters)
        self.assertEqual(self.left(), ["mine.txt", "sweep"])

    def testTheEndingFollowsTheFormat(self):
        browser = self.record()
        for kind, name, swept, expected in (
            (ExportFormat.NRRD, "a.dcm", True, "a.seq.nrrd"),
            (ExportFormat.NRRD, "a.seq.nrrd", False, "a.nrrd"),
            (ExportFormat.DICOM, "a.igs.mha", True, "a.dcm"),
            (ExportFormat.PNG, "patient.2", False, "patient.2.png"),
            (ExportFormat.MP4, "a.MP4", True, "a.mp4"),
        ):
            self.parameters.exportBrowser = browser if swept else None
            self.assertEqual(self.choose(kind, name).name, expected)
        self.parameters.exportPath = "/"
        with self.assertRaises(RenderError):
            exportPath(self.parameters)

    # --- DICOM

    def study(self):
        """Puts the head under a DICOM study of the subject hierarchy."""
        hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
        patient = hierarchy.CreateSubjectItem(hierarchy.GetSceneItemID(), "Doe")
        study = hierarchy.CreateStudyItem(patient, "Head")
        item = hierarchy.GetItemByDataNode(self.head) or hierarchy.CreateItem(study, self.head)
        hierarchy.SetItemParent(item, study)
        hierarchy.SetItemUID(study, "DICOM", "1.2.840.99.1")
        hierarchy.SetItemAttribute(study, "DICOM.StudyDate", "2024-05-06")
        for name, value in (("PatientName", "Doe^Jane"), ("PatientID", "J-1"), ("PatientSex", "F")):
            hierarchy.SetItemAttribute(patient, f"DICOM.{name}", value)

    def testDicomJoinsTheStudyOfTheVolume(self):
        from pydicom import dcmread

        self.study()
        path = self.choose(ExportFormat.DICOM, "slice")
        self.runToEnd()
        anonymous = dcmread(path)
        self.assertNotEqual(anonymous.StudyInstanceUID, "1.2.840.99.1")
        self.assertEqual((str(anonymous.PatientName), anonymous.PatientID), ("Simulated^Anonymous", ""))
        self.assertEqual(anonymous.StudyDate, "")
        self.parameters.exportPatient = True
        self.record()
        self.runToEnd()
        named = dcmread(path)
        self.assertEqual(named.NumberOfFrames, 4)
        self.assertEqual((str(named.PatientName), named.PatientID), ("Doe^Jane", "J-1"))
        self.assertEqual((named.PatientSex, named.StudyDate), ("F", "20240506"))
        self.assertEqual(named.StudyInstanceUID, "1.2.840.99.1")
        self.assertNotEqual(named.SeriesInstanceUID, anonymous.SeriesInstanceUID)

    def testTheDatabaseKnowsTheStudyBest(self):
        from DiffUSLib.scene.dicom import sourceOf
        from pydicom import Dataset, dcmwrite
        from pydicom.dataset import FileMetaDataset
        from pydicom.uid import ExplicitVRLittleEndian

        dataset = Dataset()
        dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", "1.2.9"
        dataset.StudyInstanceUID, dataset.PatientID = "1.2.7", "FILE"
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dcmwrite(self.folder / "ct.dcm", dataset, enforce_file_format=True)
        self.study()
        self.head.SetAttribute("DICOM.instanceUIDs", "1.2.9 1.2.10")

        class Database:
            files = {"1.2.9": str(self.folder / "ct.dcm")}  # noqa: RUF012

            def fileForInstance(self, uid):
                return self.files.get(uid, "")

        before = getattr(slicer, "dicomDatabase", None)
        self.addCleanup(setattr, slicer, "dicomDatabase", before)
        setattr(slicer, "dicomDatabase", Database())  # noqa: B010
        self.assertEqual(sourceOf(self.head).StudyInstanceUID, "1.2.7")
        (self.folder / "ct.dcm").unlink()
        self.assertEqual(sourceOf(self.head).StudyInstanceUID, "1.2.840.99.1")
        self.assertIsNone(sourceOf(addHead(name="From nowhere")))

    # --- acoustic maps

    def testTheAcousticMapsLieOnTheVolume(self):
        patient = addTransform(rotation(0, 0, 20, (5, -3, 2)), name="Patient")
        self.head.SetAndObserveTransformNodeID(patient.GetID())
        nodes = self.logic.export.showMaps(self.parameters)
        self.assertEqual(len(nodes), 4)
        self.assertIn("impedance (MRayl)", nodes[0].GetName())
        inside = slicer.util.arrayFromVolume(self.head) > 60
        impedance = slicer.util.arrayFromVolume(nodes[0])
        self.assertEqual(impedance.shape, inside.shape)
        self.assertTrue(1.5 < impedance[inside].mean() < 1.9)
        for node in nodes:
            np.testing.assert_allclose(pixelInWorld(node, 3, 5), pixelInWorld(self.head, 3, 5), atol=1e-6)
        self.parameters.inputVolume = None
        with self.assertRaisesRegex(RenderError, "volume"):
            self.logic.export.showMaps(self.parameters)


if __name__ == "__main__":
    unittest.main()
