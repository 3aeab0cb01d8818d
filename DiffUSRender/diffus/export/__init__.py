"""Simulated slices, sweeps and acoustic maps as files that other programs take.

`export(frames, path)` chooses the format by the ending: one slice or a sweep as NRRD, `.igs.mha`, PNG, GIF, MP4 or
DICOM. It is an iterator that yields the number of frames done; the file is there when it has ended, and not before.
"""

from .a_mode import A_MODE_SUFFIXES, write_a_mode
from .formats import FORMATS, export, format_of
from .frames import SimulatedFrames, probe_poses, render_frame
from .maps import write_maps
from .ultrasound_dicom import DicomOptions, ultrasound_dataset

__all__ = [
    "A_MODE_SUFFIXES",
    "FORMATS",
    "DicomOptions",
    "SimulatedFrames",
    "export",
    "format_of",
    "probe_poses",
    "render_frame",
    "ultrasound_dataset",
    "write_a_mode",
    "write_maps",
]
