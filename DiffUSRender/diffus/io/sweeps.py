"""Tracked sequence files as plain arrays.

A sequence file (PLUS/IGSIO `.igs.mha`, `.mha`, `.mhd`, `.nrrd`, `.seq.nrrd`) holds the pixels of all frames and, per
frame, keys `Seq_FrameNNNN_<A>To<B>Transform` with a status. IGSIO flips the pixels of a file to the orientation MF
(x to the marked side, y far from the transducer) as it reads, and leaves every matrix alone: `ImageTo*` belongs to the
MF image whatever orientation the file is stored in. So does this reader.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import numpy as np
import SimpleITK as sitk
import torch

from ..errors import InputError, Sentence, _
from ..geometry.pose import require_image_matrix, require_rigid
from .atomic import existing_file, replacing, require_writable
from .headers import require_whole
from .transforms import read_transform
from .volumes import frames_of_image, write_image

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jaxtyping import Float, Real, UInt8

_FRAME_KEY = re.compile(r"^Seq_Frame(\d+)_(\w+)$")
# What need not move, and may then stand once for the whole file; a pose must be each frame's own.
_STATIC = ("ImageToProbe", "ReferenceToTracker")


@dataclass(frozen=True)
class SweepReport:
    """What was read and what was left out, for people: counts and plain sentences."""

    frames_in_file: int
    frames_skipped: int = 0
    orientation: str = "MF"
    notes: tuple[str, ...] = ()
    from_volume: bool = False  # cut from a 3-D ultrasound volume


@dataclass(frozen=True)
class SweepFile:
    """What a sequence file says of its valid frames.

    pixels: (K, rows, columns) in the file's own type, orientation MF. image_to_reference: (K, 4, 4), from
    (column, row, 0, 1) at pixel centres to reference mm. timestamps: (K,) s, as recorded.
    """

    pixels: Real[np.ndarray, "k rows columns"]
    image_to_reference: Float[np.ndarray, "k 4 4"]
    timestamps: Float[np.ndarray, " k"]
    report: SweepReport


def read_sweep_file(path: str | os.PathLike, image_to_probe: Real[np.ndarray, "4 4"] | None = None) -> SweepFile:
    """Reads a tracked sequence file; frames whose image or transform status is not OK are skipped and counted.

    Args:
        path: The sequence file.
        image_to_probe: Calibration that replaces or supplies the one in the file.

    Raises:
        InputError: It cannot be read, nothing is tracked, no valid frame is left, or a matrix is not what it should be.
    """
    path = existing_file(path)
    pixels, keys = _read_image(path)
    fields = _frame_fields(keys)
    if not fields:
        raise InputError(
            _("{name} holds no tracking (no Seq_Frame... keys); record it with its transforms."), name=path.name
        )
    count = max(fields) + 1
    if len(pixels) != count:
        raise InputError(
            _("{name} holds {count} frames, but tracking for {tracked}."),
            name=path.name,
            count=len(pixels),
            tracked=count,
        )
    # Of the header only: a frame's own matrices are read where its status says that they hold.
    header = {name: text for name, text in keys.items() if not _FRAME_KEY.match(name)}
    target = _target_frame(fields, header, image_to_probe is not None)
    calibration = {} if target == "Direct" else _calibration(header, image_to_probe)
    poses = {}
    for number, entry in sorted(fields.items()):
        if entry.get("ImageStatus", "OK") == "OK":
            pose = _pose(entry, calibration, target, image_to_probe is not None)
            if pose is not None:
                poses[number] = pose
    if not poses:
        raise InputError(
            _("{name} has no frame with valid tracking; record the sweep again in view of the tracker."), name=path.name
        )
    valid, matrices = list(poses), np.stack(list(poses.values()))
    pixels, orientation, note = _orient(pixels[valid], keys.get("UltrasoundImageOrientation"))
    notes = (
        [Sentence(_("The file tracks no reference: poses are relative to the tracker."))] if target == "Tracker" else []
    )
    notes += [note] if note else []
    if len(valid) > 1 and np.abs(matrices - matrices[0]).max() < 1e-9:
        notes.append(Sentence(_("All frames have the same pose: the probe did not move, or was not tracked.")))
    times = np.array([_timestamp(fields[n].get("Timestamp", str(n))) for n in valid])
    return SweepFile(pixels, matrices, times, SweepReport(count, count - len(valid), orientation, tuple(notes)))


def read_image_to_probe(path: str | os.PathLike) -> Float[np.ndarray, "4 4"]:
    """Reads the calibration ImageToProbe, (4, 4).

    Args:
        path: A PLUS configuration `.xml`, or a transform file as `read_transform` takes it.

    Raises:
        InputError: Missing, of another format, or without this transform.
    """
    path = existing_file(path)
    if path.suffix.lower() != ".xml":
        return read_transform(path)
    try:
        root = ElementTree.parse(path).getroot()
    except (ElementTree.ParseError, LookupError, ValueError) as error:  # the latter two: unknown encodings
        raise InputError(_("{name} is not an XML file."), name=path.name) from error
    for node in root.iter("Transform"):
        if (node.get("From"), node.get("To")) == ("Image", "Probe"):
            return _matrix(node.get("Matrix", ""), "ImageToProbe")
    raise InputError(_("{name} holds no transform from Image to Probe; calibrate the probe first."), name=path.name)


def write_sweep_file(
    path: str | os.PathLike,
    pixels: UInt8[np.ndarray, "k rows columns"],
    image_to_reference: Float[np.ndarray, "k 4 4"],
    timestamps: Float[np.ndarray, " k"],
    keys: Mapping[str, str] | None = None,
) -> None:
    """Writes frames of orientation MFA with ImageToReference and a time (s) each; `read_sweep_file` reads them back.

    Args:
        path: Ends in .mha (.igs.mha for PLUS) or .nrrd.
        keys: Further ones of the header.

    Raises:
        InputError: Another ending, or the file cannot be written, as on a full disk.
    """
    path = Path(path)
    if path.suffix.lower() not in (".mha", ".nrrd"):
        raise InputError(_("A sweep is written as .igs.mha or .nrrd; change the file's name."))
    require_writable(path, (".mha", ".nrrd"))
    image = sitk.GetImageFromArray(pixels)
    image.SetMetaData("UltrasoundImageOrientation", "MFA")
    image.SetMetaData("UltrasoundImageType", "BRIGHTNESS")
    for key, text in (keys or {}).items():
        image.SetMetaData(key, text)
    for number, (pose, time) in enumerate(zip(image_to_reference, timestamps)):
        for key, text in frame_keys(number, "ImageToReference", pose, f"{time:.6f}").items():
            image.SetMetaData(key, text)
    with replacing(path) as temporary:
        write_image(image, temporary)


def frame_keys(number: int, name: str, matrix: Float[np.ndarray, "4 4"], time: str) -> dict[str, str]:
    """The keys of one frame's header: its transform `name` (ImageToReference, ...), time in s as text, and status."""
    frame = f"Seq_Frame{number:04d}"
    return {
        f"{frame}_{name}Transform": matrix_text(matrix),
        f"{frame}_{name}TransformStatus": "OK",
        f"{frame}_ImageStatus": "OK",
        f"{frame}_Timestamp": time,
    }


def matrix_text(matrix: Float[np.ndarray, "4 4"]) -> str:
    """The 16 numbers of a matrix, row by row, as headers hold them."""
    return " ".join(f"{value:.12g}" for value in matrix.ravel())


def _read_image(path: Path) -> tuple[np.ndarray, dict[str, str]]:
    require_whole(path)
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        raise InputError(_("{name} cannot be read as an image sequence."), name=path.name) from error
    keys = {key: image.GetMetaData(key).strip() for key in image.GetMetaDataKeys()}
    pixels = frames_of_image(image, len(_frame_fields(keys)))
    if pixels.ndim != 3:
        raise InputError(
            _("{name} is not a sequence of 2-D frames: its size is {size}."), name=path.name, size=image.GetSize()
        )
    return pixels, keys


def _frame_fields(keys: dict[str, str]) -> dict[int, dict[str, str]]:
    fields: dict[int, dict[str, str]] = {}
    for key, value in keys.items():
        match = _FRAME_KEY.match(key)
        if match:
            fields.setdefault(int(match[1]), {})[match[2]] = value
    return fields


def _matrix(text: str, name: str) -> np.ndarray:
    try:
        values = np.array([float(v) for v in text.split()])
    except ValueError as error:
        raise InputError(_("{name} is not a list of 16 numbers; export the tracking again."), name=name) from error
    if values.size != 16:
        raise InputError(
            _("{name} holds {size} numbers where 16 are needed; export the tracking again."),
            name=name,
            size=values.size,
        )
    if not np.isfinite(values).all():
        raise InputError(_("{name} holds NaN or infinite numbers; export the tracking again."), name=name)
    return values.reshape(4, 4)


def _calibration(header: dict[str, str], image_to_probe: np.ndarray | None) -> dict[str, np.ndarray]:
    """What the header says once for all frames, by name, checked; `image_to_probe` goes before it."""
    found = {}
    for name in _STATIC:
        if f"{name}Transform" in header and header.get(f"{name}TransformStatus", "OK") == "OK":
            found[name] = _checked(_matrix(header[f"{name}Transform"], name), name)
    if image_to_probe is not None:
        found["ImageToProbe"] = _checked(np.asarray(image_to_probe, dtype=np.float64), "ImageToProbe")
    return found


def _checked(matrix: np.ndarray, name: str) -> np.ndarray:
    """The matrix, if it is what its name says: that of an image may scale, that of a tool is rigid."""
    (require_image_matrix if name.startswith("ImageTo") else require_rigid)(torch.as_tensor(matrix), name)
    return matrix


def _timestamp(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise InputError(
            _("The timestamp {text!r} of a frame is not a number; export the tracking again."), text=text
        ) from error


def _target_frame(fields: dict, header: dict, given: bool) -> str:
    """'Direct' (ImageToReference in the file), 'Reference' or 'Tracker'; raises InputError if no chain reaches one."""
    names = {key for entry in fields.values() for key in entry}
    probe = {"ProbeToReferenceTransform", "ProbeToTrackerTransform"} & names
    static = {
        f"{name}Transform" for name in _STATIC if header.get(f"{name}TransformStatus", "OK") == "OK"
    } & header.keys()
    if "ImageToReferenceTransform" in names and given and not probe:
        raise InputError(
            _("The file holds ImageToReference and no pose of the probe: leave the ImageToProbe calibration out.")
        )
    if "ImageToReferenceTransform" in names and not given:
        return "Direct"
    if not probe:
        raise InputError(
            _("The file tracks no probe: neither ImageToReference nor ProbeToReference or ProbeToTracker is there.")
        )
    if not given and "ImageToProbeTransform" not in names | static:
        raise InputError(_("The file tracks the probe but not the image: give its ImageToProbe calibration."))
    return "Reference" if {"ProbeToReferenceTransform", "ReferenceToTrackerTransform"} & (names | static) else "Tracker"


def _pose(entry: dict, calibration: dict, target: str, given: bool) -> np.ndarray | None:
    """image_to_reference of one frame, or None where a transform that it needs is missing or not OK."""

    def get(name: str) -> np.ndarray | None:
        if f"{name}Transform" not in entry:
            return calibration.get(name)
        if entry.get(f"{name}TransformStatus", "OK") != "OK":
            return None
        return _checked(_matrix(entry[f"{name}Transform"], name), name)

    if target == "Direct":
        return get("ImageToReference")
    image_to_probe = calibration["ImageToProbe"] if given else get("ImageToProbe")
    probe_to_reference = get("ProbeToReference")
    if probe_to_reference is None:
        probe_to_reference = get("ProbeToTracker")
        if target == "Reference" and probe_to_reference is not None:
            reference_to_tracker = get("ReferenceToTracker")
            if reference_to_tracker is None:
                return None
            probe_to_reference = np.linalg.inv(reference_to_tracker) @ probe_to_reference
    return None if image_to_probe is None or probe_to_reference is None else probe_to_reference @ image_to_probe


def _orient(pixels: np.ndarray, stated: str | None) -> tuple[np.ndarray, str, str]:
    """Pixels flipped to MF, the orientation that was stated, and a note where it was missing or unknown."""
    name = (stated or "").strip().upper()
    axes = name[:2]
    if set(axes) not in ({"M", "F"}, {"M", "N"}, {"U", "F"}, {"U", "N"}) or len(name) > 3:
        if name:
            note = _("The image orientation {name} is unknown: it was taken as MF (x to the marked side, y far).")
        else:
            note = _("The image orientation is not stated: it was taken as MF (x to the marked side, y far).")
        return pixels, "unknown", Sentence(note, name=stated)
    if axes[0] in "FN":  # the file's first axis is depth
        pixels = pixels.transpose(0, 2, 1)
    if "U" in axes:
        pixels = pixels[:, :, ::-1]
    if "N" in axes:
        pixels = pixels[:, ::-1, :]
    return np.ascontiguousarray(pixels), name, ""
