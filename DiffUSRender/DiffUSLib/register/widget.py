"""The module's panel: its buttons, and what it shows of the parameters, the run and the result."""

from __future__ import annotations

import slicer
import slicer.util
from vtk import vtkCommand

from ..errors import RenderError
from ..i18n import _
from ..kinds import MediumKind
from ..panel import ModulePanel
from ..run import RunState
from ..scene.voxels import guessKind
from .engine import stageText
from .load_sweep import loadSweep
from .parameter_node import RegisterParameterNode
from .parameters import OverlayMode, StartFrom, missingInput
from .report_nodes import verdictText
from .result import ConfirmationNeeded, canUndo, leftBehind, readReport, stillMoved, whyNotAcceptable

VERDICT_COLORS = {"trusted": "#2e7d32", "check": "#b26a00", "rejected": "#b71c1c"}
PROGRESS_STEPS = 1000


class RegisterWidget(ModulePanel):
    """Binds the .ui file to the parameter node and its buttons to the logic; the module's own class gives the logic."""

    uiFile = "DiffUSRegister.ui"

    def __init__(self, parent=None) -> None:
        ModulePanel.__init__(self, parent)
        self._browser = None

    def connectButtons(self) -> None:
        self.logic.onState, self.logic.onEnded = self.onState, self.onEnded
        for button, action in (
            (self.ui.applyButton, self.onApply),
            (self.ui.loadSweepButton, self.onLoadSweep),
            (self.ui.showCurveButton, self.onShowCurve),
            (self.ui.showTableButton, self.onShowTable),
            (self.ui.reopenButton, self.onReopen),
            (self.ui.acceptButton, self.onAccept),
            (self.ui.undoButton, self.onUndo),
        ):
            button.clicked.connect(action)
        self.ui.progressBar.setRange(0, PROGRESS_STEPS)

    def newParameterNode(self) -> RegisterParameterNode:
        """The scene's parameter node; offers the first browser and the red slice view where none is chosen."""
        node = RegisterParameterNode(self.logic.getParameterNode())
        scene = slicer.mrmlScene
        if node.ultrasound is None:
            node.ultrasound = scene.GetFirstNodeByClass("vtkMRMLSequenceBrowserNode")
        if node.sliceView is None:
            node.sliceView = scene.GetFirstNodeByClass("vtkMRMLSliceNode")
        return node

    def setParameterNode(self, node: RegisterParameterNode | None) -> None:
        ModulePanel.setParameterNode(self, node)
        self._observeBrowser()

    def _observeBrowser(self) -> None:
        """The overlay goes along with the sequence browser."""
        chosen = self._parameterNode.ultrasound if self._parameterNode is not None else None
        browser = chosen if chosen is not None and chosen.IsA("vtkMRMLSequenceBrowserNode") else None
        if browser is self._browser:
            return
        if self._browser is not None:
            self.removeObserver(self._browser, vtkCommand.ModifiedEvent, self.onBrowsed)
        self._browser = browser
        if browser is not None:
            self.addObserver(browser, vtkCommand.ModifiedEvent, self.onBrowsed)

    # --- buttons

    def onApply(self, checked: bool = False) -> None:
        if self.logic.state is RunState.IDLE:
            if self.attempt(lambda: self.logic.start(self._parameterNode)):
                self.showStatus("")
        else:
            self.logic.cancel()
            self._updatePanel()

    def onLoadSweep(self, checked: bool = False) -> None:
        if path := chooseFile(self.uiWidget):

            def load() -> None:
                browser = loadSweep(path, self._parameterNode.imageToProbe)
                self._parameterNode.ultrasound = browser
                self.showStatus(browser.GetDescription())

            self.attempt(load)

    def onShowCurve(self, checked: bool = False) -> None:
        chart = self.logic.runningChart or self._parameterNode.curveChart
        if chart is not None:
            slicer.modules.plots.logic().ShowChartInLayout(chart)

    def onShowTable(self, checked: bool = False) -> None:
        if self._parameterNode.resultTable is not None:
            showTable(self._parameterNode.resultTable)

    def onReopen(self, checked: bool = False) -> None:
        self.attempt(lambda: self.logic.reopen(self._parameterNode))
        self._updatePanel()

    def onAccept(self, checked: bool = False) -> None:
        try:
            self.logic.accept(self._parameterNode)
        except ConfirmationNeeded as error:
            if not slicer.util.confirmOkCancelDisplay(str(error), windowTitle=_("Accept after checking by eye?")):
                return
            if not self.attempt(lambda: self.logic.accept(self._parameterNode, confirmed=True)):
                return
        except RenderError as error:
            self.showStatus(str(error))
            return
        self.showStatus(
            " ".join(filter(None, (_("Accepted. Undo puts the volume back."), leftBehind(self._parameterNode))))
        )

    def onUndo(self, checked: bool = False) -> None:
        others = stillMoved(self._parameterNode)
        if self.attempt(lambda: self.logic.undo(self._parameterNode)):
            self.showStatus(" ".join(filter(None, (_("Undone: the volume lies where it was."), others))))

    # --- what the logic says

    def onState(self, state) -> None:
        self.ui.progressBar.setValue(round(PROGRESS_STEPS * state.progress))
        self.ui.stageLabel.setText(stageText(state.stage))
        self.ui.similarityLabel.setText(_("similarity {value:.3f}").format(value=state.similarity))

    def onEnded(self, sentence: str) -> None:
        self.ui.progressBar.setValue(0)
        self.ui.stageLabel.setText("")
        self.ui.similarityLabel.setText("")
        self.showStatus(sentence)

    # --- what follows from the parameters

    def onBrowsed(self, caller, event) -> None:
        frame = self.logic.frameOfItem(caller.GetSelectedItemNumber())
        if frame is not None and self._parameterNode is not None and frame != self._parameterNode.frameNumber:
            self._parameterNode.frameNumber = frame

    def updateAll(self) -> None:
        self._observeBrowser()
        self.logic.updateOverlay(self._parameterNode)
        self._updatePanel()

    def _updatePanel(self) -> None:
        if self._parameterNode is None:
            return
        self._updateInputs()
        self._updateRun()
        self._updateResult()

    def _updateInputs(self) -> None:
        node, ui = self._parameterNode, self.ui
        guessed = node.kind is MediumKind.AUTO and node.inputVolume is not None
        ui.guessLabel.setText(_("taken as {kind}").format(kind=guessKind(node.inputVolume).label()) if guessed else "")
        for widget in (ui.initialTransformLabel, ui.initialTransformSelector):
            widget.setVisible(node.startFrom is StartFrom.TRANSFORM)

    def _updateRun(self) -> None:
        node, ui, state = self._parameterNode, self.ui, self.logic.state
        running = state is not RunState.IDLE
        missing = missingInput(node)
        for section in (ui.inputsButton, ui.startButton):
            section.setEnabled(not running)
        text = {RunState.IDLE: _("Apply"), RunState.RUNNING: _("Cancel"), RunState.CANCELLING: _("Cancelling...")}
        ui.applyButton.setText(text[state])
        ui.applyButton.setEnabled(state is RunState.RUNNING or (not running and not missing))
        tip = _("Stop; the scene stays as it was.") if running else missing or _("Register the volume.")
        ui.applyButton.setToolTip(tip)
        ui.showCurveButton.setEnabled(running or node.curveChart is not None)

    def _updateResult(self) -> None:
        node, ui = self._parameterNode, self.ui
        report = readReport(node)
        running = self.logic.state is not RunState.IDLE
        frames = self.logic.frameCount
        ui.frameSpinBox.setMaximum(max(0, frames - 1) if frames else 100000)
        ui.reopenButton.setVisible(bool(report) and not frames and not running)
        faded = node.overlayMode is OverlayMode.FADE
        for widget, shown in ((ui.fadeLabel, faded), (ui.fadeSlider, faded)):
            widget.setVisible(shown)
        checkered = node.overlayMode is OverlayMode.CHECKERBOARD
        for widget in (ui.checkerLabel, ui.checkerSlider):
            widget.setVisible(checkered)
        result = node.resultTransform
        ui.resultLabel.setText(result.GetName() if result is not None else _("none"))
        ui.showTableButton.setEnabled(node.resultTable is not None)
        why = _("A registration is running.") if running else whyNotAcceptable(node)
        rejected = report is not None and report["verdict"] == "rejected"
        ui.acceptButton.setVisible(not rejected)
        ui.acceptButton.setEnabled(not why)
        tip = _(
            "Put the volume under the result; Undo puts it back. Only the volume moves: put markups and segmentations "
            "that belong to it under the result in the module Transforms."
        )
        ui.acceptButton.setToolTip(why or tip)
        ui.undoButton.setEnabled(canUndo(node) and not running)
        self._updateVerdict(report)

    def _updateVerdict(self, report: dict | None) -> None:
        ui = self.ui
        verdict = report["verdict"] if report else ""
        ui.verdictLabel.setText(verdictText(verdict) if report else _("no result yet"))
        color = VERDICT_COLORS.get(verdict)
        style = f"QLabel {{ background: {color}; color: white; font-weight: bold; padding: 4px; }}" if color else ""
        ui.verdictLabel.setStyleSheet(style)
        ui.reasonsLabel.setText("\n".join([*report["reasons"], *report.get("notes", ())]) if report else "")
        if not report:
            ui.errorLabel.setText("")
            return
        text = _("expected {mean:.1f} mm, worst 5 % above {worst:.1f} mm (calibrated on {where})")
        if verdict == "rejected":
            text = _("not known (verdict calibrated on {where})")
        ui.errorLabel.setText(
            text.format(
                mean=report["expected_error_mm"], worst=report["expected_error_worst_mm"], where=report["calibrated_on"]
            )
        )

    def showStatus(self, sentence: str) -> None:
        """Shows one sentence below everything else."""
        self.ui.statusLabel.setText(sentence)
        self._updatePanel()


def chooseFile(parent) -> str:
    """The sequence file that the user picks, or an empty string."""
    import qt

    kinds = _("Tracked sequences") + " (*.mha *.mhd *.nrrd)"
    chosen = qt.QFileDialog.getOpenFileName(parent, _("Load a tracked ultrasound sequence"), "", kinds)
    return chosen[0] if isinstance(chosen, tuple) else chosen


def showTable(tableNode) -> None:
    """Shows a table in the application's layout."""
    layoutManager, applicationLogic = slicer.app.layoutManager(), slicer.app.applicationLogic()
    layoutManager.setLayout(slicer.modules.tables.logic().GetLayoutWithTable(layoutManager.layout))
    applicationLogic.GetSelectionNode().SetActiveTableID(tableNode.GetID())
    applicationLogic.PropagateTableSelection()
