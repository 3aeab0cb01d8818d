"""Running, cancelling and stopping: the scene keeps what it had, and one sentence says why."""

from __future__ import annotations

import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import gc
import logging
import weakref

import headless
import numpy as np
import slicer
from DiffUSLib.errors import RenderError
from DiffUSLib.register.logic import RegisterLogic
from DiffUSLib.run import RunState
from headless.fixtures import addTransform, addVolume, rotation
from headless.register_fixtures import (
    FakeRegistration,
    addBrowser,
    addView,
    fakeEngine,
    frameArray,
    hang,
    imageSequence,
    poseSequence,
    registerParameters,
    snapshot,
)

POSES = [rotation(0, 5 * k, 0, (2 * k + 1, 0, 0)) for k in range(3)]


class RegisterRunTest(unittest.TestCase):
    def setUp(self):
        self.scene = headless.newScene()
        self.loop = headless.EventLoop()
        self.view, self.composite = addView()
        self.start = addTransform(rotation(3, 0, 0, (1, 2, 3)), name="Start")
        self.volume = addVolume(np.random.default_rng(0).random((20, 20, 20), np.float32), name="MRI")
        hang(self.volume, self.start)
        self.browser = addBrowser(
            imageSequence([frameArray(k) for k in range(3)]), poseSequence(POSES, "p", "ImageToReference")
        )
        self.parameters = registerParameters(self.volume, self.browser, sliceView=self.view)
        self.composite.SetBackgroundVolumeID(self.volume.GetID())
        self.composite.SetForegroundOpacity(0.3)
        self.view.SetFieldOfView(123, 145, 1)
        self.engine = fakeEngine()
        self.states, self.ended = [], []
        self.logic = self.newLogic(self.engine)

    def tearDown(self):
        self.logic.forgetScene()

    def newLogic(self, engine):
        return RegisterLogic(self.loop.schedule, engine, self.states.append, self.ended.append)

    def settle(self):
        while self.loop.run():
            pass

    def look(self):
        """The scene, and how the view stands."""
        matrix = self.view.GetSliceToRAS()
        placed = [matrix.GetElement(r, c) for r in range(4) for c in range(4)]
        return (*snapshot(), placed, self.view.GetFieldOfView(), self.view.GetXYZOrigin())

    def testItRunsStepByStepFromTheEventLoopAndEndsIdle(self):
        self.logic.start(self.parameters)
        self.assertEqual(self.states, [])
        for n in range(1, 5):
            self.assertEqual(self.loop.run(), 1)
            self.assertEqual(len(self.states), n)
            self.assertIs(self.logic.state, RunState.RUNNING)
        self.loop.run()
        self.assertIs(self.logic.state, RunState.IDLE)
        self.assertEqual((self.ended, self.loop.pending), ([""], []))
        self.assertIsNotNone(self.parameters.resultTransform)

    def testWhileItRunsTheCurveGrowsAndTheOverlayIsShown(self):
        self.logic.start(self.parameters)
        chart = self.logic.runningChart
        table = chart.GetNthPlotSeriesNode(0).GetTableNode()
        for n in range(1, 4):
            self.loop.run()
            self.assertEqual(table.GetNumberOfRows(), n)
        self.assertAlmostEqual(float(table.GetCellText(2, 0)), 75.0)
        self.assertAlmostEqual(float(table.GetCellText(2, 1)), 0.375)
        self.assertNotEqual(self.composite.GetBackgroundVolumeID(), self.volume.GetID())

    def testCancelAtAnyMomentLeavesEverythingAsItWas(self):
        for steps in range(6):
            with self.subTest(steps=steps):
                before = self.look()
                self.logic.start(self.parameters)
                for _n in range(steps):
                    self.loop.run()
                self.logic.cancel()
                cancelled = steps < 5
                self.assertIs(self.logic.state, RunState.CANCELLING if cancelled else RunState.IDLE)
                self.settle()
                self.assertIs(self.logic.state, RunState.IDLE)
                self.assertEqual(self.ended[-1], "")
                if cancelled:
                    self.assertEqual(self.look(), before)

    def testARunningRegistrationTouchesNothingOfTheUser(self):
        self.parameters.overlayMode = self.parameters.overlayMode.OFF
        known = {self.scene.GetNthNode(n).GetID() for n in range(self.scene.GetNumberOfNodes())}
        before = self.look()
        self.logic.start(self.parameters)
        self.loop.run()
        added = [
            node
            for n in range(self.scene.GetNumberOfNodes())
            if (node := self.scene.GetNthNode(n)).GetID() not in known
        ]
        for node in added:
            self.scene.RemoveNode(node)  # its own curve: the rest must be as before
        self.assertEqual(self.look(), before)
        self.assertIn("curve was deleted", self.ended[-1])

    def testAStepOfAnAbortedRunDoesNotDriveTheNextOne(self):
        self.logic.start(self.parameters)
        self.logic.forgetScene()
        self.logic.start(self.parameters)
        self.assertEqual(self.loop.run(), 2)
        self.settle()
        self.assertEqual([state.progress for state in self.states], [0.25, 0.5, 0.75, 1.0])

    def testASecondStartIsRefused(self):
        self.logic.start(self.parameters)
        self.loop.run()
        with self.assertRaisesRegex(RenderError, "running"):
            self.logic.start(self.parameters)
        self.settle()
        self.assertIsNotNone(self.parameters.resultTransform)

    def testADeletedInputStopsItWithOneSentence(self):
        for choose in (lambda: self.volume, lambda: self.browser, self.master):
            self.setUp()
            node = choose()
            with self.subTest(node=node.GetName()):
                self.logic.start(self.parameters)
                self.loop.run()
                self.assertEqual(self.scene.GetNumberOfNodesByClass("vtkMRMLTableNode"), 1)
                self.scene.RemoveNode(node)
                self.assertIs(self.logic.state, RunState.IDLE)
                self.assertEqual(self.ended, [f"The registration has stopped: '{node.GetName()}' was deleted."])
                self.settle()
                self.assertEqual(len(self.states), 1)
                self.assertEqual(self.scene.GetNumberOfNodesByClass("vtkMRMLTableNode"), 0)

    def master(self):
        return self.browser.GetMasterSequenceNode()

    def testAClosedSceneStopsItWithOneSentence(self):
        self.logic.start(self.parameters)
        self.loop.run()
        self.scene.Clear(0)
        self.assertIs(self.logic.state, RunState.IDLE)
        self.assertEqual(self.ended, ["The registration has stopped: the scene was closed."])
        self.settle()
        self.assertEqual(len(self.states), 1)
        self.assertFalse(self.scene.HasObserver(slicer.vtkMRMLScene.StartCloseEvent))

    def testAfterTheEndNoObserverStays(self):
        for stop in (self.settle, lambda: (self.logic.cancel(), self.settle())):
            self.logic.start(self.parameters)
            stop()
            self.assertFalse(self.scene.HasObserver(slicer.vtkMRMLScene.StartCloseEvent))

    def failing(self, error):
        def build(problem, parameters):
            def states():
                yield from list(fakeEngine()(problem, parameters))[:2]
                raise error

            return states()

        return self.newLogic(build)

    def testAnErrorOfTheEngineIsOneSentenceAndNothingIsLeft(self):
        from diffus.errors import InputError

        before = self.look()
        logic = self.failing(InputError("The frames are too dark."))
        logic.start(self.parameters)
        self.settle()
        self.assertEqual(self.ended, ["The frames are too dark."])
        self.assertEqual(self.look(), before)

    def testACrashIsSaidAndLoggedAndNothingIsLeft(self):
        before = self.look()
        logic = self.failing(RuntimeError("boom"))
        with self.assertLogs(level=logging.ERROR):
            logic.start(self.parameters)
            self.settle()
        self.assertEqual(self.ended, ["The registration has stopped after an error: boom"])
        self.assertEqual(self.look(), before)

    def testBadInputIsRefusedBeforeAnythingHappens(self):
        def refuse(problem, parameters):
            raise RenderError("Not this one.")

        before = self.look()
        with self.assertRaisesRegex(RenderError, "Not this one"):
            self.newLogic(refuse).start(self.parameters)
        self.volume.SetAndObserveImageData(None)
        self.parameters.inputVolume = self.volume
        changed = self.look()
        with self.assertRaisesRegex(RenderError, "empty"):
            self.logic.start(self.parameters)
        self.assertEqual(self.look(), changed)
        self.assertEqual((self.loop.pending, self.ended), ([], []))
        self.assertEqual(len(before), len(changed))

    def testCancellingKeepsTheResultOfTheRunBefore(self):
        self.logic.start(self.parameters)
        self.settle()
        first = self.parameters.resultTransform
        shown = self.logic.frameCount
        self.logic.start(self.parameters)
        self.loop.run()
        self.logic.cancel()
        self.settle()
        self.assertIs(self.parameters.resultTransform, first)
        self.assertEqual(self.logic.frameCount, shown)
        self.assertNotEqual(self.composite.GetBackgroundVolumeID(), self.volume.GetID())

    def testARunThatHasEndedHoldsNoSweep(self):
        """But the overlay still shows its frames."""
        sweeps = []

        def build(problem, parameters):
            sweeps.append(weakref.ref(problem.sweep))
            return FakeRegistration(problem, parameters)

        logic = self.newLogic(build)
        logic.runToEnd(self.parameters)
        gc.collect()
        self.assertIsNone(sweeps[0]())
        self.assertEqual((logic.frameCount, logic.frameOfItem(2)), (3, 2))
        logic.updateOverlay(self.parameters)
        self.assertNotEqual(self.composite.GetBackgroundVolumeID(), self.volume.GetID())
        logic.forgetScene()

    def testTheEngineGetsWhatTheSceneHolds(self):
        self.parameters.seed = 7
        self.parameters.translationMm = 12.0
        self.logic.start(self.parameters)
        made = self.engine.made[0]
        self.assertEqual((made.parameters.seed, made.parameters.translationMm), (7, 12.0))
        self.assertEqual((made.problem.kind, len(made.problem.sweep)), ("mri", 3))
        found = made.problem.initial @ (1, 1, 1, 1)
        np.testing.assert_allclose(found[:3], (rotation(3, 0, 0, (1, 2, 3)) @ (1, 1, 1, 1))[:3], atol=1e-9)


if __name__ == "__main__":
    unittest.main()
