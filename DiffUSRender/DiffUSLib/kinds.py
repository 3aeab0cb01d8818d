"""Choices of the scene that belong to no module's settings."""

from __future__ import annotations

import enum

from .i18n import _


class MediumKind(enum.Enum):
    """What the voxels of the input mean."""

    AUTO = "auto"
    MRI = "mri"
    MRI_T2 = "mri-t2"
    CT = "ct"
    LABELS = "labels"

    def label(self) -> str:
        return {
            MediumKind.AUTO: _("Automatic"),
            MediumKind.MRI: _("MRI, T1-weighted"),
            MediumKind.MRI_T2: _("MRI, T2-weighted"),
            MediumKind.CT: _("CT"),
            MediumKind.LABELS: _("Segmentation"),
        }[self]


class Device(enum.Enum):
    """Where torch computes; AUTO is a CUDA GPU where there is one, else the CPU."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"
    MPS = "mps"

    def label(self) -> str:
        return {
            Device.AUTO: _("Automatic"),
            Device.CPU: _("CPU"),
            Device.CUDA: _("NVIDIA GPU (CUDA)"),
            Device.MPS: _("Apple GPU (MPS)"),
        }[self]


class TissueTable(enum.Enum):
    """Whose acoustic properties the tissues have; the engine's tables by name."""

    DIFFUS = "diffus"
    SEED = "seed"

    def label(self) -> str:
        return {
            TissueTable.DIFFUS: _("DiffUS"),
            TissueTable.SEED: _("Impedances as published"),
        }[self]


class PatientDisplay(enum.Enum):
    """How the patient is shown in the 3-D views, around the slice."""

    HIDDEN = "hidden"
    SURFACE = "surface"
    VOLUME_RENDERING = "volume-rendering"

    def label(self) -> str:
        return {
            PatientDisplay.HIDDEN: _("Not shown"),
            PatientDisplay.SURFACE: _("Surface"),
            PatientDisplay.VOLUME_RENDERING: _("Volume rendering"),
        }[self]
