"""Ten minutes of Live at 60 Hz in real time: from a pose's arrival to its picture, and what is left behind.

DIFFUS_LIVE_SECONDS sets another length.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import heapq
import os
import time
from itertools import count
from pathlib import Path

import headless
import numpy as np
import slicer
from Benchmarks.measure import report
from headless.fixtures import addParameterNode, addTransform, addVolume, observerCount, rotation

SECONDS = float(os.environ.get("DIFFUS_LIVE_SECONDS", "600"))
RATE_HZ = 60.0
WARM_SECONDS = 5.0
CASES = (  # name, share of the time, settings: a quick frame, and one far too slow to be made in full in motion
    ("default frame", 0.1, {"rays": 192, "samples": 400}),
    ("5 elevation layers, 4 rays a line", 1.0, {"rays": 256, "samples": 512, "elevationLayers": 5, "raysPerLine": 4}),
)


class Clockwork:
    """An event loop in real time: calls what is due, and sleeps until something is."""

    def __init__(self) -> None:
        self._due: list = []
        self._order = count()

    def __len__(self) -> int:
        return len(self._due)

    def schedule(self, call, seconds: float = 0.0) -> None:
        heapq.heappush(self._due, (time.monotonic() + seconds, next(self._order), call))

    def step(self, until: float) -> None:
        """Makes one call if one is due before `until`, else waits for it or for `until`."""
        at = self._due[0][0] if self._due else until
        if at > until:
            at = until
        if (wait := at - time.monotonic()) > 0:
            time.sleep(wait)
        elif self._due and self._due[0][0] <= time.monotonic():
            heapq.heappop(self._due)[2]()


def run(folder: Path) -> None:
    """Writes live_speed.csv into `folder`."""
    rows = [row for name, share, settings in CASES for row in _stream(name, share * SECONDS, settings)]
    report(
        folder, "live_speed", f"Live, {SECONDS:.0f} s at {RATE_HZ:.0f} Hz", ["frame", "what", "figure", "target"], rows
    )


def _stream(name: str, seconds: float, settings: dict[str, int]) -> list[list[str]]:
    headless.newScene()
    from DiffUSLib.render.logic import RenderLogic
    from DiffUSLib.scene.transforms import toVtk

    generator = np.random.default_rng(0)
    volume = addVolume(generator.normal(40, 30, (160, 160, 160)).astype(np.float32), np.eye(4), "CT")
    probe = addTransform(rotation(0, 0, 0, (80, 60, 80)), name="Probe")
    parameters = addParameterNode(volume, probe, depthMm=70.0, **settings)
    loop = Clockwork()
    logic = RenderLogic(loop.schedule)
    latencies, waiting = [], []

    def render(share: float, atRest: bool, renderLive=logic.live._render) -> bool:
        blended = renderLive(share, atRest)
        now = time.monotonic()
        latencies.extend(now - arrived for arrived in waiting)
        waiting.clear()
        return blended

    logic.live._render = render
    logic.startLive(parameters)

    def send(duration: float) -> int:
        """A pose at every tick: where a frame takes longer, those that came meanwhile are all delivered after it."""
        start, ticks = time.monotonic(), 0
        while (arrival := start + ticks / RATE_HZ) < start + duration:
            if time.monotonic() >= arrival:
                waiting.append(arrival)
                x, y = 8 * np.cos(ticks / 40), 8 * np.sin(ticks / 40)  # round and round, never at rest
                probe.SetMatrixTransformToParent(toVtk(rotation(0, 0, y, (80 + x, 60 + y, 80))))
                ticks += 1
            else:
                loop.step(arrival)
        return ticks

    def left() -> tuple[int, int]:
        items = (probe, volume, parameters.parameterNode, slicer.mrmlScene)
        return sum(map(observerCount, items)), slicer.mrmlScene.GetNumberOfNodes()

    def rest() -> None:
        end = time.monotonic() + 10.0
        while loop and time.monotonic() < end:
            loop.step(end)
        gc.collect()
        _give_back()

    send(WARM_SECONDS)
    rest()
    before, memory = left(), _resident()
    latencies.clear()
    waiting.clear()
    ticks = send(seconds)
    rate, reduced, backlog = logic.live.framesPerSecond, logic.live.reduced, len(loop)
    rest()
    after, grown = left(), _resident() - memory
    full = not logic.live.reduced
    logic.stopLive()
    milliseconds = np.array(latencies) * 1e3
    figures = [
        ("poses sent", f"{ticks}", ""),
        ("frames/s at the end, quality", f"{rate:.1f}, {'reduced' if reduced else 'full'}", "15 or more"),
        ("pose to picture, median, ms", f"{np.median(milliseconds):.1f}", ""),
        ("pose to picture, 95 %, ms", f"{np.percentile(milliseconds, 95):.1f}", "at most 100"),
        ("pose to picture, worst, ms", f"{milliseconds.max():.1f}", ""),
        ("calls waiting at the end", f"{backlog}", "at most 2"),
        ("full quality at rest", "yes" if full else "no", "yes"),
        ("memory growth, MB", f"{grown:.1f}", "under 10"),
        ("growth of observers, nodes", f"{after[0] - before[0]}, {after[1] - before[1]}", "0, 0"),
    ]
    return [[name, *figure] for figure in figures]


def _give_back() -> None:
    """Lets the allocator return what is free: a full frame's temporaries come and go between the two looks."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _resident() -> float:
    """Resident memory of this process, MB (Linux; 0 elsewhere)."""
    status = Path("/proc/self/statm")
    if not status.exists():
        return 0.0
    return int(status.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
