"""Live on a fake clock: fluent while the probe moves, whole when it rests, and nothing piles up in ten minutes."""

from __future__ import annotations

import sys
import unittest
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import headless
import numpy as np
import slicer
from DiffUSLib import engine
from DiffUSLib.render.logic import RenderLogic
from DiffUSLib.render.parameters import ImageSettings, ProbeSettings, RenderParameters
from DiffUSLib.render.quality import MIN_RAYS, MIN_SAMPLES, AdaptiveQuality, reduced, reducedFrame
from DiffUSLib.scene.transforms import toVtk
from headless.fixtures import addHead, addParameterNode, addTransform, observerCount, rotation, sliceArray

RAYS, SAMPLES = 192, 400


def work(probe) -> int:
    return probe.rays * probe.samples * probe.elevation_layers * probe.rays_per_line


class QualityTest(unittest.TestCase):
    def testLessWorkLeavesTheFanAndGoesToTheLeast(self):
        full = ProbeSettings(rays=256, samples=800, elevationLayers=5, raysPerLine=4)
        before = None
        for fraction in (1.0, 0.5, 0.25, 0.05, 0.01, 1e-4):
            probe = reduced(full, fraction)
            size = probe.rays * probe.samples * probe.elevationLayers * probe.raysPerLine
            self.assertEqual((probe.depthMm, probe.fovDeg, probe.radiusMm), (full.depthMm, full.fovDeg, full.radiusMm))
            self.assertTrue(before is None or size < before)
            self.assertTrue(size <= 1.01 * fraction * 256 * 800 * 20 or (probe.rays, probe.samples) == (48, 100))
            before = size
        self.assertEqual((probe.rays, probe.samples), (MIN_RAYS, MIN_SAMPLES))
        self.assertEqual(reduced(full, 1.0), full)
        few = ProbeSettings(rays=32, samples=64)
        self.assertEqual(reduced(few, 0.1), few)  # never more than was asked for

    def testACompoundedFrameLosesItsLooksFirst(self):
        full = RenderParameters(image=ImageSettings(compounding=3))
        self.assertEqual(reducedFrame(full, 1.0), full)
        half = reducedFrame(full, 0.5)
        self.assertEqual((half.image.compounding, half.probe), (1, full.probe))
        self.assertEqual(reducedFrame(full, 0.05).image.compounding, 1)
        self.assertLess(reducedFrame(full, 0.05).probe.rays, full.probe.rays)

    def testTheShareFindsItsRateAndStaysThere(self):
        quality, fractions = AdaptiveQuality(budget=0.035), []
        for _ in range(60):
            fractions.append(quality.fraction)
            quality.measured(quality.fraction, 0.005 + 0.2 * quality.fraction)
        self.assertLessEqual(0.005 + 0.2 * fractions[-1], 0.035)
        self.assertGreater(0.005 + 0.4 * fractions[-1], 0.035)
        self.assertEqual(len(set(fractions[10:])), 1)

    def testOneSlowFrameIsForgiven(self):
        quality = AdaptiveQuality(budget=0.035)
        for n in range(20):
            quality.measured(quality.fraction, 1.0 if n == 10 else 0.02)
        self.assertEqual(quality.fraction, 1.0)

    def testAQuickFullFrameAtRestEndsTheReduction(self):
        quality = AdaptiveQuality(budget=0.035)
        for _ in range(4):
            quality.measured(quality.fraction, 0.3 * quality.fraction)
        self.assertLess(quality.fraction, 1.0)
        quality.measured(1.0, 0.2)
        self.assertLess(quality.fraction, 1.0)
        quality.measured(1.0, 0.03)
        self.assertEqual(quality.fraction, 1.0)


class LiveQualityTest(unittest.TestCase):
    """A full frame takes `self.seconds` on the fake clock, a smaller one its fraction of that."""

    seconds = 0.12

    def setUp(self):
        headless.newScene()
        self.loop = headless.EventLoop()
        self.logic = RenderLogic(self.loop.schedule, clock=self.loop.clock)
        self.probe = addTransform(name="Probe")
        self.frames: list[tuple[float, float]] = []  # where the probe was, and the fraction of the work
        patched = mock.patch.object(engine, "renderPixels", self.renderPixels)
        patched.start()
        self.addCleanup(patched.stop)
        self.parameters = addParameterNode(addHead(), self.probe, rays=RAYS, samples=SAMPLES)
        self.move(0.0)
        self.logic.startLive(self.parameters)
        self.loop.wait(5)

    def tearDown(self):
        self.logic.forgetScene()

    def renderPixels(self, renderer, medium, probeToVolume, *_following):
        fraction = work(renderer.probe) / (RAYS * SAMPLES)
        self.frames.append((float(probeToVolume[0, 3]), fraction))
        self.loop.now += self.seconds * fraction
        return np.full((8, 8), len(self.frames) % 256, np.uint8)

    def move(self, x: float) -> None:
        self.probe.SetMatrixTransformToParent(toVtk(rotation(180, 0, 0, (x, 58.0, 0.0))))

    def stream(self, positions, rate: float = 60.0) -> None:
        """Sends a pose at every tick; one that comes due during a frame is there when the frame is done."""
        start = self.loop.now
        for tick, x in enumerate(positions):
            if start + tick / rate > self.loop.now:
                self.loop.wait(start + tick / rate - self.loop.now)
            self.move(x)
        self.loop.run()

    def testItIsFluentInMotionAndWholeAtRest(self):
        self.stream(0.8 * np.arange(120))
        moving = self.frames[-20:]
        self.assertTrue(all(fraction < 0.35 for _, fraction in moving))
        self.assertGreater(self.logic.live.framesPerSecond, 20)
        self.assertTrue(self.logic.live.reduced)
        count = len(self.frames)
        self.loop.wait(0.3)
        self.assertEqual(len(self.frames), count)  # a short stop is not yet rest
        self.loop.wait(1)
        self.assertEqual(self.frames[count:], [(0.8 * 119, 1.0)])
        self.assertFalse(self.logic.live.reduced)
        self.loop.wait(60)
        self.assertEqual(len(self.frames), count + 1)

    def testWithoutAutomaticQualityEveryFrameIsWhole(self):
        self.parameters.automaticQuality = False
        del self.frames[:]
        self.stream(0.8 * np.arange(60))
        self.assertEqual({fraction for _, fraction in self.frames}, {1.0})

    def testATrackersNoiseIsRestAndTheSamePoseIsNothing(self):
        self.stream(0.8 * np.arange(60))
        self.loop.wait(1)
        del self.frames[:]
        self.stream(np.full(300, 0.8 * 59))
        self.assertEqual(self.frames, [])
        noisy = 0.8 * 59 + 0.1 * np.random.default_rng(0).uniform(-1, 1, 600)  # ten seconds
        self.stream(noisy)
        self.loop.wait(2)
        self.assertEqual({fraction for _, fraction in self.frames}, {1.0})
        self.assertLess(len(self.frames), 35)  # with pauses, so that the application lives
        self.assertAlmostEqual(self.frames[-1][0], noisy[-1])

    def testASlowMotionIsMotion(self):
        self.stream(0.8 * np.arange(60))
        self.loop.wait(1)
        del self.frames[:]
        self.stream(0.8 * 59 + 0.1 * np.arange(60))
        self.assertTrue(any(fraction < 1 for _, fraction in self.frames))
        self.loop.wait(1)
        self.assertEqual(self.frames[-1][1], 1.0)
        self.assertAlmostEqual(self.frames[-1][0], 0.8 * 59 + 5.9)

    def testAQuickMachineNeverReduces(self):
        self.seconds = 0.01
        self.logic.startLive(self.parameters)
        del self.frames[:]
        self.stream(0.8 * np.arange(60))
        self.loop.wait(5)
        self.assertEqual({fraction for _, fraction in self.frames}, {1.0})
        self.assertEqual(len(self.frames), 60)

    def testReducedFramesKeepTheSlicesGeometry(self):
        mock.patch.stopall()
        matrices, shapes = set(), set()
        for fraction in (1.0, 0.25, 0.05):
            node = self.logic.render(self.parameters, fraction)
            shapes.add(sliceArray(node).shape)
            matrix = toVtk(np.eye(4))
            node.GetIJKToRASMatrix(matrix)
            matrices.add(slicer.util.arrayFromVTKMatrix(matrix).tobytes())
        self.assertEqual((len(shapes), len(matrices)), (1, 1))

    def testTenMinutesAtSixtyHertzPileNothingUp(self):
        ticks = 36000
        positions = 20 * np.sin(np.arange(ticks) / 40)
        self.stream(positions[:100])
        watched = [self.probe, self.parameters.inputVolume, self.parameters.parameterNode, slicer.mrmlScene]
        before = [observerCount(item) for item in watched]
        nodes, count = slicer.mrmlScene.GetNumberOfNodes(), self.logic.live.observerCount
        del self.frames[:]
        self.stream(positions)
        self.assertLessEqual(len(self.loop.pending) + len(self.loop.later), 2)
        self.assertLessEqual(len(self.frames), ticks)
        self.assertGreater(len(self.frames), 20 * ticks / 60)
        self.assertEqual(self.frames[-1][0], positions[-1])  # no backlog: the newest is shown at once
        self.loop.wait(5)
        self.assertEqual(self.frames[-1], (positions[-1], 1.0))
        self.assertEqual(self.loop.pending + self.loop.later, [])
        self.assertEqual([observerCount(item) for item in watched], before)
        self.assertEqual(slicer.mrmlScene.GetNumberOfNodes(), nodes)
        self.assertEqual(self.logic.live.observerCount, count)
        self.logic.stopLive()
        self.assertEqual(self.logic.live.observerCount, 0)


if __name__ == "__main__":
    unittest.main()
