"""What the user can set, as plain typed values: no node, no widget and no engine is needed to read this file."""

from __future__ import annotations

import enum
from dataclasses import dataclass, fields

from ..errors import RenderError
from ..i18n import _


class ProbeType(enum.Enum):
    """Shape of the transducer array."""

    CONVEX = "convex"
    LINEAR = "linear"
    PHASED = "phased"

    def label(self) -> str:
        return {
            ProbeType.CONVEX: _("Convex"),
            ProbeType.LINEAR: _("Linear"),
            ProbeType.PHASED: _("Phased (sector)"),
        }[self]


class ProbePreset(enum.Enum):
    """The engine's presets by name; CUSTOM is what the user has changed by hand."""

    CRANIOTOMY_CONVEX = "craniotomy-convex"
    ABDOMINAL_CONVEX = "abdominal-convex"
    ABDOMINAL_CONVEX_60 = "abdominal-convex-60"
    LINEAR = "linear"
    PHASED = "phased"
    ENDOCAVITY = "endocavity"
    CUSTOM = "custom"

    def label(self) -> str:
        return {
            ProbePreset.CRANIOTOMY_CONVEX: _("Craniotomy, convex"),
            ProbePreset.ABDOMINAL_CONVEX: _("Abdominal, convex 50 mm"),
            ProbePreset.ABDOMINAL_CONVEX_60: _("Abdominal, convex 60 mm"),
            ProbePreset.LINEAR: _("Linear"),
            ProbePreset.PHASED: _("Phased array"),
            ProbePreset.ENDOCAVITY: _("Endocavity, micro-convex"),
            ProbePreset.CUSTOM: _("Custom"),
        }[self]


class EchoModel(enum.Enum):
    """How sound is followed through the layers of tissue."""

    TRANSMISSION = "transmission"
    LAYERED = "layered"
    REVERBERATION = "reverberation"

    def label(self) -> str:
        return {
            EchoModel.TRANSMISSION: _("Transmission (standard)"),
            EchoModel.LAYERED: _("Layered (as published)"),
            EchoModel.REVERBERATION: _("Reverberation (multiple echoes)"),
        }[self]


class CompareMode(enum.Enum):
    """How a real and a simulated frame are shown together."""

    BLENDED = "blended"
    SIDE_BY_SIDE = "side-by-side"

    def label(self) -> str:
        return {
            CompareMode.BLENDED: _("Blended"),
            CompareMode.SIDE_BY_SIDE: _("Side by side"),
        }[self]


class ExportFormat(enum.Enum):
    """What a simulation is exported as."""

    SCENE = "scene"
    NRRD = "nrrd"
    IGS = "igs"
    PNG = "png"
    GIF = "gif"
    MP4 = "mp4"
    DICOM = "dicom"

    def label(self) -> str:
        return {
            ExportFormat.SCENE: _("Sequence in the scene"),
            ExportFormat.NRRD: _("NRRD, with poses"),
            ExportFormat.IGS: _("PLUS sequence (.igs.mha)"),
            ExportFormat.PNG: _("PNG pictures"),
            ExportFormat.GIF: _("GIF film"),
            ExportFormat.MP4: _("MP4 film"),
            ExportFormat.DICOM: _("DICOM ultrasound"),
        }[self]


# name: (lowest, highest), in the unit that the name ends with
RANGES = {
    "frequencyMhz": (0.5, 20.0),
    "depthMm": (10.0, 300.0),
    "fovDeg": (10.0, 180.0),
    "radiusMm": (1.0, 150.0),
    "widthMm": (5.0, 150.0),
    "focusMm": (5.0, 300.0),
    "fNumber": (0.5, 10.0),
    "transmitFNumber": (0.5, 10.0),
    "elevationMm": (0.1, 20.0),
    "rays": (16, 1024),
    "samples": (32, 4096),
    "elevationLayers": (1, 15),
    "raysPerLine": (1, 32),
    "gainDb": (-60.0, 60.0),
    "dynamicRangeDb": (10.0, 120.0),
    "tgcDbPerCm": (0.0, 20.0),
    "noiseDb": (-120.0, 0.0),
    "reflectionDb": (-40.0, 100.0),
    "specularExponent": (0.0, 16.0),
    "startDepthMm": (0.0, 100.0),
    "seed": (0, 9999),
    "compareFade": (0.0, 1.0),
}


@dataclass(frozen=True)
class ProbeSettings:
    """The probe in physical units; the defaults are those of the preset `craniotomy-convex`."""

    probeType: ProbeType = ProbeType.CONVEX
    frequencyMhz: float = 8.0
    depthMm: float = 70.0
    fovDeg: float = 70.0
    radiusMm: float = 20.0
    widthMm: float = 40.0
    focusMm: float = 35.0
    fNumber: float = 2.0
    transmitFNumber: float = 4.0
    elevationMm: float = 2.0
    rays: int = 192
    samples: int = 400
    elevationLayers: int = 1
    raysPerLine: int = 1


@dataclass(frozen=True)
class ImageSettings:
    """How the echo becomes an image."""

    echoModel: EchoModel = EchoModel.TRANSMISSION
    gainDb: float = 0.0
    dynamicRangeDb: float = 60.0
    automaticTgc: bool = True
    tgcDbPerCm: float = 5.0
    speckle: bool = True
    noise: bool = True
    noiseDb: float = -65.0
    reflectionDb: float = 57.0
    specularExponent: float = 0.0
    startDepthMm: float = 0.0
    seed: int = 0


@dataclass(frozen=True)
class RenderParameters:
    """Everything that decides how a slice looks, apart from the patient and the pose."""

    probe: ProbeSettings = ProbeSettings()
    image: ImageSettings = ImageSettings()


def readParameters(parameterNode) -> RenderParameters:
    """The settings that a parameter node holds at this moment."""
    return RenderParameters(_read(ProbeSettings, parameterNode), _read(ImageSettings, parameterNode))


class ParameterReader:
    """`readParameters`, which takes long, once for every change of the node: for what is done at every frame."""

    def __init__(self) -> None:
        self._key: tuple | None = None
        self._parameters = RenderParameters()

    def __call__(self, parameterNode) -> RenderParameters:
        node = parameterNode.parameterNode
        key = (node, node.GetMTime())
        if key != self._key:
            self._parameters, self._key = readParameters(parameterNode), key
        return self._parameters

    def forget(self) -> None:
        """Drops the node."""
        self._key = None


def writeProbe(parameterNode, probe: ProbeSettings) -> None:
    """Writes the probe's numbers into a parameter node; raises RenderError, and writes none, if one is out of range."""
    for field in fields(probe):
        low, high = RANGES.get(field.name, (None, None))
        value = getattr(probe, field.name)
        if low is not None and not low <= value <= high:
            raise RenderError(
                _("The probe's {name} is {value}; choose {low} to {high}.").format(
                    name=field.name, value=value, low=low, high=high
                )
            )
    for field in fields(probe):
        setattr(parameterNode, field.name, getattr(probe, field.name))


def missingInput(parameterNode) -> str:
    """What must still be chosen before a slice can be rendered, in one sentence; empty if nothing is missing."""
    if parameterNode is None or parameterNode.inputVolume is None:
        return _("Choose a volume (MRI, CT) or a segmentation.")
    if parameterNode.probeTransform is None:
        return _("Choose the probe's transform, or create a probe.")
    return ""


def missingForComparison(parameterNode) -> str:
    """What must still be chosen before a real frame can be compared, in one sentence; empty if nothing is missing."""
    if parameterNode is None or parameterNode.inputVolume is None:
        return _("Choose a volume (MRI, CT) or a segmentation.")
    if parameterNode.realImage is None:
        return _("Choose a real ultrasound image under Inputs.")
    if parameterNode.compareView is None:
        return _("Choose the slice view that shows the comparison.")
    return ""


def missingForMatch(parameterNode) -> str:
    """What must still be chosen before the appearance can be matched, in one sentence; empty if nothing is missing."""
    if parameterNode is None or parameterNode.inputVolume is None:
        return _("Choose a volume (MRI, CT) or a segmentation.")
    if parameterNode.realImage is None:
        return _("Choose a real ultrasound image under Inputs.")
    return ""


def missingForExport(parameterNode) -> str:
    """What must still be chosen before an export can begin, in one sentence; empty if nothing is missing."""
    if missing := missingInput(parameterNode):
        return missing
    kind, single = parameterNode.exportFormat, parameterNode.exportBrowser is None
    if single and kind is ExportFormat.SCENE:
        return _("Choose a recording: a single slice is in the scene already, by Apply.")
    if single and kind in (ExportFormat.GIF, ExportFormat.MP4):
        return _("A film needs a recording: choose the sequence that moves the probe.")
    if kind is not ExportFormat.SCENE and not parameterNode.exportPath.strip():
        return _("Choose the file to write.")
    return ""


def _read(settingsClass: type, parameterNode):
    return settingsClass(**{field.name: getattr(parameterNode, field.name) for field in fields(settingsClass)})
