"""Differentiable ultrasound from MRI or CT: medium + probe + pose -> B-mode image.

medium = AcousticMedium.from_ct(hu, ijk_to_ras)
image = UltrasoundRenderer(probe_preset("craniotomy-convex"))(medium, probe_to_ras)  # (B, rows, columns) in [0, 1]
"""

import importlib
from typing import TYPE_CHECKING

from .errors import InputError

if TYPE_CHECKING:
    from .medium import AcousticMedium
    from .probe import ConvexProbe, LinearProbe, PhasedProbe, Probe, probe_preset
    from .render.renderer import UltrasoundRenderer

__version__ = "0.1.0"

# What needs torch is loaded when it is asked for: Slicer reads the settings without it.
_HOMES = {
    "AcousticMedium": ".medium",
    "ConvexProbe": ".probe",
    "LinearProbe": ".probe",
    "PhasedProbe": ".probe",
    "Probe": ".probe",
    "UltrasoundRenderer": ".render.renderer",
    "probe_preset": ".probe",
}

__all__ = [
    "AcousticMedium",
    "ConvexProbe",
    "InputError",
    "LinearProbe",
    "PhasedProbe",
    "Probe",
    "UltrasoundRenderer",
    "probe_preset",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name], __name__), name)
