"""`realism`: statistics of simulated frames beside those of a real sweep, before and after matching or fitting."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import astuple, replace
from typing import TYPE_CHECKING

import click
import torch

from ...errors import InputError
from ...fit.matching import AppearanceMatch
from ...io.atomic import replacing, require_not_input
from ...io.tables import read_settings, write_csv
from ...metrics.fan import FAN_STATISTICS, fan_statistics
from ...metrics.frames import DISTANCES, STATISTICS, FrameDistances, frame_distances, frame_statistics
from ...probe import probe_to_dict, read_probe_json
from ...render.gain import time_gain_db_per_cm
from ...render.renderer import UltrasoundRenderer
from ...render.settings import RenderSettings, make_settings, settings_to_dict
from ...studies.craniotomy import CRANIOTOMIES
from ...studies.window import WINDOWS
from ...sweep.probe_sweep import beam_of, frame_grid
from ..common import options, progress
from ..inputs import FIGURE_SUFFIXES, IMAGE_TO_PROBE, require_files, seed_option, volume_options
from .figures import pyplot, save_images, spread
from .realism_cases import JUDGED, frames_on_file, name_of, placed_probe, real_frames

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from ...medium import AcousticMedium
    from ...probe import Probe
    from .realism_cases import RealFrames

FREQUENCY_MHZ = {"mri": 5.0, "ct": 3.5, "labels": 3.5}
INPUT = (
    click.option("--real", "sweep_path", required=True, metavar="FILE", help="Real sweep: .igs.mha, .nrrd ..."),
    IMAGE_TO_PROBE,
    click.option(
        "--simulated",
        "simulated_paths",
        multiple=True,
        metavar="FILE",
        help="Sweep of renders, of any fan; may be repeated.",
    ),
    *volume_options(required=False, kind_required=False, text="MRI, CT or labels of any patient, to be rendered."),
    click.option("--labels", "labels_path", metavar="FILE", help="Segmentation of the CT, on its grid."),
    click.option("--labels-table", metavar="NAME|FILE", help="Names of the labels; else totalsegmentator-v1."),
    click.option("--mask", metavar="FILE", help="Brain of the MRI, on its grid; else it is found."),
    click.option("--contrast", help="Of the MRI: t1 or t2.  [default: t1]"),
    click.option("--organ", default="liver", help="Label that the probe looks at."),
    click.option(
        "--window",
        "windows",
        type=click.Choice(WINDOWS + CRANIOTOMIES),
        multiple=True,
        help="Where the probe stands; may be repeated.  [default: subcostal, or left-frontal of an MRI]",
    ),
    click.option("--pose", metavar="FILE", help="probe_to_ras of the middle frame, instead of a window."),
)
HOW = (
    click.option("--settings", "settings_path", metavar="FILE.json", help="Of fit, or --matched: what is after."),
    click.option("--match/--no-match", default=True, help="Whether settings are sought where none are given."),
    click.option(
        "--judge",
        type=click.Choice(JUDGED),
        default="all",
        help="Half of the sweep that is judged by; match sees others.",
    ),
    click.option(
        "--frequency-mhz",
        type=click.FloatRange(0.5, 40),
        default=None,
        help="Of the probe before.  [default: 3.5, or 5 for an MRI]",
    ),
    click.option("--frames", "count", type=click.IntRange(2, 200), default=8, help="Simulated frames; real, thrice."),
    click.option("--range-db", type=click.FloatRange(20, 120), default=60.0, help="Assumed for speckle statistics."),
    seed_option("Of speckle and noise."),
)
OUTPUT = (
    click.option("--output", required=True, metavar="FILE.csv", help="The table."),
    click.option("--figure", metavar="FILE.png", help="Real and simulated frames, side by side."),
    click.option("--matched", metavar="FILE.json", help="Write the probe and the settings that were found."),
)
RATIOS = ("patches_ratio", "patch_texture_ratio")
HALVES = "real, first against second half"


@click.command()
@options(INPUT)
@options(HOW)
@options(OUTPUT)
def realism(output: str, figure: str | None, matched: str | None, **given: object) -> None:
    """How like a real sweep simulated frames are: speckle, texture, grey levels, patches; before and after matching.

    Simulated are frames on file (--simulated), or those of a volume, which need not be of the patient in the sweep:
    the probe is put onto the skin where it sees the organ, or onto the brain of an MRI, and rocks there; the fan is the
    real one's. After: with --settings, or else the frequency, pulse, f-number, gain, time gain and dynamic range that
    bring grey levels and speckle width nearest. Ratios are to the real sweep's two halves.
    """
    require_files(given, (output, (".csv",)), (figure, FIGURE_SUFFIXES), (matched, (".json",)))
    require_not_input([output, figure, matched], given["simulated_paths"])
    _require_options(given, matched)
    if figure:
        pyplot()
    after = None
    with progress() as bar:
        task = bar.add_task("reading", total=None)
        real = real_frames(given, given["frequency_mhz"] or FREQUENCY_MHZ[given["kind"] or "ct"])
        simulated = {name_of(path): frames_on_file(path, real) for path in given["simulated_paths"]}
        if given["volume_path"]:
            bar.update(task, description="placing the probe")
            medium, poses = placed_probe(given, real.views.probe)
            sets = {"before": (real.views.probe, RenderSettings(seed=given["seed"]))}
            if given["settings_path"]:
                after = _read_settings(given["settings_path"], real.views.probe, given["seed"])
            elif given["match"]:
                search = AppearanceMatch(
                    real.matched.frames,
                    real.mask,
                    real.views,
                    medium,
                    poses,
                    sets["before"][1],
                    dynamic_range_db=given["range_db"],
                )
                for state in search:
                    bar.update(task, total=state.steps, completed=state.step, description="matching")
                after = (search.best.probe, search.best.settings)
            sets |= {"after": after} if after else {}
            bar.update(task, total=None, description="rendering")
            for name, chosen in sets.items():
                simulated[f"simulated, {name}"] = (_render(real, medium, poses, *chosen), real.mask)
        bar.update(task, description="comparing")
        rows = _rows(real, simulated, given["range_db"])
    with ExitStack() as all_files:
        write_csv(all_files.enter_context(replacing(output)), rows[0], rows[1:])
        if figure:
            _draw(all_files.enter_context(replacing(figure)), real, simulated)
        if matched:
            found = {"probe": probe_to_dict(after[0]), "settings": settings_to_dict(after[1])}
            text = json.dumps(found, indent=2)
            all_files.enter_context(replacing(matched)).write_text(text + "\n", encoding="utf-8")
    _print(rows, after)
    click.echo(f"{', '.join(filter(None, (output, figure, matched)))} written.")


def _require_options(given: dict, matched: str | None) -> None:
    """Raises InputError for options that do not go together."""
    if not given["volume_path"] and not given["simulated_paths"]:
        raise InputError("There is nothing to compare: give --volume with --kind, or --simulated.")
    if bool(given["volume_path"]) != bool(given["kind"]):
        raise InputError("--volume and --kind belong together; give both.")
    if matched and given["settings_path"]:
        raise InputError("--matched writes what is found without --settings; leave one of them out.")
    if matched and not (given["volume_path"] and given["match"]):
        raise InputError("--matched writes what matching a volume's frames finds; give --volume, without --no-match.")


def _read_settings(path: str, shape: Probe, seed: int) -> tuple[Probe, RenderSettings]:
    """The beam and the settings of a file of `fit` or --matched; the fan's shape stays that of the real frames."""
    try:
        probe, settings = read_probe_json(path), make_settings(**(read_settings(path) | {"seed": seed}))
    except InputError as error:
        raise InputError(f"{path} is no file of settings as fit or --matched writes it: {error}") from error
    return replace(shape, **beam_of(probe)), settings


def _render(real: RealFrames, medium: AcousticMedium, poses: Tensor, probe: Probe, settings: RenderSettings) -> Tensor:
    """Simulated frames on the pixels of the real ones, (n, h, w)."""
    renderer = UltrasoundRenderer(probe, **vars(settings))
    grid = frame_grid(probe, real.views.pixel_to_probe, *real.mask.shape)
    with torch.inference_mode():
        pixels = renderer.plan(medium.dtype, medium.device).pixels_at(grid, real.mask)
        points = (renderer.points_ras(pose[None], medium.dtype) for pose in poses)
        frames = [renderer.slices(medium, one, number, pixels) for number, one in enumerate(points)]
        return torch.cat(frames).clone()


def _rows(real: RealFrames, simulated: dict[str, tuple[Tensor, Tensor]], range_db: float) -> list[list]:
    """Header and rows: the real frames, some of them against others, and the simulated ones against all."""
    frames, mask, probe, pixel_to_probe = real.judged.frames, real.mask, real.views.probe, real.views.pixel_to_probe
    sets = {"real": (frames, mask, None), "real, even against odd frames": (frames[::2], mask, frames[1::2])}
    sets[HALVES] = (real.halves[1], mask, real.halves[0])
    sets |= {name: (*both, frames) for name, both in simulated.items()}
    rows = [["frames", *STATISTICS, *FAN_STATISTICS, *DISTANCES, *RATIOS]]
    distances = {}
    for name, (images, where, against) in sets.items():
        looks = frame_statistics(images, where, pixel_to_probe, dynamic_range_db=range_db)
        by_depth = fan_statistics(images, where, probe, pixel_to_probe, dynamic_range_db=range_db)
        numbers = [f"{value:.3f}" for value in (*astuple(looks), *astuple(by_depth))]
        far = [""] * (len(DISTANCES) + len(RATIOS))
        if against is not None:
            distances[name] = frame_distances(against, images, where)
            far = [f"{v:.5f}" for v in astuple(distances[name])] + _ratios(distances[name], distances.get(HALVES))
        rows.append([name, *("" if number == "nan" else number for number in numbers), *far])
    return rows


def _ratios(distance: FrameDistances, halves: FrameDistances | None) -> list[str]:
    if halves is None:
        return ["", ""]
    pairs = ((distance.patches, halves.patches), (distance.patch_texture, halves.patch_texture))
    return [f"{far / near:.2f}" if near > 0 else "" for far, near in pairs]


def _draw(path: Path, real: RealFrames, simulated: dict[str, tuple[Tensor, Tensor]]) -> None:
    """Real frames above; simulated ones of a similar place in the sweep below, before and after."""
    sets = {"real": real.judged.frames, **{name: frames for name, (frames, _mask) in simulated.items()}}
    images = [[frames[n].numpy() for n in spread(len(frames))] for frames in sets.values()]
    fewest = min(map(len, images))
    save_images(path, [line[:fewest] for line in images], names=list(sets), inch=3.0)


def _print(rows: list[list], after: tuple[Probe, RenderSettings] | None) -> None:
    header, *lines = rows
    for name, *values in lines:
        click.echo(name)
        click.echo("   " + ", ".join(f"{key} {value}" for key, value in zip(header[1:], values) if value))
    if after is None:
        return
    probe, settings = after
    click.echo(
        f"after: {float(probe.frequency_mhz):g} MHz, {float(probe.cycles):g} cycles, "
        f"f-number {float(probe.f_number):g}, gain {settings.gain_db:.1f} dB, "
        f"dynamic range {settings.dynamic_range_db:.0f} dB, time gain {time_gain_db_per_cm(probe, settings):.2f} dB/cm"
    )
