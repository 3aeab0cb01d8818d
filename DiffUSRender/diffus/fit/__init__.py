"""Fitting through the renderer: acquisition, tissues and the impedance network to an aligned sweep."""

from .appearance import AppearanceFit
from .media import FittableMedium, fixed_medium, label_medium, mri_medium
from .parameters import ACQUISITION, GROUPS, TISSUE_CHANNELS, chosen_parameters
from .result import FitResult, FitState

__all__ = [
    "ACQUISITION",
    "GROUPS",
    "TISSUE_CHANNELS",
    "AppearanceFit",
    "FitResult",
    "FitState",
    "FittableMedium",
    "chosen_parameters",
    "fixed_medium",
    "label_medium",
    "mri_medium",
]
