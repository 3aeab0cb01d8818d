"""What `realism` compares: the real sweep in its fan, renders on file, and a patient with the probe in place."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

from ...errors import InputError
from ...fit.matching import rocked
from ...io.volumes import read_volume
from ...medium import AcousticMedium
from ...medium.labels import as_labels
from ...medium.tissue import label_table as public_label_table
from ...probe.probe import pixel_centres
from ...studies.craniotomy import CRANIOTOMIES, brain_of, craniotomy
from ...studies.window import WINDOWS, Anatomy, acoustic_window
from ...sweep.probe_sweep import in_fan, polar_sweep, probe_of_sweep
from ...sweep.sweep import read_sweep
from ..common import label_table, read_mask, read_medium
from ..inputs import read_rigid

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from ...probe import Probe
    from ...sweep.probe_sweep import PolarSweep
    from ...sweep.sweep import TrackedSweep

SAME_PIXEL = 1e-3  # relative difference of pixels that are the same
JUDGED = ("all", "first", "second")  # half of the sweep


@dataclass(frozen=True)
class RealFrames:
    """A real sweep in its fan: the frames that are judged by, those to match to, and the other half.

    views: the judged frames' geometry, with the probe that the fan shows. matched: frames for the match, as `judged`.
    """

    judged: TrackedSweep
    matched: TrackedSweep
    halves: tuple[Tensor, Tensor]
    views: PolarSweep

    @property
    def mask(self) -> Tensor:
        """The fan, (h, w)."""
        return self.judged.mask[0]


def real_frames(given: Mapping[str, object], frequency_mhz: float) -> RealFrames:
    """Frames spread over the sweep, or over that half of it which is judged.

    Raises:
        InputError: too few frames.
    """
    sweep = read_sweep(given["sweep_path"], given["image_to_probe"])
    fewest = 2 if given["judge"] == "all" else 4
    if len(sweep) < fewest:
        few = "one frame" if len(sweep) == 1 else f"{len(sweep)} frames"
        raise InputError(
            f"{given['sweep_path']} has {few}; real frames are compared with each other too: give a sweep."
        )
    probe, pixel_to_probe = probe_of_sweep(sweep, frequency_mhz=frequency_mhz)
    mask = sweep.mask.all(0) & in_fan(probe, pixel_to_probe, *sweep.mask.shape[1:])

    def spread(first: int, last: int) -> TrackedSweep:
        chosen = np.unique(np.linspace(first, last - 1, 3 * given["count"]).round().astype(int))
        return replace(sweep.subset(chosen), mask=mask[None])

    middle, all_of = len(sweep) // 2, spread(0, len(sweep))
    first, second = spread(0, middle), spread(middle, len(sweep))
    judged, matched = {"all": (all_of, all_of), "first": (first, second), "second": (second, first)}[given["judge"]]
    views = polar_sweep(judged, probe, pixel_to_probe, rays=probe.rays, samples=probe.samples)
    return RealFrames(judged, matched, (first.frames, second.frames), views)


def frames_on_file(path: str, real: RealFrames) -> tuple[Tensor, Tensor]:
    """Simulated frames of a file on the pixels of the real ones, (n, h, w), and where both fans are, (h, w) bool.

    Frames of the very size and pixels of the real ones are taken as they are; others by the fans that both show.
    """
    sweep = read_sweep(path)
    rows, columns = real.mask.shape
    if sweep.frames.shape[1:] == real.mask.shape and _same(sweep.pixel_mm, real.judged.pixel_mm):
        return sweep.frames * real.mask, real.mask
    probe, pixel_to_probe = probe_of_sweep(sweep)
    points = pixel_centres(rows, columns, real.views.pixel_to_probe)
    to_pixel = torch.linalg.inv(pixel_to_probe)
    pixel = points @ to_pixel[:2, :2].T + to_pixel[:2, 3]
    size = pixel.new_tensor([sweep.frames.shape[2] - 1, sweep.frames.shape[1] - 1])
    grid = (2 * pixel / size - 1).float()[None]
    seen = (sweep.mask.all(0) & in_fan(probe, pixel_to_probe, *sweep.mask.shape[1:])).float()
    mask = real.mask & (F.grid_sample(seen[None, None], grid, align_corners=True)[0, 0] > 0.99)
    # Finer pixels are averaged first: their texture would alias.
    factor = max(1, round(float(real.judged.pixel_mm[0] / sweep.pixel_mm[0])))
    frames = F.avg_pool2d(sweep.frames[:, None], factor, 1, factor // 2) if factor > 1 else sweep.frames[:, None]
    found = torch.cat([F.grid_sample(one[None], grid, mode="bicubic", align_corners=True) for one in frames])
    return found[:, 0].clamp(0, 1) * mask, mask


def _same(a: Tensor, b: Tensor) -> bool:
    return bool(((a / b - 1).abs() < SAME_PIXEL).all())


def placed_probe(given: Mapping[str, object], probe: Probe) -> tuple[AcousticMedium, Tensor]:
    """The medium of --volume, and probe_to_ras (n, 4, 4) of the frames: rocked at each window, or at --pose.

    Raises:
        InputError: options that do not go together, or an organ or brain that is not there.
    """
    medium, place = (_head if given["kind"] == "mri" else _abdomen)(given)
    if given["pose"]:
        poses = [read_rigid(given["pose"])]
    else:
        poses = [place(probe, window) for window in windows_of(given)]
    each = math.ceil(given["count"] / len(poses))
    return medium, torch.cat([rocked(pose, each) for pose in poses])


def windows_of(given: Mapping[str, object]) -> tuple[str, ...]:
    """--window, or where a probe stands by default. Raises InputError for one of another part of the body."""
    known = CRANIOTOMIES if given["kind"] == "mri" else WINDOWS
    for window in given["windows"]:
        if window not in known:
            raise InputError(f"--window {window} is not for --kind {given['kind']}; choose one of {', '.join(known)}.")
    return given["windows"] or (("left-frontal",) if given["kind"] == "mri" else ("subcostal",))


def _head(given: Mapping[str, object]):
    """The medium of an MRI within the brain, and what places the probe on it."""
    if given["labels_path"] or given["labels_table"]:
        raise InputError("--labels and --labels-table are for --kind ct and labels, not mri.")
    volume = read_volume(given["volume_path"])
    contrast = given["contrast"] or "t1"
    if given["mask"]:
        brain = read_mask(given["mask"], volume)
    else:
        brain = brain_of(volume.array, volume.ijk_to_ras, contrast=contrast)
    medium = read_medium("mri", volume, brain, {"contrast": contrast})
    return medium, lambda probe, window: craniotomy(brain, volume.ijk_to_ras, probe, window)


def _abdomen(given: Mapping[str, object]):
    """The medium of a CT or of labels, and what places the probe on the skin over the organ."""
    for name in ("mask", "contrast"):
        if given[name]:
            raise InputError(f"--{name} is for --kind mri, not {given['kind']}.")
    volume = read_volume(given["volume_path"])
    labels = volume if given["kind"] == "labels" else None
    if given["labels_path"]:
        if given["kind"] == "labels":
            raise InputError("--labels is the segmentation of a CT; with --kind labels the volume is one itself.")
        labels = read_volume(given["labels_path"])
        if labels.array.shape != volume.array.shape or not np.allclose(labels.ijk_to_ras, volume.ijk_to_ras, atol=1e-3):
            raise InputError(f"{given['labels_path']} is not on the CT's grid; resample it to the CT first.")
    medium = read_medium("ct", volume, None, {}) if given["kind"] == "ct" else None
    if labels is None:
        if given["pose"] is None:
            raise InputError("Where the organ is must be known: give --labels with the CT, or --pose.")
        return medium, None
    table = label_table(labels, given["labels_table"])
    array = as_labels(labels.array)
    segmented = AcousticMedium.from_labels(array, table, labels.ijk_to_ras, elsewhere=medium)
    if given["pose"]:
        return segmented, None
    names = public_label_table(table) if isinstance(table, str) else table
    organ = [value for value, name in names.items() if str(name).lower() == given["organ"].lower()]
    if not organ or not (array == organ[0]).any():
        raise InputError(f"There is no label {given['organ']!r} in the segmentation; choose another with --organ.")
    seen = array == organ[0]
    if given["kind"] == "ct":
        anatomy = Anatomy.from_ct(volume.array, seen, volume.ijk_to_ras)
    else:
        hard = np.isin(array, [v for v, n in names.items() if "rib" in str(n).lower() or "vertebra" in str(n).lower()])
        anatomy = Anatomy(array > 0, seen, hard, volume.ijk_to_ras)
    return segmented, lambda probe, window: acoustic_window(anatomy, probe, window)


def name_of(path: str) -> str:
    """What a file of renders is called in the table."""
    return f"simulated, {Path(path).name}"
