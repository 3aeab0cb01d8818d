"""How real simulated frames look: acoustic windows, statistics of frames, and settings matched to real ones."""

from .matching import AppearanceMatch, MatchState, rocked
from .statistics import DISTANCES, STATISTICS, FrameDistances, FrameStatistics, frame_distances, frame_statistics
from .window import WINDOWS, Anatomy, acoustic_window

__all__ = [
    "DISTANCES",
    "STATISTICS",
    "WINDOWS",
    "Anatomy",
    "AppearanceMatch",
    "FrameDistances",
    "FrameStatistics",
    "MatchState",
    "acoustic_window",
    "frame_distances",
    "frame_statistics",
    "rocked",
]
