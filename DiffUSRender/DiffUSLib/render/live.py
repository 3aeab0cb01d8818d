"""Live rendering: watches the nodes, and renders the newest pose when the application has time."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable

import numpy as np
import slicer
import vtk

from ..errors import RenderError
from ..i18n import _
from .quality import AdaptiveQuality

RATE_FRAMES = 20
RATE_PAUSE_SECONDS = 1.0
REST_SECONDS = 0.4  # without motion before the frame in full quality
STILL_MM = 0.5  # a tracker's noise: less than this, anywhere in the fan, is no motion
REACH_MM = 100.0  # how deep the fan is, roughly, for `STILL_MM`

Schedule = Callable[..., None]


class LiveRendering:
    """Renders again whenever a watched node changes, never more than once at a time.

    An event only marks the picture as out of date and asks `schedule` once for a call; that call renders whatever is
    newest then. So a hundred events between two calls cost one frame, and nothing can queue up: at most one call for
    a frame and one for the frame at rest are pending.

    While the probe moves, frames are made with as much of the work as keeps the rate; when it has come to rest, one
    more is made in full quality, and with nothing of the frames before it. A tracker sends poses at rest too: the same
    pose again is no news, and noise below `STILL_MM` makes no motion of it, but full frames with pauses between them.

    Args:
        render: makes one frame with this fraction of the work, 0 to 1, and is told whether the probe is at rest;
            gives whether earlier frames are seen in it; raises RenderError for input that cannot be rendered now.
        watched: gives the objects to observe, each with its events; asked again before every frame. Live stops when
            one that is a node is deleted.
        schedule: takes a function, and seconds (0 if left out), and calls it once, then, from the event loop.
        onStatus: takes one sentence for the user, or "" after a frame that went well.
        clock: gives seconds.
        pose: the matrix, (4, 4), that the picture depends on; None where it is not known, which counts as motion.
        automatic: whether the quality may be lowered.
        title: what the sentences call it.
    """

    def __init__(
        self,
        render: Callable[[float, bool], bool],
        watched: Callable[[], dict[object, tuple]],
        schedule: Schedule,
        onStatus: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
        pose: Callable[[], np.ndarray | None] = lambda: None,
        automatic: Callable[[], bool] = lambda: True,
        title: str = "",
    ) -> None:
        self._render, self._watched, self._schedule = render, watched, schedule
        self._onStatus, self._clock, self._pose, self._automatic = onStatus, clock, pose, automatic
        self._title = title or _("Live")
        self._running = self._scheduled = self._restScheduled = self._rendering = False
        self._observations: dict[tuple[object, int], int] = {}
        self._sceneObservations: list[tuple[object, int]] = []
        self._required: list[tuple[str, str]] = []
        self._frameTimes: deque[float] = deque(maxlen=RATE_FRAMES)
        self._onStopped: Callable[[str], None] = lambda sentence: None
        self._forgetFrames()

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
    def reduced(self) -> bool:
        """Whether the picture is one of lower quality, with a full one to come."""
        return self._shownFraction < 1.0

    @property
    def observerCount(self) -> int:
        """How many observers are in place; 0 after stopping."""
        return len(self._observations) + len(self._sceneObservations)

    def start(self, scene, onStopped: Callable[[str], None] = lambda sentence: None) -> None:
        """Begins to watch, and renders once soon. `onStopped` gets the sentence when it must stop by itself."""
        self.stop()
        self._running, self._onStopped = True, onStopped
        self._forgetFrames()
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
        moved = slicer.vtkMRMLTransformableNode.TransformModifiedEvent
        for item, event in wanted - self._observations.keys():
            callback = self._onMoved if event == moved else self._onChanged
            self._observations[item, event] = item.AddObserver(event, callback)
        nodes = (item for item in watched if isinstance(item, slicer.vtkMRMLNode))
        self._required = [(node.GetID(), node.GetName() or "") for node in nodes]

    def requestFrame(self) -> None:
        """The picture is out of date: asks for one call unless one is pending."""
        self._changed = True
        self._requestCall()

    def _requestCall(self) -> None:
        if self._running and not self._scheduled:
            self._scheduled = True
            self._schedule(self._onScheduled)

    def _onMoved(self, caller, event) -> None:
        if not self._rendering:  # what rendering itself writes is not news
            self._requestCall()

    def _onChanged(self, caller, event) -> None:
        if not self._rendering:
            self.requestFrame()

    # --- frames

    def _forgetFrames(self) -> None:
        self._quality = AdaptiveQuality()
        self._frameTimes.clear()
        self._changed = True
        self._shownPose = self._anchor = None
        self._shownFraction, self._blended = 1.0, False
        self._lastChange = self._lastFull = self._clock()
        self._fullSeconds = 0.0

    def _onScheduled(self) -> None:
        self._scheduled = False
        if not self._running:
            return
        pose, fraction = self._presentPose(), self._quality.fraction if self._automatic() else 1.0
        moved = self._changed or _distance(pose, self._anchor) > STILL_MM
        if moved:
            self._lastChange, self._anchor = self._clock(), pose
        if moved or (self._differs(pose) and (fraction == 1.0 or self.reduced)):
            self._frame(fraction, pose)
        if self._running and (self.reduced or self._blended or self._differs(pose)):
            self._requestRest()

    def _differs(self, pose: np.ndarray | None) -> bool:
        """Whether the picture is that of another pose, be it by a tracker's noise."""
        return pose is not None and _distance(pose, self._shownPose) > 0

    def _requestRest(self) -> None:
        if not self._restScheduled:
            self._restScheduled = True
            self._schedule(self._onRest, max(0.001, self._restDue() - self._clock()))

    def _restDue(self) -> float:
        """When the frame in full quality may come: after the motion, and not too soon after the last one."""
        return max(self._lastChange + REST_SECONDS, self._lastFull + max(REST_SECONDS, 2 * self._fullSeconds))

    def _onRest(self) -> None:
        self._restScheduled = False
        if not self._running:
            return
        if self._clock() < self._restDue() - 0.001:  # it has moved again since
            self._requestRest()
            return
        pose = self._presentPose()
        if self.reduced or self._blended or self._differs(pose):
            self._frame(1.0, pose, atRest=True)

    def _presentPose(self) -> np.ndarray | None:
        try:
            return self._pose()
        except RenderError:  # rendering will say it
            return None

    def _frame(self, fraction: float, pose: np.ndarray | None, atRest: bool = False) -> None:
        began = self._clock()
        self._rendering, self._changed = True, False
        self._shownPose, self._shownFraction = pose, fraction
        try:
            self._blended = self._render(fraction, atRest)
        except RenderError as error:
            self._frameTimes.clear()
            self._shownFraction, self._blended = 1.0, False  # nothing better is to come
            self._onStatus(str(error))
        except Exception as error:
            logging.exception("DiffUS live rendering")
            self._stopWith(_("{title} has stopped after an error: {error}").format(title=self._title, error=error))
        else:
            self._countFrame(fraction, self._clock() - began, atRest)
            self._onStatus("")
        finally:
            self._rendering = False

    def _countFrame(self, fraction: float, seconds: float, atRest: bool) -> None:
        now = self._clock()
        self._quality.measured(fraction, seconds)
        if fraction == 1.0:
            self._lastFull, self._fullSeconds = now, seconds
        if atRest:
            return
        if self._frameTimes and now - self._frameTimes[-1] > RATE_PAUSE_SECONDS:
            self._frameTimes.clear()  # a probe at rest is not a slow one
        self._frameTimes.append(now)

    # --- the end

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _onNodeRemoved(self, caller, event, node) -> None:
        for identifier, name in self._required:
            if node is not None and node.GetID() == identifier:
                self._stopWith(_("{title} has stopped: '{name}' was deleted.").format(title=self._title, name=name))
                return

    def _onSceneClosing(self, caller, event) -> None:
        self._stopWith(_("{title} has stopped: the scene was closed.").format(title=self._title))

    def _stopWith(self, sentence: str) -> None:
        self.stop()
        self._onStopped(sentence)


def _distance(a: np.ndarray | None, b: np.ndarray | None) -> float:
    """How far, mm, a point of the fan lies apart at two poses, at most; infinite where one is not known."""
    if a is None or b is None:
        return np.inf
    difference = a - b
    corners = difference[:3, :3] * REACH_MM + difference[:3, 3:]
    return float(np.linalg.norm(np.column_stack([corners, difference[:3, 3]]), axis=0).max())
