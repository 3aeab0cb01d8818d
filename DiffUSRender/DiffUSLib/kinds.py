"""What the voxels of a volume mean."""

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
