"""What the commands on volumes and sweeps share: their options, how they read, and the checks before they begin."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
import torch

from ..errors import InputError
from ..geometry.pose import require_rigid
from ..io.atomic import require_not_input, require_writable
from ..io.provenance import provenance
from ..io.tables import read_settings, read_tissues_of_settings
from ..io.transforms import read_transform
from ..io.volumes import read_volume
from ..probe import probe_to_dict
from ..render.settings import RenderSettings, settings_to_dict
from ..settings import declared
from .common import KIND_OF, read_mask, read_medium, read_probe

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from torch import Tensor

    from ..fit import FittableMedium
    from ..medium import AcousticMedium
    from ..probe import Probe
    from ..render.renderer import UltrasoundRenderer

# Parameters of commands that may name a file to read.
READ = ("volume_path", "sweep_path", "labels_path", "initial", "volume_to_reference", "image_to_probe", "pose")
READ += ("mask", "weights", "tissues", "labels_table", "settings_path", "probe_name", "dicom_source")
READ += ("segmentation", "segmentation_table", "image_path", "points", "first", "second", "transform")

IMAGE_TO_PROBE = click.option(
    "--image-to-probe", metavar="FILE", help="Calibration: a transform, or a PLUS configuration (.xml)."
)
INITIAL = click.option("--initial", metavar="FILE.tfm", help="mri_to_reference; without one it is the identity.")
FREQUENCY = click.option("--frequency-mhz", type=click.FloatRange(0.5, 40), default=5.0, help="Of the probe.")
BEAM = click.option(
    "--probe",
    "probe_name",
    metavar="NAME|FILE.json",
    help="Beam and frequency, in place of --frequency-mhz; the shape is that of the fan.",
)
DEVICE = click.option("--device", default="cpu", help="Where torch computes: cpu, cuda, cuda:1, mps.")
FROM_VOLUME = click.option(
    "--from-volume", is_flag=True, help="The sweep is a 3-D ultrasound volume: cut it into slices."
)
START_DEPTH = click.option(
    "--start-depth", "start_depth_mm", type=float, default=0.0, help="mm; all nearer is coupling."
)
FIGURE_SUFFIXES = (".png",)


def volume_options(
    *,
    required: bool = True,
    kind_required: bool = True,
    kind: str | None = None,
    kinds: Collection[str] = ("mri", "ct", "labels"),
    text: str = "MRI, CT or label volume.",
) -> tuple:
    """--volume and --kind.

    Args:
        required: whether --volume is.
        kind_required: whether --kind is.
        kind: its default.
        kinds: what it may be.
        text: what --volume may be.
    """
    chosen = {"type": click.Choice(kinds), "required": kind_required, "default": kind}
    return (
        click.option("--volume", "volume_path", required=required, metavar="FILE", help=text),
        click.option("--kind", **chosen, help="What the volume holds."),
    )


def sweep_options(*, required: bool = True) -> tuple:
    """--sweep and --image-to-probe."""
    return (
        click.option(
            "--sweep", "sweep_path", required=required, metavar="FILE", help="Tracked frames: .igs.mha, .seq.nrrd ..."
        ),
        IMAGE_TO_PROBE,
    )


def seed_option(text: str):
    """--seed, a whole number from 0; `text` says what it is of."""
    return click.option("--seed", type=click.IntRange(min=0), default=0, help=text)


def require_files(given: Mapping[str, object], *written: tuple[str | Path | None, tuple[str, ...]]) -> None:
    """Checks what a command will write before it begins.

    Args:
        given: the command's parameters by name; those of `READ` name files that must not be written over.
        written: files, and the endings that each may have; None stands for an option that was left out.

    Raises:
        InputError: a file that cannot be written, or that is read too.
    """
    for path, suffixes in written:
        if path:
            require_writable(path, suffixes)
    require_not_input([path for path, _ in written], [given.get(name) for name in READ])


def read_rigid(path: str | None) -> Tensor:
    """The rigid transform (4, 4), float64, of a file; the identity without one. Raises InputError."""
    if path is None:
        return torch.eye(4, dtype=torch.float64)
    return require_rigid(torch.from_numpy(read_transform(path)), path)


def medium_options(given: Mapping[str, object]) -> dict[str, str]:
    """The options of `common.MEDIUM` that were given, but for the mask; else the tissue table that --settings names."""
    chosen = {name: given[name] for name in KIND_OF if given[name] is not None}
    saved = given.get("settings_path")
    if saved is not None and "tissues" not in chosen and given["kind"] in KIND_OF["tissues"].split(" or "):
        tissues = read_tissues_of_settings(saved)
        chosen |= {} if tissues is None else {"tissues": tissues}
    return chosen


def medium_of(given: Mapping[str, object], **makers: Callable) -> AcousticMedium | FittableMedium:
    """The medium of --volume, --kind, --mask and the options of `common.MEDIUM`; else as `read_medium`."""
    volume = read_volume(given["volume_path"])
    mask = None if given["mask"] is None else read_mask(given["mask"], volume)
    return read_medium(given["kind"], volume, mask, medium_options(given), **makers)


def render_settings(given: Mapping[str, object]) -> dict[str, object]:
    """The settings by name of --settings and the options of `common.SETTINGS`, which win. Raises InputError."""
    if None not in (given["settings_path"], given["preset"]):
        raise InputError("--preset and --settings both say what the other settings start from; give one of them.")
    settings = {} if given["settings_path"] is None else read_settings(given["settings_path"])
    chosen = {name: given[name] for name in ("preset", *declared(RenderSettings)) if given[name] is not None}
    return settings | {name: None if value == "none" else value for name, value in chosen.items()}


def beam_probe(given: Mapping[str, object]) -> Probe | None:
    """The probe of --probe, if it was given."""
    return None if given["probe_name"] is None else read_probe(given["probe_name"])


def provenance_of(given: Mapping[str, object], renderer: UltrasoundRenderer | None = None, **facts: object) -> dict:
    """What the outputs of a command say of it.

    Args:
        given: the command's parameters by name; those of `READ` name its inputs, the others are listed, as are names of
            tables and presets.
        renderer: whose probe and settings are listed.
        facts: what else was chosen.
    """
    # What names a preset or a table is no file, whose checksum would stand among the inputs.
    files = {name for name in READ if given.get(name) and Path(given[name]).is_file()}
    chosen = {name: value for name, value in given.items() if name not in files and value is not None}
    if renderer is not None:
        chosen = {name: value for name, value in chosen.items() if name not in declared(RenderSettings)}
        chosen.pop("probe_name", None)
        facts |= {"probe": probe_to_dict(renderer.probe), "settings": settings_to_dict(renderer.settings)}
    return provenance({name.removesuffix("_path"): given.get(name) for name in READ}, options=chosen, **facts)
