"""What the user can set, as plain typed values: no node, no widget and no torch is needed to read this file."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace

from diffus.data import probe_presets
from diffus.render.settings import PaperArtefacts, RenderSettings, make_settings
from diffus.settings import PROBE, declared

from ..declared import attributes, engineValues, plainClass, ranges, sceneName, sceneValues
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


class ImagePreset(enum.Enum):
    """The engine's looks of an image by name; CUSTOM is what the user has changed by hand."""

    DEFAULT = "default"
    PAPER = "paper"
    NEURO = "neuro"
    ABDOMEN = "abdomen"
    CARDIAC = "cardiac"
    VASCULAR = "vascular"
    CUSTOM = "custom"

    def label(self) -> str:
        return {
            ImagePreset.DEFAULT: _("Standard"),
            ImagePreset.PAPER: _("As published (linear, with artefacts)"),
            ImagePreset.NEURO: _("Neuro"),
            ImagePreset.ABDOMEN: _("Abdomen"),
            ImagePreset.CARDIAC: _("Cardiac"),
            ImagePreset.VASCULAR: _("Vascular"),
            ImagePreset.CUSTOM: _("Custom"),
        }[self]


class Compression(enum.Enum):
    """How the strength of an echo becomes brightness."""

    LOG = "log"
    LINEAR = "linear"

    def label(self) -> str:
        return {Compression.LOG: _("Logarithmic"), Compression.LINEAR: _("Linear (as published)")}[self]


class CompareMode(enum.Enum):
    """How a real and a simulated frame are shown together."""

    BLENDED = "blended"
    SIDE_BY_SIDE = "side-by-side"

    def label(self) -> str:
        return {
            CompareMode.BLENDED: _("Blended"),
            CompareMode.SIDE_BY_SIDE: _("Side by side"),
        }[self]


class AModeAxis(enum.Enum):
    """Against what the echo of the A-mode line is drawn."""

    DEPTH = "depth"
    TIME = "time"

    def label(self) -> str:
        return {AModeAxis.DEPTH: _("Depth, mm"), AModeAxis.TIME: _("Time, there and back, us")}[self]


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


IMAGE = declared(RenderSettings)
# What the panel allows, (lowest, highest) by attribute.
RANGES = {**ranges(PROBE), **ranges(IMAGE), "compareFade": (0.0, 1.0), "aModeLateralMm": (-100.0, 100.0)}

# What the first preset's type does not have begins with some number too.
_STARTS = {"width_mm": 40.0, **probe_presets()[ProbePreset.CRANIOTOMY_CONVEX.value]["probe"]}

# The probe in physical units; the defaults are those of the first preset.
ProbeSettings = plainClass(
    "ProbeSettings",
    __name__,
    [("probeType", ProbeType, ProbeType(_STARTS["type"])), *attributes(PROBE, _STARTS)],
)

# The scene's choices for settings that are text.
IMAGE_ENUMS = {"echo": EchoModel, "compression": Compression}

# How the echo becomes an image; the defaults are the engine's. The paper's artefacts are there, or they are not.
ImageSettings = plainClass(
    "ImageSettings", __name__, [*attributes(IMAGE, enums=IMAGE_ENUMS), ("paperArtefacts", bool, False)]
)

# Of the patient and the pattern, not of the look: no preset writes them, and changing them leaves it what it is.
NOT_OF_THE_LOOK = ("start_depth_mm", "seed")


@dataclass(frozen=True)
class RenderParameters:
    """Everything that decides how a slice looks, apart from the patient and the pose."""

    probe: ProbeSettings = field(default_factory=ProbeSettings)
    image: ImageSettings = field(default_factory=ImageSettings)


def readParameters(parameterNode) -> RenderParameters:
    """The settings that a parameter node holds at this moment."""
    return RenderParameters(readProbe(parameterNode), _read(ImageSettings, parameterNode))


def readProbe(parameterNode) -> ProbeSettings:
    """The probe alone."""
    return _read(ProbeSettings, parameterNode)


def mediumInputs(parameterNode) -> tuple:
    """What `MediumCache.medium` takes, of a parameter node."""
    node = parameterNode
    return node.inputVolume, node.kind, node.mask, node.device, node.addedSegmentation, node.tissueTable


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
    requireAllowed(vars(probe))
    for one in fields(probe):
        setattr(parameterNode, one.name, getattr(probe, one.name))


def requireAllowed(values: Mapping[str, object]) -> None:
    """Raises RenderError unless the panel allows these values, by attribute."""
    for name in values.keys() & RANGES.keys():
        low, high = RANGES[name]
        if not low <= values[name] <= high:
            raise RenderError(
                _("{name} is {value}; the panel allows {low} to {high}.").format(
                    name=name, value=values[name], low=low, high=high
                )
            )


def imageValues(image: ImageSettings) -> dict[str, object]:
    """The engine's settings by name."""
    return {**engineValues(image, IMAGE), "artefacts": PaperArtefacts() if image.paperArtefacts else None}


def readLook(parameterNode) -> ImageSettings:
    """What an image preset decides of the settings that a parameter node holds at this moment."""
    kept = {name: getattr(ImageSettings(), name) for name in map(sceneName, NOT_OF_THE_LOOK)}
    return replace(_read(ImageSettings, parameterNode), **kept)


def presetLook(preset: ImagePreset) -> dict[str, object]:
    """The attributes that an image preset writes, with their values."""
    settings = make_settings(preset.value)
    names = [name for name in IMAGE if name not in NOT_OF_THE_LOOK]
    values = sceneValues({name: getattr(settings, name) for name in names}, IMAGE, IMAGE_ENUMS)
    return {**values, "paperArtefacts": settings.artefacts is not None}


def missingInput(parameterNode) -> str:
    """What must still be chosen before a slice can be rendered, in one sentence; empty if nothing is missing."""
    if parameterNode is None or parameterNode.inputVolume is None:
        return _("Choose a volume (MRI, CT) or a segmentation.")
    if parameterNode.probeTransform is None:
        return _("Choose the probe's transform, or create a probe.")
    return ""


def missingForMatch(parameterNode) -> str:
    """What must still be chosen before the appearance can be matched, in one sentence; empty if nothing is missing."""
    if parameterNode is None or parameterNode.inputVolume is None:
        return _("Choose a volume (MRI, CT) or a segmentation.")
    if parameterNode.realImage is None:
        return _("Choose a real ultrasound image under Inputs.")
    return ""


def missingForComparison(parameterNode) -> str:
    """What must still be chosen before a real frame can be compared, in one sentence; empty if nothing is missing."""
    if missing := missingForMatch(parameterNode):
        return missing
    if parameterNode.compareView is None:
        return _("Choose the slice view that shows the comparison.")
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
    return settingsClass(**{one.name: getattr(parameterNode, one.name) for one in fields(settingsClass)})
