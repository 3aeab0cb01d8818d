"""`fit`: acquisition, tissues and the impedance network, by back-propagation, to an aligned tracked sweep."""

from __future__ import annotations

import csv
import json

import click

from ..errors import InputError
from ..fit import AppearanceFit, FitResult, fixed_medium, label_medium, mri_medium
from ..io.atomic import replacing
from ..medium import save_impedance
from ..medium.tissue import TISSUE_COLUMNS, TISSUE_TABLES
from ..probe import probe_to_dict
from ..render.settings import settings_to_dict
from ..sweep.sweep import read_sweep
from .common import MEDIUM, options, progress
from .inputs import (
    INITIAL,
    beam_probe,
    medium_of,
    provenance_of,
    read_rigid,
    require_files,
    sweep_options,
    volume_options,
)

OUTPUT = (
    click.option("--output", required=True, metavar="FILE.json", help="Probe, settings, numbers and scores."),
    click.option("--tissues-output", metavar="FILE.csv", help="The fitted tissue table, for --tissues of render."),
    click.option("--weights-output", metavar="FILE.pt", help="The fitted network (mri), for --weights of render."),
)


@click.command()
@options(volume_options())
@options(sweep_options())
@INITIAL
@click.option(
    "--parameters",
    default="acquisition",
    help="What to fit, with commas: acquisition, tissues, impedance, or single ones such as gain_db,scattering_db.",
)
@options(OUTPUT)
@click.option("--probe", "probe_name", metavar="NAME|FILE.json", help="Beam to start from; the fan is the frames' own.")
@options(MEDIUM)
@click.option("--frames", type=int, default=8, help="That are fitted to, spread over the sweep.")
@click.option("--steps", type=int, default=16, help="Of the descent.")
@click.option("--seed", type=int, default=0, help="Of the speckle that textures are compared with.")
def fit(
    parameters: str,
    output: str,
    tissues_output: str | None,
    weights_output: str | None,
    frames: int,
    steps: int,
    seed: int,
    **given: object,
) -> None:
    """Matches the renderer's appearance to an aligned sweep.

    The third quarter of the sweep is held out; its NCC before and after says what the fit gains. Numbers that the
    frames do not determine stay at their start, with `learned` near 0 in the output.
    """
    require_files(given, (output, (".json",)), (tissues_output, (".csv",)), (weights_output, (".pt",)))
    names = [name.strip() for name in parameters.split(",") if name.strip()]
    probe = beam_probe(given)
    with progress() as bar:
        task = bar.add_task("reading", total=steps)
        sweep = read_sweep(given["sweep_path"], given["image_to_probe"])
        to_reference = read_rigid(given["initial"])
        medium = medium_of(given, from_mri=mri_medium, from_labels=label_medium)
        medium = fixed_medium(medium) if given["kind"] == "ct" else medium
        if weights_output and medium.mapping is None:
            raise InputError("--weights-output is for --kind mri: only an MRI has an impedance network.")
        if tissues_output and not medium.tissues:
            raise InputError("--tissues-output is for --kind mri or labels: a CT's tissues are not in the table.")
        work = AppearanceFit(
            medium, sweep, to_reference, probe=probe, parameters=names, frames=frames, steps=steps, seed=seed
        )
        for state in work:
            bar.update(task, completed=state.step, description=f"fitting, misfit {state.loss:.4f}")
    table = given["tissues"] if given["tissues"] in TISSUE_TABLES else None
    made = provenance_of({**given, "parameters": parameters, "frames": frames, "steps": steps, "seed": seed})
    _write(work.result, table, output, tissues_output, weights_output, made)
    _print(work.result, output)


def _write(
    result: FitResult,
    table: str | None,
    output: str,
    tissues_output: str | None,
    weights_output: str | None,
    made: dict,
) -> None:
    """Each file whole or not at all; `table` is the name of the tissue table that the fit started from."""
    report = {
        "probe": probe_to_dict(result.probe),
        "settings": settings_to_dict(result.settings),
        **({} if table is None else {"tissues": table}),
        "numbers": [vars(number) for number in result.numbers],
        "held_out_ncc": {"before": vars(result.before), "after": vars(result.after)},
        "fitted_frames": result.fitted_frames,
        "held_out_frames": result.held_out_frames,
        "provenance": made,
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


def _print(result: FitResult, output: str) -> None:
    for number in result.numbers:
        name = f"{number.name} of {number.tissue}" if number.tissue else number.name
        click.echo(f"{name}: {number.start:.4g} -> {number.value:.4g} (learned {number.learned:.0%})")
    before, after = result.before, result.after
    click.echo(
        f"held-out NCC {before.ncc:.3f} -> {after.ncc:.3f}, "
        f"smoothed {before.ncc_smoothed:.3f} -> {after.ncc_smoothed:.3f}"
    )
    click.echo(output)
