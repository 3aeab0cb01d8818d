"""Live rendering: watches the nodes, and renders the newest pose when the application has time."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable

import slicer
import vtk

from .errors import RenderError
from .i18n import _

RATE_FRAMES = 20
REST_SECONDS = 1.0


class LiveRendering:
    """Renders again whenever a watched node changes, never more than once at a time.

    An event only marks the slice as out of date and asks `schedule` once for a call; that call renders whatever is
    newest then. So a hundred events between two calls cost one frame, and nothing can queue up.

    render: makes one frame; raises RenderError for input that cannot be rendered at the moment.
    watched: gives the objects to observe, each with its events; asked again before every frame. Live stops when one
        that is a node is deleted.
    schedule: takes a function and calls it once, soon, from the event loop (a single-shot timer in Slicer).
    onStatus: takes one sentence for the user, or "" after a frame that went well.
    """

    def __init__(
        self,
        render: Callable[[], None],
        watched: Callable[[], dict[object, tuple]],
        schedule: Callable[[Callable[[], None]], None],
        onStatus: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._render, self._watched, self._schedule = render, watched, schedule
        self._onStatus, self._clock = onStatus, clock
        self._running = self._scheduled = self._rendering = False
        self._observations: dict[tuple[object, int], int] = {}
        self._sceneObservations: list[tuple[object, int]] = []
        self._required: list[tuple[str, str]] = []
        self._frameTimes: deque[float] = deque(maxlen=RATE_FRAMES)
        self._onStopped: Callable[[str], None] = lambda sentence: None

    @property
    def running(self) -> bool:
        return self._running

    @property
    def framesPerSecond(self) -> float:
        """Rate of the last frames; 0 before there are two."""
        if len(self._frameTimes) < 2:
            return 0.0
        return (len(self._frameTimes) - 1) / max(1e-9, self._frameTimes[-1] - self._frameTimes[0])

    @property
    def observerCount(self) -> int:
        """How many observers are in place; 0 after stopping."""
        return len(self._observations) + len(self._sceneObservations)

    def start(self, scene, onStopped: Callable[[str], None] = lambda sentence: None) -> None:
        """Begins to watch, and renders once soon. `onStopped` gets the sentence when it must stop by itself."""
        self.stop()
        self._running, self._onStopped = True, onStopped
        self._frameTimes.clear()
        self.observe()
        for event, callback in (
            (slicer.vtkMRMLScene.StartCloseEvent, self._onSceneClosing),
            (slicer.vtkMRMLScene.NodeRemovedEvent, self._onNodeRemoved),
        ):
            self._sceneObservations.append((scene, scene.AddObserver(event, callback)))
        self.requestFrame()

    def stop(self) -> None:
        """Ends it and removes every observer; a call that is still scheduled will do nothing."""
        self._running = False
        for (watchedObject, _event), tag in self._observations.items():
            watchedObject.RemoveObserver(tag)
        self._observations.clear()
        for scene, tag in self._sceneObservations:
            scene.RemoveObserver(tag)
        self._sceneObservations.clear()
        self._required = []

    def observe(self) -> None:
        """Watches what is to be watched now: new objects are added, former ones dropped."""
        if not self._running:
            return
        watched = self._watched()
        wanted = {(item, event) for item, events in watched.items() for event in events}
        for key in [key for key in self._observations if key not in wanted]:
            key[0].RemoveObserver(self._observations.pop(key))
        for item, event in wanted - self._observations.keys():
            self._observations[item, event] = item.AddObserver(event, self._onChanged)
        nodes = (item for item in watched if isinstance(item, slicer.vtkMRMLNode))
        self._required = [(node.GetID(), node.GetName() or "") for node in nodes]

    def requestFrame(self) -> None:
        """The slice is out of date: asks for one call unless one is on its way."""
        if self._running and not self._scheduled:
            self._scheduled = True
            self._schedule(self._onScheduled)

    def _onChanged(self, caller, event) -> None:
        if not self._rendering:  # what rendering itself writes is not news
            self.requestFrame()

    def _onScheduled(self) -> None:
        self._scheduled = False
        if not self._running:
            return
        self._rendering = True
        try:
            self._render()
        except RenderError as error:
            self._frameTimes.clear()
            self._onStatus(str(error))
        except Exception as error:
            logging.exception("DiffUS live rendering")
            self._stopWith(_("Live has stopped after an error: {error}").format(error=error))
        else:
            self._countFrame()
            self._onStatus("")
        finally:
            self._rendering = False

    def _countFrame(self) -> None:
        now = self._clock()
        if self._frameTimes and now - self._frameTimes[-1] > REST_SECONDS:
            self._frameTimes.clear()  # a probe at rest is not a slow one
        self._frameTimes.append(now)

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _onNodeRemoved(self, caller, event, node) -> None:
        for identifier, name in self._required:
            if node is not None and node.GetID() == identifier:
                self._stopWith(_("Live has stopped: '{name}' was deleted.").format(name=name))
                return

    def _onSceneClosing(self, caller, event) -> None:
        self._stopWith(_("Live has stopped: the scene was closed."))

    def _stopWith(self, sentence: str) -> None:
        self.stop()
        self._onStopped(sentence)
