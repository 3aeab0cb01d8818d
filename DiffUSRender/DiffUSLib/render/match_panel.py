"""The section "Match appearance" of the panel."""

from __future__ import annotations

from ..i18n import _
from ..run import RunState
from .parameters import missingForMatch

PROGRESS_STEPS = 1000


class AppearancePanel:
    """Binds the section's buttons to the logic's match; `panel` is the module's widget."""

    def __init__(self, panel) -> None:
        self._panel, self._ui, self._match = panel, panel.ui, panel.logic.appearance
        self._match.onState, self._match.onEnded = self._onState, self._onEnded
        self._ui.matchButton.clicked.connect(self._onMatch)
        self._ui.undoMatchButton.clicked.connect(self._onUndo)
        self._ui.matchProgressBar.setRange(0, PROGRESS_STEPS)
        self._ui.matchProgressBar.setVisible(False)

    def disconnect(self) -> None:
        """Lets go of the logic."""
        self._match.onState = self._match.onEnded = lambda value: None

    def update(self) -> None:
        """Shows what the parameters and the state of the match say."""
        node, ui, state = self._panel._parameterNode, self._ui, self._match.state
        if node is None:
            return
        running, missing = state is not RunState.IDLE, missingForMatch(node)
        text = {
            RunState.IDLE: _("Match appearance to this sweep"),
            RunState.RUNNING: _("Cancel"),
            RunState.CANCELLING: _("Cancelling..."),
        }
        ui.matchButton.setText(text[state])
        ui.matchButton.setEnabled(state is RunState.RUNNING or (not running and not missing))
        ui.matchButton.setToolTip(
            _("Stop; probe and image stay as they are.")
            if running
            else missing
            or _(
                "Fit gain, time gain, dynamic range, noise, focus and frequency to the real image and its recording, "
                "which must lie in their place in the volume, and take over its fan."
            )
        )
        ui.undoMatchButton.setEnabled(self._match.undoable and not running)
        ui.matchProgressBar.setVisible(running)

    def _onMatch(self, checked: bool = False) -> None:
        if self._match.state is RunState.IDLE:
            self._ui.matchStatusLabel.setText("")
            if self._panel.attempt(lambda: self._match.start(self._panel._parameterNode)):
                self._panel.showStatus("")
        else:
            self._match.cancel()
        self.update()

    def _onUndo(self, checked: bool = False) -> None:
        if self._panel.attempt(lambda: self._match.undo(self._panel._parameterNode)):
            self._ui.matchStatusLabel.setText(_("The match was undone."))
        self.update()

    def _onState(self, state) -> None:
        self._ui.matchProgressBar.setValue(round(PROGRESS_STEPS * state.progress))
        self._ui.matchStatusLabel.setText(_("Matching..."))
        self.update()

    def _onEnded(self, sentence: str) -> None:
        self._ui.matchProgressBar.setValue(0)
        self._ui.matchStatusLabel.setText(sentence)
        self.update()
