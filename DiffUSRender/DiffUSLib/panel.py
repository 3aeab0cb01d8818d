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
from .i18n import _
from .kinds import MediumKind
from .run import RunState
from .scene.voxels import explainKind

PROGRESS_STEPS = 1000  # of a progress bar


def runSoon(call, seconds: float = 0.0) -> None:
    """Calls `call` once, after so many seconds, when the event loop has nothing more urgent to do."""
    import qt

    qt.QTimer.singleShot(round(1000 * seconds), call)


def chooseFile(parent, title: str, kinds: str, start: str = "", save: bool = False) -> str:
    """The file that the user picks, or names to `save`; an empty string for none."""
    import qt

    ask = qt.QFileDialog.getSaveFileName if save else qt.QFileDialog.getOpenFileName
    chosen = ask(parent, title, start, kinds)
    return chosen[0] if isinstance(chosen, tuple) else chosen  # PySide6 gives the filter too


def guessedKind(node) -> tuple[str, str]:
    """What the input volume of a parameter node is taken as, and why; empty where nothing is guessed."""
    if node.kind is not MediumKind.AUTO or node.inputVolume is None:
        return "", ""
    kind, reason = explainKind(node.inputVolume)
    text = _("taken as {kind}").format(kind=kind.label())
    return text, _("{guess}: {reason}.").format(guess=text, reason=reason)


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


class RunSection:
    """A section of a panel with long work: a button that starts and cancels it, a bar, and a line of text; abstract.

    A section gives `update`, and `stateText` where its line says how far the work is.
    """

    def __init__(self, panel, run, button, bar, line) -> None:
        """Binds the widgets to the work.

        Args:
            panel: the module's widget.
            run: does the work: `state`, `start(parameterNode)`, `cancel()`, and the callbacks `onState`, `onEnded`.
        """
        self.panel, self.ui, self.run = panel, panel.ui, run
        self._button, self._bar, self._line = button, bar, line
        run.onState, run.onEnded = self.onState, self.onEnded
        button.clicked.connect(self.onButton)
        bar.setRange(0, PROGRESS_STEPS)

    @property
    def node(self):
        """The panel's parameter node, or None while the panel is not shown."""
        return self.panel._parameterNode

    @property
    def running(self) -> bool:
        return self.run.state is not RunState.IDLE

    def disconnect(self) -> None:
        """Lets go of the work."""
        self.run.onState = self.run.onEnded = lambda value: None

    def update(self) -> None:
        """Shows what the parameters and the state of the work say."""
        raise NotImplementedError

    def stateText(self, state) -> str:
        """What the line says while the work is at `state`."""
        raise NotImplementedError

    def updateButton(self, title: str, missing: str, tip: str, stopTip: str) -> None:
        """Shows on the button what a click does: start, where nothing is missing, or cancel."""
        state = self.run.state
        texts = {RunState.IDLE: title, RunState.RUNNING: _("Cancel"), RunState.CANCELLING: _("Cancelling...")}
        self._button.setText(texts[state])
        self._button.setEnabled(state is RunState.RUNNING or (not self.running and not missing))
        self._button.setToolTip(stopTip if self.running else missing or tip)

    def say(self, sentence: str) -> None:
        """Shows one sentence in the section's line."""
        self._line.setText(sentence)

    def attempt(self, action) -> None:
        """Runs an action of the user, and clears the panel's own line where it went well."""
        if self.panel.attempt(action):
            self.panel.showStatus("")

    def onButton(self, checked: bool = False) -> None:
        if self.running:
            self.run.cancel()
        else:
            self.say("")
            self.attempt(lambda: self.run.start(self.node))
        self.update()

    def onState(self, state) -> None:
        self._bar.setValue(round(PROGRESS_STEPS * state.progress))
        self.say(self.stateText(state))
        self.update()

    def onEnded(self, sentence: str) -> None:
        self._bar.setValue(0)
        self.say(sentence)
        self.update()
