"""The section "Export" of the panel."""

from __future__ import annotations

from pathlib import Path

from ..i18n import _
from ..panel import RunSection, chooseFile
from .export import ENDINGS, exportPath
from .parameters import ExportFormat, missingForExport
from .settings_file import loadSettings, saveSettings


class ExportPanel(RunSection):
    """Binds the section's buttons to the logic's export; `panel` is the module's widget."""

    def __init__(self, panel) -> None:
        ui = panel.ui
        RunSection.__init__(
            self, panel, panel.logic.export, ui.exportButton, ui.exportProgressBar, ui.exportStatusLabel
        )
        ui.exportBrowseButton.clicked.connect(self._onBrowse)
        ui.exportMapsButton.clicked.connect(self._onMaps)
        ui.saveSettingsButton.clicked.connect(self._onSaveSettings)
        ui.loadSettingsButton.clicked.connect(self._onLoadSettings)

    def update(self) -> None:
        node, ui, idle = self.node, self.ui, not self.running
        if node is None:
            return
        self.updateButton(
            _("Export"),
            missingForExport(node),
            _("Simulate and write the file."),
            _("Stop; nothing is left of the file."),
        )
        toFile, toDicom = node.exportFormat is not ExportFormat.SCENE, node.exportFormat is ExportFormat.DICOM
        for widget in (ui.exportPathLabel, ui.exportPathLineEdit, ui.exportBrowseButton):
            widget.setVisible(toFile)
        for widget in (ui.exportBrowserSelector, ui.exportFormatComboBox, ui.exportPathLineEdit, ui.exportBrowseButton):
            widget.setEnabled(idle)
        ui.exportPatientCheckBox.setVisible(toDicom)
        ui.exportPatientCheckBox.setEnabled(idle)
        ui.exportHintLabel.setText(hint(node))
        ui.exportMapsButton.setEnabled(node.inputVolume is not None)
        ui.exportMapsButton.setToolTip(
            _("Add impedance, attenuation, its exponent and scattering of the input to the scene as volumes.")
            if node.inputVolume is not None
            else _("Choose a volume (MRI, CT) or a segmentation.")
        )
        ui.exportProgressBar.setVisible(self.running)

    def stateText(self, state) -> str:
        return _("Writing...") if state.writing else _("Simulating...")

    def _onBrowse(self, checked: bool = False) -> None:
        node = self.node
        ending = ENDINGS[node.exportFormat][node.exportBrowser is not None]
        start = str(exportPath(node)) if node.exportPath.strip() else str(Path.home() / f"simulated{ending}")
        kinds = f"{node.exportFormat.label()} (*{ending})"
        if path := chooseFile(self.panel.uiWidget, _("Export the simulation"), kinds, start, save=True):
            node.exportPath = path
            node.exportPath = str(exportPath(node))

    def _onMaps(self, checked: bool = False) -> None:
        def show() -> None:
            nodes = self.run.showMaps(self.node)
            self.say(_("{n} acoustic maps were added to the scene.").format(n=len(nodes)))

        self.attempt(show)

    def _onSaveSettings(self, checked: bool = False) -> None:
        start, kinds = str(Path.home() / "settings.json"), _("Settings") + " (*.json)"
        if path := chooseFile(self.panel.uiWidget, _("Save the settings"), kinds, start, save=True):
            self.attempt(lambda: saveSettings(self.node, path))

    def _onLoadSettings(self, checked: bool = False) -> None:
        kinds = _("Settings") + " (*.json)"
        if path := chooseFile(self.panel.uiWidget, _("Load settings"), kinds, str(Path.home())):
            self.attempt(lambda: loadSettings(self.node, path))


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
