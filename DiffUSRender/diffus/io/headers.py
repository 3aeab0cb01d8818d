"""What a file of voxels promises, compared with what is there, before anything is read or allocated.

ITK reads a NIfTI file that was cut off as if it were whole, the rest zero; takes a voxel size of zero or NaN for 1 mm;
and allocates whatever a header asks for.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import SimpleITK as sitk

from ..errors import InputError, _

if TYPE_CHECKING:
    from collections.abc import Sequence

MIN_VOXEL_MM, MAX_VOXEL_MM = 0.01, 30.0
MAX_RATIO = 1100  # bytes that one byte can hold at most: deflate reaches 1032 to 1
MARGIN_BYTES = 1 << 20  # headers, tables, names
CHUNK = 1 << 22
NIFTI_1, NIFTI_2 = 348, 540  # bytes of the headers, which begin with this number


def require_whole(path: Path) -> None:
    """Checks a volume's file before it is read.

    Args:
        path: Any file; what is no image is left for the reader to refuse.

    Raises:
        InputError: A NIfTI file that ends too early, a voxel size that is no size, or a header that promises more than
            the file can hold; names the file.
    """
    if path.name.lower().endswith((".nii", ".nii.gz")):
        _require_whole_nifti(path)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        return
    _require_possible(path, reader)


def require_voxel_size(path: Path, spacing_mm: Sequence[float]) -> None:
    """Raises InputError unless every voxel size, mm, is one that a scanner can have."""
    for size in spacing_mm:
        if not MIN_VOXEL_MM <= abs(size) <= MAX_VOXEL_MM:  # NaN too
            raise InputError(
                _(
                    "{path} says that its voxels are {size:g} mm wide; sizes go from {low:g} to {high:g} mm: "
                    "export it again."
                ),
                path=path,
                size=size,
                low=MIN_VOXEL_MM,
                high=MAX_VOXEL_MM,
            )


def _require_possible(path: Path, reader: sitk.ImageFileReader) -> None:
    """Raises InputError where no file of this length can hold what its header promises, however well compressed."""
    voxels = math.prod(reader.GetSize()) * reader.GetNumberOfComponents()
    held = path.stat().st_size
    if path.suffix.lower() in (".nhdr", ".mhd"):  # the voxels lie in other files
        return
    if voxels > MAX_RATIO * held + MARGIN_BYTES:
        raise InputError(
            _("{path} promises {voxels} voxels, but has {held} bytes only; it is damaged: export it again."),
            path=path,
            voxels=voxels,
            held=held,
        )


def _require_whole_nifti(path: Path) -> None:
    with open(path, "rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
    opened = gzip.open if packed else open
    try:
        with opened(path, "rb") as file:
            header = file.read(NIFTI_2)
            promised = _nifti_bytes(path, header)
            if promised is None:
                return
            held = len(header)
            if packed:
                while held < promised and (chunk := file.read(CHUNK)):
                    held += len(chunk)
            else:
                held = path.stat().st_size
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(_("{path} is cut off or damaged; copy it again."), path=path) from error
    if held < promised:
        raise InputError(
            _("{path} is cut off: {held} of {promised} bytes are there; copy it again."),
            path=path,
            held=held,
            promised=promised,
        )


def _nifti_bytes(path: Path, header: bytes) -> int | None:
    """Bytes of a whole NIfTI file, unpacked, by its header; None for what is no NIfTI."""
    for order in "<>":
        size = struct.unpack(order + "i", header[:4])[0] if len(header) >= NIFTI_1 else 0
        if size == NIFTI_1:
            fields = ("8h", 40), ("h", 72), ("8f", 76), ("f", 108)
            break
        if size == NIFTI_2 and len(header) >= NIFTI_2:
            fields = ("8q", 16), ("h", 14), ("8d", 104), ("q", 168)
            break
    else:
        return None
    dim, (bits,), pixdim, (offset,) = (struct.unpack_from(order + kind, header, at) for kind, at in fields)
    if not 1 <= dim[0] <= 7 or min(dim[1 : dim[0] + 1]) < 1 or not math.isfinite(offset):
        return None
    require_voxel_size(path, pixdim[1 : min(dim[0], 3) + 1])
    # The voxels of a pair of files lie in the other one.
    return int(offset) + math.prod(dim[1 : dim[0] + 1]) * max(bits, 8) // 8
