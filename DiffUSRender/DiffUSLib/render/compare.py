"""The real frame and the simulated one at the same pose: pixels, likeness, and both in one slice view."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import vtk

from .. import engine
from ..errors import RenderError
from ..i18n import _
from ..scene.slice_node import createSliceNode, mayBeOverwritten, updateSliceNode
from ..scene.slice_views import BorrowedView
from ..scene.tracked import readShownFrames
from ..scene.transforms import (
    ijkToRas,
    imageToRas,
    isLinearToWorld,
    nodeToWorld,
    poseInVolume,
    worldToVolume,
)
from ..scene.voxels import MediumCache, watchedEvents
from ..torch_support import requireTorch
from .image_fan import FAN, MAX_FRAMES, ImageFan, estimateFan, uncertainDepth, wholeImage
from .live import LiveRendering, Schedule
from .parameters import CompareMode, ParameterReader, RenderParameters, mediumInputs, missingForComparison
from .quality import reducedFrame
from .side_by_side import sideBySide

MIN_COVERAGE = 0.05  # fraction of the real fan


@dataclass(frozen=True)
class FrameSimilarity:
    """NCC (-1 to 1) and SSIM (up to 1) of the two frames, over the covered fraction (0 to 1) of the real fan.

    SSIM takes as long as a frame: it is None for those of reduced quality.
    """

    ncc: float
    ssim: float | None
    coverage: float

    def text(self) -> str:
        """One line for the panel."""
        if self.ssim is None:
            return _("NCC {ncc:.2f}, over {coverage:.0%} of the fan").format(ncc=self.ncc, coverage=self.coverage)
        return _("NCC {ncc:.2f}, SSIM {ssim:.2f}, over {coverage:.0%} of the fan").format(
            ncc=self.ncc, ssim=self.ssim, coverage=self.coverage
        )


class FrameComparison:
    """Renders at the pose of a real frame, on its pixels, whenever it, the volume or a setting changes, until `stop`.

    Args:
        media: whose medium is used.
        schedule: see `LiveRendering`.
        onResult: gets the line for the panel after every frame, or the sentence that says why there is none.
        onStopped: gets the sentence when it must stop by itself.
    """

    def __init__(
        self,
        media: MediumCache,
        schedule: Schedule,
        onResult: Callable[[str], None],
        onStopped: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._media, self._onResult, self._onStopped = media, onResult, onStopped
        self.live = LiveRendering(
            self._render,
            self._watched,
            schedule,
            self._onStatus,
            clock,
            self._imageToVolume,
            lambda: self._parameterNode.automaticQuality,
            _("The comparison"),
        )
        self._borrowed = BorrowedView()
        self._parameterNode = None
        self._fan: ImageFan | None = None
        self._grid: engine.FanGrid | None = None
        self._fanOf: tuple | None = None
        self._fanPixelMm = np.zeros(2)
        self._limits: tuple[float, float] | None = None  # black and white of the recording
        self._read = ParameterReader()
        self._renderers = engine.RendererCache()
        self._line, self._number = "", 0

    @property
    def view(self):
        """The slice view that shows the comparison, or None."""
        return self._borrowed.view

    def start(self, parameterNode) -> None:
        """Compares from now on; raises RenderError, and starts nothing, where that cannot be."""
        if sentence := missingForComparison(parameterNode):
            raise RenderError(sentence)
        requireTorch()
        frame = readShownFrames(parameterNode.realImage)
        engine.trackedSweep(frame, wholeImage(frame))  # what is no frame in its place is refused at once
        self._parameterNode = parameterNode
        self.live.start(parameterNode.realImage.GetScene(), self._onLiveStopped)

    def stop(self) -> None:
        """Ends it, and gives the slice view back as it was found."""
        self.live.stop()
        self._borrowed.giveBack()
        self.forget()

    def forget(self) -> None:
        """Drops every node and what was made from them, for a scene that closes."""
        self.live.stop()
        self._borrowed.forget()
        self._parameterNode = self._fan = self._grid = self._fanOf = self._limits = None
        self._read.forget()
        self._renderers = engine.RendererCache()

    def compare(self, parameterNode, fraction: float = 1.0, number: int = 0) -> FrameSimilarity:
        """Renders the simulated frame into its node, shows both, and measures how similar they are.

        Args:
            fraction: how much of a frame's work is done, 0 to 1.
            number: of the simulated frame: each has noise of its own.

        Raises:
            RenderError: they are not comparable.
        """
        if sentence := missingForComparison(parameterNode):
            raise RenderError(sentence)
        requireTorch()
        volume, image = parameterNode.inputVolume, parameterNode.realImage
        frame = readShownFrames(image)
        try:
            fan = self._seenFan(image, frame, parameterNode)
            real = engine.trackedSweep(frame, wholeImage(frame), self._limits)
            renderer = self._renderers.of(_withFan(self._read(parameterNode), fan, fraction))
            medium = self._media.medium(*mediumInputs(parameterNode))
            pose = poseInVolume(engine.probePose(real, fan.imageToProbe), volume)
            simulated, covered = engine.renderAt(renderer, medium, pose, self._grid, number)
        except RenderError:  # never an old picture over a new frame
            real = engine.trackedSweep(frame, wholeImage(frame), self._limits)
            self._show(parameterNode, real, np.zeros(frame.pixels.shape[1:]))
            raise
        self._show(parameterNode, real, simulated)
        return _similarity(real.frames[0].numpy(), simulated, covered, self._grid.inside, structural=fraction == 1.0)

    # --- live

    def _render(self, fraction: float, atRest: bool) -> bool:
        try:
            self._number += 1
            self._line = self.compare(self._parameterNode, fraction, self._number).text()
            if not self._fan.isDepthCertain:
                self._line = " ".join((self._line + ".", uncertainDepth()))
        finally:
            self.live.observe()
        return False  # a comparison is of one frame

    def _onStatus(self, sentence: str) -> None:
        self._onResult(_("Not comparable: {why}").format(why=sentence) if sentence else self._line)

    def _watched(self) -> dict[object, tuple]:
        node = self._parameterNode
        watched: dict[object, tuple] = {node.parameterNode: (vtk.vtkCommand.ModifiedEvent,)}
        for item in (node.inputVolume, node.mask, node.addedSegmentation, node.realImage):
            watched.update(watchedEvents(item))
        for item in (node.comparedSlice, node.compareView):
            if item is not None:
                watched[item] = ()
        return watched

    def _imageToVolume(self) -> np.ndarray | None:
        volume, image = self._parameterNode.inputVolume, self._parameterNode.realImage
        nodes = (volume, image)
        if None in nodes or not all(isLinearToWorld(node.GetParentTransformNode()) for node in nodes):
            return None
        return worldToVolume(volume) @ nodeToWorld(image.GetParentTransformNode()) @ ijkToRas(image)

    def _onLiveStopped(self, sentence: str) -> None:
        parameterNode = self._parameterNode
        closing = parameterNode is None or parameterNode.parameterNode.GetScene() is None
        if closing or parameterNode.parameterNode.GetScene().IsClosing():
            self.forget()
        else:
            self.stop()
        if not closing:
            parameterNode.compare = False
        self._onResult("")
        self._onStopped(sentence)

    # --- one frame

    def _seenFan(self, image, frame, parameterNode) -> ImageFan:
        """The fan of the image, seen once (with the recording's grey values) until another image or size comes."""
        shape = frame.pixels.shape[1:]
        key, pixelMm = (image.GetID(), shape), np.linalg.norm(frame.imageToReference[0, :3, :2], axis=0)
        # A tracker's matrices are rigid but for some digits.
        if key != self._fanOf or not np.allclose(pixelMm, self._fanPixelMm, rtol=2e-3):
            images = readShownFrames(image, MAX_FRAMES)
            self._fan, self._limits = estimateFan(images, self._read(parameterNode).probe), engine.greyLimits(images)
            self._grid = engine.fanGrid(self._fan.probe, self._fan.imageToProbe, shape)
            self._fanOf, self._fanPixelMm = key, pixelMm
        return self._fan

    def _show(self, parameterNode, real, simulated: np.ndarray) -> None:
        image = parameterNode.realImage
        pixels = (simulated * 255).round().astype(np.uint8)
        if self._grid is not None and simulated.any():  # black in the fan is not transparent, as outside of it
            pixels = np.maximum(pixels, self._grid.inside)
        pixelToParent, imageToWorld = imageToRas(image), real.image_to_reference[0].numpy()
        slices = _putIntoOutput(parameterNode, "comparedSlice", _("Simulated at the real frame"), pixels, pixelToParent)
        if parameterNode.compareMode is CompareMode.BLENDED:
            layers, plane = (image, slices, parameterNode.compareFade), (imageToWorld, pixels.shape)
        else:
            pair, shift = sideBySide((real.frames[0].numpy() * 255).round().astype(np.uint8), pixels)
            node = _putIntoOutput(
                parameterNode, "comparedPair", _("Real and simulated side by side"), pair, pixelToParent @ shift
            )
            layers, plane = (node,), (imageToWorld @ shift, pair.shape)
        self._borrowed.take(parameterNode.compareView)
        self._borrowed.showLayers(*layers)
        self._borrowed.showImage(*plane)


def _putIntoOutput(parameterNode, parameter: str, name: str, pixels: np.ndarray, pixelToParent: np.ndarray):
    """Puts pixels into the node that a parameter names, beside the real image; it is made if none may be written over.

    A new node is named in the parameter only when it has pixels.
    """
    image, node = parameterNode.realImage, getattr(parameterNode, parameter)
    if node is None or not mayBeOverwritten(node):
        node = createSliceNode(image.GetScene(), name)
    updateSliceNode(node, pixels, pixelToParent, image.GetParentTransformNode())
    if getattr(parameterNode, parameter) is not node:
        setattr(parameterNode, parameter, node)
    return node


def _withFan(parameters: RenderParameters, fan: ImageFan, fraction: float) -> RenderParameters:
    """The settings with the fan of the real image, for this fraction of the work."""
    seen = {name: getattr(fan.probe, name) for name in FAN}
    probe = replace(parameters.probe, **seen, focusMm=min(parameters.probe.focusMm, fan.probe.depthMm))
    return reducedFrame(replace(parameters, probe=probe), fraction)


def _similarity(
    real: np.ndarray, simulated: np.ndarray, covered: np.ndarray, fan: np.ndarray, structural: bool
) -> FrameSimilarity:
    coverage = covered.sum() / max(1, fan.sum())
    if coverage < MIN_COVERAGE:
        raise RenderError(
            _("The volume covers {coverage:.0%} of the real fan; move one of them.").format(coverage=coverage)
        )
    if real[covered].max() <= 0:
        raise RenderError(_("The real image is black where the volume lies."))
    return FrameSimilarity(*engine.likeness(real, simulated, covered, structural), float(coverage))
