"""The A-mode line: one plot that is refilled, saved with the scene, and written as a file."""

from __future__ import annotations

import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import headless
import numpy as np
import slicer
from DiffUSLib.errors import RenderError
from DiffUSLib.render.a_mode import COLUMNS, writeAModeLine
from DiffUSLib.render.logic import RenderLogic
from DiffUSLib.render.parameters import AModeAxis
from DiffUSLib.scene.line_plot import LinePlot
from DiffUSLib.scene.transforms import toVtk
from headless.fixtures import addHead, addParameterNode, addTransform, rotation
from headless.register_fixtures import hang

PLOT_NODES = ("vtkMRMLTableNode", "vtkMRMLPlotSeriesNode", "vtkMRMLPlotChartNode")


class AModeTest(unittest.TestCase):
    def setUp(self):
        headless.newScene()
        self.logic = RenderLogic()
        self.probe = addTransform(rotation(180, 0, 0, (0, 75, 0)), name="Probe")  # 15 mm of gel above the head
        self.parameters = addParameterNode(addHead(), self.probe, samples=400, aMode=True)

    def tearDown(self):
        self.logic.forgetScene()

    def line(self) -> dict[str, np.ndarray]:
        node = self.parameters
        return LinePlot(node.aModeChart, node.aModeSeries, node.aModeTable).columns()

    def testDepthTimeAndEchoOfTheMiddleRay(self):
        self.logic.render(self.parameters)
        depth, time, echo = (self.line()[name] for name in COLUMNS)
        self.assertAlmostEqual(depth[-1], 70.0, delta=0.5)
        self.assertTrue(np.allclose(time, 2 * depth / 1.54, atol=1e-3))
        self.assertTrue(np.isfinite(echo).all())
        self.assertLess(echo[depth < 8.0].mean(), echo[(depth > 19) & (depth < 30)].mean() - 20)  # gel, then tissue

    def testOnePlotIsRefilledAndFollowsTheProbe(self):
        self.logic.render(self.parameters)
        first = self.line()
        self.probe.SetMatrixTransformToParent(toVtk(rotation(180, 0, 0, (0, 70, 0))))
        self.logic.render(self.parameters)
        self.parameters.depthMm, self.parameters.samples = 50.0, 200
        self.parameters.aModeAxis = AModeAxis.TIME
        self.parameters.aModeLateralMm = 5.0
        self.logic.updateAModeLine(self.parameters)
        for name in PLOT_NODES:
            self.assertEqual(slicer.mrmlScene.GetNumberOfNodesByClass(name), 1)
        self.assertEqual(len(self.line()[COLUMNS[0]]), 200)
        self.assertEqual(len(first[COLUMNS[0]]), 400)
        self.assertEqual(self.parameters.aModeSeries.GetXColumnName(), COLUMNS[1])
        self.assertEqual(self.parameters.aModeChart.GetXAxisTitle(), AModeAxis.TIME.label())

    def testWithoutTheTickThereIsNoPlot(self):
        self.parameters.aMode = False
        self.logic.render(self.parameters)
        self.assertIsNone(self.parameters.aModeTable)

    def testItIsWrittenAsAFile(self):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "line.csv"
            with self.assertRaisesRegex(RenderError, "no A-mode line yet"):
                writeAModeLine(self.parameters, str(path))
            self.logic.render(self.parameters)
            writeAModeLine(self.parameters, str(path))
            self.assertEqual([one.name for one in Path(folder).iterdir()], ["line.csv"])
            written = np.genfromtxt(path, delimiter=",", names=True)
            self.assertEqual(written.dtype.names, ("depth_mm", "time_us", "level_db"))
            for name, column in zip(written.dtype.names, COLUMNS):
                self.assertTrue(np.allclose(written[name], self.line()[column], atol=1e-3))

    def testAPositionOutsideOfTheFanIsSaid(self):
        self.parameters.aModeLateralMm = 90.0
        with self.assertRaises(RenderError):
            self.logic.updateAModeLine(self.parameters)

    def testANonlinearTransformIsSaid(self):
        bent = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLGridTransformNode", "Bent")
        hang(self.parameters.inputVolume, bent)
        with self.assertRaisesRegex(RenderError, "linear transforms"):
            self.logic.updateAModeLine(self.parameters)


if __name__ == "__main__":
    unittest.main()
