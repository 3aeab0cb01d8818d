"""A table whose columns are plotted as a line: one table, one series, one chart, which Slicer shows and saves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from vtk import vtkDoubleArray
from vtk.util.numpy_support import vtk_to_numpy

COLOR = (0.10, 0.45, 0.75)


class LinePlot:
    """The three nodes of a plotted line; new ones, or those that a saved scene brings.

    chart, series, table: the nodes.
    """

    def __init__(self, chart, series, table) -> None:
        self.chart, self.series, self.table = chart, series, table

    @classmethod
    def create(cls, scene, names: tuple[str, str, str], columns: Sequence[str], title: str) -> LinePlot:
        """New nodes in a scene; `against` says what the line is plotted against.

        Args:
            names: of chart, series and table.
            columns: of the table, which is empty; the last one is plotted.
            title: of the axis of what is plotted.
        """
        classes = ("vtkMRMLPlotChartNode", "vtkMRMLPlotSeriesNode", "vtkMRMLTableNode")
        nodes = [scene.AddNewNodeByClass(one, scene.GenerateUniqueName(name)) for one, name in zip(classes, names)]
        plot = cls(*nodes)
        for name in columns:
            column = vtkDoubleArray()
            column.SetName(name)
            plot.table.AddColumn(column)
        plot.series.SetAndObserveTableNodeID(plot.table.GetID())
        plot.series.SetPlotType(plot.series.PlotTypeScatter)
        plot.series.SetMarkerStyle(plot.series.MarkerStyleNone)
        plot.series.SetColor(*COLOR)
        plot.chart.AddAndObservePlotSeriesNodeID(plot.series.GetID())
        plot.chart.SetLegendVisibility(False)
        plot.series.SetYColumnName(columns[-1])
        plot.chart.SetYAxisTitle(title)
        return plot

    @property
    def nodes(self) -> tuple:
        return (self.chart, self.series, self.table)

    def against(self, x: str, title: str) -> None:
        """Which column the line is plotted against, and what is written on that axis."""
        self.series.SetXColumnName(x)
        self.chart.SetXAxisTitle(title)

    def append(self, *values: float) -> None:
        """Adds a row."""
        table = self.table.GetTable()
        row = table.InsertNextBlankRow()
        for column, value in enumerate(values):
            table.GetColumn(column).SetValue(row, value)
        self._modified()

    def fill(self, *columns: np.ndarray) -> None:
        """Replaces all rows by columns of one length."""
        table = self.table.GetTable()
        table.SetNumberOfRows(len(columns[0]))
        for column, values in enumerate(columns):
            vtk_to_numpy(table.GetColumn(column))[:] = values
        self._modified()

    def columns(self) -> dict[str, np.ndarray]:
        """The table's values by column."""
        table = self.table.GetTable()
        columns = [table.GetColumn(n) for n in range(table.GetNumberOfColumns())]
        return {column.GetName(): np.array(vtk_to_numpy(column)) for column in columns}

    def _modified(self) -> None:
        table = self.table.GetTable()
        for column in range(table.GetNumberOfColumns()):
            table.GetColumn(column).Modified()
        table.Modified()
        self.table.Modified()
