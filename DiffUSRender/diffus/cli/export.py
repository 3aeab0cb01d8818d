"""`export` and `maps`: simulated slices, sweeps and acoustic maps as files for other programs."""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np

from ..errors import InputError
from ..export import DicomOptions, SimulatedFrames, export, format_of, probe_poses, render_frame, write_maps
from ..export.formats import FORMATS
from ..export.pictures import series_folder
from ..export.tracked import POSES_SUFFIX, SEQUENCE_SUFFIX, poses_path
from ..export.ultrasound_dicom import read_source
from ..io.atomic import require_new_folder, require_writable_parent
from ..render.display import Persistence
from ..render.renderer import UltrasoundRenderer
from ..sweep.sweep import read_sweep
from .common import MEDIUM, SETTINGS, SETTINGS_FILE, options, progress, torch_device
from .inputs import (
    DEVICE,
    beam_probe,
    medium_of,
    provenance_of,
    read_rigid,
    render_settings,
    require_files,
    volume_options,
)

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
@options(volume_options())
@options(WHERE)
@options(OUTPUT)
@options(MEDIUM)
@options(SETTINGS)
@SETTINGS_FILE
def export_command(output: str, dicom_source: str | None, include_patient: bool, device: str, **given: object) -> None:
    """Renders a slice, or one along every frame of a tracked sweep, for other programs.

    Pictures, films and DICOM carry the word SIMULATED outside of the fan. DICOM holds no poses: write them as .seq.nrrd
    or .igs.mha too.
    """
    second = poses_path(Path(output)) if output.lower().endswith(SEQUENCE_SUFFIX) else None
    require_files({**given, "dicom_source": dicom_source}, (output, FORMATS), (second, (POSES_SUFFIX.lower(),)))
    pose, sweep_path = given["pose"], given["sweep_path"]
    _require_options(pose, sweep_path, given["probe_name"], dicom_source, include_patient, output)
    place = torch_device(device)
    settings, probe = render_settings(given), beam_probe(given)
    if sweep_path is None:
        poses, times = read_rigid(pose).numpy()[None], np.zeros(1)
    else:
        sweep = read_sweep(sweep_path, given["image_to_probe"])
        probe, poses = probe_poses(sweep, probe)
        times = sweep.timestamps.numpy()
    format_of(output, len(poses))
    to_volume = np.linalg.inv(read_rigid(given["volume_to_reference"]).numpy())
    dicom = DicomOptions(None if dicom_source is None else read_source(dicom_source), include_patient)
    renderer = UltrasoundRenderer(probe, **settings)
    with progress() as bar:
        task = bar.add_task("building the acoustic medium", total=2 * len(poses))
        medium = medium_of(given).to(place)
        weight, pixels = renderer.settings.persistence, []
        persistence = Persistence(weight) if weight > 0 else None
        for number, each in enumerate(to_volume @ poses):
            try:
                pixels.append(render_frame(renderer, medium, each, number, persistence))
            except InputError as error:
                where = "" if sweep_path is None else f"Frame {number + 1} of {len(poses)}: "
                raise InputError(f"{where}{error}") from error
            bar.update(task, advance=1, description="rendering")
        made = provenance_of({**given, "dicom_source": dicom_source}, renderer)
        frames = SimulatedFrames(np.stack(pixels), poses, times, probe, renderer.settings, made)
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
@options(volume_options())
@click.option("--output", required=True, metavar="FOLDER", help="A new folder for the maps.")
@options(MEDIUM)
def maps_command(output: str, **given: object) -> None:
    """Writes a volume's acoustic maps: impedance, attenuation and its exponent, scattering, as .nrrd volumes."""
    require_new_folder(require_writable_parent(output))
    with progress() as bar:
        task = bar.add_task("building the acoustic medium", total=None)
        medium = medium_of(given)
        for done in write_maps(output, medium):
            bar.update(task, description="writing", completed=done)
    click.echo(f"{output}: " + ", ".join(sorted(file.name for file in Path(output).iterdir())))
