"""Live: follows what changes, renders the newest pose once, stops cleanly and says why."""

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
from DiffUSLib.render.live import LiveRendering
from DiffUSLib.render.logic import RenderLogic
from DiffUSLib.scene.transforms import toVtk
from headless.fixtures import addHead, addParameterNode, addTransform, rotation, sliceArray


def pose(y: float = 58.0, x: float = 0.0):
    return toVtk(rotation(180, 0, 0, (x, y, 0)))


class LiveTest(unittest.TestCase):
    def setUp(self):
        headless.newScene()
        self.loop = headless.EventLoop()
        self.said: list[str] = []
        self.logic = RenderLogic(self.loop.schedule, self.said.append, self.loop.clock)
        self.head = addHead()
        self.tracker = addTransform(name="Tracker")
        self.probe = addTransform(parent=self.tracker, name="Probe")
        self.probe.SetMatrixTransformToParent(pose())
        self.parameters = addParameterNode(self.head, self.probe, live=True, noise=False)  # new in every frame
        self.logic.startLive(self.parameters)
        self.settle()
        self.output = self.parameters.outputSlice
        self.frames = self.countFrames()

    def tearDown(self):
        self.logic.forgetScene()

    def settle(self):
        while self.loop.run():
            pass

    def countFrames(self):
        frames = []
        event = slicer.vtkMRMLVolumeNode.ImageDataModifiedEvent
        self.output.AddObserver(event, lambda *_: frames.append(sliceArray(self.output)))
        return frames

    def assertRendersOnce(self, change):
        del self.frames[:]
        change()
        self.settle()
        self.assertEqual(len(self.frames), 1)

    def testTheFirstFrameComesByItself(self):
        self.assertIsNotNone(self.output)
        self.assertGreater(sliceArray(self.output).std(), 5)

    def testTheFirstFrameIsNotFollowedByAnother(self):
        self.logic.forgetScene()
        fresh = addParameterNode(self.head, self.probe)
        self.logic.startLive(fresh)
        self.assertEqual(self.loop.run(), 1)
        self.assertIsNotNone(fresh.fanModel)  # slice, fan and references were made: they are no news
        self.assertEqual(self.loop.pending, [])

    def testAnotherVolumeIsWatchedEvenIfItCannotBeRendered(self):
        empty = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "CT to come")
        self.parameters.inputVolume = empty
        self.settle()
        self.assertIn("is empty", self.said[-1])
        slicer.util.updateVolumeFromArray(empty, slicer.util.arrayFromVolume(self.head))
        empty.CopyOrientation(self.head)
        self.settle()
        self.assertEqual(self.said[-1], "")

    def testAtRestNothingIsRendered(self):
        self.assertEqual(self.loop.run(), 0)
        self.assertEqual(self.frames, [])

    def testManyEventsMakeOneFrameOfTheNewestPose(self):
        for step in range(100):
            self.probe.SetMatrixTransformToParent(pose(58 - 0.1 * step))
        self.assertEqual(len(self.loop.pending), 1)
        self.settle()
        self.assertEqual(len(self.frames), 1)
        expected = self.logic.render(self.parameters)
        self.assertTrue(np.array_equal(self.frames[0], sliceArray(expected)))

    def testItFollowsWhateverMovesProbeOrVolume(self):
        patient = addTransform(name="Patient")
        self.assertRendersOnce(lambda: self.probe.SetMatrixTransformToParent(pose(56)))
        self.assertRendersOnce(lambda: self.tracker.SetMatrixTransformToParent(toVtk(rotation(0, 0, 2))))
        self.head.SetAndObserveTransformNodeID(patient.GetID())
        self.assertRendersOnce(lambda: patient.SetMatrixTransformToParent(toVtk(rotation(0, 0, 4))))
        self.assertRendersOnce(lambda: self.head.HardenTransform())

    def testThePoseThatIsShownAlreadyIsNoNews(self):
        for _ in range(5):
            self.probe.SetMatrixTransformToParent(pose())
            self.settle()
        self.assertEqual(self.frames, [])

    def testItFollowsAStreamThatWritesMatrixAndNodeInOneGo(self):
        """As OpenIGTLink does: the matrix is set in place, and the node's events come together at the end."""
        matrix = pose(55)
        self.probe.SetMatrixTransformToParent(matrix)
        self.settle()

        def receive():
            wasModifying = self.probe.StartModify()
            self.probe.SetMatrixTransformToParent(pose(50))
            self.probe.SetAttribute("status", "OK")
            self.probe.Modified()
            self.probe.EndModify(wasModifying)

        self.assertRendersOnce(receive)
        self.assertTrue(np.array_equal(self.frames[0], sliceArray(self.logic.render(self.parameters))))

    def testItFollowsTheVoxels(self):
        def paint():
            slicer.util.arrayFromVolume(self.head)[:] += 50
            slicer.util.arrayFromVolumeModified(self.head)

        before = sliceArray(self.output)
        self.assertRendersOnce(paint)
        self.assertFalse(np.array_equal(before, self.frames[0]))

    def testItFollowsSettingsAndInputs(self):
        self.assertRendersOnce(lambda: setattr(self.parameters, "gainDb", 10.0))
        other = addHead(50.0, name="CT other")
        self.assertRendersOnce(lambda: setattr(self.parameters, "inputVolume", other))
        self.assertRendersOnce(lambda: other.SetSpacing(5, 5, 5))
        del self.frames[:]
        self.head.SetSpacing(5, 5, 5)  # not watched any more
        self.settle()
        self.assertEqual(self.frames, [])

    def testBadInputIsSaidOnceAndTheSliceStays(self):
        before = sliceArray(self.output)
        self.probe.SetMatrixTransformToParent(pose(5000))
        self.settle()
        self.assertIn("outside", self.said[-1])
        self.assertTrue(self.logic.live.running)
        self.assertTrue(np.array_equal(before, sliceArray(self.output)))
        self.probe.SetMatrixTransformToParent(pose(57))
        self.settle()
        self.assertEqual(self.said[-1], "")

    def testADeletedNodeStopsItWithOneSentence(self):
        for victim in ("probeTransform", "inputVolume", "outputSlice"):
            with self.subTest(deleted=victim):
                self.tearDown()
                self.setUp()
                node = getattr(self.parameters, victim)
                name = node.GetName()
                del self.said[:]
                slicer.mrmlScene.RemoveNode(node)
                self.settle()
                self.assertEqual(self.said, [f"Live has stopped: '{name}' was deleted."])
                self.assertStopped()
                self.assertFalse(self.parameters.live)

    def testAClosedSceneStopsItWithOneSentence(self):
        del self.said[:]
        self.probe.SetMatrixTransformToParent(pose(50))  # a call is on its way
        slicer.mrmlScene.Clear(0)
        self.settle()
        self.assertEqual(self.said, ["Live has stopped: the scene was closed."])
        self.assertStopped()

    def testStoppedMeansStopped(self):
        self.probe.SetMatrixTransformToParent(pose(50))
        self.logic.stopLive()
        self.settle()
        self.probe.SetMatrixTransformToParent(pose(40))
        self.settle()
        self.assertEqual(self.frames, [])
        self.assertStopped()

    def testItCanBeStartedAgainWithoutMoreObservers(self):
        count = self.logic.live.observerCount
        for _ in range(3):
            self.logic.startLive(self.parameters)
            self.settle()
        self.assertEqual(self.logic.live.observerCount, count)
        self.assertRendersOnce(lambda: self.probe.SetMatrixTransformToParent(pose(50)))

    def testWithoutAnEventLoopItIsRefused(self):
        with self.assertRaises(RenderError):
            RenderLogic().startLive(self.parameters)

    def testTheRateIsThatOfTheMovement(self):
        loop = headless.EventLoop()
        live = LiveRendering(
            lambda *_: False, lambda: {self.probe: ()}, loop.schedule, lambda sentence: None, loop.clock
        )
        rates = []
        live.start(slicer.mrmlScene)
        for seconds in (0.0, 0.1, 0.1, 0.1, 60.0, 0.05, 0.05):
            loop.now += seconds
            live.requestFrame()
            loop.run()
            rates.append(live.framesPerSecond)
        live.stop()
        self.assertAlmostEqual(rates[3], 10.0)
        self.assertEqual(rates[4], 0.0)  # a minute of rest is not one slow frame
        self.assertAlmostEqual(rates[6], 20.0)

    def testNoiseIsNewInEveryFrameAndThatOfASingleSliceIsNot(self):
        self.parameters.noiseDb = -20.0
        self.assertRendersOnce(lambda: setattr(self.parameters, "noise", True))
        self.assertRendersOnce(lambda: self.parameters.parameterNode.Modified())
        first, second = (frame.astype(float) for frame in (sliceArray(self.output), self.frames[0]))
        self.assertTrue(np.array_equal(first, second))
        self.assertRendersOnce(lambda: self.parameters.parameterNode.Modified())
        self.assertGreater(np.abs(self.frames[0] - second).mean(), 1.0)
        alone = [sliceArray(self.logic.render(self.parameters)) for _time in range(2)]
        self.assertTrue(np.array_equal(*alone))

    def testPersistenceKeepsTheLastFramesUntilTheProbeRests(self):
        self.assertRendersOnce(lambda: setattr(self.parameters, "persistence", 0.8))
        before = sliceArray(self.output).astype(float)
        self.assertRendersOnce(lambda: self.probe.SetMatrixTransformToParent(pose(40)))
        moving = sliceArray(self.output).astype(float)
        self.loop.wait(3.0)
        rest = sliceArray(self.output).astype(float)
        self.assertLess(np.abs(moving - before).mean(), 0.5 * np.abs(rest - before).mean())
        self.assertTrue(np.array_equal(rest, sliceArray(self.logic.render(self.parameters))))
        self.assertEqual(self.loop.wait(3.0), 0)

    def testAnotherSettingBeginsAnew(self):
        self.parameters.persistence = 0.9
        self.settle()
        self.assertRendersOnce(lambda: setattr(self.parameters, "gainDb", 12.0))
        self.assertTrue(np.array_equal(self.frames[0], sliceArray(self.logic.render(self.parameters))))

    def testAPictureWithEarlierFramesInItIsFollowedByOneWithout(self):
        calls, loop, pose = [], headless.EventLoop(), np.eye(4)

        def render(fraction, atRest):
            calls.append((fraction, atRest))
            return not atRest

        watched = {self.probe: ()}
        live = LiveRendering(render, lambda: watched, loop.schedule, lambda _: None, loop.clock, lambda: pose)
        live.start(slicer.mrmlScene)
        for _step in range(3):
            live.requestFrame()
            loop.wait(0.05)
        self.assertEqual(calls, [(1.0, False)] * 3)
        loop.wait(5.0)
        self.assertEqual(calls[3:], [(1.0, True)])  # one, and then there is rest
        live.stop()

    def testAnUnforeseenErrorStopsItWithASentence(self):
        sentences = []
        loop = headless.EventLoop()

        def broken(fraction, atRest):
            raise ZeroDivisionError("divided by zero")

        live = LiveRendering(broken, lambda: {self.probe: ()}, loop.schedule, lambda sentence: None)
        live.start(slicer.mrmlScene, sentences.append)
        with self.assertLogs(level="ERROR"):
            loop.run()
        self.assertFalse(live.running)
        self.assertIn("divided by zero", sentences[0])

    def assertStopped(self):
        self.assertFalse(self.logic.live.running)
        self.assertEqual(self.logic.live.observerCount, 0)
        self.assertEqual(self.loop.run(), 0)


if __name__ == "__main__":
    unittest.main()
