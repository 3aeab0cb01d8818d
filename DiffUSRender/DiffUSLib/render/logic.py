"""What the module does, on nodes alone: render, follow the probe, place it, draw its fan, drive a slice view."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import slicer
import slicer.util
import vtk

from .. import engine
from ..errors import RenderError
from ..i18n import _
from ..scene.probe import SkinPointPicker, createProbe, createSkinPoint, placeAtSliceView, placeOnSkin
from ..scene.slice_node import createSliceNode, mayBeOverwritten, updateSliceNode
from ..scene.surface import BodySurface
from ..scene.tracked import readShownFrames
from ..scene.transforms import probeToVolume
from ..scene.voxels import MediumCache, watchedEvents
from ..torch_support import isTorchInstalled, requireTorch
from .a_mode import showAModeLine
from .compare import FrameComparison
from .earlier_frames import EarlierFrames
from .export import SliceExport
from .image_fan import MAX_FRAMES, estimateFan, uncertainDepth
from .live import LiveRendering, Schedule
from .match import AppearanceMatch
from .parameters import (
    ImagePreset,
    ParameterReader,
    ProbePreset,
    ProbeType,
    mediumInputs,
    missingInput,
    presetLook,
    readProbe,
    writeProbe,
)
from .probe_display import ProbeDisplay
from .quality import reducedFrame


class RenderLogic:
    """The scene layer. Inputs and settings come from a parameter node (`RenderParameterNode`, or alike by attribute).

    Every method raises RenderError, with one sentence and nothing changed, for input that cannot be used.

    Args:
        schedule: calls a function once, soon or after the seconds given, from the application's event loop; Live and
            the comparison need it.
        onStatus: gets one sentence for the user, or "" after a frame that went well.
        clock: gives the seconds that Live measures its frames by.

    Attributes:
        onCompared: gets the line on how similar the real and the simulated frame are, or why that is not known.
    """

    def __init__(
        self,
        schedule: Schedule | None = None,
        onStatus: Callable[[str], None] = lambda sentence: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.schedule, self.onStatus = schedule, onStatus
        self.onCompared: Callable[[str], None] = lambda line: None
        self.live = LiveRendering(
            self._renderLive,
            self._watched,
            lambda *call: self.schedule(*call),
            lambda sentence: self.onStatus(sentence),
            clock,
            self._livePose,
            lambda: self._parameterNode.automaticQuality,
        )
        self._media = MediumCache()
        self.comparison = FrameComparison(
            self._media,
            lambda *call: self.schedule(*call),
            lambda line: self.onCompared(line),
            lambda sentence: self.onStatus(sentence),
            clock,
        )
        self.export = SliceExport(self._media, lambda *call: self.schedule(*call))
        self.appearance = AppearanceMatch(self._media, lambda *call: self.schedule(*call))
        self._read = ParameterReader()
        self._renderers = engine.RendererCache()
        self._earlier = EarlierFrames()
        self._display = ProbeDisplay(self._read)
        self._parameterNode = None
        self._picker: SkinPointPicker | None = None

    # --- one slice

    def render(self, parameterNode, fraction: float = 1.0, earlier: EarlierFrames | None = None):
        """Renders the slice at the probe's present pose into the output node.

        Args:
            fraction: how much of a frame's work is done, 0 to 1, at the expense of quality.
            earlier: the frames that it follows; None for one of its own, which is the same whenever it is rendered.

        Returns:
            The output node, made if there is none.
        """
        volume, probe, output = self._inputs(parameterNode)
        probeToRas = probeToVolume(probe, volume)
        requireTorch()
        renderer, medium = self._prepared(parameterNode, fraction)
        following = () if earlier is None else earlier.next(self._read(parameterNode), medium)
        pixels = engine.renderPixels(renderer, medium, probeToRas, *following)
        output = output or createSliceNode(probe.GetScene())
        updateSliceNode(output, pixels, engine.pixelToProbe(renderer.probe), probe)
        if parameterNode.outputSlice is None:  # only now that it has pixels may a view show it
            parameterNode.outputSlice = output
        self.updateFan(parameterNode)
        self.updateDriving(parameterNode)
        if parameterNode.aMode:
            showAModeLine(parameterNode, renderer, medium, probeToRas)
        return output

    def updateAModeLine(self, parameterNode) -> None:
        """Fills the plot of the A-mode line at the probe's present pose."""
        volume, probe, _output = self._inputs(parameterNode)
        probeToRas = probeToVolume(probe, volume)
        requireTorch()
        showAModeLine(parameterNode, *self._prepared(parameterNode), probeToRas)

    def _prepared(self, parameterNode, fraction: float = 1.0) -> tuple:
        """Renderer and medium."""
        renderer = self._renderers.of(reducedFrame(self._read(parameterNode), fraction))
        return renderer, self._media.medium(*mediumInputs(parameterNode))

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

    # --- live

    def startLive(self, parameterNode) -> None:
        """Follows probe, volume and settings from now on: until `stopLive`, or until a node or the scene goes."""
        if self.schedule is None:
            raise RenderError(_("Live needs the event loop of an application; render single slices instead."))
        volume, probe, _output = self._inputs(parameterNode)
        probeToVolume(probe, volume)
        requireTorch()
        self._parameterNode, self._earlier = parameterNode, EarlierFrames()
        self.live.start(probe.GetScene(), self._onLiveStopped)

    def stopLive(self) -> None:
        """Stops following; the slice stays as it is."""
        self.live.stop()
        self._parameterNode = None

    def _renderLive(self, fraction: float, atRest: bool) -> bool:
        if atRest:
            self._earlier.forget()
        try:
            self.render(self._parameterNode, fraction, self._earlier)
        finally:
            self.live.observe()  # the user may have chosen another volume or probe, and the output may be new
        return self._earlier.blended

    def _livePose(self) -> np.ndarray | None:
        volume, probe = self._parameterNode.inputVolume, self._parameterNode.probeTransform
        probeToRas = None if None in (volume, probe) else probeToVolume(probe, volume)
        return probeToRas if isinstance(probeToRas, np.ndarray) else None

    def _watched(self) -> dict[object, tuple]:
        parameterNode = self._parameterNode
        watched: dict[object, tuple] = {parameterNode.parameterNode: (vtk.vtkCommand.ModifiedEvent,)}
        for node in (parameterNode.inputVolume, parameterNode.mask, parameterNode.addedSegmentation):
            watched.update(watchedEvents(node))
        if (probe := parameterNode.probeTransform) is not None:
            watched[probe] = (slicer.vtkMRMLTransformableNode.TransformModifiedEvent,)
        if parameterNode.outputSlice is not None:
            watched[parameterNode.outputSlice] = ()
        return watched

    def _onLiveStopped(self, sentence: str) -> None:
        parameterNode, self._parameterNode = self._parameterNode, None
        self._media.clear()
        if parameterNode is not None and parameterNode.parameterNode.GetScene() is not None:
            parameterNode.live = False
        self.onStatus(sentence)

    # --- the real image

    def startComparison(self, parameterNode) -> None:
        """Shows the real and the simulated frame together from now on, also while a recording is played."""
        if self.schedule is None:
            raise RenderError(_("Live needs the event loop of an application; render single slices instead."))
        self.comparison.start(parameterNode)

    def stopComparison(self) -> None:
        """Stops comparing, and gives the slice view back."""
        self.comparison.stop()

    def probeFromImage(self, parameterNode) -> str:
        """Gives the probe the fan that the real image shows, and says which, in one line."""
        if parameterNode.realImage is None:
            raise RenderError(_("Choose a real ultrasound image under Inputs."))
        requireTorch()
        images = readShownFrames(parameterNode.realImage, MAX_FRAMES)
        fan = estimateFan(images, readProbe(parameterNode))
        seen = fan.probe
        writeProbe(parameterNode, seen)
        parameterNode.preset = ProbePreset.CUSTOM
        shape = {
            ProbeType.CONVEX: _("radius {radius:.0f} mm, {fov:.0f}°"),
            ProbeType.PHASED: _("{fov:.0f}°"),
            ProbeType.LINEAR: _("{width:.0f} mm wide"),
        }[seen.probeType].format(radius=seen.radiusMm, fov=seen.fovDeg, width=seen.widthMm)
        line = _("Seen in the image: {type}, {shape}, {depth:.0f} mm deep. Set frequency and focus by hand.").format(
            type=seen.probeType.label(), shape=shape, depth=seen.depthMm
        )
        return line if fan.isDepthCertain else " ".join((line, uncertainDepth()))

    # --- the probe

    def createProbe(self, parameterNode, sliceViewNode=None):
        """A new probe, chosen in the parameter node, placed at a slice view if there are one and a volume."""
        if isTorchInstalled():
            requireTorch()  # where it is installed but broken, nothing is made
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

        def ended() -> None:
            self._display.takeClicks(False)
            onEnded()

        self._picker = SkinPointPicker(lambda point: self._onPicked(parameterNode, point), ended)
        self._display.takeClicks(True)  # the skin is what is clicked, not what is seen through it
        self._picker.start(slicer.mrmlScene, parameterNode.skinPoint)

    @property
    def picking(self) -> bool:
        """Whether a click is awaited."""
        return self._picker is not None and self._picker.active

    def cancelPicking(self) -> None:
        """Forgets a click that has not come yet."""
        if self._picker is not None:
            self._picker.stop()
            self._picker = None
            self._display.takeClicks(False)

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
        present = readProbe(parameterNode)
        writeProbe(parameterNode, engine.presetSettings(preset.value, present))

    def applyImagePreset(self, parameterNode, preset: ImagePreset) -> None:
        """Writes the look of one of the engine's image presets into the parameter node."""
        with slicer.util.NodeModify(parameterNode.parameterNode):  # no picture of half of the settings
            for name, value in presetLook(preset).items():
                setattr(parameterNode, name, value)

    # --- what is shown of it

    def updateFan(self, parameterNode) -> None:
        """Draws, reshapes or hides the fan as the parameter node says; without PyTorch there is none yet."""
        self._display.updateFan(parameterNode)

    def updateDriving(self, parameterNode) -> None:
        """Lets the chosen slice view follow the probe, or gives it back, as the parameter node says."""
        compared = parameterNode.compareView if self.comparison.live.running else None
        self._display.updateDriving(parameterNode, compared)

    def updatePatient(self, parameterNode) -> None:
        """Shows the patient in the 3-D views as the parameter node says."""
        self._display.updatePatient(parameterNode)

    def stopDriving(self) -> None:
        """Gives the slice view back as it was before it followed the probe."""
        self._display.stopDriving()

    def forgetScene(self) -> None:
        """Drops every observer and every node, for a scene that closes or a module that goes."""
        self.export.abort(_("The export has stopped: the scene was closed."))
        self.appearance.forget(_("The match has stopped: the scene was closed."))
        self.stopLive()
        self.comparison.stop()
        self._display.forgetScene()
        self.cancelPicking()
        self._media.clear()
        self._read.forget()
