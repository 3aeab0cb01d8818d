"""What the panels of both modules share: the life of a panel, and the binding of its widgets to the scene.

State is read from the parameter node, never from a widget: what a getter looks like differs between Qt bindings.
"""

from __future__ import annotations

import slicer
import slicer.util
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleWidget
from slicer.util import VTKObservationMixin
from vtk import vtkCommand

from .errors import RenderError


def runSoon(call, seconds: float = 0.0) -> None:
    """Calls `call` once, after so many seconds, when the event loop has nothing more urgent to do."""
    import qt

    qt.QTimer.singleShot(round(1000 * seconds), call)


class ModulePanel(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """A panel that holds the scene's parameter node while it is shown; abstract.

    A module's panel gives `uiFile`, `createLogic`, `connectButtons`, `newParameterNode`, `updateAll` and `showStatus`.
    """

    uiFile = ""

    def __init__(self, parent=None) -> None:
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic = None
        self._parameterNode = None
        self._guiTag: int | None = None
        self._guiObservers: list[int] = []
        self._updating = False

    def setup(self) -> None:
        ScriptedLoadableModuleWidget.setup(self)
        self.uiWidget = slicer.util.loadUI(self.resourcePath(f"UI/{self.uiFile}"))
        self.layout.addWidget(self.uiWidget)
        self.ui = slicer.util.childWidgetVariables(self.uiWidget)
        self.uiWidget.setMRMLScene(slicer.mrmlScene)
        self.logic = self.createLogic()
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(scene, scene.EndCloseEvent, self.onSceneEndClose)
        self.addObserver(scene, scene.EndImportEvent, self.onSceneEndImport)
        self.connectButtons()
        self.initializeParameterNode()

    def cleanup(self) -> None:
        self.setParameterNode(None)
        self.removeObservers()
        if self.logic is not None:
            self.logic.forgetScene()

    def enter(self) -> None:
        self.initializeParameterNode()

    def exit(self) -> None:
        """Another module is opened: the panel lets go of the scene; what the logic does goes on."""
        self.setParameterNode(None)

    def onSceneStartClose(self, caller, event) -> None:
        self.setParameterNode(None)

    def onSceneEndClose(self, caller, event) -> None:
        self.logic.forgetScene()
        if self.uiWidget.isVisible():
            self.initializeParameterNode()

    def onSceneEndImport(self, caller, event) -> None:
        if self.uiWidget.isVisible():
            self.initializeParameterNode()

    def initializeParameterNode(self) -> None:
        """Takes up the scene's parameter node, with what the scene offers where nothing is chosen."""
        self.setParameterNode(self.newParameterNode())

    def setParameterNode(self, node) -> None:
        """Binds the widgets to a parameter node instead of the one before; None leaves them unbound."""
        if self._parameterNode is not None:
            self._disconnectGui(self._parameterNode)
            self.removeObserver(self._parameterNode.parameterNode, vtkCommand.ModifiedEvent, self.onParametersChanged)
        self._parameterNode = node
        if node is None:
            return
        self.beforeConnecting(node)
        self._connectGui(node)
        self.addObserver(node.parameterNode, vtkCommand.ModifiedEvent, self.onParametersChanged)
        self.onParametersChanged()

    def _connectGui(self, node) -> None:
        # The wrapper's own connectGui gives no tag back in Slicer, so that nothing it bound could ever be released;
        # and either way it observes the node for good, which would add up: the observer's tag is kept here.
        addObserver = node.AddObserver

        def remember(*arguments) -> int:
            self._guiObservers.append(addObserver(*arguments))
            return self._guiObservers[-1]

        named = {widget.property("SlicerParameterName"): widget for widget in vars(self.ui).values()}
        node.AddObserver = remember
        try:
            self._guiTag = node.connectParametersToGui({name: widget for name, widget in named.items() if name})
        finally:
            del node.AddObserver

    def _disconnectGui(self, node) -> None:
        node.disconnectGui(self._guiTag)
        for tag in self._guiObservers:
            node.RemoveObserver(tag)
        self._guiObservers.clear()

    def beforeConnecting(self, node) -> None:
        """What must be known of a parameter node before its widgets are bound."""

    def onParametersChanged(self, caller=None, event=None) -> None:
        if self._parameterNode is None or self._updating or slicer.mrmlScene.IsImporting():
            return  # what a scene brings is taken up whole when its import has ended
        self._updating = True
        try:
            self.updateAll()
        finally:
            self._updating = False

    def attempt(self, action) -> bool:
        """Runs an action of the user; what cannot be done is said in a message and in the panel."""
        try:
            with slicer.util.tryWithErrorDisplay(waitCursor=True):
                action()
        except RenderError as error:
            self.showStatus(str(error))
            return False
        return True
