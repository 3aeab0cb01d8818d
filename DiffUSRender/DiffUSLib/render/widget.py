"""The module's panel: its buttons, and what it shows of the parameters."""

from __future__ import annotations

import slicer
import slicer.util

from ..errors import RenderError
from ..i18n import _
from ..kinds import MediumKind
from ..panel import ModulePanel, guessedKind
from ..scene.slice_node import SLICE_ATTRIBUTE
from ..scene.voxels import guessKind, isFlat
from .a_mode_panel import AModePanel
from .export_panel import ExportPanel
from .match_panel import AppearancePanel
from .parameter_node import RenderParameterNode
from .parameters import (
    CompareMode,
    Compression,
    ProbeType,
    missingForComparison,
    missingInput,
    readLook,
    readProbe,
)
from .preset_choice import PresetChoice


class RenderWidget(ModulePanel):
    """Binds the .ui file to the parameter node and its buttons to the logic; the module's own class gives the logic."""

    uiFile = "DiffUSRender.ui"

    def __init__(self, parent=None) -> None:
        ModulePanel.__init__(self, parent)
        self._presets = (
            PresetChoice("preset", readProbe, lambda *chosen: self._apply("applyPreset", *chosen)),
            PresetChoice("imagePreset", readLook, lambda *chosen: self._apply("applyImagePreset", *chosen)),
        )
        self._liveSaid = False

    def connectButtons(self) -> None:
        self.logic.onStatus, self.logic.onCompared = self.onLiveStatus, self.showComparison
        self.ui.createProbeButton.clicked.connect(self.onCreateProbe)
        self.ui.placeAtSliceButton.clicked.connect(self.onPlaceAtSlice)
        self.ui.placeOnSkinButton.clicked.connect(self.onPlaceOnSkin)
        self.ui.fromImageButton.clicked.connect(self.onFromImage)
        self.ui.applyButton.clicked.connect(self.onApply)
        self.aModePanel = AModePanel(self)
        self.exportPanel = ExportPanel(self)
        self.appearancePanel = AppearancePanel(self)

    def cleanup(self) -> None:
        ModulePanel.cleanup(self)
        if self.logic is not None:
            self.logic.onStatus = self.logic.onCompared = lambda sentence: None
            self.exportPanel.disconnect()
            self.appearancePanel.disconnect()

    def newParameterNode(self) -> RenderParameterNode:
        """The scene's parameter node; offers volume, real image and slice views of the scene where none is chosen."""
        node = RenderParameterNode(self.logic.getParameterNode())
        if node.inputVolume is None:
            node.inputVolume = next((v for v in _volumes() if not isFlat(v)), None)
        if node.realImage is None:  # only one that has a place: a photograph is none
            frames = (v for v in _volumes() if isFlat(v) and v.GetParentTransformNode())
            node.realImage = next(frames, None)
        if node.sliceView is None:
            node.sliceView = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLSliceNode")
        if node.compareView is None:  # another one than the view that follows the probe, where there is one
            node.compareView = slicer.mrmlScene.GetNthNodeByClass(1, "vtkMRMLSliceNode") or node.sliceView
        return node

    def beforeConnecting(self, node: RenderParameterNode) -> None:
        # A preset that the scene brings stands with its own numbers: it is not applied again.
        for choice in self._presets:
            choice.hold(node)
        self.aModePanel.hold(node)

    # --- buttons

    def onApply(self, checked: bool = False) -> None:
        if self.attempt(lambda: self.logic.render(self._parameterNode)):
            self.showStatus("")

    def onCreateProbe(self, checked: bool = False) -> None:
        self.attempt(lambda: self.logic.createProbe(self._parameterNode, self._parameterNode.sliceView))

    def onPlaceAtSlice(self, checked: bool = False) -> None:
        self.attempt(lambda: self.logic.placeAtSliceView(self._parameterNode, self._parameterNode.sliceView))

    def onFromImage(self, checked: bool = False) -> None:
        self.attempt(lambda: self.showStatus(self.logic.probeFromImage(self._parameterNode)))

    def onPlaceOnSkin(self, checked: bool = False) -> None:
        def ended() -> None:
            if self._parameterNode is not None:
                self._updatePanel()
            if not self.logic.live.running:
                self.showStatus("")

        if self.attempt(lambda: self.logic.startPicking(self._parameterNode, ended)):
            self.ui.placeOnSkinButton.setEnabled(False)
            self.showStatus(_("Click a point on the skin in any view (Escape cancels)."))

    # --- what follows from the parameters

    def updateAll(self) -> None:
        for choice in self._presets:
            choice.update(self._parameterNode)
        self._updateLive()
        self._updateComparison()
        self._updateViews()
        self._updatePanel()
        self.aModePanel.update()
        self.exportPanel.update()
        self.appearancePanel.update()

    def _apply(self, action: str, node, preset) -> bool:
        return self.attempt(lambda: getattr(self.logic, action)(node, preset))

    def _updateLive(self) -> None:
        node = self._parameterNode
        if node.live and not self.logic.live.running:
            if not self.attempt(lambda: self.logic.startLive(node)):
                node.live = False
        elif not node.live and self.logic.live.running:
            self.logic.stopLive()
            self.showStatus("")

    def _updateComparison(self) -> None:
        node, running = self._parameterNode, self.logic.comparison.live.running
        if node.compare and not running:
            if not self.attempt(lambda: self.logic.startComparison(node)):
                node.compare = False
        elif not node.compare and running:
            self.logic.stopComparison()
            self.showComparison("")

    def _updateViews(self) -> None:
        try:
            self.logic.updateFan(self._parameterNode)
            self.logic.updateDriving(self._parameterNode)
            self.logic.updatePatient(self._parameterNode)
        except RenderError as error:
            self.showStatus(str(error))

    def _updatePanel(self) -> None:
        node, ui = self._parameterNode, self.ui
        missing = missingInput(node)
        ui.applyButton.setEnabled(not missing)
        ui.applyButton.setToolTip(missing or _("Render the slice at the probe's present pose."))
        ui.liveCheckBox.setEnabled(node.live or not missing)
        self._updateInputs()
        for shown, widgets in (
            (node.probeType is not ProbeType.LINEAR, (ui.fovLabel, ui.fovSlider)),
            (node.probeType is ProbeType.CONVEX, (ui.radiusLabel, ui.radiusSlider)),
            (node.probeType is ProbeType.LINEAR, (ui.widthLabel, ui.widthSlider)),
            (not node.automaticTgc, (ui.tgcLabel, ui.tgcSlider)),
            (not node.automaticAperture, (ui.apertureLabel, ui.apertureSlider)),
            (not node.automaticElevationFocus, (ui.elevationFocusLabel, ui.elevationFocusSlider)),
            (node.compareMode is CompareMode.BLENDED, (ui.compareFadeLabel, ui.compareFadeSlider)),
        ):
            for widget in widgets:
                widget.setVisible(shown)
        ui.noiseSlider.setEnabled(node.noise)
        ui.clutterSlider.setEnabled(node.clutter)
        ui.sheetsSlider.setEnabled(node.sheets)
        for slider in (ui.dynamicRangeSlider, ui.greyContrastSlider):
            slider.setEnabled(node.compression is Compression.LOG)
        missing = missingForComparison(node)
        ui.compareCheckBox.setEnabled(node.compare or not missing)
        ui.compareCheckBox.setToolTip(missing or _("Simulate at the pose of the real image, and show both."))

    def _updateInputs(self) -> None:
        node, ui = self._parameterNode, self.ui
        text, reason = guessedKind(node)
        ui.guessLabel.setText(text)
        ui.guessLabel.setToolTip(reason)
        labels = node.inputVolume is not None and MediumKind.LABELS in (node.kind, guessKind(node.inputVolume))
        for widget in (ui.maskLabel, ui.maskSelector, ui.addedLabel, ui.addedSelector):
            widget.setEnabled(not labels)
        placeable = node.inputVolume is not None and node.probeTransform is not None
        ui.placeAtSliceButton.setEnabled(placeable and node.sliceView is not None)
        ui.placeOnSkinButton.setEnabled(placeable and not self.logic.picking)
        ui.driveCheckBox.setEnabled(node.sliceView is not None)
        real = node.realImage is not None
        ui.fromImageButton.setEnabled(real)
        ui.fromImageButton.setToolTip(
            _("Take array, radius, angle or width, and depth from the fan that the real image shows.")
            if real
            else _("Choose a real ultrasound image under Inputs: its fan can be taken over here.")
        )

    def onLiveStatus(self, sentence: str) -> None:
        """Shows what Live says; a frame that went well takes back only what Live itself has said."""
        if sentence or self._liveSaid:
            self.ui.statusLabel.setText(sentence)
        self._liveSaid = bool(sentence)
        self._showRate()

    def showStatus(self, sentence: str) -> None:
        """Shows one sentence below the Apply button, and the rate of Live."""
        self.ui.statusLabel.setText(sentence)
        self._liveSaid = False
        self._showRate()

    def _showRate(self) -> None:
        live = self.logic.live
        if not live.framesPerSecond:
            self.ui.rateLabel.setText("")
            return
        text = _("{rate:.0f} frames/s, reduced quality") if live.reduced else _("{rate:.0f} frames/s, full quality")
        self.ui.rateLabel.setText(text.format(rate=live.framesPerSecond))

    def showComparison(self, line: str) -> None:
        """Shows how alike the real and the simulated frame are, or why that cannot be said."""
        self.ui.compareLabel.setText(line)


def _volumes() -> list:
    """The grey volumes of the scene that are not themselves simulated."""
    nodes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
    return [n for n in nodes if n.GetAttribute(SLICE_ATTRIBUTE) is None and not n.IsA("vtkMRMLVectorVolumeNode")]
