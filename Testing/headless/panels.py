"""The module's panels as Slicer shows them, for tests."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager

from PySide6 import QtWidgets

from .qt_widgets import prepareQt, processEvents


class Panel:
    """A module's widget on the present scene as Slicer would show it, entered, and short names for its parts."""

    def __init__(self, module: str, height: int) -> None:
        prepareQt()
        self.parent = QtWidgets.QWidget()
        QtWidgets.QVBoxLayout(self.parent)
        self.widget = getattr(importlib.import_module(module), f"{module}Widget")(self.parent)
        self.widget.setup()
        self.parent.resize(460, height)
        self.parent.show()
        self.widget.enter()
        processEvents(10)

    @property
    def ui(self):
        return self.widget.ui

    @property
    def logic(self):
        return self.widget.logic

    @property
    def node(self):
        return self.widget._parameterNode

    @property
    def status(self) -> str:
        return self.ui.statusLabel.text()

    def settle(self) -> None:
        processEvents(60)

    def small(self) -> None:
        """A small, quick image in DiffUSRender."""
        self.ui.raysSpinBox.setValue(48)
        self.ui.samplesSpinBox.setValue(100)

    def close(self) -> None:
        self.widget.cleanup()
        self.parent.deleteLater()
        processEvents()


@contextmanager
def renderPanel(section: str) -> Iterator:
    """DiffUSRender's widget on the present scene, with a small image and this section unfolded."""
    shown = Panel("DiffUSRender", 2600)  # Slicer scrolls it
    shown.small()
    getattr(shown.ui, section).setCollapsed(False)
    yield shown.widget
    shown.close()
