"""The engine's declared settings in the scene: plain values, and attributes of a parameter node.

An attribute is called as the setting, in camelCase. `diffus.settings` needs no torch: Slicer reads it at its start.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from dataclasses import fields, make_dataclass
from typing import Annotated

from diffus.settings import Setting

# Saved scenes hold these under other names.
_NAMES = {"echo": "echoModel"}
# A number that may be none is a switch beside a number: its name, what it reads where the number counts, and the number
# that a panel begins with where the engine has none.
_SWITCHES = {"noise_db": ("noise", True, -65.0), "tgc_db_per_cm": ("automaticTgc", False, 5.0)}


def sceneName(name: str) -> str:
    """The attribute of a setting: frequency_mhz is frequencyMhz."""
    head, *rest = name.split("_")
    return _NAMES.get(name, head + "".join(map(str.capitalize, rest)))


def panelSettings(declarations: Mapping[str, Setting]) -> dict[str, Setting]:
    """Those of some settings that the panels have."""
    return {name: one for name, one in declarations.items() if one.panel}


def ranges(declarations: Mapping[str, Setting]) -> dict[str, tuple[float, float]]:
    """What the panels allow, (lowest, highest) by attribute."""
    numbers = {name: one for name, one in panelSettings(declarations).items() if one.kind in (int, float)}
    return {sceneName(name): one.panel_range for name, one in numbers.items()}


def attributes(
    declarations: Mapping[str, Setting],
    starts: Mapping[str, object] | None = None,
    enums: Mapping[str, type[enum.Enum]] | None = None,
) -> Iterator[tuple[str, type, object]]:
    """Attributes with type and default.

    Args:
        declarations: settings by the engine's name.
        starts: what a panel begins with, where the engine has no default or another one.
        enums: the scene's choices for settings that are text.
    """
    for name, one in panelSettings(declarations).items():
        value, kind = (starts or {}).get(name, one.default), (enums or {}).get(name, one.kind)
        if name in _SWITCHES:
            switch, on, number = _SWITCHES[name]
            yield switch, bool, (value is not None) == on
            value = number if value is None else value
        yield sceneName(name), kind, kind(value)


def plainClass(name: str, module: str, described: list[tuple[str, type, object]]) -> type:
    """A frozen dataclass of attributes with defaults."""
    return make_dataclass(name, described, frozen=True, namespace={"__module__": module})


def engineValues(values: object, declarations: Mapping[str, Setting]) -> dict[str, object]:
    """The settings by the engine's name of an object that has them as attributes."""
    found = {name: getattr(values, sceneName(name)) for name in panelSettings(declarations)}
    for name, (switch, on, _number) in _SWITCHES.items():
        if name in found and getattr(values, switch) is not on:
            found[name] = None
    return {name: value.value if isinstance(value, enum.Enum) else value for name, value in found.items()}


def sceneValues(
    values: Mapping[str, object],
    declarations: Mapping[str, Setting],
    enums: Mapping[str, type[enum.Enum]] | None = None,
) -> dict[str, object]:
    """Attributes of those settings, by the engine's name, that the panels have; a number that is none is left out."""
    found: dict[str, object] = {}
    for name, one in panelSettings(declarations).items():
        if name not in values:
            continue
        if name in _SWITCHES:
            switch, on, _number = _SWITCHES[name]
            found[switch] = (values[name] is not None) == on
        if values[name] is not None:
            found[sceneName(name)] = (enums or {}).get(name, one.kind)(values[name])
    return found


def declaredParameters(limits: Mapping[str, tuple[float, float]], *plainClasses: type):
    """Gives a class the attributes of plain classes, for `parameterNodeWrapper`, which goes above it.

    Args:
        limits: (lowest, highest) by attribute.
        plainClasses: as `plainClass` makes them.
    """
    from slicer.parameterNodeWrapper import WithinRange

    def decorated(nodeClass: type) -> type:
        hints = dict(nodeClass.__annotations__)
        for one in (field for plain in plainClasses for field in fields(plain)):
            hints[one.name] = Annotated[one.type, WithinRange(*limits[one.name])] if one.name in limits else one.type
            setattr(nodeClass, one.name, one.default)
        nodeClass.__annotations__ = hints
        return nodeClass

    return decorated
