"""A registration in small steps."""

from __future__ import annotations

from .. import run
from ..i18n import _
from ..run import RunState, Schedule

__all__ = ["RunState", "Schedule", "SteppedRun"]


class SteppedRun(run.SteppedRun):
    """A registration that the event loop steps through."""

    def busyText(self) -> str:
        return _("A registration is running: cancel it first.")

    def failedText(self, error: Exception) -> str:
        return _("The registration has stopped after an error: {error}").format(error=error)
