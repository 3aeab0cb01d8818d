"""`fit`: acquisition, tissues and the impedance network, by back-propagation, to an aligned tracked sweep."""

from __future__ import annotations

import csv
import json

import click
import torch

from ..errors import InputError
from ..fit import AppearanceFit, FitResult, FittableMedium, fixed_medium, label_medium, mri_medium
from ..io.atomic import replacing, require_not_input, require_writable
from ..io.transforms import read_transform
from ..io.volumes import Volume, read_volume
from ..medium import save_impedance
from ..medium.tissue import TISSUE_COLUMNS, read_tissues
from ..probe import probe_to_dict
from ..render.settings import settings_to_dict
from ..sweep.sweep import read_image_to_probe, read_sweep
from .common import FILES, MEDIUM, label_table, options, progress, read_mask, read_medium, read_probe, require_of_kind

# Of the options of FILES and MEDIUM, those that a fit has too.
VOLUME, KIND = FILES[0], FILES[1]


@click.command()
@options((VOLUME, KIND))
@click.option("--sweep", "sweep_path", required=True, metavar="FILE", help="Tracked sweep (.igs.mha, .mha, .nrrd).")
@click.option("--image-to-probe", metavar="FILE", help="Calibration: a transform, or a PLUS configuration (.xml).")
@click.option("--initial", metavar="FILE", help="mri_to_reference, as registration writes it; identity without it.")
@click.option(
    "--parameters",
    default="acquisition",
    help="What to fit, with commas: acquisition, tissues, impedance, or single ones such as gain_db,scattering_db.",
)
@click.option("--output", required=True, metavar="FILE.json", help="Probe, settings, numbers and scores.")
@click.option("--tissues-output", metavar="FILE.csv", help="The fitted tissue table, for --tissues of render.")
@click.option("--weights-output", metavar="FILE.pt", help="The fitted network (mri), for --weights of render.")
@click.option("--probe", "probe_name", metavar="NAME|FILE.json", help="Beam to start from; the fan is the frames' own.")
@options(MEDIUM)
@click.option("--frames", type=int, default=8, help="That are fitted to, spread over the sweep.")
@click.option("--steps", type=int, default=16, help="Of the descent.")
@click.option("--seed", type=int, default=0, help="Of the speckle that textures are compared with.")
def fit(
    volume_path: str,
    kind: str,
    sweep_path: str,
    image_to_probe: str | None,
    initial: str | None,
    parameters: str,
    output: str,
    tissues_output: str | None,
    weights_output: str | None,
    probe_name: str | None,
    mask: str | None,
    frames: int,
    steps: int,
    seed: int,
    **given: object,
) -> None:
    """Matches the renderer's appearance to an aligned sweep.

    The third quarter of the sweep is held out; its NCC before and after is what the fit is worth. Numbers that the
    frames do not tell stay at their start, with `learned` near 0 in the output.
    """
    written = ((output, (".json",)), (tissues_output, (".csv",)), (weights_output, (".pt",)))
    for path, suffixes in written:
        if path:
            require_writable(path, suffixes)
    names = [name.strip() for name in parameters.split(",") if name.strip()]
    read = (
        volume_path,
        sweep_path,
        image_to_probe,
        initial,
        probe_name,
        mask,
        *(given[n] for n in ("weights", "labels_table", "tissues")),
    )
    require_not_input([path for path, _ in written], read)
    chosen = {name: value for name, value in given.items() if value is not None}
    probe = None if probe_name is None else read_probe(probe_name)
    with progress() as bar:
        task = bar.add_task("reading", total=steps)
        volume = read_volume(volume_path)
        sweep = read_sweep(sweep_path, None if image_to_probe is None else read_image_to_probe(image_to_probe))
        matrix = torch.eye(4, dtype=torch.float64) if initial is None else torch.from_numpy(read_transform(initial))
        medium = _medium(kind, volume, None if mask is None else read_mask(mask, volume), chosen)
        if weights_output and medium.mapping is None:
            raise InputError("--weights-output is for --kind mri: only an MRI has an impedance network.")
        if tissues_output and not medium.tissues:
            raise InputError("--tissues-output is for --kind mri or labels: a CT's tissues are not in the table.")
        work = AppearanceFit(
            medium, sweep, matrix, probe=probe, parameters=names, frames=frames, steps=steps, seed=seed
        )
        for state in work:
            bar.update(task, completed=state.step, description=f"fitting, misfit {state.loss:.4f}")
    _write(work.result, output, tissues_output, weights_output)
    _tell(work.result, output)


def _medium(kind: str, volume: Volume, mask, chosen: dict) -> FittableMedium:
    if kind == "ct":
        return fixed_medium(read_medium(kind, volume, mask, chosen))
    require_of_kind(kind, chosen)
    tissues = read_tissues(chosen.pop("tissues")) if "tissues" in chosen else None
    if kind == "mri":
        mapping = chosen.pop("weights", None)
        return mri_medium(volume.array, volume.ijk_to_ras, mask, mapping=mapping, tissues=tissues, **chosen)
    if mask is not None:
        raise InputError("--mask is for --kind mri or ct; in a label volume, label 0 is outside of the patient.")
    return label_medium(volume.array, label_table(volume, tissues=tissues, **chosen), volume.ijk_to_ras)


def _write(result: FitResult, output: str, tissues_output: str | None, weights_output: str | None) -> None:
    """Each file whole or not at all."""
    report = {
        "probe": probe_to_dict(result.probe),
        "settings": settings_to_dict(result.settings),
        "numbers": [vars(number) for number in result.numbers],
        "held_out_ncc": {"before": vars(result.before), "after": vars(result.after)},
        "fitted_frames": result.fitted_frames,
        "held_out_frames": result.held_out_frames,
    }
    if tissues_output:
        with replacing(tissues_output) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(TISSUE_COLUMNS)
            writer.writerows([getattr(tissue, column) for column in TISSUE_COLUMNS] for tissue in result.tissues)
    if weights_output:
        with replacing(weights_output) as temporary:
            save_impedance(result.mapping, temporary)
    with replacing(output) as temporary:
        temporary.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def _tell(result: FitResult, output: str) -> None:
    for number in result.numbers:
        name = f"{number.name} of {number.tissue}" if number.tissue else number.name
        click.echo(f"{name}: {number.start:.4g} -> {number.value:.4g} (learned {number.learned:.0%})")
    before, after = result.before, result.after
    click.echo(
        f"held-out NCC {before.ncc:.3f} -> {after.ncc:.3f}, "
        f"smoothed {before.ncc_smoothed:.3f} -> {after.ncc_smoothed:.3f}"
    )
    click.echo(output)
