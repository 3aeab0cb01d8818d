"""`render`: one slice, from a volume, a probe and its pose."""

from __future__ import annotations

import click
import numpy as np
import torch
from PIL import Image

from ..geometry.pose import require_rigid
from ..io.atomic import replacing, require_not_input, require_writable
from ..io.tables import read_settings
from ..io.transforms import read_transform
from ..io.volumes import VOLUME_SUFFIXES, read_volume, write_slice
from ..render.renderer import UltrasoundRenderer
from .common import (
    FILES,
    KIND_OF,
    MEDIUM,
    SETTINGS,
    SETTINGS_FILE,
    options,
    progress,
    read_mask,
    read_medium,
    read_probe,
    torch_device,
)


@click.command()
@options(FILES)
@options(MEDIUM)
@options(SETTINGS)
@SETTINGS_FILE
def render(
    volume_path: str,
    kind: str,
    pose: str,
    probe_name: str,
    output: str,
    png: str | None,
    device: str,
    mask: str | None,
    settings_path: str | None,
    **given: object,
) -> None:
    """Renders the slice that a probe at a pose would show."""
    require_writable(output, VOLUME_SUFFIXES)
    if png:
        require_writable(png, (".png",))
    used = (given[name] for name in ("weights", "labels_table", "tissues"))
    read = (volume_path, mask, pose, probe_name, settings_path, *used)
    require_not_input((output, png), read)
    chosen = torch_device(device)
    settings = {name: None if value == "none" else value for name, value in given.items() if value is not None}
    medium_options = {name: settings.pop(name) for name in KIND_OF if name in settings}
    if settings_path:
        settings = {**read_settings(settings_path), **settings}
    renderer = UltrasoundRenderer(read_probe(probe_name), **settings)
    probe_to_ras = require_rigid(torch.from_numpy(read_transform(pose)), pose)
    with progress() as bar:
        task = bar.add_task("reading the volume", total=3)
        volume = read_volume(volume_path)
        inside = None if mask is None else read_mask(mask, volume)
        bar.update(task, advance=1, description="building the acoustic medium")
        medium = read_medium(kind, volume, inside, medium_options).to(chosen)
        bar.update(task, advance=1, description="rendering")
        with torch.inference_mode():
            image = renderer(medium, probe_to_ras)[0].mul(255).round().to("cpu", torch.uint8).numpy()
    pixel_to_ras = probe_to_ras @ renderer.probe.slice_geometry().pixel_to_probe
    _write(output, png, image, pixel_to_ras.numpy())


def _write(output: str, png: str | None, image: np.ndarray, pixel_to_ras: np.ndarray) -> None:
    """Writes all files, or none."""
    written = output
    if png is None:
        write_slice(output, image, pixel_to_ras)
    else:
        with replacing(png) as temporary:
            Image.fromarray(image).save(temporary)
            write_slice(output, image, pixel_to_ras)
        written += f" and {png}"
    rows, columns = image.shape
    click.echo(f"{written}: {rows} x {columns} pixels of {np.linalg.norm(pixel_to_ras[:3, 0]):.3g} mm")
