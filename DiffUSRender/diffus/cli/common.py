"""What the commands share: options, progress, and how a volume on file becomes a medium."""

from __future__ import annotations

import errno
import math
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click
import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from ..errors import DiskError, InputError
from ..io.tables import read_label_names
from ..io.volumes import read_volume
from ..medium import AcousticMedium
from ..medium.tissue import LABEL_TABLES, TISSUE_TABLES, labels_with_tissues, named_tissues
from ..probe import probe_preset, read_probe_json
from ..render.settings import PRESET_HELP, PRESETS, RenderSettings
from ..settings import declared
from .segmentation import segmentation_on

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from ..fit import FittableMedium
    from ..io.volumes import Volume
    from ..medium import Tissue
    from ..probe import Probe
    from ..settings import Setting


class Commands(click.Group):
    """A group whose commands answer bad input with one sentence on stderr and exit status 2, a failing disk with 1."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except InputError as error:
            failure = click.ClickException(str(error))
            failure.exit_code = 1 if isinstance(error, DiskError) else 2
            raise failure from error
        except OSError as error:
            if error.errno == errno.EPIPE:  # nobody reads the output any more: click ends quietly
                raise
            raise click.ClickException(f"A file could not be read or written: {error}.") from error


class NumberOrNone(click.ParamType):
    """A number, or the word none."""

    name = "number|none"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> object:
        return "none" if value == "none" else click.FLOAT.convert(value, param, ctx)


@contextmanager
def progress() -> Iterator[Progress]:
    """A progress bar on stderr that disappears when it is done."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        yield bar


def options(several: tuple[Callable, ...]) -> Callable:
    """Gives a command several options, in this order."""

    def decorated(command: Callable) -> Callable:
        for option in reversed(several):
            command = option(command)
        return command

    return decorated


# Options of some kinds of volume only: {name: kind, or kinds with "or" between them}.
KIND_OF = {"labels_table": "labels", "scanner": "ct", "outside": "ct", "weights": "mri", "contrast": "mri"}
KIND_OF |= {"tissues": "mri or labels", "segmentation": "mri or ct", "segmentation_table": "mri or ct"}
SEGMENTATION = (
    click.option(
        "--segmentation",
        metavar="FILE",
        help="Labels in whose voxels they say what the tissue is, in place of the image (mri, ct): a tumour, vessels, "
        "the falx, organs; on any grid.",
    ),
    click.option(
        "--segmentation-table",
        metavar="NAME|FILE",
        help="Names of its labels, as --labels-table; without it those of a .seg.nrrd file.",
    ),
)
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
    click.option(
        "--tissues",
        metavar="NAME|FILE.csv",
        help=f"Tissues (mri, labels): a table's name ({', '.join(TISSUE_TABLES)}; seed: the impedances of the DiffUS "
        f"paper's authors), or rows in place of the table's, as fit writes.  [default: {TISSUE_TABLES[0]}]",
    ),
    *SEGMENTATION,
)


def setting_option(name: str, declaration: Setting, flag: str = "", *, range_by_click: bool = False) -> Callable:
    """The option of a declared setting; where it is not given, the command gets None.

    Args:
        name: of the command's parameter.
        declaration: the setting; a switch becomes a pair --name/--no-name.
        flag: what the option is called, where that is not the name.
        range_by_click: whether click compares the number with the range; else the engine does.
    """
    flag = flag or "--" + name.replace("_", "-")
    kind: object = declaration.kind
    default = {bool: {True: "yes", False: "no"}.get, str: str, int: str, float: "{:g}".format}[declaration.kind]
    notes = [] if declaration.default is None else [f"default: {default(declaration.default)}"]
    notes += [", ".join(declaration.choices)] if declaration.choices else []
    if range_by_click:  # which shows it too
        low, high = (int(n) if math.isfinite(n) else None for n in (declaration.low, declaration.high))
        kind = (click.IntRange if kind is int else click.FloatRange)(low, high)
    elif kind is float:
        notes.append(f"{declaration.low:g} to {declaration.high:g} {declaration.unit}".rstrip())
        kind = NumberOrNone() if name in MAY_BE_SWITCHED_OFF else float
    if kind is bool:
        flag, kind = f"{flag}/{flag.replace('--', '--no-', 1)}", None
    text = f"{declaration.help}  [{'; '.join(notes)}]" if notes else declaration.help

    def checked(_context: click.Context, _parameter: click.Parameter, value: object) -> object:
        if range_by_click and value is not None:
            declaration.check(flag, value)  # NaN lies within the ranges of click
        return value

    return click.option(flag, name, type=kind, default=None, callback=checked, help=text)


def preset_table() -> str:
    """The presets of the settings and what they are, in one sentence."""
    return "; ".join(f"{name}, {PRESET_HELP[name]}" for name in PRESETS)


MAY_BE_SWITCHED_OFF = ("noise_db", "sheet_db", "clutter_db", "tgc_margin_db")
SETTINGS = (
    click.option("--preset", help=f"What the other settings start from: {preset_table()}."),
    *(
        setting_option(name, declaration, "--start-depth" if name == "start_depth_mm" else "")
        for name, declaration in declared(RenderSettings).items()
    ),
)
SETTINGS_FILE = click.option(
    "--settings", "settings_path", metavar="FILE.json", help="Settings that fit wrote; options win over them."
)


def torch_device(name: str) -> torch.device:
    """The device of this name.

    Raises:
        InputError: torch cannot compute on it here.
    """
    try:
        device = torch.empty(0, device=name).device
        torch.ones(1, device=device).cpu()  # "meta" has tensors without values
        return device
    except (RuntimeError, AssertionError, ImportError) as error:  # of backends that are not built in
        raise InputError(f"torch cannot compute on '{name}' here; use --device cpu.") from error


def read_probe(name: str) -> Probe:
    """A probe file, or a preset by its name."""
    return read_probe_json(name) if name.lower().endswith(".json") else probe_preset(name)


def read_mask(path: str, volume: Volume) -> np.ndarray:
    """True inside of the patient, (K, J, I).

    Raises:
        InputError: the mask is on another grid than the volume.
    """
    mask = read_volume(path)
    if mask.array.shape != volume.array.shape or not np.allclose(mask.ijk_to_ras, volume.ijk_to_ras, atol=1e-3):
        raise InputError(f"The mask {path} is not on the volume's grid; resample it to the volume first.")
    return mask.array != 0


def read_medium(
    kind: str,
    volume: Volume,
    mask: np.ndarray | None,
    chosen: dict[str, str],
    *,
    from_mri: Callable = AcousticMedium.from_mri,
    from_labels: Callable = AcousticMedium.from_labels,
) -> AcousticMedium | FittableMedium:
    """The medium of a volume.

    Args:
        kind: mri, ct or labels.
        volume: its voxels.
        mask: True inside of the patient, or None.
        chosen: the given options of MEDIUM.
        from_mri, from_labels: what makes it, with the arguments of AcousticMedium's.

    Raises:
        InputError: an option of another kind, or voxels that cannot be a medium.
    """
    require_of_kind(kind, chosen)
    tissues = named_tissues(chosen.pop("tissues")) if "tissues" in chosen else None
    if kind == "labels":
        if mask is not None:
            raise InputError("--mask is for --kind mri or ct; in a label volume, label 0 is outside of the patient.")
        return from_labels(volume.array, label_table(volume, **chosen, tissues=tissues), volume.ijk_to_ras)
    segmentation = _segmentation(chosen, volume, tissues)
    if kind == "ct":
        medium = AcousticMedium.from_ct(volume.array, volume.ijk_to_ras, mask=mask, **chosen)
        if segmentation is None:
            return medium
        return AcousticMedium.from_labels(*segmentation, volume.ijk_to_ras, elsewhere=medium)
    mapping = chosen.pop("weights", None)
    made_of = {"mapping": mapping, "tissues": tissues, "segmentation": segmentation}
    return from_mri(volume.array, volume.ijk_to_ras, mask, **made_of, **chosen)


def _segmentation(
    chosen: dict[str, str], volume: Volume, tissues: Mapping[str, Tissue] | None
) -> tuple[np.ndarray, str | dict[int, str | Tissue]] | None:
    """The labels of --segmentation on the volume's grid and what they are, with their options taken from `chosen`."""
    path, table = chosen.pop("segmentation", None), chosen.pop("segmentation_table", None)
    if path is None:
        if table is not None:
            raise InputError("--segmentation-table names the labels of --segmentation; give that too.")
        return None
    found = read_volume(path)
    if table is None and not found.labels:
        raise InputError(f"{path} does not name its labels; give --segmentation-table.")
    names = label_table(found, table, tissues)
    labels, understood = segmentation_on(found, names, volume)
    click.echo(f"{path}: {understood}.")
    return labels, names


def require_of_kind(kind: str, chosen: Iterable[str]) -> None:
    """Raises InputError for an option of MEDIUM that belongs to another kind of volume."""
    for name in chosen:
        if kind not in KIND_OF[name].split(" or "):
            raise InputError(f"--{name.replace('_', '-')} is for --kind {KIND_OF[name]}, not {kind}.")


def label_table(
    volume: Volume, labels_table: str | None = None, tissues: Mapping[str, Tissue] | None = None
) -> str | dict[int, str | Tissue]:
    """What the labels of a volume mean.

    Args:
        volume: whose own names serve where no table is given.
        labels_table: a public table's name, or a file.
        tissues: by name, in place of the table's.

    Returns:
        A public table's name, or {value: name or tissue}.
    """
    if labels_table is None:
        table = volume.labels or LABEL_TABLES[0]
    else:
        table = labels_table if labels_table in LABEL_TABLES else read_label_names(labels_table)
    return labels_with_tissues(table, tissues) if tissues else table
