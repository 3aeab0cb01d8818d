"""The module's panels as Slicer shows them, for tests."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager

from PySide6 import QtWidgets

from .qt_widgets import prepareQt, processEvents


def openPanel(module: str, height: int) -> tuple:
    """(parent widget, module widget) of a module on the present scene, entered, `height` pixels high."""
    prepareQt()
    parent = QtWidgets.QWidget()
    QtWidgets.QVBoxLayout(parent)
    shown = getattr(importlib.import_module(module), f"{module}Widget")(parent)
    shown.setup()
    parent.resize(460, height)
    parent.show()
    shown.enter()
    processEvents(10)
    return parent, shown


@contextmanager
def renderPanel(section: str) -> Iterator:
    """DiffUSRender's widget on the present scene, with a small image and this section unfolded."""
    parent, shown = openPanel("DiffUSRender", 2600)  # Slicer scrolls it
    shown.ui.raysSpinBox.setValue(48)
    shown.ui.samplesSpinBox.setValue(100)
    getattr(shown.ui, section).setCollapsed(False)
    yield shown
    shown.cleanup()
    parent.deleteLater()
    processEvents()
