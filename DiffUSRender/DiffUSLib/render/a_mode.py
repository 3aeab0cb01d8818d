"""The A-mode line: the echo along one ray against depth or time, as a plot in the scene and as a file."""

from __future__ import annotations

import numpy as np
import slicer

from ..engine import engineErrors
from ..errors import RenderError
from ..i18n import _
from ..scene.line_plot import LinePlot
from .parameters import AModeAxis

COLUMNS = ("depth_mm", "time_us", "level_db")


def showAModeLine(parameterNode, renderer, medium, probeToVolume) -> None:
    """Fills the plot of a parameter node, made if there is none, with the line at its lateral position.

    Args:
        renderer, medium: the engine's.
        probeToVolume: (4, 4), or any transform.

    Raises:
        RenderError: for a position outside of the fan, or a probe under a nonlinear transform.
    """
    if not isinstance(probeToVolume, np.ndarray):
        raise RenderError(_("The A-mode line needs a probe and volume under linear transforms; harden them."))
    depth, time, level = _line(renderer, medium, probeToVolume, parameterNode.aModeLateralMm)
    plot = _plot(parameterNode)
    axis = parameterNode.aModeAxis
    plot.against(COLUMNS[0] if axis is AModeAxis.DEPTH else COLUMNS[1], axis.label())
    plot.fill(depth, time, level)


def writeAModeLine(parameterNode, path: str) -> None:
    """Writes the plotted line as CSV: depth in mm, time in microseconds, echo in dB; raises RenderError without one."""
    plot = _existing(parameterNode)
    if plot is None or not len((columns := plot.columns())[COLUMNS[0]]):
        raise RenderError(_("There is no A-mode line yet: tick it, and press Apply."))
    from diffus.io.atomic import replacing, require_writable
    from diffus.io.tables import write_csv

    rows = np.column_stack(list(columns.values())).tolist()
    with engineErrors(), replacing(require_writable(path, (".csv",))) as temporary:
        write_csv(temporary, COLUMNS, rows)


def showChart(parameterNode) -> None:
    """Shows the plot in Slicer's layout, where there is one."""
    plots = getattr(getattr(slicer, "modules", None), "plots", None)
    if plots is not None and parameterNode.aModeChart is not None:
        plots.logic().ShowChartInLayout(parameterNode.aModeChart)


def _line(renderer, medium, probeToVolume: np.ndarray, lateralMm: float) -> list[np.ndarray]:
    """Depth, mm, time there and back, us, and level, dB, along one ray, (samples,); RenderError outside the fan."""
    import torch
    from diffus.render.a_mode import a_mode

    with engineErrors(), torch.inference_mode():
        line = a_mode(renderer, medium, torch.from_numpy(probeToVolume), lateralMm)
        return [values.cpu().double().numpy() for values in line]


def _plot(parameterNode) -> LinePlot:
    plot = _existing(parameterNode)
    if plot is None:
        names = _("A-mode"), _("A-mode line"), _("A-mode table")
        plot = LinePlot.create(parameterNode.parameterNode.GetScene(), names, COLUMNS, _("Echo, dB"))
        plot.chart.SetTitle(_("Echo against white-matter speckle"))
        parameterNode.aModeChart, parameterNode.aModeSeries, parameterNode.aModeTable = plot.nodes
    return plot


def _existing(parameterNode) -> LinePlot | None:
    nodes = parameterNode.aModeChart, parameterNode.aModeSeries, parameterNode.aModeTable
    if None in nodes or nodes[2].GetTable().GetNumberOfColumns() != len(COLUMNS):
        return None
    return LinePlot(*nodes)
