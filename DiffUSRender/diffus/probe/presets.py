"""Probes by name, with the makers' public data where there are any; the sources stand in data/probes.json."""

from __future__ import annotations

from ..data import probe_presets
from ..errors import InputError, _
from .probe import Probe
from .specification import probe_from_dict


def preset_names() -> tuple[str, ...]:
    """Names that `probe_preset` knows."""
    return tuple(probe_presets())


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
    presets = probe_presets()
    if name not in presets:
        raise InputError(
            _("There is no probe preset '{name}'; choose one of {names}."), name=name, names=", ".join(presets)
        )
    return presets[name]
