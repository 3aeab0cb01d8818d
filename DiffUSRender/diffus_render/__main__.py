"""The command line: `python -m diffus_render`, or `diffus-render`, on files."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click
import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from . import files
from .errors import InputError
from .medium import AcousticMedium, mri
from .medium.tissue import LABEL_TABLES
from .pose import require_rigid
from .probe import preset_names, preset_source, probe_preset, probe_to_dict, read_probe_json, write_probe_json
from .probe.fan import estimate_fan
from .renderer import UltrasoundRenderer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .files import Volume
    from .probe import Probe


class Commands(click.Group):
    """A group whose commands answer bad input with one sentence on stderr and exit status 2."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except InputError as error:
            failure = click.ClickException(str(error))
            failure.exit_code = 2
            raise failure from error


class NumberOrNone(click.ParamType):
    """A number, or the word none."""

    name = "number|none"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> object:
        return "none" if value == "none" else click.FLOAT.convert(value, param, ctx)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.version_option(package_name="diffus")
def main() -> None:
    """Simulates ultrasound from MRI, CT or labels. Not for clinical decisions."""


@contextmanager
def progress() -> Iterator[Progress]:
    """A progress bar on stderr that disappears when it is done."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        yield bar


def options(several: tuple[Callable, ...]) -> Callable:
    """Gives a command several options, in this order."""

    def give(command: Callable) -> Callable:
        for option in reversed(several):
            command = option(command)
        return command

    return give


# --- render

FILES = (
    click.option("--volume", "volume_path", required=True, metavar="FILE", help="MRI, CT or label volume."),
    click.option("--kind", type=click.Choice(["mri", "ct", "labels"]), required=True, help="What the volume holds."),
    click.option(
        "--pose", required=True, metavar="FILE", help="probe_to_ras: a transform as 3D Slicer saves it (.tfm, .h5)."
    ),
    click.option("--probe", "probe_name", required=True, metavar="NAME|FILE.json", help="A preset or a probe file."),
    click.option("--output", required=True, metavar="FILE", help="The slice in the volume's world (.nrrd, .mha, ...)."),
    click.option("--png", metavar="FILE", help="The slice as a picture too."),
    click.option("--device", default="cpu", help="Where torch computes: cpu, cuda, cuda:1, mps."),
)
# Options of one kind of volume only: {name: kind}.
KIND_OF = {"labels_table": "labels", "scanner": "ct", "outside": "ct", "weights": "mri", "contrast": "mri"}
MEDIUM = (
    click.option("--mask", metavar="FILE", help="Volume on the same grid, 0 outside of the patient (mri, ct)."),
    click.option("--contrast", help="Of the MRI: t1 or t2 (mri).  [default: t1]"),
    click.option("--weights", metavar="FILE", help="Impedance network of train-impedance (mri); else the one shipped."),
    click.option("--scanner", help="Line from HU to the speed in bone (ct).  [default: ge-standard]"),
    click.option("--outside", help="What air around the patient becomes: gel or air (ct).  [default: gel]"),
    click.option(
        "--labels-table",
        metavar="NAME|FILE",
        help="Names of the labels (labels): JSON, CSV or Slicer .ctbl, or a public table such as totalsegmentator-v2. "
        f"Without it, those of a .seg.nrrd file, else {LABEL_TABLES[0]}.",
    ),
)
SETTINGS = (
    click.option("--preset", help="What the other settings start from: default, or paper for the DiffUS paper's."),
    click.option("--echo", help="Echo model: layered, transmission or reverberation.  [default: transmission]"),
    click.option("--seed", type=int, help="Of speckle, noise and jitter.  [default: 0]"),
    click.option("--start-depth", "start_depth_mm", type=float, help="mm; all nearer is coupling: opened skull."),
    click.option("--attenuation/--no-attenuation", default=None, help="Whether tissue attenuates.  [default: yes]"),
    click.option("--speckle/--no-speckle", default=None, help="Whether tissue scatters.  [default: yes]"),
    click.option("--psf/--no-psf", default=None, help="Whether pulse and beam blur.  [default: yes]"),
    click.option("--reflection-db", type=float, help="Level of a full reflection above white-matter speckle."),
    click.option("--specular-exponent", type=float, help="Fall-off of boundaries met at an angle; 0 is none."),
    click.option("--noise-db", type=NumberOrNone(), help="Electronic noise below white-matter speckle, or none."),
    click.option("--tgc-db-per-cm", type=float, help="Time gain compensation; else 0.6 dB/(cm MHz), two-way."),
    click.option("--gain-db", type=float, help="Of the display."),
    click.option("--dynamic-range-db", type=float, help="Of the display."),
    click.option("--compression", help="Of the display: log or linear."),
    click.option("--grain-mm", type=float, help="Size of the scatterers; else half the pulse length."),
)


@main.command()
@options(FILES)
@options(MEDIUM)
@options(SETTINGS)
def render(
    volume_path: str,
    kind: str,
    pose: str,
    probe_name: str,
    output: str,
    png: str | None,
    device: str,
    mask: str | None,
    **given: object,
) -> None:
    """Renders the slice that a probe at a pose would show."""
    files.require_writable(output, files.VOLUME_SUFFIXES)
    if png:
        files.require_writable(png, (".png",))
    read = (volume_path, mask, pose, probe_name, given["weights"], given["labels_table"])
    files.require_not_input((output, png), read)
    place = torch_device(device)
    settings = {name: None if value == "none" else value for name, value in given.items() if value is not None}
    medium_options = {name: settings.pop(name) for name in KIND_OF if name in settings}
    renderer = UltrasoundRenderer(_probe(probe_name), **settings)
    probe_to_ras = require_rigid(torch.from_numpy(files.read_transform(pose)), pose)
    with progress() as bar:
        task = bar.add_task("reading the volume", total=3)
        volume = files.read_volume(volume_path)
        inside = None if mask is None else _mask(mask, volume)
        bar.update(task, advance=1, description="building the acoustic medium")
        medium = _medium(kind, volume, inside, medium_options).to(place)
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


def torch_device(name: str) -> torch.device:
    """The device of this name; InputError if torch cannot compute on it here."""
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"torch cannot compute on '{name}' here; use --device cpu.") from error


def _probe(name: str) -> Probe:
    return read_probe_json(name) if name.lower().endswith(".json") else probe_preset(name)


def _mask(path: str, volume: Volume) -> np.ndarray:
    mask = files.read_volume(path)
    same_place = np.allclose(mask.ijk_to_ras, volume.ijk_to_ras, atol=1e-3)
    if mask.array.shape != volume.array.shape or not same_place:
        raise InputError(f"The mask {path} is not on the volume's grid; resample it to the volume first.")
    return mask.array != 0


def _medium(kind: str, volume: Volume, mask: np.ndarray | None, chosen: dict[str, str]) -> AcousticMedium:
    for name in chosen:
        if KIND_OF[name] != kind:
            raise InputError(f"--{name.replace('_', '-')} is for --kind {KIND_OF[name]}, not {kind}.")
    if kind == "labels":
        if mask is not None:
            raise InputError("--mask is for --kind mri or ct; in a label volume, label 0 is outside of the patient.")
        return AcousticMedium.from_labels(volume.array, label_table(volume, **chosen), volume.ijk_to_ras)
    if kind == "ct":
        return AcousticMedium.from_ct(volume.array, volume.ijk_to_ras, mask=mask, **chosen)
    mapping = chosen.pop("weights", None)
    return AcousticMedium.from_mri(volume.array, volume.ijk_to_ras, mask, mapping=mapping, **chosen)


def label_table(volume: Volume, labels_table: str | None = None) -> str | dict[int, str]:
    """A public table's name, or {value: name}: of the table or file named, else the volume's own, else the default."""
    if labels_table is None:
        return volume.labels or LABEL_TABLES[0]
    return labels_table if labels_table in LABEL_TABLES else files.read_label_names(labels_table)


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


if __name__ == "__main__":
    main()
