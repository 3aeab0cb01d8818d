"""`render`: one slice, from a volume, a probe and its pose."""

from __future__ import annotations

from contextlib import ExitStack

import click
import numpy as np
import torch

from ..errors import InputError
from ..export.a_mode import A_MODE_SUFFIXES, write_a_mode
from ..export.annotation import make_canvas
from ..export.frames import render_frame
from ..export.pictures import save_png
from ..io.atomic import replacing
from ..io.provenance import header_keys
from ..io.volumes import VOLUME_SUFFIXES, write_slice
from ..render.a_mode import a_mode
from ..render.renderer import UltrasoundRenderer
from ..render.scan_conversion import scan_grid
from .common import MEDIUM, SETTINGS, SETTINGS_FILE, options, progress, read_probe, torch_device
from .inputs import (
    DEVICE,
    FIGURE_SUFFIXES,
    medium_of,
    provenance_of,
    read_rigid,
    render_settings,
    require_files,
    volume_options,
)

FILES = (
    click.option(
        "--pose", required=True, metavar="FILE", help="probe_to_ras: a transform as 3D Slicer saves it (.tfm, .h5)."
    ),
    click.option("--probe", "probe_name", required=True, metavar="NAME|FILE.json", help="A preset or a probe file."),
    click.option("--output", required=True, metavar="FILE", help="The slice in the volume's world (.nrrd, .mha, ...)."),
    click.option("--png", metavar="FILE", help="The slice as a picture too."),
    click.option(
        "--a-mode", metavar="FILE", help="One line's echo against depth and time too: a table (.csv) or a curve (.png)."
    ),
    click.option(
        "--lateral-mm", type=float, help="Where the line of --a-mode crosses the depth of the focus.  [default: 0]"
    ),
    click.option("--ray", type=int, help="Number of the line from 0, in place of --lateral-mm."),
    DEVICE,
)


@click.command()
@options(volume_options())
@options(FILES)
@options(MEDIUM)
@options(SETTINGS)
@SETTINGS_FILE
def render(output: str, png: str | None, device: str, **given: object) -> None:
    """Renders the slice that a probe at a pose would show."""
    line_path, lateral_mm, ray = given["a_mode"], given["lateral_mm"], given["ray"]
    require_files(given, (output, VOLUME_SUFFIXES), (png, FIGURE_SUFFIXES), (line_path, A_MODE_SUFFIXES))
    if (lateral_mm is not None or ray is not None) and line_path is None:
        raise InputError("--lateral-mm and --ray choose the line of --a-mode; give that too.")
    if lateral_mm is not None and ray is not None:
        raise InputError("Give --lateral-mm or --ray, not both.")
    chosen = torch_device(device)
    renderer = UltrasoundRenderer(read_probe(given["probe_name"]), **render_settings(given))
    probe_to_ras = read_rigid(given["pose"])
    with progress() as bar:
        task = bar.add_task("building the acoustic medium", total=2)
        medium = medium_of(given).to(chosen)
        bar.update(task, advance=1, description="rendering")
        image = render_frame(renderer, medium, probe_to_ras)
        with torch.inference_mode():
            line = None if line_path is None else a_mode(renderer, medium, probe_to_ras, lateral_mm or 0.0, ray=ray)
    pixel_to_ras = probe_to_ras @ renderer.probe.slice_geometry().pixel_to_probe
    picture = None if png is None else make_canvas(scan_grid(renderer.probe)[1].numpy()).draw(image)
    made = provenance_of(given, renderer)
    with ExitStack() as stack:  # all files, or none
        if picture is not None:
            save_png(picture, stack.enter_context(replacing(png)), made)
        if line is not None:
            write_a_mode(stack.enter_context(replacing(line_path)), line, made)
        write_slice(output, image, pixel_to_ras.numpy(), header_keys(made))
    written = " and ".join(each for each in (output, png, line_path) if each)
    rows, columns = image.shape
    click.echo(f"{written}: {rows} x {columns} pixels of {np.linalg.norm(pixel_to_ras[:3, 0]):.3g} mm")
