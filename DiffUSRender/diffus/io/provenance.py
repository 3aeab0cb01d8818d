"""Where a result comes from: version, inputs with checksums, settings; in the header of whatever is written."""

from __future__ import annotations

import hashlib
import json
import math
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from .. import __version__

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    Provenance = Mapping[str, object]

KEY = "DiffUS_Provenance"  # of headers, and of the text chunks of PNG
KIND_KEY = "DiffUS_Image"
SIMULATED = "SIMULATED: not for clinical decisions"


def provenance(inputs: Mapping[str, str | os.PathLike | None], **facts: object) -> Provenance:
    """What a file of results says of itself.

    Args:
        inputs: Files that were read, by what they were read as; None and what is no file (a preset) are left out.
        facts: What else was chosen: settings, probe, seed, ...; plain values, lists and dictionaries of them.

    Returns:
        software, made (UTC), inputs {what: {name, sha256}} without folders, and the facts.
    """
    read = {what: Path(path) for what, path in inputs.items() if path and Path(path).is_file()}
    return {
        "software": f"DiffUS {__version__}",
        "made": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "inputs": {what: {"name": path.name, "sha256": checksum(path)} for what, path in read.items()},
        **_plain(facts),
    }


def checksum(path: str | os.PathLike) -> str:
    """SHA-256 of a file, hexadecimal."""
    found = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            found.update(chunk)
    return found.hexdigest()


def without_names(made: Provenance) -> Provenance:
    """The same without the names of the inputs, which may be a patient's."""
    return {**made, "inputs": {what: {"sha256": one["sha256"]} for what, one in made.get("inputs", {}).items()}}


def provenance_text(made: Provenance) -> str:
    """One line of ASCII JSON."""
    return json.dumps(made, separators=(",", ":"))


def header_keys(made: Provenance | None) -> dict[str, str]:
    """The keys of a simulated image's header."""
    return {KIND_KEY: SIMULATED} | ({} if made is None else {KEY: provenance_text(made)})


def _plain(value: object) -> object:
    """Tensors and numpy numbers as plain ones, NaN as None, other objects as text."""
    if isinstance(value, dict):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)
