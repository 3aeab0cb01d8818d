"""Acoustic media from CT, MRI and segmentations."""

from .ct import SCANNERS
from .impedance import ImpedanceMLP, TrainingStep, load_impedance, reference_points, save_impedance, train_impedance
from .medium import CHANNELS, GEL, AcousticMedium
from .mri import IntensityScale, fit_intensity_scale, foreground_mask, normalise, tissue_memberships
from .tissue import (
    LABEL_TABLES,
    TISSUE_TABLES,
    Tissue,
    TissueTable,
    label_table,
    labels_with_tissues,
    named_tissues,
    tissue_table,
)

__all__ = [
    "CHANNELS",
    "GEL",
    "LABEL_TABLES",
    "SCANNERS",
    "TISSUE_TABLES",
    "AcousticMedium",
    "ImpedanceMLP",
    "IntensityScale",
    "Tissue",
    "TissueTable",
    "TrainingStep",
    "fit_intensity_scale",
    "foreground_mask",
    "label_table",
    "labels_with_tissues",
    "load_impedance",
    "named_tissues",
    "normalise",
    "reference_points",
    "save_impedance",
    "tissue_memberships",
    "tissue_table",
    "train_impedance",
]
