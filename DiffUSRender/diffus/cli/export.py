"""`export` and `maps`: simulated slices, sweeps and acoustic maps as files for other programs."""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
import torch

from ..errors import InputError
from ..export import DicomOptions, SimulatedFrames, export, format_of, probe_poses, render_frame, write_maps
from ..export.pictures import series_folder
from ..export.tracked import SEQUENCE_SUFFIX, poses_path
from ..export.ultrasound_dicom import read_source
from ..geometry.pose import require_rigid
from ..io.atomic import require_new_folder, require_not_input, require_writable_parent
from ..io.tables import read_settings
from ..io.transforms import read_transform
from ..io.volumes import read_volume
from ..render.renderer import UltrasoundRenderer
from ..sweep.sweep import read_sweep
from .common import (
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

VOLUME = (
    click.option("--volume", "volume_path", required=True, metavar="FILE", help="MRI, CT or label volume."),
    click.option("--kind", type=click.Choice(["mri", "ct", "labels"]), required=True, help="What the volume holds."),
)
DEVICE = click.option("--device", default="cpu", help="Where torch computes: cpu, cuda, cuda:1, mps.")
WHERE = (
    click.option("--probe", "probe_name", metavar="NAME|FILE.json", help="A preset or a probe file; else the sweep's."),
    click.option("--pose", metavar="FILE", help="probe_to_ras of one slice: a transform of 3D Slicer (.tfm, .h5)."),
    click.option("--sweep", "sweep_path", metavar="FILE", help="A tracked sweep (.igs.mha, ...): one slice per frame."),
    click.option("--image-to-probe", metavar="FILE", help="Calibration of a sweep that has none: PLUS .xml, or .tfm."),
    click.option(
        "--volume-to-reference",
        metavar="FILE",
        help="Brings the volume to the sweep, as `register` writes it; else it lies there already.",
    ),
)
OUTPUT = (
    click.option(
        "--output",
        required=True,
        metavar="FILE",
        help="Its ending chooses: .nrrd, .png, .dcm (one slice); .seq.nrrd, .igs.mha, .png (a new folder of them), "
        ".gif, .mp4, .dcm (a sweep).",
    ),
    click.option("--dicom-source", metavar="FILE", help="A DICOM image whose study a .dcm may join."),
    click.option(
        "--include-patient", is_flag=True, help="Join the study of --dicom-source: copy its name, ID and dates."
    ),
    DEVICE,
)


@click.command("export")
@options(VOLUME)
@options(WHERE)
@options(OUTPUT)
@options(MEDIUM)
@options(SETTINGS)
@SETTINGS_FILE
def export_command(
    volume_path: str,
    kind: str,
    probe_name: str | None,
    pose: str | None,
    sweep_path: str | None,
    image_to_probe: str | None,
    volume_to_reference: str | None,
    output: str,
    dicom_source: str | None,
    include_patient: bool,
    device: str,
    mask: str | None,
    settings_path: str | None,
    **given: object,
) -> None:
    """Renders a slice, or one along every frame of a tracked sweep, for other programs.

    Pictures, films and DICOM carry the word SIMULATED outside of the fan. DICOM holds no poses: write them as .seq.nrrd
    or .igs.mha too.
    """
    read = [volume_path, mask, pose, sweep_path, image_to_probe, volume_to_reference, probe_name, dicom_source]
    read += [settings_path, *(given[name] for name in ("weights", "labels_table", "tissues"))]
    require_not_input((output,), read)
    _require_options(pose, sweep_path, probe_name, dicom_source, include_patient, output)
    place = torch_device(device)
    settings = {name: None if value == "none" else value for name, value in given.items() if value is not None}
    medium_options = {name: settings.pop(name) for name in KIND_OF if name in settings}
    if settings_path:
        settings = {**read_settings(settings_path), **settings}
    probe = None if probe_name is None else read_probe(probe_name)
    if sweep_path is None:
        poses, times = require_rigid(torch.from_numpy(read_transform(pose)), pose).numpy()[None], np.zeros(1)
    else:
        sweep = read_sweep(sweep_path, image_to_probe)
        probe, poses = probe_poses(sweep, probe)
        times = sweep.timestamps.numpy()
    format_of(output, len(poses))
    to_volume = np.eye(4)
    if volume_to_reference is not None:
        to_volume = np.linalg.inv(read_transform(volume_to_reference))
        require_rigid(torch.from_numpy(to_volume), volume_to_reference)
    dicom = DicomOptions(None if dicom_source is None else read_source(dicom_source), include_patient)
    renderer = UltrasoundRenderer(probe, **settings)
    with progress() as bar:
        task = bar.add_task("building the acoustic medium", total=2 * len(poses))
        volume = read_volume(volume_path)
        inside = None if mask is None else read_mask(mask, volume)
        medium = read_medium(kind, volume, inside, medium_options).to(place)
        pixels = []
        for number, each in enumerate(to_volume @ poses):
            try:
                pixels.append(render_frame(renderer, medium, each))
            except InputError as error:
                where = "" if sweep_path is None else f"Frame {number + 1} of {len(poses)}: "
                raise InputError(f"{where}{error}") from error
            bar.update(task, advance=1, description="rendering")
        frames = SimulatedFrames(np.stack(pixels), poses, times, probe, renderer.settings)
        for done in export(frames, output, dicom):
            bar.update(task, completed=len(poses) + done, description="writing")
    _report(Path(output), frames)


def _require_options(
    pose: str | None,
    sweep: str | None,
    probe: str | None,
    dicom_source: str | None,
    include_patient: bool,
    output: str,
) -> None:
    if (pose is None) == (sweep is None):
        raise InputError("Give --pose for one slice or --sweep for one slice per frame, and not both.")
    if pose is not None and probe is None:
        raise InputError("A pose does not say which probe it is of; give --probe.")
    if include_patient and dicom_source is None:
        raise InputError("--include-patient copies what --dicom-source says; give that too.")
    if dicom_source is not None and not output.lower().endswith(".dcm"):
        raise InputError("--dicom-source is for an --output that ends in .dcm.")


def _report(output: Path, frames: SimulatedFrames) -> None:
    written, count = str(output), len(frames)
    name = output.name.lower()
    if name.endswith(".png") and count > 1:
        written = f"{series_folder(output)}/"
    elif name.endswith(SEQUENCE_SUFFIX):
        written += f" and {poses_path(output).name}"
    rows, columns = frames.pixels.shape[1:]
    size = frames.probe.slice_geometry().mm_per_pixel
    what = "1 slice" if count == 1 else f"{count} slices"
    click.echo(f"{written}: {what} of {rows} x {columns} pixels of {size:.3g} mm")


@click.command("maps")
@options(VOLUME)
@click.option("--output", required=True, metavar="FOLDER", help="A new folder for the maps.")
@options(MEDIUM)
def maps_command(volume_path: str, kind: str, output: str, mask: str | None, **given: object) -> None:
    """Writes a volume's acoustic maps: impedance, attenuation and its exponent, scattering, as .nrrd volumes."""
    require_new_folder(require_writable_parent(output))
    medium_options = {name: value for name, value in given.items() if value is not None}
    with progress() as bar:
        task = bar.add_task("building the acoustic medium", total=None)
        volume = read_volume(volume_path)
        inside = None if mask is None else read_mask(mask, volume)
        medium = read_medium(kind, volume, inside, medium_options)
        for done in write_maps(output, medium):
            bar.update(task, description="writing", completed=done)
    click.echo(f"{output}: " + ", ".join(sorted(file.name for file in Path(output).iterdir())))
