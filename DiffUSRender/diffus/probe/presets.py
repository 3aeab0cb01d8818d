"""Probes by name, with the makers' public data where there are any; the sources stand in data/probes.json."""

from __future__ import annotations

import json
from importlib.resources import files

from ..errors import InputError
from .probe import Probe
from .specification import probe_from_dict


def preset_names() -> tuple[str, ...]:
    """Names that `probe_preset` knows."""
    return tuple(_presets())


def probe_preset(name: str) -> Probe:
    """The probe of that name.

    Raises:
        InputError: There is none; lists the names.
    """
    return probe_from_dict(_preset(name)["probe"])


def preset_source(name: str) -> str:
    """Which transducer a preset resembles, and where its numbers come from.

    Raises:
        InputError: There is no such preset; lists the names.
    """
    preset = _preset(name)
    return f"{preset['like']}: {preset['source']}"


def _preset(name: str) -> dict:
    presets = _presets()
    if name not in presets:
        raise InputError(f"There is no probe preset '{name}'; choose one of {', '.join(presets)}.")
    return presets[name]


def _presets() -> dict[str, dict]:
    return json.loads(files("diffus").joinpath("data", "probes.json").read_text(encoding="utf-8"))
