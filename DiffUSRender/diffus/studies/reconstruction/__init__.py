"""A volume from tracked slices: by back-propagation through the renderer, and by compounding, to compare with."""

from .compounding import compound
from .evaluation import METHODS, HeldOutExperiment, HeldOutScores, held_out_frames, resliced
from .grid import VoxelGrid, grid_around
from .inversion import ReconstructionState, VolumeReconstruction, medium_on_grid, uniform_maps

__all__ = [
    "METHODS",
    "HeldOutExperiment",
    "HeldOutScores",
    "ReconstructionState",
    "VolumeReconstruction",
    "VoxelGrid",
    "compound",
    "grid_around",
    "held_out_frames",
    "medium_on_grid",
    "resliced",
    "uniform_maps",
]
