"""Tracked ultrasound sweeps: read, check, choose frames, write.

A sequence file (PLUS/IGSIO `.igs.mha`, `.mha`, `.mhd`, `.nrrd`, `.seq.nrrd`) holds the pixels of all frames and, per
frame, keys `Seq_FrameNNNN_<A>To<B>Transform` with a status. IGSIO flips the pixels of a file to the orientation MF
(x to the marked side, y far from the transducer) as it reads, and leaves every matrix alone: `ImageTo*` belongs to the
MF image whatever orientation the file is stored in. So does this reader.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import numpy as np
import torch
from scipy import ndimage
from scipy.spatial import ConvexHull
from torch import Tensor

from ..errors import InputError
from ..geometry.pose import ras_to_lps, require_rigid

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

_FRAME_KEY = re.compile(r"^Seq_Frame(\d+)_(\w+)$")
# What need not move, and may then stand once for the whole file; a pose must be each frame's own.
_STATIC = ("ImageToProbe", "ReferenceToTracker")
FAN_MM = (5.0, 400.0)  # width and depth of a fan; what lies beyond has a wrong pixel size


@dataclass(frozen=True)
class SweepReport:
    """What was read and what was left out, for people: counts and plain sentences."""

    frames_in_file: int
    frames_skipped: int = 0
    orientation: str = "MF"
    notes: tuple[str, ...] = ()
    from_volume: bool = False  # cut from a 3-D ultrasound volume


@dataclass(frozen=True)
class TrackedSweep:
    """Ultrasound frames with a pose each.

    frames (K, rows, columns) float32 in [0, 1]; image_to_reference (K, 4, 4) float64, from (column, row, 0, 1) at pixel
    centres to reference mm; mask (1 or K, rows, columns) bool, true where the beam reached; timestamps (K,) seconds.
    """

    frames: Float[Tensor, "k rows columns"]
    image_to_reference: Float[Tensor, "k 4 4"]
    mask: Bool[Tensor, "m rows columns"]
    timestamps: Float[Tensor, " k"]
    report: SweepReport = field(default_factory=lambda: SweepReport(0))

    def __len__(self) -> int:
        return self.frames.shape[0]

    @classmethod
    def from_arrays(cls, frames, image_to_reference, *, mask=None, timestamps=None, report=None) -> TrackedSweep:
        """Builds a checked sweep from arrays or tensors; raises InputError in one sentence if they cannot be used.

        frames (K, rows, columns), any real type (integers are divided by 255, or by 65535 for 16 bit; floats by their
        maximum if that is above 1); without `mask` the fan is found from the pixels.
        """
        pixels = np.asarray(frames)
        if pixels.ndim != 3 or 0 in pixels.shape:
            raise InputError(f"Frames must have the shape (frames, rows, columns), but it is {pixels.shape}.")
        if min(pixels.shape[1:]) < 8:
            raise InputError(f"Frames of {pixels.shape[2]} x {pixels.shape[1]} pixels are too small to be ultrasound.")
        if pixels.dtype.kind not in "biuf":
            raise InputError(f"The frames must hold grey values, but they hold {pixels.dtype}.")
        if not np.isfinite(pixels).all():
            raise InputError("The frames hold NaN or infinite pixels; export the sequence again.")
        poses = torch.as_tensor(np.asarray(image_to_reference).astype(np.float64))
        if poses.shape != (len(pixels), 4, 4):
            raise InputError(
                f"{len(pixels)} frames need as many 4x4 poses, but the poses' shape is {tuple(poses.shape)}."
            )
        require_image_matrix(poses, "ImageToReference")
        found = find_fan_mask(pixels)[None] if mask is None else np.asarray(mask, dtype=bool)
        found = found[None] if found.ndim == 2 else found
        if found.shape[1:] != pixels.shape[1:] or found.shape[0] not in (1, len(pixels)):
            raise InputError(f"The fan mask's shape {found.shape} does not fit frames of shape {pixels.shape}.")
        if not found.any():
            raise InputError("The frames are empty: no pixel lies in the ultrasound fan.")
        _require_fan_size(found.any(0), poses)
        times = np.arange(len(pixels), dtype=np.float64) if timestamps is None else np.asarray(timestamps, np.float64)
        return cls(
            torch.from_numpy(_to_unit_range(pixels)),
            poses,
            torch.from_numpy(np.ascontiguousarray(found)),
            torch.from_numpy(times),
            report or SweepReport(len(pixels)),
        )

    def subset(self, indices) -> TrackedSweep:
        """The sweep with only these frames, in this order (integers, (n,))."""
        index = torch.as_tensor(indices, dtype=torch.long)
        mask = self.mask if self.mask.shape[0] == 1 else self.mask[index]
        return replace(
            self,
            frames=self.frames[index],
            image_to_reference=self.image_to_reference[index],
            mask=mask,
            timestamps=self.timestamps[index],
        )


def _to_unit_range(pixels: np.ndarray) -> np.ndarray:
    if pixels.dtype == np.uint8:
        return pixels.astype(np.float32) / 255
    if pixels.dtype == np.uint16:
        return pixels.astype(np.float32) / max(65535 if pixels.max() > 4095 else 4095, 1)
    low, high = min(float(pixels.min()), 0.0), float(pixels.max())
    unit = low == 0.0 and 0.0 < high <= 1.0
    return pixels.astype(np.float32) if unit else ((pixels - low) / max(high - low, 1e-12)).astype(np.float32)


def _require_fan_size(fan: np.ndarray, image_to_reference: Tensor) -> None:
    """Raises InputError unless a fan (rows, columns) is as wide and as deep as an ultrasound image in every frame."""
    pixels = torch.tensor([float(np.ptp(np.flatnonzero(fan.any(axis)))) + 1 for axis in (0, 1)])
    sizes = image_to_reference[:, :3, :2].norm(dim=1) * pixels
    wrong = torch.nonzero(((sizes < FAN_MM[0]) | (sizes > FAN_MM[1])).any(1))
    if len(wrong):
        width, depth = sizes[int(wrong[0])].tolist()
        raise InputError(
            f"The ultrasound fan would be {width:.4g} mm wide and {depth:.4g} mm deep where {FAN_MM[0]:g} and "
            f"{FAN_MM[1]:g} mm are the limits: check the pixel size in the image calibration."
        )


def require_image_matrix(matrix: Float[Tensor, "*k 4 4"], name: str, shear: float = 0.05) -> None:
    """Raises InputError unless `matrix` is rigid but for a positive scale per axis; `shear`: cosine of the axes."""
    m = matrix.detach().double()
    if not torch.isfinite(m).all():
        raise InputError(f"{name} holds NaN or infinite numbers; export the tracking again.")
    if (m[..., 3, :] - m.new_tensor([0.0, 0.0, 0.0, 1.0])).abs().max() > 1e-6:
        raise InputError(f"{name} is not an affine transform: its last row must be 0 0 0 1.")
    axes = m[..., :3, :3]
    scale = axes.norm(dim=-2)
    if (scale < 1e-6).any() or (scale > 1e4).any():
        raise InputError(f"{name} gives a pixel no size in one direction; check the image calibration.")
    gram = (axes / scale[..., None, :]).transpose(-1, -2) @ (axes / scale[..., None, :])
    if (gram - torch.eye(3, dtype=m.dtype)).abs().max() > shear:
        raise InputError(f"{name} shears the image by more than {shear:.0%}; check the image calibration.")
    if (torch.linalg.det(axes) < 0).any():
        raise InputError(f"{name} mirrors the image (left-handed); flip its third column or the image's orientation.")


# ---------------------------------------------------------------------------------------------------- reading


def read_sweep(path: str | Path, image_to_probe=None) -> TrackedSweep:
    """Reads a tracked sequence file; `image_to_probe` (4, 4) replaces or supplies the calibration in the file.

    Frames whose image or transform status is not OK are skipped and counted in the report. Raises InputError where the
    file cannot be read, nothing is tracked, no valid frame is left, or a matrix is not what it should be.
    """
    pixels, keys = _read_file(Path(path))
    fields = _frame_fields(keys)
    if not fields:
        raise InputError(f"{Path(path).name} holds no tracking (no Seq_Frame... keys); record it with its transforms.")
    if len(pixels) != max(fields) + 1:
        raise InputError(f"{Path(path).name} holds {len(pixels)} frames, but tracking for {max(fields) + 1}.")
    # Of the header only: a frame's own matrices are read where its status says that they hold.
    header = {name: text for name, text in keys.items() if not _FRAME_KEY.match(name)}
    poses, valid, notes = [], [], []
    target = _target_frame(fields, header, image_to_probe is not None)
    calibration = {} if target == "Direct" else _calibration(header, image_to_probe)
    if target == "Tracker":
        notes.append("The file tracks no reference: poses are relative to the tracker.")
    for number in range(len(pixels)):
        entry = fields.get(number, {})
        pose = None if entry.get("ImageStatus", "OK") != "OK" else _pose(entry, calibration, target, image_to_probe)
        if pose is not None:
            poses.append(pose)
            valid.append(number)
    if not valid:
        raise InputError(
            f"{Path(path).name} has no frame with valid tracking; record the sweep again in view of the tracker."
        )
    pixels, orientation, note = _orient(pixels[valid], keys.get("UltrasoundImageOrientation"))
    notes += [note] if note else []
    if len(poses) > 1 and np.abs(np.stack(poses) - poses[0]).max() < 1e-9:
        notes.append("All frames have the same pose: the probe did not move, or was not tracked.")
    times = [_timestamp(fields[n].get("Timestamp", str(n))) for n in valid]
    report = SweepReport(max(fields) + 1, max(fields) + 1 - len(valid), orientation, tuple(notes))
    return TrackedSweep.from_arrays(pixels, np.stack(poses), timestamps=times, report=report)


def _read_file(path: Path) -> tuple[np.ndarray, dict[str, str]]:
    import SimpleITK as sitk

    if not path.is_file():
        raise InputError(f"There is no file {path}.")
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        raise InputError(f"{path.name} cannot be read as an image sequence.") from error
    keys = {key: image.GetMetaData(key).strip() for key in image.GetMetaDataKeys()}
    pixels = sitk.GetArrayFromImage(image)
    components = image.GetNumberOfComponentsPerPixel()
    count = len(_frame_fields(keys)) or components
    listed = pixels.ndim == 3 or 1 in pixels.shape[:-1]
    if components > 1 and components == count and listed:  # NRRD "list" axes arrive as components
        pixels = np.moveaxis(pixels, -1, 0)
    elif components > 1:  # colour
        pixels = pixels[..., :3].astype(np.float32).mean(-1)
    while pixels.ndim > 3 and 1 in pixels.shape[1:]:
        pixels = np.squeeze(pixels, axis=1 + pixels.shape[1:].index(1))
    pixels = pixels[None] if pixels.ndim == 2 else pixels
    if pixels.ndim != 3:
        raise InputError(f"{path.name} is not a sequence of 2-D frames: its size is {image.GetSize()}.")
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
        raise InputError(f"{name} is not a list of 16 numbers; export the tracking again.") from error
    if values.size != 16:
        raise InputError(f"{name} holds {values.size} numbers where 16 are needed; export the tracking again.")
    if not np.isfinite(values).all():
        raise InputError(f"{name} holds NaN or infinite numbers; export the tracking again.")
    return values.reshape(4, 4)


def _calibration(header: dict[str, str], image_to_probe) -> dict[str, np.ndarray]:
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
        raise InputError(f"The timestamp {text!r} of a frame is not a number; export the tracking again.") from error


def _target_frame(fields: dict, header: dict, given: bool) -> str:
    """'Direct' (ImageToReference in the file), 'Reference' or 'Tracker'; raises InputError if no chain reaches one."""
    names = {key for entry in fields.values() for key in entry}
    probe = {"ProbeToReferenceTransform", "ProbeToTrackerTransform"} & names
    static = {
        f"{name}Transform" for name in _STATIC if header.get(f"{name}TransformStatus", "OK") == "OK"
    } & header.keys()
    if "ImageToReferenceTransform" in names and given and not probe:
        raise InputError(
            "The file holds ImageToReference and no pose of the probe: leave the ImageToProbe calibration out."
        )
    if "ImageToReferenceTransform" in names and not given:
        return "Direct"
    if not probe:
        raise InputError(
            "The file tracks no probe: neither ImageToReference nor ProbeToReference or ProbeToTracker is there."
        )
    if not given and "ImageToProbeTransform" not in names | static:
        raise InputError("The file tracks the probe but not the image: give its ImageToProbe calibration.")
    return "Reference" if {"ProbeToReferenceTransform", "ReferenceToTrackerTransform"} & (names | static) else "Tracker"


def _pose(entry: dict, calibration: dict, target: str, given) -> np.ndarray | None:
    """image_to_reference of one frame, or None where a transform that it needs is missing or not OK."""

    def get(name: str) -> np.ndarray | None:
        if f"{name}Transform" not in entry:
            return calibration.get(name)
        if entry.get(f"{name}TransformStatus", "OK") != "OK":
            return None
        return _checked(_matrix(entry[f"{name}Transform"], name), name)

    if target == "Direct":
        return get("ImageToReference")
    image_to_probe = calibration["ImageToProbe"] if given is not None else get("ImageToProbe")
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
        what = f"is unknown ({stated})" if name else "is not stated"
        return pixels, "unknown", f"The image orientation {what}: it was taken as MF (x to the marked side, y far)."
    if axes[0] in "FN":  # the file's first axis is depth
        pixels = pixels.transpose(0, 2, 1)
    if "U" in axes:
        pixels = pixels[:, :, ::-1]
    if "N" in axes:
        pixels = pixels[:, ::-1, :]
    return np.ascontiguousarray(pixels), name, ""


def read_image_to_probe(path: str | Path) -> np.ndarray:
    """ImageToProbe (4, 4) from a PLUS configuration `.xml`, or a `.tfm`/`.h5` as Slicer saves it (from parent, LPS)."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"There is no file {path}.")
    if path.suffix.lower() == ".xml":
        try:
            root = ElementTree.parse(path).getroot()
        except (ElementTree.ParseError, LookupError, ValueError) as error:  # the latter two: unknown encodings
            raise InputError(f"{path.name} is not an XML file.") from error
        for node in root.iter("Transform"):
            if (node.get("From"), node.get("To")) == ("Image", "Probe"):
                return _matrix(node.get("Matrix", ""), "ImageToProbe")
        raise InputError(f"{path.name} holds no transform from Image to Probe; calibrate the probe first.")
    import SimpleITK as sitk

    try:
        transform = sitk.ReadTransform(str(path))
    except RuntimeError as error:
        raise InputError(f"{path.name} cannot be read as a transform; give a .tfm, .h5 or .xml file.") from error
    if transform.GetDimension() != 3 or not transform.IsLinear():
        raise InputError(f"{path.name} holds no linear transform of 3-D space; give ImageToProbe.")
    matrix = np.eye(4)
    matrix[:3, 3] = transform.TransformPoint((0.0, 0.0, 0.0))
    for axis in range(3):
        matrix[:3, axis] = np.subtract(transform.TransformPoint(np.eye(3)[axis].tolist()), matrix[:3, 3])
    if not np.isfinite(matrix).all() or abs(np.linalg.det(matrix[:3, :3])) < 1e-12:
        raise InputError(f"{path.name} holds a singular transform (it flattens space); calibrate the probe first.")
    return np.linalg.inv(ras_to_lps(torch.as_tensor(matrix)).numpy())


def write_sweep(sweep: TrackedSweep, path: str | Path) -> None:
    """Writes `.mha` or `.nrrd` with ImageToReference per frame, 8 bit, orientation MFA; read_sweep reads it back."""
    import SimpleITK as sitk

    path = Path(path)
    if path.suffix.lower() not in (".mha", ".nrrd"):
        raise InputError("A sweep is written as .igs.mha or .nrrd; change the file's name.")
    image = sitk.GetImageFromArray((sweep.frames.cpu().numpy() * 255).round().astype(np.uint8))
    image.SetMetaData("UltrasoundImageOrientation", "MFA")
    image.SetMetaData("UltrasoundImageType", "BRIGHTNESS")
    for number, (pose, time) in enumerate(zip(sweep.image_to_reference.cpu().numpy(), sweep.timestamps.tolist())):
        key = f"Seq_Frame{number:04d}"
        image.SetMetaData(f"{key}_ImageToReferenceTransform", " ".join(f"{v:.12g}" for v in pose.ravel()))
        image.SetMetaData(f"{key}_ImageToReferenceTransformStatus", "OK")
        image.SetMetaData(f"{key}_ImageStatus", "OK")
        image.SetMetaData(f"{key}_Timestamp", f"{time:.6f}")
    sitk.WriteImage(image, str(path), useCompression=True)


# ---------------------------------------------------------------------------------------------------- making


def sweep_from_volume(volume, ijk_to_ras, *, slices: int = 24, axis: int = 2) -> TrackedSweep:
    """Cuts a 3-D ultrasound volume (K, J, I) into `slices` tracked frames across axis 0 (i), 1 (j) or 2 (k).

    The reference frame is the volume's RAS; each frame has its own mask: where the volume holds echoes.
    """
    data = np.asarray(volume)
    if data.ndim != 3 or min(data.shape) < 8:
        raise InputError(f"A 3-D ultrasound volume is needed, but this one's shape is {data.shape}.")
    matrix = np.asarray(ijk_to_ras, dtype=np.float64)
    if not np.isfinite(matrix).all() or abs(np.linalg.det(matrix[:3, :3])) < 1e-12:
        raise InputError("The ultrasound volume's geometry is singular (voxels without a size); export it again.")
    if not np.isfinite(data).all():
        raise InputError("The ultrasound volume holds NaN or infinite voxels; replace them first.")
    order = {2: (0, 1, 2), 1: (0, 2, 1), 0: (1, 2, 0)}[axis]  # columns, rows, across, as ijk axes
    stack = data.transpose([2 - a for a in reversed(order)])
    used = np.flatnonzero((stack > stack.min()).mean((1, 2)) > 0.02)
    if used.size == 0:
        raise InputError("The ultrasound volume is empty; choose one that holds echoes.")
    chosen = np.unique(np.linspace(used[0], used[-1], min(slices, used[-1] - used[0] + 1)).round().astype(int))
    poses = np.tile(np.eye(4), (len(chosen), 1, 1))
    poses[:, :3, :3] = matrix[:3, order]
    poses[:, :3, 3] = matrix[:3, 3] + chosen[:, None] * matrix[:3, order[2]]
    if np.linalg.det(poses[0, :3, :3]) < 0:  # which way a single slice's normal points is free
        poses[:, :3, 2] *= -1
    masks = np.stack([find_fan_mask(stack[n : n + 1]) for n in chosen])
    return TrackedSweep.from_arrays(stack[chosen], poses, mask=masks, report=SweepReport(len(chosen), from_volume=True))


def find_fan_mask(frames) -> np.ndarray:
    """Where the beam reached, (rows, columns) bool, from (K, rows, columns) pixels.

    The convex hull of the pixels that are lit and (with four frames or more) change, without what lies above the first
    such pixel of each column: a convex probe's face bends into the hull. Annotations do not change from frame to frame.
    """
    pixels = np.asarray(frames)
    low, high = pixels.min(0).astype(np.float32), pixels.max(0).astype(np.float32)
    lit = (high - low if len(pixels) >= 4 else high) > 0.015 * max(float(high.max()), 1e-12)
    size = max(3, min(lit.shape) // 60)
    dense = ndimage.uniform_filter(lit.astype(np.float32), size) > 0.5
    labels, count = ndimage.label(dense)
    if count == 0:
        return lit
    sizes = ndimage.sum_labels(dense, labels, np.arange(1, count + 1))
    dense = np.isin(labels, 1 + np.flatnonzero(sizes > 0.02 * sizes.max()))
    below_face = np.maximum.accumulate(dense, axis=0) | ~dense.any(0)
    return _convex_hull(dense) & below_face


def _convex_hull(mask: np.ndarray) -> np.ndarray:
    points = np.argwhere(mask)
    if np.ptp(points, axis=0).min() == 0:
        return mask
    rows, columns = np.indices(mask.shape)
    inside = np.ones_like(mask)
    for row, column, offset in np.unique(ConvexHull(points).equations, axis=0):
        inside &= row * rows + column * columns + offset <= 1e-6
    return inside


def choose_frames(sweep: TrackedSweep, count: int) -> Tensor:
    """Indices (count,) of frames spread over the poses, preferring those with strong gradients; all if there are fewer.

    Greedy farthest-point choice on the four corners of each frame in mm, distance weighted by the square root of the
    frame's gradient energy relative to the median frame's.
    """
    total = len(sweep)
    if total <= count:
        return torch.arange(total)
    rows, columns = sweep.frames.shape[1:]
    corners = torch.tensor(
        [[0, 0, 0, 1], [columns, 0, 0, 1], [0, rows, 0, 1], [columns, rows, 0, 1]], dtype=torch.float64
    )
    places = (sweep.image_to_reference @ corners.T)[:, :3].reshape(total, -1) / 2  # norm: RMS over the corners
    small = torch.nn.functional.avg_pool2d((sweep.frames * sweep.mask)[:, None], max(1, min(rows, columns) // 48))[:, 0]
    energy = small.diff(dim=1).square().mean((1, 2)) + small.diff(dim=2).square().mean((1, 2))
    weight = (energy.double() / energy.double().median().clamp_min(1e-12)).clamp(0.05, 4.0).sqrt()
    distance = torch.full((total,), torch.inf, dtype=torch.float64)
    chosen = [int(weight.argmax())]
    while len(chosen) < count:
        distance = torch.minimum(distance, (places - places[chosen[-1]]).norm(dim=1))
        score = distance * weight
        score[chosen] = -1.0
        chosen.append(int(score.argmax()))
    return torch.tensor(sorted(chosen))
