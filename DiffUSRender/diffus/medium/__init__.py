"""Acoustic media from CT, MRI and segmentations."""

from .ct import SCANNERS
from .impedance import ImpedanceMLP, TrainingStep, load_impedance, reference_points, save_impedance, train_impedance
from .medium import CHANNELS, GEL, AcousticMedium
from .mri import IntensityScale, fit_intensity_scale, foreground_mask, normalise, tissue_memberships
from .tissue import LABEL_TABLES, Tissue, TissueTable, label_table, tissue_table

__all__ = [
    "CHANNELS",
    "GEL",
    "LABEL_TABLES",
    "SCANNERS",
    "AcousticMedium",
    "ImpedanceMLP",
    "IntensityScale",
    "Tissue",
    "TissueTable",
    "TrainingStep",
    "fit_intensity_scale",
    "foreground_mask",
    "label_table",
    "load_impedance",
    "normalise",
    "reference_points",
    "save_impedance",
    "tissue_memberships",
    "tissue_table",
    "train_impedance",
]
