"""Sweeps with their poses: `.seq.nrrd` for 3D Slicer, `.igs.mha` for PLUS and SlicerIGSIO."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk

from ..io.atomic import replacing
from ..io.provenance import header_keys
from ..io.sweeps import frame_keys, matrix_text, write_sweep_file
from ..io.volumes import place_in_ras, write_image

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .frames import SimulatedFrames

SEQUENCE_SUFFIX = ".seq.nrrd"
POSES_SUFFIX = ".ProbeToReference.seq.mha"


def write_igs(path: Path, frames: SimulatedFrames) -> Iterator[int]:
    """`.igs.mha` with ImageToReference per frame, which PLUS-style readers take."""
    yield len(frames)
    keys = header_keys(frames.provenance)
    write_sweep_file(path, frames.pixels, frames.image_to_reference, frames.timestamps, keys)


def poses_path(path: Path) -> Path:
    """The file of the poses that belongs to a `.seq.nrrd`."""
    return path.with_name(path.name[: -len(SEQUENCE_SUFFIX)] + POSES_SUFFIX)


def write_sequence(path: Path, frames: SimulatedFrames) -> Iterator[int]:
    """Writes `.seq.nrrd`: the slices in mm of the probe, which 3D Slicer opens as a sequence of volumes, and the poses.

    The poses stand in the header (Seq_FrameNNNN_ProbeToReferenceTransform, and ImageToProbeTransform once) and, since
    Slicer reads transforms from no NRRD, in a second file beside it that it opens as a sequence of transforms.
    """
    stack = np.ascontiguousarray(np.moveaxis(frames.pixels, 0, -1)[None])
    image = place_in_ras(sitk.GetImageFromArray(stack, isVector=True), frames.pixel_to_probe)
    keys = _frame_keys(frames) | header_keys(frames.provenance)
    keys |= {"ImageToProbeTransform": matrix_text(frames.pixel_to_probe), "ImageToProbeTransformStatus": "OK"}
    keys |= {"UltrasoundImageOrientation": "MFA", "UltrasoundImageType": "BRIGHTNESS"}
    times = " ".join(frames.index_times)
    keys |= {"axis 0 index type": "numeric", "axis 0 index values": times}  # where Slicer looks for them
    for key, text in keys.items():
        image.SetMetaData(key, text)
    with replacing(path) as temporary, replacing(poses_path(path)) as poses:
        write_image(image, temporary)
        poses.write_text(_poses_text(frames), encoding="ascii")
        yield len(frames)


def _frame_keys(frames: SimulatedFrames) -> dict[str, str]:
    keys = {}
    for number, (pose, time) in enumerate(zip(frames.probe_to_reference, frames.index_times)):
        keys |= frame_keys(number, "ProbeToReference", pose, time)
    return keys


def _poses_text(frames: SimulatedFrames) -> str:
    """A MetaImage without pixels that holds the poses of its frames."""
    lines = ["ObjectType = Image", "NDims = 3", "BinaryData = True", "CompressedData = False"]
    lines += [f"DimSize = 0 0 {len(frames)}", "ElementSpacing = 1 1 1", "Offset = 0 0 0"]
    lines += ["TransformMatrix = 1 0 0 0 1 0 0 0 1", "ElementType = MET_UCHAR", "Kinds = domain domain list"]
    lines += [f"{key} = {text}" for key, text in _frame_keys(frames).items()]
    return "\n".join([*lines, "ElementDataFile = LOCAL", ""])
