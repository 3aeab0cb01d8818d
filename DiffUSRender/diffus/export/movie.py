"""Films: GIF by Pillow, MP4 by the optional package imageio-ffmpeg."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ..errors import InputError, _
from ..io.atomic import no_space, replacing, require_space
from ..io.provenance import header_keys
from .annotation import make_canvas

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import ModuleType

    from .frames import SimulatedFrames

MIN_GIF_MS = 20  # viewers play shorter ones slowly
MAX_GIF_S = 655.0  # 65 535 hundredths of a second
ROOM = 1 << 20  # bytes that a disk takes which is not full


def write_gif(path: Path, frames: SimulatedFrames) -> Iterator[int]:
    """A GIF that runs in the frames' own time, to 10 ms."""
    canvas = make_canvas(frames.inside)
    pictures = []
    for number, pixels in enumerate(frames.pixels):
        pictures.append(Image.fromarray(canvas.draw(pixels)))
        yield number + 1
    if frames.intervals_s.max() > MAX_GIF_S:
        raise InputError(
            _("{path} cannot hold a pause of {seconds:.0f} s (GIF: {longest:.0f} s at most); write .mp4 or .seq.nrrd."),
            path=path,
            seconds=frames.intervals_s.max(),
            longest=MAX_GIF_S,
        )
    durations = np.maximum(10 * np.round(100 * frames.intervals_s), MIN_GIF_MS).astype(int).tolist()
    with replacing(path) as temporary:
        options = {"duration": durations, "loop": 0, "comment": _comment(frames)}
        pictures[0].save(temporary, format="GIF", save_all=True, append_images=pictures[1:], **options)


def require_ffmpeg() -> ModuleType:
    """The package imageio_ffmpeg; raises InputError, which says what to do, without it or its program."""
    try:
        import imageio_ffmpeg

        imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError) as error:
        raise InputError(
            _(
                "MP4 needs the package imageio-ffmpeg: write a .gif instead, or install it (pip install "
                "imageio-ffmpeg; in 3D Slicer's Python console, slicer.util.pip_install('imageio-ffmpeg'))."
            )
        ) from error
    return imageio_ffmpeg


def write_mp4(path: Path, frames: SimulatedFrames) -> Iterator[int]:
    """An H.264 film at the frames' mean rate; raises InputError without imageio-ffmpeg."""
    imageio_ffmpeg = require_ffmpeg()
    canvas = make_canvas(frames.inside, even=True)
    rows, columns = canvas.stamp.shape
    with replacing(path) as temporary:
        writer = imageio_ffmpeg.write_frames(
            str(temporary),
            (columns, rows),
            pix_fmt_in="gray",
            fps=frames.frames_per_second,
            codec="libx264",
            quality=8,
            macro_block_size=1,  # else it would scale the picture
            ffmpeg_log_level="error",
            output_params=["-metadata", f"comment={_comment(frames).decode()}"],
        )
        try:
            writer.send(None)
            for number, pixels in enumerate(frames.pixels):
                writer.send(canvas.draw(pixels))
                yield number + 1
        except OSError as error:
            require_space(temporary, ROOM)  # ffmpeg says only that it has ended
            raise InputError(_("{path} cannot be encoded here; write a .gif instead."), path=path) from error
        finally:
            writer.close()
        _require_all_frames(imageio_ffmpeg, temporary, path, len(frames.pixels))


def _require_all_frames(imageio_ffmpeg: ModuleType, written: Path, path: Path, count: int) -> None:
    """Raises DiskError unless the film holds its frames: ffmpeg does not say that the disk was full."""
    try:
        found, _seconds = imageio_ffmpeg.count_frames_and_secs(str(written))
    except RuntimeError as error:
        raise no_space(path) from error
    if found != count:
        raise no_space(path)


def _comment(frames: SimulatedFrames) -> bytes:
    """What the film says of itself, ASCII."""
    return " ".join(header_keys(frames.provenance).values()).encode("ascii")
