"""`presets` and `fan`: probes by name, and the probe that a real image shows."""

from __future__ import annotations

import json

import click
import torch
from rich.console import Console
from rich.table import Table

from ..errors import InputError
from ..io.atomic import replacing
from ..io.volumes import read_picture
from ..probe import preset_names, preset_source, probe_preset, probe_to_dict, write_probe_json
from ..probe.fan import estimate_fan
from .common import progress
from .inputs import require_files


@click.command()
@click.argument("name", required=False)
def presets(name: str | None) -> None:
    """Lists the probe presets, or prints one as a probe file (JSON)."""
    if name is not None:
        click.echo(json.dumps(probe_to_dict(probe_preset(name)), indent=2))
        return
    table = Table("name", "type", "MHz", "depth mm", "size", "like", box=None, pad_edge=False)
    for each in preset_names():
        probe = probe_to_dict(probe_preset(each))
        size = f"{probe['width_mm']:g} mm wide" if "width_mm" in probe else f"{probe['fov_deg']:g} deg"
        if "radius_mm" in probe:
            size += f", radius {probe['radius_mm']:g} mm"
        like = preset_source(each).split(":")[0]
        table.add_row(each, probe["type"], f"{probe['frequency_mhz']:g}", f"{probe['depth_mm']:g}", size, like)
    Console(width=120).print(table)


@click.command()
@click.argument("image_path", metavar="IMAGE")
@click.option("--mm-per-pixel", type=float, help="Pixel size; needed for pictures, known in .nrrd and .mha files.")
@click.option("--frequency-mhz", type=float, default=5.0, help="Of the probe; it cannot be seen in the image.")
@click.option("--depth-mm", type=float, help="Of the fan from the probe's face, as the scanner says; else as seen.")
@click.option("--output", metavar="FILE.json", help="Write the probe for --probe of render.")
def fan(
    image_path: str, mm_per_pixel: float | None, frequency_mhz: float, depth_mm: float | None, output: str | None
) -> None:
    """Finds the fan of a real ultrasound image (or sweep): its type, radius, angles, depth and apex."""
    require_files({"image_path": image_path}, (output, (".json",)))
    pixels, spacing = read_picture(image_path)
    if mm_per_pixel is None and spacing is None:
        raise InputError(f"{image_path} does not say how large its pixels are; give --mm-per-pixel.")
    with progress() as bar:
        bar.add_task("looking for the fan", total=None)
        found = estimate_fan(pixels, mm_per_pixel or spacing, frequency_mhz=frequency_mhz, depth_mm=depth_mm)
    if output:
        with replacing(output) as temporary:
            write_probe_json(found.probe, temporary)
    probe = probe_to_dict(found.probe)
    apex = torch.linalg.solve(
        found.pixel_to_probe, found.pixel_to_probe.new_tensor([0.0, -probe.get("radius_mm", 0.0), 0.0, 1.0])
    )
    click.echo(f"type {probe['type']}")
    for key, unit in (("radius_mm", "mm"), ("fov_deg", "degrees"), ("width_mm", "mm"), ("depth_mm", "mm")):
        if key in probe:
            click.echo(f"{key.partition('_')[0]} {probe[key]:.2f} {unit}")
    click.echo(f"{'face' if probe['type'] == 'linear' else 'apex'} at column {apex[0]:.1f}, row {apex[1]:.1f}")
    click.echo(f"edges fit to {found.residual_mm:.2f} mm")
    if not found.depth_certain:
        click.echo("depth is uncertain: no clear far edge shows, and a black far field may go on; give --depth-mm")
