"""The section "Export" of the panel."""

from __future__ import annotations

from pathlib import Path

from ..i18n import _
from ..run import RunState
from .export import ENDINGS, exportPath
from .parameters import ExportFormat, missingForExport

PROGRESS_STEPS = 1000


class ExportPanel:
    """Binds the section's buttons to the logic's export; `panel` is the module's widget."""

    def __init__(self, panel) -> None:
        self._panel, self._ui, self._export = panel, panel.ui, panel.logic.export
        self._export.onState, self._export.onEnded = self._onState, self._onEnded
        self._ui.exportButton.clicked.connect(self._onExport)
        self._ui.exportBrowseButton.clicked.connect(self._onBrowse)
        self._ui.exportMapsButton.clicked.connect(self._onMaps)
        self._ui.exportProgressBar.setRange(0, PROGRESS_STEPS)
        self._ui.exportProgressBar.setVisible(False)

    @property
    def _node(self):
        return self._panel._parameterNode

    def disconnect(self) -> None:
        """Lets go of the logic."""
        self._export.onState = self._export.onEnded = lambda value: None

    def update(self) -> None:
        """Shows what the parameters and the state of the export say."""
        node, ui, state = self._node, self._ui, self._export.state
        if node is None:
            return
        running = state is not RunState.IDLE
        missing = missingForExport(node)
        text = {RunState.IDLE: _("Export"), RunState.RUNNING: _("Cancel"), RunState.CANCELLING: _("Cancelling...")}
        ui.exportButton.setText(text[state])
        ui.exportButton.setEnabled(state is RunState.RUNNING or (not running and not missing))
        tip = _("Stop; nothing is left of the file.") if running else missing or _("Simulate and write the file.")
        ui.exportButton.setToolTip(tip)
        toFile, toDicom = node.exportFormat is not ExportFormat.SCENE, node.exportFormat is ExportFormat.DICOM
        for widget in (ui.exportPathLabel, ui.exportPathLineEdit, ui.exportBrowseButton):
            widget.setVisible(toFile)
        for widget in (ui.exportBrowserSelector, ui.exportFormatComboBox, ui.exportPathLineEdit, ui.exportBrowseButton):
            widget.setEnabled(not running)
        ui.exportPatientCheckBox.setVisible(toDicom)
        ui.exportPatientCheckBox.setEnabled(not running)
        ui.exportHintLabel.setText(hint(node))
        ui.exportMapsButton.setEnabled(node.inputVolume is not None)
        ui.exportMapsButton.setToolTip(
            _("Add impedance, attenuation, its exponent and scattering of the input to the scene as volumes.")
            if node.inputVolume is not None
            else _("Choose a volume (MRI, CT) or a segmentation.")
        )
        ui.exportProgressBar.setVisible(running)

    def _onExport(self, checked: bool = False) -> None:
        if self._export.state is RunState.IDLE:
            self._say("")
            self._attempt(lambda: self._export.start(self._node))
        else:
            self._export.cancel()
        self.update()

    def _onBrowse(self, checked: bool = False) -> None:
        if path := chooseTarget(self._panel.uiWidget, self._node):
            self._node.exportPath = path
            self._node.exportPath = str(exportPath(self._node))

    def _onMaps(self, checked: bool = False) -> None:
        def show() -> None:
            nodes = self._export.showMaps(self._node)
            self._say(_("{n} acoustic maps were added to the scene.").format(n=len(nodes)))

        self._attempt(show)

    def _attempt(self, action) -> None:
        if self._panel.attempt(action):
            self._panel.showStatus("")

    def _onState(self, state) -> None:
        self._ui.exportProgressBar.setValue(round(PROGRESS_STEPS * state.progress))
        self._say(_("Writing...") if state.writing else _("Simulating..."))
        self.update()

    def _onEnded(self, sentence: str) -> None:
        self._ui.exportProgressBar.setValue(0)
        self._say(sentence)
        self.update()

    def _say(self, sentence: str) -> None:
        self._ui.exportStatusLabel.setText(sentence)


def hint(node) -> str:
    """What the user must know of the chosen format, in one or two sentences."""
    sweep = node.exportBrowser is not None
    marked = _("The word SIMULATED stands in the picture, outside of the fan.")
    poseless = _("It holds no poses: export .seq.nrrd or .igs.mha too where they are needed.")
    if node.exportFormat is ExportFormat.SCENE:
        return _("A sequence of slices under a sequence of poses, with a browser that plays them.") if sweep else ""
    if node.exportFormat is ExportFormat.NRRD:
        return _("Poses go into a second file beside it, .ProbeToReference.seq.mha.") if sweep else ""
    if node.exportFormat is ExportFormat.IGS:
        return _("Read by PLUS, SlicerIGSIO and DiffUS Register; poses are relative to world.")
    if node.exportFormat is ExportFormat.DICOM:
        joins = _("The file is anonymous, in a study of its own, unless the box is ticked.")
        return " ".join([marked, poseless, joins])
    if node.exportFormat is ExportFormat.PNG and sweep:
        return " ".join([marked, _("The pictures go into a new folder of this name.")])
    return marked


def chooseTarget(parent, node) -> str:
    """The file that the user names, or an empty string."""
    import qt

    ending = ENDINGS[node.exportFormat][node.exportBrowser is not None]
    start = str(exportPath(node)) if node.exportPath.strip() else str(Path.home() / f"simulated{ending}")
    kinds = f"{node.exportFormat.label()} (*{ending})"
    chosen = qt.QFileDialog.getSaveFileName(parent, _("Export the simulation"), start, kinds)
    return chosen[0] if isinstance(chosen, tuple) else chosen
