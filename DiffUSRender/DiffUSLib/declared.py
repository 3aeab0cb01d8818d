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
# that a panel begins with where the engine has none. Those without a name here are called after their number.
_SWITCHES = {
    "aperture_mm": ("automaticAperture", False, 20.0),
    "elevation_focus_mm": ("automaticElevationFocus", False, 35.0),
    "sheet_db": ("sheets", True, 0.0),
    "noise_db": ("noise", True, -65.0),
    "clutter_db": ("clutter", True, -36.0),
    "tgc_db_per_cm": ("automaticTgc", False, 5.0),
}


def sceneName(name: str) -> str:
    """The attribute of a setting: frequency_mhz is frequencyMhz."""
    head, *rest = name.split("_")
    return _NAMES.get(name, head + "".join(map(str.capitalize, rest)))


def ranges(declarations: Mapping[str, Setting]) -> dict[str, tuple[float, float]]:
    """What the panels allow, (lowest, highest) by attribute."""
    shown = {name: one for name, one in declarations.items() if one.panel and one.kind in (int, float)}
    return {sceneName(name): one.panel_range for name, one in shown.items()}


def attributes(
    declarations: Mapping[str, Setting],
    starts: Mapping[str, object] | None = None,
    enums: Mapping[str, type[enum.Enum]] | None = None,
) -> Iterator[tuple[str, type, object]]:
    """Attributes with type and default; also those that no panel shows, for a preset may write them.

    Args:
        declarations: settings by the engine's name.
        starts: what a panel begins with, where the engine has no default or another one.
        enums: the scene's choices for settings that are text.
    """
    for name, one in declarations.items():
        value, kind = (starts or {}).get(name, one.default), (enums or {}).get(name, one.kind)
        if one.optional:
            switch, on, number = _switch(name, one)
            yield switch, bool, (value is not None) == on
            value = number if value is None else value
        yield sceneName(name), kind, kind(value)


def hiddenNames(declarations: Mapping[str, Setting]) -> set[str]:
    """The attributes that no panel shows."""
    hidden = {name: one for name, one in declarations.items() if not one.panel}
    return {sceneName(name) for name in hidden} | {_switch(*one)[0] for one in hidden.items() if one[1].optional}


def plainClass(name: str, module: str, described: list[tuple[str, type, object]]) -> type:
    """A frozen dataclass of attributes with defaults."""
    return make_dataclass(name, described, frozen=True, namespace={"__module__": module})


def engineValues(values: object, declarations: Mapping[str, Setting]) -> dict[str, object]:
    """The settings by the engine's name of an object that has them as attributes."""
    found: dict[str, object] = {}
    for name, one in declarations.items():
        value = getattr(values, sceneName(name))
        if one.optional:
            switch, on, _number = _switch(name, one)
            value = value if getattr(values, switch) is on else None
        found[name] = value.value if isinstance(value, enum.Enum) else value
    return found


def sceneValues(
    values: Mapping[str, object],
    declarations: Mapping[str, Setting],
    enums: Mapping[str, type[enum.Enum]] | None = None,
) -> dict[str, object]:
    """Attributes of those settings, by the engine's name, that are given; a number that is none is left out."""
    found: dict[str, object] = {}
    for name, value in values.items():
        if name not in declarations:
            continue
        one = declarations[name]
        if one.optional:
            switch, on, _number = _switch(name, one)
            found[switch] = (value is not None) == on
        if value is not None:
            found[sceneName(name)] = (enums or {}).get(name, one.kind)(value)
    return found


def _switch(name: str, one: Setting) -> tuple[str, bool, object]:
    """The switch of a number that may be none, as in `_SWITCHES`."""
    start = min(max(one.low, 0.0), one.high) if one.default is None else one.default
    return _SWITCHES.get(name, (f"{sceneName(name)}Given", True, start))


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
