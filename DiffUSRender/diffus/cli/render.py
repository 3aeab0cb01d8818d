"""`render`: one slice, from a volume, a probe and its pose."""

from __future__ import annotations

import click
import numpy as np
import torch

from ..export.annotation import make_canvas
from ..export.pictures import save_png
from ..io.atomic import replacing
from ..io.provenance import header_keys
from ..io.volumes import VOLUME_SUFFIXES, write_slice
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
    require_files(given, (output, VOLUME_SUFFIXES), (png, FIGURE_SUFFIXES))
    chosen = torch_device(device)
    renderer = UltrasoundRenderer(read_probe(given["probe_name"]), **render_settings(given))
    probe_to_ras = read_rigid(given["pose"])
    with progress() as bar:
        task = bar.add_task("building the acoustic medium", total=2)
        medium = medium_of(given).to(chosen)
        bar.update(task, advance=1, description="rendering")
        with torch.inference_mode():
            image = renderer(medium, probe_to_ras)[0].mul(255).round().to("cpu", torch.uint8).numpy()
    pixel_to_ras = probe_to_ras @ renderer.probe.slice_geometry().pixel_to_probe
    made = provenance_of(given, renderer)
    _write(output, png, image, pixel_to_ras.numpy(), scan_grid(renderer.probe)[1].numpy(), made)


def _write(
    output: str, png: str | None, image: np.ndarray, pixel_to_ras: np.ndarray, inside: np.ndarray, made: dict
) -> None:
    """Writes all files, or none; the picture carries the word SIMULATED."""
    written, keys = output, header_keys(made)
    if png is None:
        write_slice(output, image, pixel_to_ras, keys)
    else:
        with replacing(png) as temporary:
            save_png(make_canvas(inside).draw(image), temporary, made)
            write_slice(output, image, pixel_to_ras, keys)
        written += f" and {png}"
    rows, columns = image.shape
    click.echo(f"{written}: {rows} x {columns} pixels of {np.linalg.norm(pixel_to_ras[:3, 0]):.3g} mm")
