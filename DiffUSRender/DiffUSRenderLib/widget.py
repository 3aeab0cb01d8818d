"""The module's panel: its buttons, and what it shows of the parameters."""

from __future__ import annotations

import slicer

from .errors import RenderError
from .i18n import _
from .media import guessKind
from .panel import ModulePanel
from .parameter_node import RenderParameterNode
from .parameters import MediumKind, ProbePreset, ProbeType, missingInput, readParameters
from .slice_node import SLICE_ATTRIBUTE


class RenderWidget(ModulePanel):
    """Binds the .ui file to the parameter node and its buttons to the logic; the module's own class gives the logic."""

    uiFile = "DiffUSRender.ui"

    def __init__(self, parent=None) -> None:
        ModulePanel.__init__(self, parent)
        self._preset: ProbePreset | None = None
        self._presetNumbers = None

    def connectButtons(self) -> None:
        self.logic.onStatus = self.showStatus
        self.ui.createProbeButton.clicked.connect(self.onCreateProbe)
        self.ui.placeAtSliceButton.clicked.connect(self.onPlaceAtSlice)
        self.ui.placeOnSkinButton.clicked.connect(self.onPlaceOnSkin)
        self.ui.applyButton.clicked.connect(self.onApply)

    def cleanup(self) -> None:
        ModulePanel.cleanup(self)
        if self.logic is not None:
            self.logic.onStatus = lambda sentence: None

    def newParameterNode(self) -> RenderParameterNode:
        """The scene's parameter node; offers the first volume and the red slice view where none is chosen."""
        node = RenderParameterNode(self.logic.getParameterNode())
        if node.inputVolume is None:
            node.inputVolume = _firstVolume(slicer.mrmlScene)
        if node.sliceView is None:
            node.sliceView = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLSliceNode")
        return node

    def beforeConnecting(self, node: RenderParameterNode) -> None:
        # A preset that the scene brings stands with its own numbers: it is not applied again.
        self._preset, self._presetNumbers = node.preset, readParameters(node).probe

    # --- buttons

    def onApply(self, checked: bool = False) -> None:
        if self.attempt(lambda: self.logic.render(self._parameterNode)):
            self.showStatus("")

    def onCreateProbe(self, checked: bool = False) -> None:
        self.attempt(lambda: self.logic.createProbe(self._parameterNode, self._parameterNode.sliceView))

    def onPlaceAtSlice(self, checked: bool = False) -> None:
        self.attempt(lambda: self.logic.placeAtSliceView(self._parameterNode, self._parameterNode.sliceView))

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
        self._updatePreset()
        self._updateLive()
        self._updateViews()
        self._updatePanel()

    def _updatePreset(self) -> None:
        node = self._parameterNode
        numbers = readParameters(node).probe
        if node.preset != self._preset and node.preset is not ProbePreset.CUSTOM:
            if not self.attempt(lambda: self.logic.applyPreset(node, node.preset)):
                node.preset = self._preset
                return
            self._presetNumbers = readParameters(node).probe
        elif node.preset is not ProbePreset.CUSTOM and numbers != self._presetNumbers:
            node.preset = ProbePreset.CUSTOM
        self._preset = node.preset

    def _updateLive(self) -> None:
        node = self._parameterNode
        if node.live and not self.logic.live.running:
            if not self.attempt(lambda: self.logic.startLive(node)):
                node.live = False
        elif not node.live and self.logic.live.running:
            self.logic.stopLive()
            self.showStatus("")

    def _updateViews(self) -> None:
        try:
            self.logic.updateFan(self._parameterNode)
            self.logic.updateDriving(self._parameterNode)
        except RenderError as error:
            self.showStatus(str(error))

    def _updatePanel(self) -> None:
        node, ui = self._parameterNode, self.ui
        missing = missingInput(node)
        ui.applyButton.setEnabled(not missing)
        ui.applyButton.setToolTip(missing or _("Render the slice at the probe's present pose."))
        ui.liveCheckBox.setEnabled(node.live or not missing)
        placeable = node.inputVolume is not None and node.probeTransform is not None
        ui.placeAtSliceButton.setEnabled(placeable and node.sliceView is not None)
        ui.placeOnSkinButton.setEnabled(placeable and not self.logic.picking)
        ui.driveCheckBox.setEnabled(node.sliceView is not None)
        ui.guessLabel.setText(_guessText(node))
        for shown, widgets in (
            (node.probeType is not ProbeType.LINEAR, (ui.fovLabel, ui.fovSlider)),
            (node.probeType is ProbeType.CONVEX, (ui.radiusLabel, ui.radiusSlider)),
            (node.probeType is ProbeType.LINEAR, (ui.widthLabel, ui.widthSlider)),
            (not node.automaticTgc, (ui.tgcLabel, ui.tgcSlider)),
        ):
            for widget in widgets:
                widget.setVisible(shown)
        ui.noiseSlider.setEnabled(node.noise)

    def showStatus(self, sentence: str) -> None:
        """Shows one sentence below the Apply button, and the rate of Live."""
        self.ui.statusLabel.setText(sentence)
        rate = self.logic.live.framesPerSecond
        self.ui.rateLabel.setText(_("{rate:.0f} frames/s").format(rate=rate) if rate else "")


def _guessText(node: RenderParameterNode) -> str:
    if node.kind is not MediumKind.AUTO or node.inputVolume is None:
        return ""
    return _("taken as {kind}").format(kind=guessKind(node.inputVolume).label())


def _firstVolume(scene):
    """The first volume of the scene that is not itself a simulated slice, or None."""
    for n in range(scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode")):
        node = scene.GetNthNodeByClass(n, "vtkMRMLScalarVolumeNode")
        if node.GetAttribute(SLICE_ATTRIBUTE) is None and not node.IsA("vtkMRMLVectorVolumeNode"):
            return node
    return None
