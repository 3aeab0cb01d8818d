"""The module's panels as Slicer shows them, for tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from PySide6 import QtWidgets

from .qt_widgets import prepareQt, processEvents


@contextmanager
def renderPanel(section: str) -> Iterator:
    """DiffUSRender's widget on the present scene, with a small image and this section unfolded."""
    prepareQt()
    import DiffUSRender

    parent = QtWidgets.QWidget()
    QtWidgets.QVBoxLayout(parent)
    shown = DiffUSRender.DiffUSRenderWidget(parent)
    shown.setup()
    parent.resize(460, 2600)  # Slicer scrolls it
    parent.show()
    shown.enter()
    processEvents(10)
    shown.ui.raysSpinBox.setValue(48)
    shown.ui.samplesSpinBox.setValue(100)
    getattr(shown.ui, section).setCollapsed(False)
    yield shown
    shown.cleanup()
    parent.deleteLater()
    processEvents()
