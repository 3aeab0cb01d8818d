"""What the commands on tracked sweeps share: their options, how they read, and the checks before they begin."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
import torch

from ..geometry.pose import require_rigid
from ..io.atomic import require_not_input, require_writable
from ..io.transforms import read_transform
from ..io.volumes import read_volume
from ..sweep.sweep import read_image_to_probe, read_sweep
from .common import KIND_OF, read_mask, read_medium, read_probe

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

    from ..medium import AcousticMedium
    from ..probe import Probe
    from ..sweep.sweep import TrackedSweep

# Parameters of commands that may name a file to read.
READ = ("volume_path", "sweep_path", "labels_path", "initial", "volume_to_reference", "image_to_probe", "pose")
READ += ("mask", "weights", "tissues", "labels_table", "settings_path", "probe_name")

KIND = click.Choice(["mri", "ct", "labels"])
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
FIGURE_SUFFIXES = (".png",)


def volume_options(*, required: bool = True, kind_required: bool = True, kind: str | None = None) -> tuple:
    """--volume and --kind.

    Args:
        required: whether --volume is.
        kind_required: whether --kind is.
        kind: its default.
    """
    return (
        click.option("--volume", "volume_path", required=required, metavar="FILE", help="MRI, CT or label volume."),
        click.option("--kind", type=KIND, required=kind_required, default=kind, help="What the volume holds."),
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


def require_files(written: Mapping[str | Path | None, tuple[str, ...]], given: Mapping[str, object]) -> None:
    """Checks what a command will write before it begins.

    Args:
        written: {file to write: endings it may have}; None stands for an option that was left out.
        given: the command's parameters by name; those of `READ` name files that must not be written over.

    Raises:
        InputError: a file that cannot be written, or that is read too.
    """
    for path, suffixes in written.items():
        if path:
            require_writable(path, suffixes)
    require_not_input(written, [given.get(name) for name in READ])


def read_tracked(path: str, image_to_probe: str | None) -> TrackedSweep:
    """The sweep of a file, with the calibration of another file where it has none of its own."""
    return read_sweep(path, None if image_to_probe is None else read_image_to_probe(image_to_probe))


def read_rigid(path: str | None) -> Tensor:
    """The rigid transform (4, 4), float64, of a file; the identity without one. Raises InputError."""
    if path is None:
        return torch.eye(4, dtype=torch.float64)
    return require_rigid(torch.from_numpy(read_transform(path)), path)


def medium_options(given: Mapping[str, object]) -> dict[str, str]:
    """The options of `common.MEDIUM` that were given, but for the mask."""
    return {name: given[name] for name in KIND_OF if given[name] is not None}


def medium_of(given: Mapping[str, object]) -> AcousticMedium:
    """The medium of --volume, --kind, --mask and the options of `common.MEDIUM`. Raises InputError."""
    volume = read_volume(given["volume_path"])
    mask = None if given["mask"] is None else read_mask(given["mask"], volume)
    return read_medium(given["kind"], volume, mask, medium_options(given))


def beam_probe(given: Mapping[str, object]) -> Probe | None:
    """The probe of --probe, if it was given."""
    return None if given["probe_name"] is None else read_probe(given["probe_name"])
