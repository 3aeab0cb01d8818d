"""`realism`: statistics of simulated frames beside those of a real sweep, before and after matching or fitting."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import astuple, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np
import torch

from ...errors import InputError
from ...fit.matching import AppearanceMatch, rocked
from ...io.atomic import replacing
from ...io.tables import read_settings, write_csv
from ...io.volumes import read_volume
from ...medium import AcousticMedium
from ...medium.labels import as_labels
from ...medium.tissue import label_table as public_label_table
from ...metrics.frames import DISTANCES, STATISTICS, frame_distances, frame_statistics
from ...probe import probe_to_dict, read_probe_json
from ...render.gain import time_gain_db_per_cm
from ...render.renderer import UltrasoundRenderer
from ...render.settings import RenderSettings, make_settings, settings_to_dict
from ...studies.window import WINDOWS, Anatomy, acoustic_window
from ...sweep.probe_sweep import PolarSweep, beam_of, in_fan, polar_sweep, probe_of_sweep
from ...sweep.sweep import read_sweep
from ..common import label_table, options, progress, read_medium
from ..inputs import FIGURE_SUFFIXES, IMAGE_TO_PROBE, read_rigid, require_files, seed_option, volume_options
from .figures import pyplot, save_images, spread

if TYPE_CHECKING:
    from torch import Tensor

    from ...probe import Probe
    from ...sweep.sweep import TrackedSweep

INPUT = (
    click.option("--real", "sweep_path", required=True, metavar="FILE", help="Real sweep: .igs.mha, .nrrd ..."),
    IMAGE_TO_PROBE,
    *volume_options(kinds=("ct", "labels"), text="CT, or labels, of any patient."),
    click.option("--labels", "labels_path", metavar="FILE", help="Segmentation of the CT, on its grid."),
    click.option("--labels-table", metavar="NAME|FILE", help="Names of the labels; else totalsegmentator-v1."),
    click.option("--organ", default="liver", help="Label that the probe looks at."),
    click.option("--window", type=click.Choice(WINDOWS), default="subcostal", help="Where the probe stands."),
    click.option("--pose", metavar="FILE", help="probe_to_ras of the middle frame, instead of a window."),
)
HOW = (
    click.option("--settings", "settings_path", metavar="FILE.json", help="Of fit, or --matched: what is after."),
    click.option("--frequency-mhz", type=click.FloatRange(0.5, 40), default=3.5, help="Of the probe before."),
    click.option("--frames", "count", type=click.IntRange(2, 200), default=8, help="Simulated frames; real, thrice."),
    click.option("--range-db", type=click.FloatRange(20, 120), default=60.0, help="Assumed for speckle statistics."),
    seed_option("Of speckle and noise."),
)
OUTPUT = (
    click.option("--output", required=True, metavar="FILE.csv", help="The table."),
    click.option("--figure", metavar="FILE.png", help="Real and simulated frames, side by side."),
    click.option("--matched", metavar="FILE.json", help="Write the probe and the settings that were found."),
)


@click.command()
@options(INPUT)
@options(HOW)
@options(OUTPUT)
def realism(output: str, figure: str | None, matched: str | None, **given: object) -> None:
    """How like a real sweep simulated frames are: speckle, texture, grey levels; before and after matching.

    The volume need not be of the patient in the sweep: the probe is put onto the skin where it sees the organ, and
    rocks there; the fan is the real one's. After: with --settings, or else the frequency, pulse, f-number, gain, time
    gain and dynamic range that bring grey levels and speckle width nearest.
    """
    require_files(given, (output, (".csv",)), (figure, FIGURE_SUFFIXES), (matched, (".json",)))
    if figure:
        pyplot()
    if matched and given["settings_path"]:
        raise InputError("--matched writes what is found without --settings; leave one of them out.")
    with progress() as bar:
        task = bar.add_task("reading", total=None)
        sweep, views = _real(given)
        medium, anatomy = _patient(given)
        bar.update(task, description="placing the probe")
        if given["pose"]:
            pose = read_rigid(given["pose"])
        else:
            pose = acoustic_window(anatomy, views.probe, given["window"])
        poses = rocked(pose, given["count"])
        before = (views.probe, RenderSettings(seed=given["seed"]))
        if given["settings_path"]:
            after = _read_settings(given["settings_path"], views.probe, given["seed"])
        else:
            search = AppearanceMatch(
                sweep.frames, sweep.mask[0], views, medium, poses, before[1], dynamic_range_db=given["range_db"]
            )
            for state in search:
                bar.update(task, total=state.steps, completed=state.step, description="matching")
            after = (search.best.probe, search.best.settings)
        simulated = {
            name: _render(views, medium, poses, *chosen, sweep)
            for name, chosen in (("simulated, before", before), ("simulated, after", after))
        }
    rows = _rows(sweep, views, simulated, given["range_db"])
    with ExitStack() as all_files:
        write_csv(all_files.enter_context(replacing(output)), rows[0], rows[1:])
        if figure:
            _draw(all_files.enter_context(replacing(figure)), sweep, simulated)
        if matched:
            found = {"probe": probe_to_dict(after[0]), "settings": settings_to_dict(after[1])}
            text = json.dumps(found, indent=2)
            all_files.enter_context(replacing(matched)).write_text(text + "\n", encoding="utf-8")
    _print(rows, after)
    click.echo(f"{', '.join(filter(None, (output, figure, matched)))} written.")


def _real(given: dict) -> tuple[TrackedSweep, PolarSweep]:
    """Frames spread over the sweep, and the same along the rays of the probe that they show."""
    sweep = read_sweep(given["sweep_path"], given["image_to_probe"])
    if len(sweep) < 2:
        raise InputError(
            f"{given['sweep_path']} has one frame; real frames are compared with each other too: give a sweep."
        )
    chosen = np.unique(np.linspace(0, len(sweep) - 1, 3 * given["count"]).round().astype(int))
    sweep = sweep.subset(chosen)
    probe, pixel_to_probe = probe_of_sweep(sweep, frequency_mhz=given["frequency_mhz"])
    sweep = replace(sweep, mask=(sweep.mask.all(0) & in_fan(probe, pixel_to_probe, *sweep.mask.shape[1:]))[None])
    return sweep, polar_sweep(sweep, probe, pixel_to_probe, rays=probe.rays, samples=probe.samples)


def _patient(given: dict) -> tuple[AcousticMedium, Anatomy | None]:
    """The medium, and where bone, gas and organ are (None where --pose makes it needless)."""
    volume = read_volume(given["volume_path"])
    labels = volume if given["kind"] == "labels" else None
    if given["labels_path"]:
        if given["kind"] == "labels":
            raise InputError("--labels is the segmentation of a CT; with --kind labels the volume is one itself.")
        labels = read_volume(given["labels_path"])
        if labels.array.shape != volume.array.shape or not np.allclose(labels.ijk_to_ras, volume.ijk_to_ras, atol=1e-3):
            raise InputError(f"{given['labels_path']} is not on the CT's grid; resample it to the CT first.")
    medium = read_medium("ct", volume, None, {}) if given["kind"] == "ct" else None
    if labels is None:
        if given["pose"] is None:
            raise InputError("Where the organ is must be known: give --labels with the CT, or --pose.")
        return medium, None
    table = label_table(labels, given["labels_table"])
    array = as_labels(labels.array)
    segmented = AcousticMedium.from_labels(array, table, labels.ijk_to_ras, elsewhere=medium)
    if given["pose"]:
        return segmented, None
    names = public_label_table(table) if isinstance(table, str) else table
    organ = [value for value, name in names.items() if str(name).lower() == given["organ"].lower()]
    if not organ or not (array == organ[0]).any():
        raise InputError(f"There is no label {given['organ']!r} in the segmentation; choose another with --organ.")
    seen = array == organ[0]
    if given["kind"] == "ct":
        return segmented, Anatomy.from_ct(volume.array, seen, volume.ijk_to_ras)
    hard = np.isin(array, [v for v, n in names.items() if "rib" in str(n).lower() or "vertebra" in str(n).lower()])
    return segmented, Anatomy(array > 0, seen, hard, volume.ijk_to_ras)


def _read_settings(path: str, shape: Probe, seed: int) -> tuple[Probe, RenderSettings]:
    """The beam and the settings of a file of `fit` or --matched; the fan's shape stays that of the real frames."""
    try:
        probe, settings = read_probe_json(path), make_settings(**(read_settings(path) | {"seed": seed}))
    except InputError as error:
        raise InputError(f"{path} is no file of settings as fit or --matched writes it: {error}") from error
    return replace(shape, **beam_of(probe)), settings


def _render(
    views: PolarSweep,
    medium: AcousticMedium,
    poses: Tensor,
    probe: Probe,
    settings: RenderSettings,
    sweep: TrackedSweep,
) -> Tensor:
    """Simulated frames on the pixels of the real ones, (n, h, w)."""
    renderer = UltrasoundRenderer(probe, **vars(settings))
    with torch.inference_mode():
        polar = [renderer.polar(medium, renderer.points_ras(pose[None], medium.dtype)) for pose in poses]
        return views.in_frame(torch.cat(polar), *sweep.frames.shape[1:]).clone() * sweep.mask[0]


def _rows(sweep: TrackedSweep, views: PolarSweep, simulated: dict[str, Tensor], range_db: float) -> list[list]:
    """Header and rows: the real frames, half of them against the other, and the simulated ones against all."""
    mask = sweep.mask[0]
    sets = {"real": (sweep.frames, None), "real, even against odd frames": (sweep.frames[::2], sweep.frames[1::2])}
    sets |= {name: (frames, sweep.frames) for name, frames in simulated.items()}
    rows = [["frames", *STATISTICS, *DISTANCES]]
    for name, (frames, against) in sets.items():
        values = astuple(frame_statistics(frames, mask, views.pixel_to_probe, dynamic_range_db=range_db))
        far = ["", ""] if against is None else [f"{v:.4f}" for v in astuple(frame_distances(against, frames, mask))]
        rows.append([name, *(f"{v:.3f}" for v in values), *far])
    return rows


def _draw(path: Path, sweep: TrackedSweep, simulated: dict[str, Tensor]) -> None:
    """Real frames above; simulated ones of a similar place in the sweep below, before and after."""
    sets = {"real": sweep.frames, **simulated}
    images = [[frames[n].numpy() for n in spread(len(frames))] for frames in sets.values()]
    fewest = min(map(len, images))
    save_images(path, [line[:fewest] for line in images], names=list(sets), inch=3.0)


def _print(rows: list[list], after: tuple[Probe, RenderSettings]) -> None:
    header, *lines = rows
    for name, *values in lines:
        click.echo(name)
        click.echo("   " + ", ".join(f"{key} {value}" for key, value in zip(header[1:], values) if value))
    probe, settings = after
    click.echo(
        f"after: {float(probe.frequency_mhz):g} MHz, {float(probe.cycles):g} cycles, "
        f"f-number {float(probe.f_number):g}, gain {settings.gain_db:.1f} dB, "
        f"dynamic range {settings.dynamic_range_db:.0f} dB, time gain {time_gain_db_per_cm(probe, settings):.2f} dB/cm"
    )
