"""Long work in small steps: idle, running, cancelling."""

from __future__ import annotations

import enum
import logging
from collections.abc import Callable, Iterable, Iterator

from .engine import engineErrors
from .errors import RenderError

Schedule = Callable[[Callable[[], None]], None]


class RunState(enum.Enum):
    """What the work is doing."""

    IDLE = "idle"
    RUNNING = "running"
    CANCELLING = "cancelling"


class SteppedRun:
    """Asks an iterable for one state at a time, from the event loop, so that the application stays alive.

    schedule: takes a function and calls it once, soon (a single-shot timer in Slicer).
    onState: takes every state. onFinished: is called when there are no more.
    onStopped: takes one sentence when it was cancelled ("" if the user wished so) or has failed.
    busy: the sentence for the user who starts it a second time. failed: that for an error that nobody expected, with
    {error} in it.
    """

    def __init__(
        self,
        schedule: Schedule,
        onState: Callable[[object], None],
        onFinished: Callable[[], None],
        onStopped: Callable[[str], None],
        busy: str,
        failed: str,
    ) -> None:
        self._schedule, self._onState = schedule, onState
        self._onFinished, self._onStopped = onFinished, onStopped
        self._state, self._steps = RunState.IDLE, None
        self._number, self._sentence = 0, ""
        self._busy, self._failed = busy, failed

    @property
    def state(self) -> RunState:
        return self._state

    def requireIdle(self) -> None:
        """Raises RenderError while it runs."""
        if self._state is not RunState.IDLE:
            raise RenderError(self._busy)

    def start(self, work: Iterable) -> None:
        """Begins; the first step comes from the event loop. The engine's errors become the scene layer's."""
        self.requireIdle()
        self._state, self._steps, self._sentence = RunState.RUNNING, iter(work), ""
        self._number += 1
        self._next()

    def cancel(self, sentence: str = "") -> None:
        """Stops before the next step."""
        if self._state is RunState.RUNNING:
            self._state, self._sentence = RunState.CANCELLING, sentence

    def abort(self, sentence: str) -> None:
        """Stops at once: nothing of the scene may be used any more."""
        if self._state is not RunState.IDLE:
            self._stop(sentence)

    def _next(self) -> None:
        number = self._number
        self._schedule(lambda: self._step(number))

    def _step(self, number: int) -> None:
        if number != self._number or self._state is RunState.IDLE:
            return  # a step of work that has been aborted
        if self._state is RunState.CANCELLING:
            self._stop(self._sentence)
            return
        try:
            with engineErrors():
                state = next(self._steps, None)
            if number != self._number or self._state is RunState.IDLE:
                return
            if state is not None:
                self._onState(state)
            elif self._state is RunState.RUNNING:
                self._clear()
                self._onFinished()
                return
        except RenderError as error:
            self._stop(str(error))
            return
        except Exception as error:
            logging.exception("DiffUS")
            self._stop(self._failed.format(error=error))
            return
        self._next()

    def _stop(self, sentence: str) -> None:
        self._clear()
        self._onStopped(sentence)

    def _clear(self) -> None:
        self._state, steps, self._steps = RunState.IDLE, self._steps, None
        self._number += 1
        close = getattr(steps, "close", None)  # a generator gives up what it has half done
        if close is not None and not getattr(steps, "gi_running", False):
            close()


class SteppedWork:
    """Work on a parameter node that the event loop steps through, with a sentence at its end; abstract: `steps`.

    onState: gets every state. onEnded: gets one sentence at the end: what was done, or why nothing was.
    """

    def __init__(self, schedule: Schedule, busy: str, failed: str, cancelled: str) -> None:
        self.onState: Callable[[object], None] = lambda state: None
        self.onEnded: Callable[[str], None] = lambda sentence: None
        self._report, self._cancelled = "", cancelled
        self._run = SteppedRun(
            schedule,
            lambda state: self.onState(state),
            lambda: self.onEnded(self._report),
            lambda sentence: self.onEnded(sentence),
            busy,
            failed,
        )

    @property
    def state(self) -> RunState:
        return self._run.state

    def steps(self, parameterNode) -> Iterator:
        """The whole work as an iterator, for those who have no event loop; the inputs are read now."""
        raise NotImplementedError

    def start(self, parameterNode) -> None:
        """Begins; raises RenderError, in one sentence, for what can be seen to be wrong at once."""
        self._run.requireIdle()
        self._run.start(self.steps(parameterNode))

    def cancel(self) -> None:
        """Stops before the next step."""
        self._run.cancel(self._cancelled)

    def abort(self, sentence: str) -> None:
        """Stops at once, for a scene that closes."""
        self._run.abort(sentence)
