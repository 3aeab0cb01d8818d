"""Tables and small trained weights, read with `importlib.resources`."""

import functools
import json
from importlib.resources import files


@functools.cache
def probe_presets() -> dict[str, dict]:
    """The probes by name: what each is like, the source of its numbers, and the numbers as in a probe file."""
    return json.loads(files("diffus").joinpath("data", "probes.json").read_text(encoding="utf-8"))
