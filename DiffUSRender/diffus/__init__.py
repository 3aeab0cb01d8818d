"""Differentiable ultrasound from MRI or CT: medium + probe + pose -> B-mode image.

medium = AcousticMedium.from_ct(hu, ijk_to_ras)
image = UltrasoundRenderer(probe_preset("craniotomy-convex"))(medium, probe_to_ras)  # (B, rows, columns) in [0, 1]
"""

from .errors import InputError
from .medium import AcousticMedium
from .probe import ConvexProbe, LinearProbe, PhasedProbe, Probe, probe_preset
from .render.renderer import UltrasoundRenderer

__version__ = "0.1.0"

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
