"""What raw frames become in every tracked sweep: one grey scale, rising times, a fan of a possible size.

File, scene and 3-D ultrasound go through `TrackedSweep.from_arrays`, which calls these. numpy only.
"""

from __future__ import annotations

import bisect
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError, Sentence, _

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Float32, Real

    Frames = Real[np.ndarray, "k rows columns"] | Bool[np.ndarray, "k rows columns"]

FAN_MM = (5.0, 400.0)  # width and depth of a fan; what lies beyond has a wrong pixel size
STRAY_FRACTION = 1e-4  # of the pixels that are not black; the brightest of them do not set the grey scale
MAX_STRAY_TIMES = 5  # one in so many frames may have a time out of order


def grey_limits(pixels: Frames) -> tuple[float, float]:
    """The grey values that are black and white in all frames of a sweep.

    8-bit values go from 0 to 255. Of other types the darkest value, if below 0, is black, and the brightest is white,
    which stands at least 255 (whole numbers) or 1 (floating point) above it; so 8-bit values in a wider type come out
    as in their own, and 12 bit that overshoot to 4096 hardly change. One stray in 10 000 does not count.

    Args:
        pixels: Frames of any real type, finite.
    """
    if pixels.dtype == np.uint8:
        return 0.0, 255.0
    if pixels.dtype.kind == "b":
        return 0.0, 1.0
    low = min(float(pixels.min()), 0.0)
    return low, max(_brightest(pixels, low), low + (1.0 if pixels.dtype.kind == "f" else 255.0))


def grey_scale(pixels: Frames, limits: tuple[float, float] | None = None) -> Float32[np.ndarray, "k rows columns"]:
    """Grey values as brightness in [0, 1], by one scale for all frames of a sweep.

    Args:
        pixels: Frames of any real type, finite.
        limits: Black and white, where these are some frames of a longer sweep; else their own `grey_limits`.

    Returns:
        The frames, float32 in [0, 1].
    """
    low, high = grey_limits(pixels) if limits is None else limits
    if pixels.dtype == np.uint8 and (low, high) == (0.0, 255.0):
        return pixels.astype(np.float32) / 255
    if (low, high) == (0.0, 1.0):
        return pixels.astype(np.float32).clip(0.0, 1.0)
    return ((pixels - low) / (high - low)).clip(0.0, 1.0).astype(np.float32)


def _brightest(pixels: np.ndarray, low: float) -> float:
    """The brightest value, strays left out."""
    values = pixels[pixels > low]
    if values.size == 0:
        return low
    last = int(np.ceil((values.size - 1) * (1 - STRAY_FRACTION)))
    return float(np.partition(values, last)[last])


def _without_strays(times: Float[np.ndarray, " k"]) -> Float[np.ndarray, " k"]:
    """The times with the few that lie outside of the longest rise put between their neighbours; a copy."""
    last: list[int] = []  # of a rise of each length, the frame that ends it earliest
    before = np.full(len(times), -1)
    for number, time in enumerate(times):
        length = bisect.bisect_right(last, time, key=lambda frame: times[frame])
        before[number] = last[length - 1] if length else -1
        last[length : length + 1] = [number]
    kept, number = [], last[-1]
    while number >= 0:
        kept.append(number)
        number = before[number]
    kept.reverse()
    if len(times) - len(kept) > len(times) // MAX_STRAY_TIMES:
        return times.copy()
    return np.interp(np.arange(len(times)), kept, times[kept])


def rising_times(times: Float[np.ndarray, " k"], min_step_s: float) -> tuple[Float[np.ndarray, " k"] | None, str]:
    """Times that rise by at least a step: only those that do not are moved, to one step after the frame before.

    A few times that lie out of order, as after a tracker's glitch, are first put between those of their neighbours.

    Args:
        times: (K,) s, in the frames' order.
        min_step_s: What the times must differ by; 3D Slicer takes two items of a sequence nearer than 0.001 for one.

    Returns:
        The times, (K,) s, or None where they say nothing: one is not finite, or from first to last they do not rise by
        that many steps, or the last would move by as much, as after a clock that was set back. And a sentence that says
        what was changed, empty where nothing was.
    """
    if not np.isfinite(times).all():
        return None, Sentence(_("Frames have no time: the frames' numbers stand for them."))
    rising = _without_strays(np.asarray(times, dtype=np.float64))
    for number in range(1, len(rising)):
        rising[number] = max(rising[number], rising[number - 1] + min_step_s)
    changed = int((np.abs(rising - times) > 1e-3 * min_step_s).sum())
    span_s = 0.999 * (len(times) - 1) * min_step_s
    if len(times) > 1 and (times[-1] - times[0] < span_s or rising[-1] - times[-1] > span_s):
        return None, Sentence(_("The frames' times do not rise: the frames' numbers stand for them."))
    note = _("The times of {changed} of {count} frames did not rise and were moved.")
    return rising, Sentence(note, changed=changed, count=len(times)) if changed else ""


def require_fan_size(fan: Bool[np.ndarray, "rows columns"], image_to_reference: Float[np.ndarray, "k 4 4"]) -> None:
    """Raises InputError unless a fan is as wide and as deep as an ultrasound image, in mm, in every frame."""
    pixels = [np.ptp(np.flatnonzero(fan.any(axis))) + 1 for axis in (0, 1)]
    sizes = np.linalg.norm(image_to_reference[:, :3, :2], axis=1) * pixels
    wrong = np.flatnonzero(((sizes < FAN_MM[0]) | (sizes > FAN_MM[1])).any(1))
    if len(wrong):
        width, depth = sizes[wrong[0]]
        raise InputError(
            _(
                "The ultrasound fan would be {width:.4g} mm wide and {depth:.4g} mm deep where "
                "{low:g} and {high:g} mm are the limits: check the pixel size in the image "
                "calibration."
            ),
            width=width,
            depth=depth,
            low=FAN_MM[0],
            high=FAN_MM[1],
        )
