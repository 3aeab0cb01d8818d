"""`register`: tracked ultrasound to MRI or CT, with a verdict."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..errors import InputError
from ..io.atomic import replacing
from ..io.transforms import TRANSFORM_SUFFIXES, read_transform, write_transform
from ..io.volumes import read_volume
from ..medium import AcousticMedium
from ..register.methods import METHODS, needs_medium
from ..register.registration import KINDS, RegistrationResult, RigidRegistration, Settings
from ..register.search import SearchSettings
from ..register.verdict import Verdict
from ..settings import SEARCH_SEED, declared
from ..sweep.from_volume import sweep_from_volume
from ..sweep.sweep import TrackedSweep, read_sweep
from .common import SEGMENTATION, label_table, options, progress, read_medium, setting_option, torch_device
from .inputs import DEVICE, FROM_VOLUME, INITIAL, provenance_of, require_files, sweep_options, volume_options

REJECTED = 3  # exit status; 2 is input that cannot be used
COLOURS = {Verdict.TRUSTED: "green", Verdict.CHECK: "yellow", Verdict.REJECTED: "red"}


VOLUME = (
    *volume_options(kinds=KINDS, text="MRI, CT, labels or 3-D ultrasound."),
    click.option(
        "--labels-table",
        metavar="NAME|FILE",
        help="Names of the labels (labels); without it those of a .seg.nrrd file, else TotalSegmentator's.",
    ),
)
FILES = (
    click.option("--output", required=True, metavar="FILE.tfm", help="mri_to_reference, as 3D Slicer reads it."),
    INITIAL,
    FROM_VOLUME,
    click.option("--report", "report_path", metavar="FILE.json", help="Everything that is known about the result."),
)
SEARCH = (
    click.option("--method", type=click.Choice(METHODS), default="lc2", help="How the images are compared."),
    click.option("--seed", type=click.IntRange(SEARCH_SEED.low, SEARCH_SEED.high), default=0, help=SEARCH_SEED.help),
    DEVICE,
    setting_option("within_mm", declared(Settings)["translation_mm"], range_by_click=True),
    setting_option("within_deg", declared(Settings)["rotation_deg"], range_by_click=True),
    setting_option("samples", declared(SearchSettings)["samples"], range_by_click=True),
)


@click.command()
@options(VOLUME)
@options(sweep_options())
@options(FILES)
@options(SEGMENTATION)
@options(SEARCH)
def register(
    kind: str,
    labels_table: str | None,
    output: str,
    report_path: str | None,
    method: str,
    seed: int,
    device: str,
    within_mm: float | None,
    within_deg: float | None,
    samples: int | None,
    **given: object,
) -> None:
    """Finds the transform that brings the MRI onto the ultrasound.

    Loaded in 3D Slicer and set as the MRI's parent, the output moves the MRI into the tracker's reference frame.
    Exit status: 0 for `trusted` and `check`, 3 for `rejected` (no transform is written), 2 for unusable input.
    """
    read = {**given, "labels_table": labels_table}
    require_files(read, (output, TRANSFORM_SUFFIXES), (report_path, (".json",)))
    processor, start = torch_device(device), None if given["initial"] is None else read_transform(given["initial"])
    with progress() as bar:
        task = bar.add_task("reading", total=1.0)
        sweep = _sweep(given["sweep_path"], given["image_to_probe"], given["from_volume"])
        voxels, ijk_to_ras, medium = read_registered(given["volume_path"], kind, labels_table, processor)
        if given["segmentation"] or given["segmentation_table"]:
            medium = _segmented_medium(given, kind, method).to(processor)
        registration = RigidRegistration(
            voxels,
            ijk_to_ras,
            sweep,
            initial=start,
            kind=kind,
            method=method,
            seed=seed,
            device=processor,
            settings=search_settings(within_mm, within_deg, samples),
            medium=medium,
        )
        for state in registration:
            text = f"{state.stage}, similarity {state.similarity:.3f}"
            bar.update(task, completed=state.progress, description=text)
    result = registration.result
    rejected = result.judgement.verdict is Verdict.REJECTED
    search = {"within_mm": within_mm, "within_deg": within_deg, "samples": samples}
    made = provenance_of({**read, "kind": kind, "method": method, "seed": seed, "device": device, **search})
    written = _write(result, None if rejected else output, report_path, made)
    _summary(result, sweep.report.notes)
    click.echo(f"{' and '.join(written)} written." if written else "Nothing was written.")
    if rejected:
        if Path(output).exists():
            click.echo(f"{output} is of an earlier run.")
        click.get_current_context().exit(REJECTED)


def search_settings(within_mm: float | None, within_deg: float | None, samples: int | None) -> Settings:
    """The standard settings with what was given in their place."""
    settings = Settings()
    search = settings.search if samples is None else replace(settings.search, samples=samples)
    return replace(
        settings,
        translation_mm=within_mm or settings.translation_mm,
        rotation_deg=within_deg or settings.rotation_deg,
        search=search,
    )


def _sweep(path: str, image_to_probe: str | None, from_volume: bool) -> TrackedSweep:
    if from_volume:
        if image_to_probe is not None:
            raise InputError("--image-to-probe is for tracked frames; a 3-D volume needs none.")
        volume = read_volume(path)
        return sweep_from_volume(volume.array, volume.ijk_to_ras)
    return read_sweep(path, image_to_probe)


def read_registered(
    path: str, kind: str, labels_table: str | None, device: torch.device
) -> tuple[np.ndarray, np.ndarray, AcousticMedium | None]:
    """Voxels, ijk_to_ras, and of labels the medium that they name; their voxels become its impedance."""
    if labels_table is not None and kind != "labels":
        raise InputError(f"--labels-table is for --kind labels, not {kind}.")
    volume = read_volume(path)
    if kind != "labels":
        return volume.array, volume.ijk_to_ras, None
    medium = AcousticMedium.from_labels(volume.array, label_table(volume, labels_table), volume.ijk_to_ras)
    return medium.maps[0].numpy(), volume.ijk_to_ras, medium.to(device)


def _segmented_medium(given: dict, kind: str, method: str) -> AcousticMedium:
    """The medium of an MRI or CT in which --segmentation says what some voxels are."""
    if not needs_medium(method, kind):
        raise InputError("--segmentation changes only what is rendered; give --method rendered with it.")
    names = ("segmentation", "segmentation_table")
    chosen = {name: given[name] for name in names if given[name] is not None}
    if kind == "mri-t2":
        kind, chosen["contrast"] = "mri", "t2"
    return read_medium(kind, read_volume(given["volume_path"]), None, chosen)


def _write(result: RegistrationResult, output: str | None, report_path: str | None, made: dict) -> list[str]:
    """Writes both files, or none; returns their names."""
    written = [path for path in (output, report_path) if path]
    with ExitStack() as both:
        if report_path:
            temporary = both.enter_context(replacing(report_path))
            temporary.write_text(json.dumps(plain_report(result) | {"provenance": made}, indent=2) + "\n")
        if output:
            write_transform(output, result.mri_to_reference.numpy())
    return written


def plain_report(result: RegistrationResult) -> dict:
    """The result's report. JSON has no NaN: such numbers are None."""
    return _finite(result.report())


def _finite(value):
    """The same dictionaries, lists and values, with None for every number that is NaN or infinite."""
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _summary(result: RegistrationResult, notes: tuple[str, ...]) -> None:
    judgement, console = result.judgement, Console(width=100, highlight=False)
    report = result.report()
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim")
    table.add_column()
    colour = COLOURS[judgement.verdict]
    table.add_row("verdict", f"[bold {colour}]{judgement.verdict}[/]: {escape('; '.join(judgement.reasons))}")
    if judgement.verdict is not Verdict.REJECTED:
        expected = f"{judgement.expected_error_mm:.2f} mm, at worst {judgement.expected_error_worst_mm:.2f} mm"
        table.add_row("expected error", f"{expected}, assuming {report['assumptions']}")
    else:
        table.add_row("expected error", "not known")
    table.add_row("", f"calibrated on {judgement.calibrated_on}")
    table.add_row("similarity", f"{result.similarity:.4f} ({result.method})")
    table.add_row("frames", f"{result.frames_used} used, {result.frames_skipped} skipped in the file")
    table.add_row("seconds", f"{result.seconds:.1f}")
    for note in notes:
        table.add_row("note", escape(note))
    console.print(table)
