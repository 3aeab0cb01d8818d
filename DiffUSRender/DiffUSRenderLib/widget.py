"""The module's panel: thin, and the only file of the scene layer that knows Qt.

State is read from the parameter node, never from a widget: what a getter looks like differs between Qt bindings.
"""

from __future__ import annotations

import slicer
import slicer.util
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleWidget
from slicer.util import VTKObservationMixin
from vtk import vtkCommand

from .errors import RenderError
from .gui import connectGui
from .i18n import _
from .logic import RenderLogic
from .media import guessKind
from .parameter_node import RenderParameterNode
from .parameters import MediumKind, ProbePreset, ProbeType, missingInput, readParameters
from .slice_node import SLICE_ATTRIBUTE


def runSoon(call) -> None:
    """Calls `call` once, when the event loop has nothing more urgent to do."""
    import qt

    qt.QTimer.singleShot(0, call)


class RenderWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """Binds the .ui file to the parameter node and its buttons to the logic."""

    def __init__(self, parent=None) -> None:
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic: RenderLogic | None = None
        self._parameterNode: RenderParameterNode | None = None
        self._guiTag: int | None = None
        self._updating = False
        self._preset: ProbePreset | None = None
        self._presetNumbers = None

    def createLogic(self) -> RenderLogic:
        """The module's logic; abstract here, the module's own class gives it."""
        raise NotImplementedError

    # --- lifecycle

    def setup(self) -> None:
        ScriptedLoadableModuleWidget.setup(self)
        self.uiWidget = slicer.util.loadUI(self.resourcePath("UI/DiffUSRender.ui"))
        self.layout.addWidget(self.uiWidget)
        self.ui = slicer.util.childWidgetVariables(self.uiWidget)
        self.uiWidget.setMRMLScene(slicer.mrmlScene)
        self.logic = self.createLogic()
        self.logic.onStatus = self.showStatus
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(scene, scene.EndCloseEvent, self.onSceneEndClose)
        self.addObserver(scene, scene.EndImportEvent, self.onSceneEndImport)
        self.ui.createProbeButton.clicked.connect(self.onCreateProbe)
        self.ui.placeAtSliceButton.clicked.connect(self.onPlaceAtSlice)
        self.ui.placeOnSkinButton.clicked.connect(self.onPlaceOnSkin)
        self.ui.applyButton.clicked.connect(self.onApply)
        self.initializeParameterNode()

    def cleanup(self) -> None:
        self.setParameterNode(None)
        self.removeObservers()
        if self.logic is not None:
            self.logic.forgetScene()
            self.logic.onStatus = lambda sentence: None

    def enter(self) -> None:
        self.initializeParameterNode()

    def exit(self) -> None:
        """Another module is opened: the panel lets go of the scene, Live goes on in the logic."""
        self.setParameterNode(None)

    def onSceneStartClose(self, caller, event) -> None:
        self.setParameterNode(None)

    def onSceneEndClose(self, caller, event) -> None:
        self.logic.forgetScene()
        if self._isShown():
            self.initializeParameterNode()

    def onSceneEndImport(self, caller, event) -> None:
        if self._isShown():
            self.initializeParameterNode()

    def _isShown(self) -> bool:
        return bool(self.uiWidget.isVisible())

    def initializeParameterNode(self) -> None:
        """Takes up the scene's parameter node; offers the first volume and the red slice view where none is chosen."""
        node = RenderParameterNode(self.logic.getParameterNode())
        if node.inputVolume is None:
            node.inputVolume = _firstVolume(slicer.mrmlScene)
        if node.sliceView is None:
            node.sliceView = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLSliceNode")
        self.setParameterNode(node)

    def setParameterNode(self, node: RenderParameterNode | None) -> None:
        if self._parameterNode is not None:
            self._parameterNode.disconnectGui(self._guiTag)
            self.removeObserver(self._parameterNode.parameterNode, vtkCommand.ModifiedEvent, self.onParametersChanged)
        self._parameterNode = node
        if node is None:
            return
        # A preset that the scene brings stands with its own numbers: it is not applied again.
        self._preset, self._presetNumbers = node.preset, readParameters(node).probe
        self._guiTag = connectGui(node, self.ui)
        self.addObserver(node.parameterNode, vtkCommand.ModifiedEvent, self.onParametersChanged)
        self.onParametersChanged()

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

    def attempt(self, action) -> bool:
        """Runs an action of the user; what cannot be done is said in a message and below the button."""
        try:
            with slicer.util.tryWithErrorDisplay(waitCursor=True):
                action()
        except RenderError as error:
            self.showStatus(str(error))
            return False
        return True

    # --- what follows from the parameters

    def onParametersChanged(self, caller=None, event=None) -> None:
        if self._parameterNode is None or self._updating or slicer.mrmlScene.IsImporting():
            return  # what a scene brings is taken up whole when its import has ended
        self._updating = True
        try:
            self._updatePreset()
            self._updateLive()
            self._updateViews()
            self._updatePanel()
        finally:
            self._updating = False

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
