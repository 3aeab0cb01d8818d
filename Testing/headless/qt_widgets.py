"""The module `qt` from PySide6, and stand-ins for the few qMRML and ctk widgets of the modules' .ui files."""

from __future__ import annotations

import ctypes
import enum
import os
import sys
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

import slicer
import slicer.util
from PySide6 import QtCore, QtGui, QtUiTools, QtWidgets


def savePicture(widget, name: str) -> QtGui.QImage:
    """What the widget looks like; also written to screenshots/`name`.png."""
    folder = Path(__file__).resolve().parents[2] / "screenshots"
    folder.mkdir(exist_ok=True)
    picture = widget.grab()
    if not picture.save(str(folder / f"{name}.png")):
        raise OSError(f"The picture {folder / name}.png could not be written.")
    return picture.toImage()


def _emit(signal, value) -> None:
    """PySide6's emit hands out True without a reference of its own: enough of them would free it."""
    signal.emit(value)
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(True))


class qMRMLWidget(QtWidgets.QWidget):
    def setMRMLScene(self, scene) -> None:
        for selector in self.findChildren(qMRMLNodeComboBox):
            selector.setMRMLScene(scene)


class ctkCollapsibleButton(QtWidgets.QWidget):
    """A head that folds and unfolds the widget's content."""

    def __init__(self, parent=None) -> None:
        super().__init__(parent)
        self._head = QtWidgets.QToolButton(self)
        self._head.setObjectName("")
        self._head.setToolButtonStyle(QtCore.Qt.ToolButtonTextBesideIcon)
        self._head.setArrowType(QtCore.Qt.DownArrow)
        self._head.setAutoRaise(False)
        self._head.clicked.connect(lambda: self.setCollapsed(not self._collapsed))
        self._collapsed = False
        self.setContentsMargins(0, self._head.sizeHint().height() + 4, 0, 0)

    def resizeEvent(self, event) -> None:
        self._head.setGeometry(0, 0, self.width(), self._head.sizeHint().height())
        super().resizeEvent(event)

    def showEvent(self, event) -> None:
        self.setCollapsed(self._collapsed)
        super().showEvent(event)

    def setText(self, text: str) -> None:
        self._head.setText(text)

    def _text(self) -> str:
        return self._head.text()

    def isCollapsed(self) -> bool:
        return self._collapsed

    def setCollapsed(self, collapsed: bool) -> None:
        self._collapsed = collapsed
        self._head.setArrowType(QtCore.Qt.RightArrow if collapsed else QtCore.Qt.DownArrow)
        self.setMaximumHeight(self._head.sizeHint().height() + 2 if collapsed else 16777215)

    collapsed = QtCore.Property(bool, isCollapsed, setCollapsed)
    text = QtCore.Property(str, _text, setText)


class ctkSliderWidget(QtWidgets.QWidget):
    """A slider and a spin box that show the same number."""

    valueChanged = QtCore.Signal(float)

    def __init__(self, parent=None) -> None:
        super().__init__(parent)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self._slider = QtWidgets.QSlider(QtCore.Qt.Horizontal, self)
        self._slider.setRange(0, 1000)
        self._box = QtWidgets.QDoubleSpinBox(self)
        layout.addWidget(self._slider, 1)
        layout.addWidget(self._box)
        self._box.valueChanged.connect(self._onBox)
        self._slider.valueChanged.connect(self._onSlider)

    def _onBox(self, value: float) -> None:
        span = self._box.maximum() - self._box.minimum()
        self._slider.blockSignals(True)
        self._slider.setValue(round(1000 * (value - self._box.minimum()) / span) if span else 0)
        self._slider.blockSignals(False)
        _emit(self.valueChanged, value)

    def _onSlider(self, position: int) -> None:
        self._box.setValue(self._box.minimum() + position / 1000 * (self._box.maximum() - self._box.minimum()))

    def value_(self) -> float:
        return self._box.value()

    def setValue(self, value: float) -> None:
        self._box.setValue(value)
        self._onBox(self._box.value())

    def setRange(self, low: float, high: float) -> None:
        self._box.setRange(low, high)

    decimals = QtCore.Property(int, lambda s: s._box.decimals(), lambda s, v: s._box.setDecimals(v))
    singleStep = QtCore.Property(float, lambda s: s._box.singleStep(), lambda s, v: s._box.setSingleStep(v))
    pageStep = QtCore.Property(float, lambda s: 0.0, lambda s, v: None)
    minimum = QtCore.Property(float, lambda s: s._box.minimum(), lambda s, v: s._box.setMinimum(v))
    maximum = QtCore.Property(float, lambda s: s._box.maximum(), lambda s, v: s._box.setMaximum(v))
    suffix = QtCore.Property(str, lambda s: s._box.suffix(), lambda s, v: s._box.setSuffix(v))
    value = QtCore.Property(float, value_, setValue)


class qMRMLNodeComboBox(QtWidgets.QWidget):
    """Lists the nodes of some classes in a scene, and none."""

    currentNodeChanged = QtCore.Signal(object)

    def __init__(self, parent=None) -> None:
        super().__init__(parent)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self._box = QtWidgets.QComboBox(self)
        layout.addWidget(self._box)
        self._box.currentIndexChanged.connect(lambda index: _emit(self.currentNodeChanged, self.currentNode()))
        self._types, self._noneText, self._scene, self._tags = [], "None", None, []

    def setMRMLScene(self, scene) -> None:
        for tag in self._tags:
            self._scene.RemoveObserver(tag)
        self._scene, self._tags = scene, []
        if scene is not None:
            for event in (scene.NodeAddedEvent, scene.NodeRemovedEvent, scene.EndImportEvent, scene.EndCloseEvent):
                self._tags.append(scene.AddObserver(event, lambda caller, event: self._refresh()))
        self._refresh()

    def _refresh(self) -> None:
        current = self._box.currentData()
        self._box.blockSignals(True)
        self._box.clear()
        self._box.addItem(self._noneText, "")
        for className in self._types:
            for n in range(self._scene.GetNumberOfNodesByClass(className) if self._scene else 0):
                node = self._scene.GetNthNodeByClass(n, className)
                if not node.GetHideFromEditors() and self._box.findData(node.GetID()) < 0:
                    self._box.addItem(node.GetName(), node.GetID())
        self._box.setCurrentIndex(max(0, self._box.findData(current)))
        self._box.blockSignals(False)
        if (self._box.currentData() or "") != (current or ""):
            _emit(self.currentNodeChanged, self.currentNode())

    def currentNode(self):
        identifier = self._box.currentData()
        return self._scene.GetNodeByID(identifier) if identifier and self._scene else None

    def setCurrentNode(self, node) -> None:
        self._box.setCurrentIndex(max(0, self._box.findData(node.GetID() if node else "")))

    def _setTypes(self, types) -> None:
        self._types = list(types)
        self._refresh()

    def _setNoneText(self, text: str) -> None:
        self._noneText = text
        self._refresh()

    nodeTypes = QtCore.Property("QStringList", lambda s: s._types, _setTypes)
    noneDisplay = QtCore.Property(str, lambda s: s._noneText, _setNoneText)
    showChildNodeTypes = QtCore.Property(bool, lambda s: True, lambda s, v: None)
    addEnabled = QtCore.Property(bool, lambda s: False, lambda s, v: None)
    removeEnabled = QtCore.Property(bool, lambda s: False, lambda s, v: None)
    renameEnabled = QtCore.Property(bool, lambda s: False, lambda s, v: None)
    noneEnabled = QtCore.Property(bool, lambda s: True, lambda s, v: None)


CUSTOM_WIDGETS = (qMRMLWidget, qMRMLNodeComboBox, ctkCollapsibleButton, ctkSliderWidget)


class _Connector:
    """Reads, writes and watches one widget."""

    def __init__(self, signal, read, write) -> None:
        self._signal, self.read, self.write, self._slot = signal, read, write, None

    def connect(self, callback) -> None:
        self._slot = lambda *_values: callback()
        self._signal.connect(self._slot)

    def disconnect(self) -> None:
        self._signal.disconnect(self._slot)


def connectorFor(widget, parameter) -> _Connector:
    """The connector of a widget for a parameter; TypeError where Slicer has none for the pair."""
    kind = parameter.type
    bounds = parameter.validators[0] if parameter.validators else None
    if isinstance(widget, qMRMLNodeComboBox) and parameter.nodeTypes:
        widget.nodeTypes = [nodeType().GetClassName() for nodeType in parameter.nodeTypes]
        return _Connector(widget.currentNodeChanged, widget.currentNode, widget.setCurrentNode)
    if isinstance(widget, QtWidgets.QCheckBox) and kind is bool:
        return _Connector(widget.stateChanged, widget.isChecked, widget.setChecked)
    if (type(widget), kind) in ((QtWidgets.QSpinBox, int), (QtWidgets.QDoubleSpinBox, float)):
        widget.setRange(bounds.minimum, bounds.maximum)
        return _Connector(widget.valueChanged, widget.value, widget.setValue)
    if type(widget) is QtWidgets.QLineEdit and kind is str:
        return _Connector(widget.textChanged, widget.text, widget.setText)
    if isinstance(widget, ctkSliderWidget) and kind is float:
        widget.setRange(bounds.minimum, bounds.maximum)
        return _Connector(widget.valueChanged, widget.value_, widget.setValue)
    if type(widget) is QtWidgets.QComboBox and isinstance(kind, type) and issubclass(kind, enum.Enum):
        members = list(kind)
        widget.clear()
        widget.addItems([kind.label(member) for member in members])
        return _Connector(
            widget.currentIndexChanged,
            lambda: members[widget.currentIndex()],
            lambda value: widget.setCurrentIndex(members.index(value)),
        )
    raise TypeError(f"no connector between {type(widget).__name__} and the parameter {parameter.name}")


def childrenWithProperty(gui, name: str):
    """(widget, value) of every child of `gui`, a widget or childWidgetVariables' object, that has the property."""
    widgets = gui.findChildren(QtWidgets.QWidget) if isinstance(gui, QtWidgets.QWidget) else vars(gui).values()
    return [(w, w.property(name)) for w in widgets if isinstance(w, QtWidgets.QWidget) and w.property(name)]


def loadUI(path: str) -> QtWidgets.QWidget:
    """The widget of a .ui file, its custom classes among them."""
    loader = QtUiTools.QUiLoader()
    for custom in CUSTOM_WIDGETS:
        loader.registerCustomWidget(custom)
    tree = ElementTree.parse(path)
    tree.getroot().remove(tree.getroot().find("connections"))  # signals of C++ types, which Python widgets cannot have
    data = QtCore.QBuffer()
    data.setData(ElementTree.tostring(tree.getroot()))
    widget = loader.load(data)
    if widget is None:
        raise RuntimeError(f"Could not load UI file: {path}: {loader.errorString()}")
    return widget


def childWidgetVariables(widget) -> object:
    """Every named child as an attribute."""
    ui = type("Ui", (), {})()
    for child in widget.findChildren(QtWidgets.QWidget):
        if child.objectName() and not child.objectName().startswith("qt_"):
            setattr(ui, child.objectName(), child)
    return ui


def _qtName(name: str):
    for module in (QtCore, QtGui, QtWidgets):
        if hasattr(module, name):
            return getattr(module, name)
    raise AttributeError(name)


def prepareQt() -> QtWidgets.QApplication:
    """`import qt` and slicer.util's user interface from PySide6, and one QApplication."""
    application = QtWidgets.QApplication.instance() or QtWidgets.QApplication([])
    if "qt" not in sys.modules:
        qt = ModuleType("qt")
        qt.__getattr__ = _qtName
        sys.modules["qt"] = qt
        slicer.util.loadUI, slicer.util.childWidgetVariables = loadUI, childWidgetVariables
    return application


def processEvents(milliseconds: int = 0) -> None:
    """Runs the Qt event loop until nothing is pending, and for so long at least."""
    loop = QtCore.QEventLoop()
    QtCore.QTimer.singleShot(milliseconds, loop.quit)
    loop.exec()
