"""The patient in the 3-D views, around the slice: a translucent surface, or Slicer's volume rendering."""

from __future__ import annotations

import slicer

from ..errors import RenderError
from ..i18n import _
from ..kinds import MediumKind, PatientDisplay
from .surface import BodySurface
from .voxels import contentStamp, guessKind

MADE_ATTRIBUTE = "DiffUSRender.PatientDisplay"  # of what was made for the view, and goes with it
COLOR, OPACITY = (0.85, 0.70, 0.60), 0.3
# Presets of Slicer's module Volume Rendering.
PRESETS = {MediumKind.CT: "CT-Bones", MediumKind.MRI: "MR-Default", MediumKind.MRI_T2: "MR-T2-Brain"}


class PatientView:
    """Shows the patient in 3-D as it is told; what the scene had before is given back."""

    def __init__(self) -> None:
        self._key: tuple | None = None
        self._model = None
        self._rendering = None

    def update(self, volume, kind: MediumKind, display: PatientDisplay) -> None:
        """Shows a volume or segmentation node, or nothing for None; nothing happens where it is shown already.

        Raises:
            RenderError: for a node without voxels, or one that cannot be shown so.
        """
        if volume is None or display is PatientDisplay.HIDDEN:
            self.hide()
            return
        kind = guessKind(volume) if kind is MediumKind.AUTO else kind
        key = (volume.GetID(), kind, display, volume.GetTransformNodeID(), *contentStamp(volume))
        if key == self._key:
            return
        self.hide()
        self._key = key  # what is refused is not tried again until something has changed
        if display is PatientDisplay.SURFACE:
            self._model = _surfaceModel(volume, kind)
        else:
            self._rendering = _volumeRendering(volume, kind)

    def takeClicks(self, taken: bool) -> None:
        """Whether a click in 3-D meets the surface, or what lies within it."""
        if self._model is not None:
            self._model.SetSelectable(taken)

    def hide(self) -> None:
        """Takes the surface away, and gives volume rendering back as it was found."""
        if self._model is not None and self._model.GetScene() is not None:
            self._model.GetScene().RemoveNode(self._model)
        if self._rendering is not None and self._rendering.GetScene() is not None:
            _removeRendering(self._rendering)
        self.forget()

    def forget(self) -> None:
        """Drops every node without touching it, for a scene that closes."""
        self._key = self._model = self._rendering = None


def _surfaceModel(volume, kind: MediumKind):
    """A translucent model of the body's surface, beside the volume; it is not saved, but made again."""
    surface = BodySurface(volume, kind).polyData()
    scene = volume.GetScene()
    name = scene.GenerateUniqueName(_("{name} surface").format(name=volume.GetName()))
    model = scene.AddNewNodeByClass("vtkMRMLModelNode", name)
    model.SetAndObservePolyData(surface)
    model.SetAndObserveTransformNodeID(volume.GetTransformNodeID())
    model.SetSelectable(False)  # a click places points on what lies within
    model.CreateDefaultDisplayNodes()
    display = model.GetDisplayNode()
    display.SetColor(*COLOR)
    display.SetOpacity(OPACITY)
    display.SetVisibility2D(False)
    for saved in (model, display):
        saved.SetSaveWithScene(False)
    return model


def _volumeRendering(volume, kind: MediumKind):
    """The volume's rendering in 3-D, made visible; None where it was visible already."""
    if kind is MediumKind.LABELS or volume.IsA("vtkMRMLSegmentationNode"):
        raise RenderError(_("A segmentation cannot be shown by volume rendering; choose its surface."))
    module = getattr(getattr(slicer, "modules", None), "volumerendering", None)
    if module is None:
        raise RenderError(_("Slicer's module Volume Rendering is not there; choose the surface."))
    logic = module.logic()
    display = logic.GetFirstVolumeRenderingDisplayNode(volume)
    if display is None:
        display = logic.CreateDefaultVolumeRenderingNodes(volume)
        display.SetAttribute(MADE_ATTRIBUTE, "1")
        if preset := logic.GetPresetByName(PRESETS[kind]):
            display.GetVolumePropertyNode().Copy(preset)
    elif display.GetVisibility() and display.GetAttribute(MADE_ATTRIBUTE) is None:
        return None
    display.SetVisibility(True)
    return display


def _removeRendering(display) -> None:
    if display.GetAttribute(MADE_ATTRIBUTE) is None:
        display.SetVisibility(False)
        return
    scene = display.GetScene()
    for node in (display, display.GetVolumePropertyNode()):
        if node is not None:
            scene.RemoveNode(node)
