"""The command line: `python -m diffus_render`, or `diffus-render`, on files."""

from __future__ import annotations

import json

import click
import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table

from . import files
from .commands.ablation import ablation
from .commands.common import (
    FILES,
    KIND_OF,
    MEDIUM,
    SETTINGS,
    SETTINGS_FILE,
    Commands,
    options,
    progress,
    read_mask,
    read_medium,
    read_probe,
    torch_device,
)
from .commands.export import export_command, maps_command
from .commands.fit import fit
from .commands.realism import realism
from .commands.reconstruct import reconstruct
from .errors import InputError
from .medium import mri
from .pose import require_rigid
from .probe import preset_names, preset_source, probe_preset, probe_to_dict, write_probe_json
from .probe.fan import estimate_fan
from .renderer import UltrasoundRenderer


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.version_option(package_name="diffus")
def main() -> None:
    """Simulates ultrasound from MRI, CT or labels. Not for clinical decisions."""


@main.command()
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
    files.require_writable(output, files.VOLUME_SUFFIXES)
    if png:
        files.require_writable(png, (".png",))
    used = (given[name] for name in ("weights", "labels_table", "tissues"))
    read = (volume_path, mask, pose, probe_name, settings_path, *used)
    files.require_not_input((output, png), read)
    place = torch_device(device)
    settings = {name: None if value == "none" else value for name, value in given.items() if value is not None}
    medium_options = {name: settings.pop(name) for name in KIND_OF if name in settings}
    if settings_path:
        settings = {**files.read_settings(settings_path), **settings}
    renderer = UltrasoundRenderer(read_probe(probe_name), **settings)
    probe_to_ras = require_rigid(torch.from_numpy(files.read_transform(pose)), pose)
    with progress() as bar:
        task = bar.add_task("reading the volume", total=3)
        volume = files.read_volume(volume_path)
        inside = None if mask is None else read_mask(mask, volume)
        bar.update(task, advance=1, description="building the acoustic medium")
        medium = read_medium(kind, volume, inside, medium_options).to(place)
        bar.update(task, advance=1, description="rendering")
        with torch.inference_mode():
            image = renderer(medium, probe_to_ras)[0].mul(255).round().to("cpu", torch.uint8).numpy()
    pixel_to_ras = probe_to_ras @ renderer.probe.slice_geometry().pixel_to_probe
    _write(output, png, image, pixel_to_ras.numpy())


def _write(output: str, png: str | None, image: np.ndarray, pixel_to_ras: np.ndarray) -> None:
    """Writes all files, or none."""
    written = output
    if png is None:
        files.write_slice(output, image, pixel_to_ras)
    else:
        with files.replacing(png) as temporary:
            Image.fromarray(image).save(temporary)
            files.write_slice(output, image, pixel_to_ras)
        written += f" and {png}"
    rows, columns = image.shape
    click.echo(f"{written}: {rows} x {columns} pixels of {np.linalg.norm(pixel_to_ras[:3, 0]):.3g} mm")


# --- train-impedance


@main.command("train-impedance")
@click.option("--output", required=True, metavar="FILE.pt", help="The trained weights, for --weights of render.")
@click.option("--points", metavar="FILE.csv", help="Rows of normalised intensity (CSF 0, grey 0.6, white 1) and MRayl.")
@click.option("--epochs", type=int, default=1500, help="Of training.")
@click.option("--seed", type=int, default=0, help="The same seed gives the same weights.")
def train_impedance(output: str, points: str | None, epochs: int, seed: int) -> None:
    """Trains the network from MRI intensity to impedance on tissue reference points."""
    files.require_writable(output, (".pt",))
    files.require_not_input((output,), (points,))
    reference = None if points is None else files.read_number_pairs(points)
    with progress() as bar:
        task = bar.add_task("training", total=epochs)
        for step in mri.train_impedance(reference, epochs=epochs, seed=seed):
            bar.update(task, completed=step.epoch, description=f"training, error {step.loss**0.5:.5f} MRayl")
    with files.replacing(output) as temporary:
        mri.save_impedance(step.model, temporary)
    click.echo(f"{output}: error {step.loss**0.5:.5f} MRayl (root mean square) after {step.epoch} epochs")


# --- presets and fan


@main.command()
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


@main.command()
@click.argument("image_path", metavar="IMAGE")
@click.option("--mm-per-pixel", type=float, help="Pixel size; needed for pictures, known in .nrrd and .mha files.")
@click.option("--frequency-mhz", type=float, default=5.0, help="Of the probe; it cannot be seen in the image.")
@click.option("--output", metavar="FILE.json", help="Write the probe for --probe of render.")
def fan(image_path: str, mm_per_pixel: float | None, frequency_mhz: float, output: str | None) -> None:
    """Finds the fan of a real ultrasound image (or sweep): its type, radius, angles, depth and apex."""
    if output:
        files.require_writable(output, (".json",))
        files.require_not_input((output,), (image_path,))
    pixels, spacing = files.read_picture(image_path)
    if mm_per_pixel is None and spacing is None:
        raise InputError(f"{image_path} does not say how large its pixels are; give --mm-per-pixel.")
    with progress() as bar:
        bar.add_task("looking for the fan", total=None)
        found = estimate_fan(pixels, mm_per_pixel or spacing, frequency_mhz=frequency_mhz)
    if output:
        with files.replacing(output) as temporary:
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


main.add_command(ablation)
main.add_command(fit)
main.add_command(reconstruct)
main.add_command(realism)
main.add_command(export_command)
main.add_command(maps_command)


if __name__ == "__main__":
    main()
