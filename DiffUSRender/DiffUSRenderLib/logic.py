"""What the module does, on nodes alone: render, follow the probe, place it, draw its fan, drive a slice view."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import slicer
import vtk

from . import engine
from .errors import RenderError
from .fan_model import createFanModel, updateFanModel
from .geometry import probeToVolume
from .i18n import _
from .live import LiveRendering
from .media import MediumCache
from .parameters import ProbePreset, ProbeSettings, RenderParameters, missingInput, readParameters, writeProbe
from .probe_nodes import SkinPointPicker, createProbe, createSkinPoint, placeAtSliceView, placeOnSkin
from .slice_node import createSliceNode, mayBeOverwritten, updateSliceNode
from .slice_view import SliceViewDriver
from .surface import BodySurface
from .torch_support import isTorchInstalled, requireTorch

Schedule = Callable[[Callable[[], None]], None]


class RenderLogic:
    """The scene layer. Inputs and settings come from a parameter node (`RenderParameterNode`, or alike by attribute).

    schedule: calls a function once, soon, from the application's event loop; Live needs it.
    onStatus: gets one sentence for the user, or "" after a frame that went well.
    Every method raises RenderError, with one sentence and nothing changed, for input that cannot be used.
    """

    def __init__(
        self, schedule: Schedule | None = None, onStatus: Callable[[str], None] = lambda sentence: None
    ) -> None:
        self.schedule, self.onStatus = schedule, onStatus
        self.live = LiveRendering(
            self._renderLive,
            self._watched,
            lambda call: self.schedule(call),
            lambda sentence: self.onStatus(sentence),
        )
        self._media = MediumCache()
        self._renderer = None
        self._rendererParameters: RenderParameters | None = None
        self._fanShape: tuple | None = None
        self._parameterNode = None
        self._picker: SkinPointPicker | None = None
        self._driver = SliceViewDriver()
        self._driven: tuple | None = None

    # --- one slice

    def render(self, parameterNode):
        """Renders the slice at the probe's present pose into the output node, made if there is none; returns it."""
        volume, probe, output = self._inputs(parameterNode)
        way = probeToVolume(probe, volume)
        requireTorch()
        renderer = self._rendererFor(readParameters(parameterNode))
        medium = self._media.medium(volume, parameterNode.kind)
        pixels = engine.renderPixels(renderer, medium, way)
        if output is None:
            output = createSliceNode(probe.GetScene())
            parameterNode.outputSlice = output
        updateSliceNode(output, pixels, engine.pixelToProbe(renderer.probe), probe)
        self.updateFan(parameterNode)
        self.updateDriving(parameterNode)
        return output

    def _inputs(self, parameterNode) -> tuple:
        if sentence := missingInput(parameterNode):
            raise RenderError(sentence)
        volume, output = parameterNode.inputVolume, parameterNode.outputSlice
        if output is not None and output.GetID() == volume.GetID():
            raise RenderError(_("The simulated slice cannot replace the input volume: choose another output."))
        if output is not None and not mayBeOverwritten(output):
            raise RenderError(
                _("'{name}' holds another image, which would be lost: choose another output.").format(
                    name=output.GetName()
                )
            )
        return volume, parameterNode.probeTransform, output

    def _rendererFor(self, parameters: RenderParameters):
        if parameters != self._rendererParameters:
            self._renderer = engine.buildRenderer(parameters)
            self._rendererParameters = parameters
        return self._renderer

    # --- live

    def startLive(self, parameterNode) -> None:
        """Follows probe, volume and settings from now on: until `stopLive`, or until a node or the scene goes."""
        if self.schedule is None:
            raise RenderError(_("Live needs the event loop of an application; render single slices instead."))
        volume, probe, _output = self._inputs(parameterNode)
        probeToVolume(probe, volume)
        requireTorch()
        self._parameterNode = parameterNode
        self.live.start(probe.GetScene(), self._onLiveStopped)

    def stopLive(self) -> None:
        """Stops following; the slice stays as it is."""
        self.live.stop()
        self._parameterNode = None

    def _renderLive(self) -> None:
        try:
            self.render(self._parameterNode)
        finally:
            self.live.observe()  # the user may have chosen another volume or probe, and the output may be new

    def _watched(self) -> dict[object, tuple]:
        parameterNode = self._parameterNode
        modified = vtk.vtkCommand.ModifiedEvent
        moved = slicer.vtkMRMLTransformableNode.TransformModifiedEvent
        watched: dict[object, tuple] = {parameterNode.parameterNode: (modified,)}
        volume, probe = parameterNode.inputVolume, parameterNode.probeTransform
        if volume is not None and volume.IsA("vtkMRMLSegmentationNode"):
            watched[volume] = (moved,)
            if segmentation := volume.GetSegmentation():
                watched[segmentation] = (
                    segmentation.SourceRepresentationModified,
                    segmentation.SegmentModified,
                    segmentation.SegmentAdded,
                    segmentation.SegmentRemoved,
                )
        elif volume is not None:
            # Modified tells of a new IJKToRAS (hardening), and of voxels written in place.
            watched[volume] = (moved, modified, slicer.vtkMRMLVolumeNode.ImageDataModifiedEvent)
        if probe is not None:
            watched[probe] = (moved,)
        if parameterNode.outputSlice is not None:
            watched[parameterNode.outputSlice] = ()
        return watched

    def _onLiveStopped(self, sentence: str) -> None:
        parameterNode, self._parameterNode = self._parameterNode, None
        self._media.clear()
        if parameterNode is not None and parameterNode.parameterNode.GetScene() is not None:
            parameterNode.live = False
        self.onStatus(sentence)

    # --- the probe

    def createProbe(self, parameterNode, sliceViewNode=None):
        """A new probe, chosen in the parameter node, placed at a slice view if there are one and a volume."""
        if isTorchInstalled():
            requireTorch()  # one that is there but broken is told of before anything is made
        probe = createProbe(slicer.mrmlScene)
        parameterNode.probeTransform = probe
        if sliceViewNode is not None:
            placeAtSliceView(probe, sliceViewNode, self._surface(parameterNode))
        self.updateFan(parameterNode)
        return probe

    def placeAtSliceView(self, parameterNode, sliceViewNode) -> None:
        """Puts the probe onto the skin above the centre of a slice view, in its plane, looking down the screen."""
        if sliceViewNode is None:
            raise RenderError(_("Choose a slice view first."))
        placeAtSliceView(self._probe(parameterNode), sliceViewNode, self._surface(parameterNode))
        self.updateFan(parameterNode)

    def placeOnSkin(self, parameterNode, point: np.ndarray) -> None:
        """Puts the probe onto the skin nearest to `point`, (3,) world mm, looking into the body."""
        surface = self._surface(parameterNode)
        if surface is None:
            raise RenderError(_("Choose a volume (MRI, CT) or a segmentation."))
        placeOnSkin(self._probe(parameterNode), point, surface)
        self.updateFan(parameterNode)

    def startPicking(self, parameterNode, onEnded: Callable[[], None] = lambda: None) -> None:
        """Waits for one click in any view and places the probe there; `onEnded` is called then, or when cancelled."""
        self._probe(parameterNode)
        if parameterNode.inputVolume is None:
            raise RenderError(_("Choose a volume (MRI, CT) or a segmentation."))
        if parameterNode.skinPoint is None:
            parameterNode.skinPoint = createSkinPoint(slicer.mrmlScene)
        self.cancelPicking()
        self._picker = SkinPointPicker(lambda point: self._onPicked(parameterNode, point), onEnded)
        self._picker.start(slicer.mrmlScene, parameterNode.skinPoint)

    @property
    def picking(self) -> bool:
        """Whether a click is awaited."""
        return self._picker is not None and self._picker.active

    def cancelPicking(self) -> None:
        """Forgets a click that has not come yet."""
        if self._picker is not None:
            self._picker.stop()

    def _onPicked(self, parameterNode, point: np.ndarray) -> None:
        try:
            self.placeOnSkin(parameterNode, point)
        except RenderError as error:
            self.onStatus(str(error))

    def _probe(self, parameterNode):
        if parameterNode.probeTransform is None:
            raise RenderError(_("Choose the probe's transform, or create a probe."))
        return parameterNode.probeTransform

    def _surface(self, parameterNode) -> BodySurface | None:
        volume = parameterNode.inputVolume
        return None if volume is None else BodySurface(volume, parameterNode.kind)

    def applyPreset(self, parameterNode, preset: ProbePreset) -> None:
        """Writes the numbers of one of the engine's presets into the parameter node."""
        requireTorch()
        present = readParameters(parameterNode).probe
        writeProbe(parameterNode, engine.presetSettings(preset.value, present))

    # --- what is shown of it

    def updateFan(self, parameterNode) -> None:
        """Draws, reshapes or hides the fan as the parameter node says; without PyTorch there is none yet."""
        probe, model = parameterNode.probeTransform, parameterNode.fanModel
        if model is not None:
            model.SetDisplayVisibility(bool(parameterNode.showFan and probe))
        if probe is None or not parameterNode.showFan or not isTorchInstalled():
            return
        shape: ProbeSettings = readParameters(parameterNode).probe
        if model is not None and self._fanShape == (model.GetID(), probe.GetID(), shape):
            return
        requireTorch()
        outline = engine.fanOutline(engine.buildProbe(shape))
        if model is None:
            model = createFanModel(probe.GetScene(), probe)
            parameterNode.fanModel = model
        updateFanModel(model, outline, probe)
        self._fanShape = (model.GetID(), probe.GetID(), shape)

    def updateDriving(self, parameterNode) -> None:
        """Lets the chosen slice view follow the probe once there is a slice, or lets it go, as the node says."""
        view, probe, output = parameterNode.sliceView, parameterNode.probeTransform, parameterNode.outputSlice
        if not parameterNode.driveSliceView or None in (view, probe, output) or not isTorchInstalled():
            self.stopDriving()
            return
        shape = readParameters(parameterNode).probe
        driven = (view.GetID(), probe.GetID(), output.GetID(), shape)
        if driven != self._driven:
            requireTorch()
            corners = engine.fanOutline(engine.buildProbe(shape))
            low, high = corners.min(0), corners.max(0)
            self._driver.start(view, probe, output, high - low, np.append((low + high) / 2, 0.0))
            self._driven = driven

    def stopDriving(self) -> None:
        """Lets the slice view stay where it is."""
        self._driver.stop()
        self._driven = None

    def forgetScene(self) -> None:
        """Drops every observer and every node, for a scene that closes or a module that goes."""
        self.stopLive()
        self.stopDriving()
        self.cancelPicking()
        self._media.clear()
        self._fanShape = None
