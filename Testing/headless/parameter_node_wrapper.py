"""A stand-in for slicer.parameterNodeWrapper: typed attributes stored in a vtkMRMLScriptedModuleNode as Slicer does.

Covers what the modules use: float, int, bool, str, Enum, node references and unions of them, WithinRange, and the
binding of widgets by the property SlicerParameterName.
"""

from __future__ import annotations

import enum
import typing
from dataclasses import dataclass

import slicer
import slicer.util
import vtk

PARAMETER_PROPERTY = "SlicerParameterName"
# What a wrapped class has of its own in Slicer.
RESERVED = {"allParameters", "default", "isCached", "dataType", "getValue", "setValue", "connectGui", "disconnectGui"}
RESERVED |= {"connectParametersToGui", "StartModify", "EndModify", "AddObserver", "RemoveObserver", "Modified"}


@dataclass(frozen=True)
class WithinRange:
    minimum: float
    maximum: float

    def validate(self, value) -> None:
        if not self.minimum <= value <= self.maximum:
            raise ValueError(f"Value must be within [{self.minimum}, {self.maximum}], is {value}")


class _Parameter:
    """One attribute: its type, its validators, and how it is written into the node."""

    def __init__(self, name: str, hint, default) -> None:
        self.name = name
        arguments = typing.get_args(hint) if typing.get_origin(hint) is typing.Annotated else (hint,)
        self.type, self.validators = arguments[0], arguments[1:]
        union = typing.get_origin(self.type) is typing.Union
        self.nodeTypes = [t for t in (typing.get_args(self.type) if union else (self.type,)) if _isNodeType(t)]
        self.union = union
        if self.nodeTypes and union and type(None) not in typing.get_args(self.type):
            raise TypeError(f"{name}: a union of nodes must end with None")
        self.default = default if default is not None or self.nodeTypes else self.type()

    def keys(self) -> list[str]:
        return [f"{self.name}_{n}" for n in range(len(self.nodeTypes))] if self.union else [self.name]

    def isIn(self, node) -> bool:
        return any(node.HasParameter(key) for key in self.keys()) or (self.union and node.HasParameter(self.name))

    def write(self, node, value) -> None:
        if self.nodeTypes:
            self._writeNode(node, value)
            return
        allowed = (int, float) if self.type is float else self.type
        if not isinstance(value, allowed) or (isinstance(value, bool) and self.type is not bool):
            raise TypeError(f"{self.name}: {value!r} is not {self.type.__name__}")
        for validator in self.validators:
            validator.validate(value)
        node.SetParameter(self.name, value.name if isinstance(value, enum.Enum) else str(value))

    def _writeNode(self, node, value) -> None:
        fits = [n for n, nodeType in enumerate(self.nodeTypes) if isinstance(value, nodeType)]
        if value is not None and not fits:
            raise TypeError(f"{self.name}: {value.GetClassName()} is not among the allowed classes")
        with slicer.util.NodeModify(node):
            for n, key in enumerate(self.keys()):
                node.SetParameter(key, "")
                node.SetNodeReferenceID(key, value.GetID() if fits and n == fits[0] else None)

    def read(self, node):
        if not self.isIn(node):  # a scene of an earlier version
            self.write(node, self.default)
        if self.nodeTypes:
            return next((found for key in self.keys() if (found := node.GetNodeReference(key))), None)
        text = node.GetParameter(self.name)
        if self.type is bool:
            return text == "True"
        if not issubclass(self.type, enum.Enum):
            return self.type(text)
        if text not in self.type.__members__:
            raise ValueError(f"{self.name}: {text!r} is not the name of a {self.type.__name__}")
        return self.type[text]


def _isNodeType(candidate) -> bool:
    return isinstance(candidate, type) and issubclass(candidate, slicer.vtkMRMLNode)


def _property(name: str) -> property:
    return property(
        lambda self: self.allParameters[name].read(self.parameterNode),
        lambda self, value: self.allParameters[name].write(self.parameterNode, value),
    )


class _Wrapper:
    """What every wrapped class inherits."""

    allParameters: typing.ClassVar[dict[str, _Parameter]] = {}

    def __init__(self, parameterNode, prefix=None) -> None:
        self.parameterNode = parameterNode
        self._guis: dict[int, list] = {}
        self._tags = 0
        self._updatingGui = False
        for parameter in self.allParameters.values():
            if not parameter.isIn(parameterNode):
                parameter.write(parameterNode, parameter.default)

    def AddObserver(self, event, callback, priority: float = 0.0) -> int:
        return self.parameterNode.AddObserver(event, callback, priority)

    def RemoveObserver(self, tag: int) -> None:
        self.parameterNode.RemoveObserver(tag)

    def StartModify(self) -> int:
        return self.parameterNode.StartModify()

    def EndModify(self, wasModified: int) -> None:
        self.parameterNode.EndModify(wasModified)

    def Modified(self) -> None:
        self.parameterNode.Modified()

    def getValue(self, name: str):
        return getattr(self, name)

    def setValue(self, name: str, value) -> None:
        setattr(self, name, value)

    def connectGui(self, gui) -> None:
        """Binds every widget of `gui` that has a SlicerParameterName; gives no tag back, as in Slicer 5.8."""
        from .qt_widgets import childrenWithProperty

        self.connectParametersToGui({name: widget for widget, name in childrenWithProperty(gui, PARAMETER_PROPERTY)})

    def connectParametersToGui(self, mapping) -> int:
        """Binds each widget to the parameter of its name; an unknown name is an error, as in Slicer."""
        from .qt_widgets import connectorFor

        connectors = []
        for name, widget in mapping.items():
            connector = connectorFor(widget, self.allParameters[name])
            connector.write(self.getValue(name))
            connector.connect(lambda name=name, connector=connector: self._fromGui(name, connector))
            connectors.append((name, connector))
        self._tags += 1
        tag = self._tags
        self._guis[tag] = connectors
        self._observer = self.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda caller, event: self._toGui())
        return tag

    def disconnectGui(self, tag: int | None) -> None:
        for _name, connector in self._guis.pop(tag, []):
            connector.disconnect()

    def _fromGui(self, name: str, connector) -> None:
        if not self._updatingGui:
            self.setValue(name, connector.read())

    def _toGui(self) -> None:
        if self._updatingGui:
            return
        self._updatingGui = True
        try:
            for connectors in self._guis.values():
                for name, connector in connectors:
                    connector.write(self.getValue(name))
        finally:
            self._updatingGui = False


def parameterNodeWrapper(classType):
    """Turns annotated attributes into properties that live in a parameter node."""
    hints = typing.get_type_hints(classType, include_extras=True)
    if taken := sorted(set(hints) & RESERVED):
        raise ValueError(f"reserved names: {', '.join(taken)}")
    parameters = {name: _Parameter(name, hint, getattr(classType, name, None)) for name, hint in hints.items()}
    members = {"__doc__": classType.__doc__, "__module__": classType.__module__, "allParameters": parameters}
    return type(classType.__name__, (_Wrapper,), members | {name: _property(name) for name in parameters})
