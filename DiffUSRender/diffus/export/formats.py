"""Which writer an ending chooses."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError, _
from ..io.atomic import require_new_folder, require_writable
from ..io.provenance import header_keys
from ..io.volumes import write_volume
from .movie import require_ffmpeg, write_gif, write_mp4
from .pictures import series_folder, write_png, write_png_series
from .tracked import SEQUENCE_SUFFIX, write_igs, write_sequence
from .ultrasound_dicom import DicomOptions, write_dicom

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .frames import SimulatedFrames

# Longer endings first: .seq.nrrd is not a .nrrd.
FORMATS = (SEQUENCE_SUFFIX, ".igs.mha", ".nrrd", ".png", ".gif", ".mp4", ".dcm")
ONE_FRAME = (".nrrd",)
FILMS = (".gif", ".mp4")


def format_of(path: str | Path, count: int) -> str:
    """Chooses the format, one of FORMATS, by a file's ending.

    Args:
        path: What is to be written.
        count: How many frames there are.

    Raises:
        InputError: Another ending, one that cannot hold so many frames, or a place that cannot be written.
    """
    path = require_writable(path, FORMATS)
    ending = next(each for each in FORMATS if path.name.lower().endswith(each))
    if ending in ONE_FRAME and count > 1:
        raise InputError(
            _("{path} can hold one slice only; write a sweep as {suffix}."),
            path=path,
            suffix=SEQUENCE_SUFFIX,
        )
    if ending in FILMS and count < 2:
        raise InputError(_("{path} is a film, and there is one slice only; write it as .png."), path=path)
    if ending == ".png" and count > 1:
        require_new_folder(series_folder(path))
    if ending == ".mp4":
        require_ffmpeg()
    return ending


def export(frames: SimulatedFrames, path: str | Path, dicom: DicomOptions | None = None) -> Iterator[int]:
    """Writes frames in the format of the ending; the file is there when the iterator has ended, and not before.

    A series of PNG goes into a new folder named like the file without its ending. Stopping before the end, or an
    error, leaves nothing behind.

    Args:
        frames: What is written.
        path: Its ending is one of FORMATS.
        dicom: Whose study a .dcm joins.

    Yields:
        The number of frames done.

    Raises:
        InputError: At the first step, for what cannot be written.
    """
    path = Path(path)
    ending = format_of(path, len(frames))
    if ending == ".dcm":
        yield from write_dicom(path, frames, dicom or DicomOptions())
    elif ending == ".nrrd":
        yield 1
        write_volume(path, frames.pixels, frames.image_to_reference[0], header_keys(frames.provenance))
    else:
        series = write_png if len(frames) == 1 else write_png_series
        writers = {SEQUENCE_SUFFIX: write_sequence, ".igs.mha": write_igs, ".png": series}
        yield from (writers | {".gif": write_gif, ".mp4": write_mp4})[ending](path, frames)
