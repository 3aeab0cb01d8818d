"""Geometry of ultrasound probes: linear, convex and phased arrays, presets and probe files."""

from .presets import preset_names, preset_source, probe_preset
from .probe import ConvexProbe, LinearProbe, PhasedProbe, Probe, SliceGeometry
from .specification import probe_from_dict, probe_to_dict, read_probe_json, write_probe_json

__all__ = [
    "ConvexProbe",
    "LinearProbe",
    "PhasedProbe",
    "Probe",
    "SliceGeometry",
    "preset_names",
    "preset_source",
    "probe_from_dict",
    "probe_preset",
    "probe_to_dict",
    "read_probe_json",
    "write_probe_json",
]
