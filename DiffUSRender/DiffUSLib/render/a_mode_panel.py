"""The section "A-mode line" of the panel."""

from __future__ import annotations

from pathlib import Path

from ..errors import RenderError
from ..i18n import _
from ..panel import chooseFile
from .a_mode import showChart, writeAModeLine


class AModePanel:
    """Shows and refills the plot as the parameter node says; `panel` is the module's widget."""

    def __init__(self, panel) -> None:
        self.panel, self.ui = panel, panel.ui
        self._shown: tuple | None = None
        self._refused = False
        self.ui.aModeExportButton.clicked.connect(self._onExport)

    def hold(self, node) -> None:
        """Takes the line as it is: what a scene brings is not computed again."""
        self._shown = _chosen(node)

    def update(self) -> None:
        """Computes the line anew where another one is wanted; the plot comes up with the first one."""
        node, ui = self.panel._parameterNode, self.ui
        chosen = _chosen(node)
        if chosen is not None and chosen != self._shown:
            self._refill(node, first=self._shown is None)
        self._shown = chosen
        for widget in (ui.aModeLateralSlider, ui.aModeAxisComboBox):
            widget.setEnabled(node.aMode)
        ui.aModeExportButton.setEnabled(node.aModeTable is not None)

    def _refill(self, node, first: bool) -> None:
        try:  # the slider runs through positions outside of the fan: a message for each would stop it
            self.panel.logic.updateAModeLine(node)
        except RenderError as error:
            self.panel.showStatus(str(error))
            self._refused = True
            return
        if self._refused:
            self.panel.showStatus("")
        self._refused = False
        if first:
            showChart(node)

    def _onExport(self, checked: bool = False) -> None:
        start = str(Path.home() / "a_mode.csv")
        if path := chooseFile(
            self.panel.uiWidget, _("Export the A-mode line"), _("Table") + " (*.csv)", start, save=True
        ):
            self.panel.attempt(lambda: writeAModeLine(self.panel._parameterNode, path))


def _chosen(node) -> tuple | None:
    """Which line is wanted; None for none, or before there is a slice."""
    wanted = node.aMode and node.outputSlice is not None
    return (node.parameterNode, node.aModeLateralMm, node.aModeAxis) if wanted else None
