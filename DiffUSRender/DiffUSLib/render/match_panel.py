"""The section "Match appearance" of the panel."""

from __future__ import annotations

from ..i18n import _
from ..panel import RunSection
from .parameters import missingForMatch


class AppearancePanel(RunSection):
    """Binds the section's buttons to the logic's match; `panel` is the module's widget."""

    def __init__(self, panel) -> None:
        ui = panel.ui
        RunSection.__init__(
            self, panel, panel.logic.appearance, ui.matchButton, ui.matchProgressBar, ui.matchStatusLabel
        )
        ui.undoMatchButton.clicked.connect(self._onUndo)

    def update(self) -> None:
        if self.node is None:
            return
        self.updateButton(
            _("Match appearance to this sweep"),
            missingForMatch(self.node),
            _(
                "Fit gain, time gain, dynamic range, noise, focus and frequency to the real image and its recording, "
                "which must lie in their place in the volume, and take over its fan."
            ),
            _("Stop; probe and image stay as they are."),
        )
        self.ui.undoMatchButton.setEnabled(self.run.undoable and not self.running)
        self.ui.matchProgressBar.setVisible(self.running)

    def stateText(self, state) -> str:
        return _("Matching...")

    def _onUndo(self, checked: bool = False) -> None:
        if self.panel.attempt(lambda: self.run.undo(self.node)):
            self.say(_("The match was undone."))
        self.update()
