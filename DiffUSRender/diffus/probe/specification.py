"""Probe files: a probe as a flat JSON object in physical units."""

from __future__ import annotations

import json
from dataclasses import MISSING, fields
from pathlib import Path

from torch import Tensor

from ..errors import InputError, _
from .probe import ConvexProbe, LinearProbe, PhasedProbe, Probe

_CLASSES = {probe.type: probe for probe in (ConvexProbe, LinearProbe, PhasedProbe)}


def probe_to_dict(probe: Probe) -> dict[str, object]:
    """The probe as plain numbers: `type` and every field; tensors become floats."""
    values = {field.name: getattr(probe, field.name) for field in fields(probe)}
    plain = {name: value.item() if isinstance(value, Tensor) else value for name, value in values.items()}
    return {"type": probe.type, **plain}


def probe_from_dict(specification: object) -> Probe:
    """The probe of a dictionary.

    Args:
        specification: As `probe_to_dict` writes it; fields with a default may be left out.

    Raises:
        InputError: No dictionary, an unknown, misplaced or missing key, or a value out of range.
    """
    if not isinstance(specification, dict):
        raise InputError(_("A probe specification must be a JSON object of names and numbers."))
    probe_type = specification.get("type")
    if not isinstance(probe_type, str) or probe_type not in _CLASSES:
        raise InputError(
            _("The probe's type is {probe_type!r}; choose one of {names}."),
            probe_type=probe_type,
            names=", ".join(_CLASSES),
        )
    probe_class = _CLASSES[probe_type]
    known = {field.name: field for field in fields(probe_class)}
    given = {name: value for name, value in specification.items() if name != "type"}

    everywhere = {field.name for each in _CLASSES.values() for field in fields(each)}
    if unknown := sorted(map(str, given.keys() - everywhere)):
        raise InputError(
            _("Unknown probe keys {names}; the known ones are type, {known}."),
            names=", ".join(unknown),
            known=", ".join(known),
        )
    if misplaced := sorted(given.keys() - known.keys()):
        raise InputError(
            _("A {probe_type} probe has no {names}; the known keys are type, {known}."),
            probe_type=probe_type,
            names=", ".join(misplaced),
            known=", ".join(known),
        )
    required = [name for name, field in known.items() if field.default is MISSING]
    if missing := [name for name in required if name not in given]:
        raise InputError(_("A {probe_type} probe also needs {names}."), probe_type=probe_type, names=", ".join(missing))
    return probe_class(**given)


def read_probe_json(path: str | Path) -> Probe:
    """The probe of a JSON file, also of one that `fit` wrote.

    Raises:
        InputError: The file is absent, is not JSON or holds no valid probe.
    """
    try:
        specification = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            _("The probe file {path} cannot be read: {strerror}."), path=path, strerror=error.strerror
        ) from error
    except (ValueError, RecursionError) as error:
        raise InputError(_("The probe file {path} is not valid JSON: {error}."), path=path, error=error) from error
    if isinstance(specification, dict) and isinstance(specification.get("probe"), dict):
        specification = specification["probe"]
    return probe_from_dict(specification)


def write_probe_json(probe: Probe, path: str | Path) -> None:
    """Writes the probe so that `read_probe_json` gives it back.

    Raises:
        InputError: The file cannot be written.
    """
    text = json.dumps(probe_to_dict(probe), indent=2) + "\n"
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(
            _("The probe file {path} cannot be written: {strerror}."), path=path, strerror=error.strerror
        ) from error
