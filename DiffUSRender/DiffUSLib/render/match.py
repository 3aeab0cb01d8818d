"""Display and beam of the simulation matched to a real recording that lies in its place, in steps, and undone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

import numpy as np
import slicer.util
from diffus.settings import PROBE

from .. import engine
from ..declared import sceneValues
from ..errors import RenderError
from ..i18n import _
from ..run import Schedule, SteppedWork
from ..scene.tracked import readShownFrames
from ..scene.transforms import isLinearToWorld
from ..scene.voxels import MediumCache
from ..torch_support import requireTorch
from .image_fan import FAN, ImageFan, estimateFan, uncertainDepth
from .parameters import (
    IMAGE,
    RANGES,
    ImagePreset,
    ProbePreset,
    ProbeSettings,
    mediumInputs,
    missingForMatch,
    readParameters,
    readProbe,
    writeProbe,
)

if TYPE_CHECKING:
    from diffus.sweep.sweep import TrackedSweep

MAX_FRAMES = 24  # of a recording, evenly taken
FITTED_FRAMES, STEPS = 6, 16


@dataclass(frozen=True)
class MatchState:
    """The fraction that is done, 0 to 1."""

    progress: float


class AppearanceMatch(SteppedWork):
    """Fits gain, time gain, dynamic range, noise, focus and frequency, and writes them into the parameter node.

    The real image of the parameter node, and the frames of the recording that plays it, must lie in their place in the
    volume. media: where the medium comes from. schedule: calls a function once, soon, from the event loop.
    onState: gets every `MatchState`. onEnded: gets one sentence at the end: NCC before and after, or why there is none.
    """

    def __init__(self, media: MediumCache, schedule: Schedule) -> None:
        super().__init__(
            schedule,
            busy=_("A match is running: cancel it first."),
            failed=_("The match has stopped after an error: {error}"),
            cancelled=_("The match was cancelled; nothing was changed."),
        )
        self._media = media
        self._before: dict[str, object] | None = None

    @property
    def undoable(self) -> bool:
        """Whether there is a match to be undone."""
        return self._before is not None

    def steps(self, parameterNode) -> Iterator[MatchState]:
        if sentence := missingForMatch(parameterNode):
            raise RenderError(sentence)
        requireTorch()
        parameters = readParameters(parameterNode)
        volume = parameterNode.inputVolume
        chosen = mediumInputs(parameterNode)
        sweep, fan = readSweep(parameterNode.realImage, volume, parameters.probe)
        return self._steps(parameterNode, parameters.image, sweep, fan, lambda: self._media.medium(*chosen))

    def undo(self, parameterNode) -> None:
        """Writes what was fitted back to its values from before the last match; raises RenderError without one."""
        if self._before is None:
            raise RenderError(_("There is no match to undo."))
        _write(parameterNode, self._before)
        self._before = None

    def forget(self, sentence: str) -> None:
        """Stops at once, and drops what could be undone, for a scene that closes."""
        self.abort(sentence)
        self._before = None

    def _steps(self, parameterNode, image, sweep, fan, buildMedium) -> Iterator[MatchState]:
        self._report = ""
        yield MatchState(0.0)
        medium = buildMedium()
        fit = engine.appearanceFit(medium, sweep, fan.probe, fan.imageToProbe, image, FITTED_FRAMES, STEPS)
        with engine.engineErrors():
            for state in fit:
                yield MatchState(state.step / (state.steps + 1))
        fitted = _fitted(fan, fit.result, image.noise)
        before = {name: getattr(parameterNode, name) for name in fitted}
        _write(parameterNode, fitted)
        self._before = before
        self._report = _summary(fit.result)
        if not fan.isDepthCertain:
            self._report = " ".join((self._report, uncertainDepth()))


def readSweep(image, volume, present: ProbeSettings) -> tuple[TrackedSweep, ImageFan]:
    """The frames of a real image's recording (the image alone without one), and the fan that they show.

    Args:
        image: the volume node of the real image.
        volume: the node in whose own RAS the frames are to lie.
        present: settings of what a fan does not show.

    Returns:
        The sweep, and the fan; columns and rows run as the probe's x and y do.

    Raises:
        RenderError: where they are no frames, show no fan, or lie under a nonlinear transform.
    """
    if not isLinearToWorld(volume.GetParentTransformNode()):
        raise RenderError(_("A nonlinear transform above the volume cannot be matched through; harden it."))
    images = readShownFrames(image, MAX_FRAMES, volume)
    fan = estimateFan(images, present)
    if fan.isUpsideDown:
        images, fan = images.upsideDown(), fan.upsideDown(images.pixels.shape[1])
    mask = engine.fanGrid(fan.probe, fan.imageToProbe, images.pixels.shape[1:]).inside
    return engine.trackedSweep(images, mask), fan


def _fitted(fan: ImageFan, result, noise: bool) -> dict[str, object]:
    """The parameters that were fitted, by name, within the panel's ranges; an uncertain depth is none of them.

    Args:
        noise: whether noise is simulated.
    """
    display = ("gain_db", "dynamic_range_db", "tgc_db_per_cm", "tgc_reach", *(("noise_db",) if noise else ()))
    found = {name: getattr(result.probe, name) for name in ("frequency_mhz", "focus_mm")}
    found |= {name: getattr(result.settings, name) for name in display}
    values = sceneValues(found, PROBE | IMAGE)
    fitted = {name: getattr(fan.probe, name) for name in FAN if name != "depthMm" or fan.isDepthCertain}
    fitted |= {
        name: float(np.clip(value, *RANGES[name])) if name in RANGES else value for name, value in values.items()
    }
    return {**fitted, "preset": ProbePreset.CUSTOM, "imagePreset": ImagePreset.CUSTOM}


def _write(parameterNode, values: dict[str, object]) -> None:
    """Writes these parameters and no others: what the user has changed meanwhile stays."""
    probe = {field.name: values[field.name] for field in fields(ProbeSettings) if field.name in values}
    with slicer.util.NodeModify(parameterNode.parameterNode):  # no picture, and no error, of half of the numbers
        writeProbe(parameterNode, replace(readProbe(parameterNode), **probe))
        for name in values.keys() - probe.keys():
            setattr(parameterNode, name, values[name])


def _summary(result) -> str:
    before, after, count = result.before, result.after, len(result.held_out_frames)
    text = _("NCC of the frame itself {before:.2f} before, {after:.2f} after (smoothed {smooth:.2f}, {smoothed:.2f}).")
    if count:
        text = _(
            "NCC of {count} held-out frames {before:.2f} before, {after:.2f} after "
            "(smoothed {smooth:.2f}, {smoothed:.2f})."
        )
    return text.format(
        count=count, before=before.ncc, after=after.ncc, smooth=before.ncc_smoothed, smoothed=after.ncc_smoothed
    )
