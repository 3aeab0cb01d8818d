"""What the user can set, as plain typed values: no node, no widget and no torch is needed to read this file."""

from __future__ import annotations

import enum
from dataclasses import fields

from diffus.settings import SEARCH_SEED, SearchBounds, declared

from ..declared import attributes, plainClass, ranges
from ..i18n import _
from ..kinds import Device


class VolumeSource(enum.Enum):
    """What of the MRI or CT is compared with the ultrasound."""

    RAW = "raw"
    MEDIUM = "medium"

    def label(self) -> str:
        return {
            VolumeSource.RAW: _("Voxels as they are (standard)"),
            VolumeSource.MEDIUM: _("Acoustic impedance"),
        }[self]


class StartFrom(enum.Enum):
    """Where the search begins."""

    PRESENT = "present"
    TRANSFORM = "transform"
    LANDMARKS = "landmarks"

    def label(self) -> str:
        return {
            StartFrom.PRESENT: _("Present position of the volume"),
            StartFrom.TRANSFORM: _("Transform"),
            StartFrom.LANDMARKS: _("Landmark pairs"),
        }[self]


class OverlayMode(enum.Enum):
    """How MRI/CT and ultrasound are shown together on the frame."""

    FADE = "fade"
    CHECKERBOARD = "checkerboard"
    OFF = "off"

    def label(self) -> str:
        return {
            OverlayMode.FADE: _("Fade"),
            OverlayMode.CHECKERBOARD: _("Checkerboard"),
            OverlayMode.OFF: _("Off"),
        }[self]


class ShownPose(enum.Enum):
    """Which position of the MRI/CT the overlay shows."""

    BEFORE = "before"
    AFTER = "after"

    def label(self) -> str:
        return {ShownPose.BEFORE: _("Before"), ShownPose.AFTER: _("After")}[self]


_SEARCH = {**declared(SearchBounds), "seed": SEARCH_SEED}
# What the panel allows, (lowest, highest) by attribute.
RANGES = {
    **ranges(_SEARCH),
    "maximumFrames": (1, 2000),
    "fade": (0.0, 1.0),
    "checkerMm": (1.0, 50.0),
    "frameNumber": (-1, 100000),  # -1: the middle one
}

# How the registration looks for the pose; of a sweep longer than maximumFrames so many, evenly spread, are read.
RegisterParameters = plainClass(
    "RegisterParameters",
    __name__,
    [*attributes(_SEARCH), ("maximumFrames", int, 200), ("device", Device, Device.AUTO)],
)


def readParameters(parameterNode) -> RegisterParameters:
    """The settings that a parameter node holds at this moment."""
    return RegisterParameters(
        **{field.name: getattr(parameterNode, field.name) for field in fields(RegisterParameters)}
    )


def missingInput(parameterNode) -> str:
    """What must still be chosen before the registration can run, in one sentence; empty if nothing is missing."""
    if parameterNode is None or parameterNode.inputVolume is None:
        return _("Choose a volume (MRI, CT) or a segmentation.")
    if parameterNode.ultrasound is None:
        return _("Choose the tracked ultrasound: a sequence browser, an image sequence or a volume.")
    if parameterNode.ultrasound.GetID() == parameterNode.inputVolume.GetID():
        return _("The volume and the ultrasound are the same node: choose another volume or another ultrasound.")
    points = (parameterNode.volumeLandmarks, parameterNode.ultrasoundLandmarks)
    if all(points) and points[0].GetID() == points[1].GetID():
        return _("The landmarks in the volume and in the ultrasound are one list: choose another for one of them.")
    if parameterNode.startFrom is StartFrom.TRANSFORM and parameterNode.initialTransform is None:
        return _("Choose the transform of the first guess, or start from the present position.")
    if parameterNode.startFrom is StartFrom.LANDMARKS and not all(points):
        return _("Choose the landmarks in the volume and in the ultrasound, or start from the present position.")
    return ""
