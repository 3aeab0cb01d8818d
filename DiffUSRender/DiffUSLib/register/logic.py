"""What the module does, on nodes alone: register step by step, show it, accept it, undo it."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import slicer
import slicer.util
import vtk

from .. import engine
from ..errors import RenderError
from ..i18n import _
from ..run import RunState, Schedule, SteppedRun
from ..torch_support import requireTorch
from .overlay import FrameOverlay, OverlaySource
from .parameters import OverlayMode, ShownPose, readParameters
from .report_nodes import createResultTable, createSimilarityCurve, landmarkReport
from .result import acceptResult, createResultTransform, readReport, undoResult, weighLandmarks
from .session import Session, inputNames, openSession, sessionKey


class RegisterLogic:
    """The scene layer. Inputs and settings come from a parameter node (`RegisterParameterNode`, or alike by attribute).

    schedule: calls a function once, soon, from the application's event loop; a registration needs it.
    buildRegistration: makes the iterable of states; the engine's by default.
    onState: gets every state of a running registration. onEnded: is called, with one sentence or "", when it has ended
    in any way. Every method raises RenderError, with one sentence and nothing changed, for input that cannot be used.
    """

    def __init__(
        self,
        schedule: Schedule | None = None,
        buildRegistration: engine.BuildRegistration = engine.buildRegistration,
        onState: Callable[[object], None] = lambda state: None,
        onEnded: Callable[[str], None] = lambda sentence: None,
    ) -> None:
        self.schedule, self.onState, self.onEnded = schedule, onState, onEnded
        self._build = buildRegistration
        self._run = SteppedRun(
            lambda call: self.schedule(call),
            self._onState,
            self._onFinished,
            self._onStopped,
            busy=_("A registration is running: cancel it first."),
            failed=_("The registration has stopped after an error: {error}"),
        )
        self._overlay = FrameOverlay()
        self._registration = None
        self._session: Session | None = None
        self._shown: OverlaySource | None = None  # of the last registration that ended, or that was opened again
        self._curve: LinePlot | None = None
        self._parameterNode = None
        self._present: np.ndarray | None = None
        self._sceneTags: list[tuple[object, int]] = []

    # --- the registration

    @property
    def state(self) -> RunState:
        return self._run.state

    @property
    def runningChart(self):
        """The chart of the running registration, or None."""
        return self._curve.chart if self._curve is not None else None

    def start(self, parameterNode) -> None:
        """Reads the inputs and begins; steps come from the event loop. Nothing that the user made is changed."""
        if self.schedule is None:
            raise RenderError(_("A registration needs the event loop of an application."))
        self._run.requireIdle()
        requireTorch()
        session = openSession(parameterNode)
        registration = self._build(session, readParameters(parameterNode))
        self._overlay.hide()
        self._session = session
        self._registration, self._parameterNode = registration, parameterNode
        scene = session.volume.GetScene()
        self._curve = createSimilarityCurve(scene)
        self._present = session.startToWorld
        self._observe(scene)
        self._run.start(registration)

    def cancel(self) -> None:
        """Stops before the next step; the scene is then as it was before `start`."""
        self._run.cancel()

    def runToEnd(self, parameterNode) -> None:
        """Registers without an event loop, for scripts and tests; raises RenderError where it stops early."""
        pending, sentences = [], []
        schedule, ended = self.schedule, self.onEnded
        self.schedule, self.onEnded = pending.append, sentences.append
        try:
            self.start(parameterNode)
            while pending:
                pending.pop(0)()
        finally:
            self.schedule, self.onEnded = schedule, ended
        if sentences and sentences[-1]:
            raise RenderError(sentences[-1])

    def _onState(self, state) -> None:
        self._present = self._session.volumeToWorld(state.mri_to_reference)
        self._curve.append(100.0 * state.progress, state.similarity)
        self.updateOverlay(self._parameterNode)
        self.onState(state)

    def _onFinished(self) -> None:
        session, parameterNode, curve = self._session, self._parameterNode, self._curve
        report = engine.registrationReport(self._registration)
        volumeToWorld = session.volumeToWorld(report["mri_to_reference"])
        report = {
            **weighLandmarks(report, session.landmarks, volumeToWorld),
            **landmarkReport(session.landmarks, session.startToWorld, volumeToWorld),
            "volume_to_world_before": session.startToWorld.tolist(),
            "volume_to_world": volumeToWorld.tolist(),
            "inputs": inputNames(parameterNode),
        }
        self._shown = session.shown
        self._release()
        with slicer.util.NodeModify(parameterNode.parameterNode):
            parameterNode.report = json.dumps(report)
            parameterNode.resultTransform = None
            if report["verdict"] != "rejected":
                parameterNode.resultTransform = createResultTransform(session, volumeToWorld, report["verdict"])
            parameterNode.resultTable = createResultTable(session.volume.GetScene(), session.volume.GetName(), report)
            parameterNode.curveChart = curve.chart
            parameterNode.shownPose = ShownPose.AFTER
        self.updateOverlay(parameterNode)
        self.onEnded("")

    def _onStopped(self, sentence: str) -> None:
        curve, parameterNode = self._curve, self._parameterNode
        self._release()
        self._overlay.hide()
        for node in curve.nodes if curve is not None else ():
            if node.GetScene() is not None:
                node.GetScene().RemoveNode(node)
        if self._shown is not None:
            self.updateOverlay(parameterNode)
        self.onEnded(sentence)

    def _release(self) -> None:
        for scene, tag in self._sceneTags:
            scene.RemoveObserver(tag)
        self._sceneTags.clear()
        self._registration = self._session = self._curve = self._parameterNode = self._present = None

    # --- what may go away meanwhile

    def _observe(self, scene) -> None:
        for event, callback in (
            (slicer.vtkMRMLScene.StartCloseEvent, self._onSceneClosing),
            (slicer.vtkMRMLScene.NodeRemovedEvent, self._onNodeRemoved),
        ):
            self._sceneTags.append((scene, scene.AddObserver(event, callback)))

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _onNodeRemoved(self, caller, event, node) -> None:
        if node in self._session.nodes:
            self._run.abort(_("The registration has stopped: '{name}' was deleted.").format(name=node.GetName()))
        elif node in self._curve.nodes:
            self._run.abort(_("The registration has stopped: its curve was deleted."))

    def _onSceneClosing(self, caller, event) -> None:
        self._overlay.forget()  # the scene removes its nodes itself
        self._curve = self._shown = None
        self._run.abort(_("The registration has stopped: the scene was closed."))

    # --- the overlay

    def updateOverlay(self, parameterNode) -> None:
        """Shows, changes or hides the overlay as the parameter node says."""
        view, mode = parameterNode.sliceView, parameterNode.overlayMode
        running = self.state is not RunState.IDLE
        report = readReport(parameterNode)
        if view is None or mode is OverlayMode.OFF or not (running or report):
            self._overlay.hide()
            return
        shown = self._latest
        if shown is None or (not running and shown.key != sessionKey(parameterNode)):
            self._overlay.hide()
            return
        number = min(parameterNode.frameNumber, self.frameCount - 1)
        number = number if number >= 0 else self.frameCount // 2
        self._overlay.show(view, shown, number, self._shownPosition(parameterNode, report), mode, parameterNode)

    def reopen(self, parameterNode) -> None:
        """Reads the inputs of the last result again, so that its overlay can be shown after the scene was loaded.

        Raises RenderError where other inputs are chosen now: the overlay would show them at a pose that is not theirs.
        """
        if self.state is RunState.IDLE and self._shown is None:
            report = readReport(parameterNode) or {}
            inputs = report.get("inputs", inputNames(parameterNode))
            if inputs != inputNames(parameterNode):
                raise RenderError(
                    _("The result is of '{volume}' and '{ultrasound}': choose these again to see its overlay.").format(
                        volume=inputs[0], ultrasound=inputs[1]
                    )
                )
            requireTorch()
            self._shown = openSession(parameterNode).shown
        self.updateOverlay(parameterNode)

    @property
    def _latest(self) -> OverlaySource | None:
        """What is shown: of the running registration, else of the last one."""
        return self._session.shown if self._session is not None else self._shown

    @property
    def frameCount(self) -> int:
        """How many frames the overlay can show; 0 before the first registration."""
        return len(self._latest.frames) if self._latest is not None else 0

    def frameOfItem(self, itemNumber: int) -> int | None:
        """The overlay's frame for an item of the sequence browser, or None if that item was not read."""
        items = self._latest.itemNumbers if self._latest is not None else ()
        return items.index(itemNumber) if itemNumber in items else None

    def _shownPosition(self, parameterNode, report: dict | None) -> np.ndarray:
        before = parameterNode.shownPose is ShownPose.BEFORE
        if self.state is not RunState.IDLE:
            return self._session.startToWorld if before else self._present
        return np.array(report["volume_to_world_before" if before else "volume_to_world"])

    # --- the result

    def accept(self, parameterNode, confirmed: bool = False) -> None:
        """Moves the volume under the result; see `result.acceptResult`."""
        acceptResult(parameterNode, confirmed)

    def undo(self, parameterNode) -> None:
        """Moves the volume back; see `result.undoResult`."""
        undoResult(parameterNode)

    def forgetScene(self) -> None:
        """Stops everything and drops every observer and node, for a scene that closes or a module that goes."""
        self._shown = None
        self._run.abort("")
        self._overlay.hide()
