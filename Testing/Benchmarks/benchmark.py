"""`make bench`: every benchmark, or those named; tables on the screen and as CSV in a folder."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import click
import torch

sys.path[:0] = [
    str(Path(__file__).parents[1]),
    *(str(Path(__file__).parents[2] / m) for m in ("DiffUSRender", "DiffUSRegister")),
]

BENCHMARKS = (
    "render_speed",
    "paper_tables",
    "scene_speed",
    "live_speed",
    "fit_recovery",
    "pose_recovery",
    "register_accuracy",
    "register_real",
    "register_methods",
    "register_comparators",
    "reconstruction",
    "simus",
    "realism",
    "ablation_tables",
)


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.argument("names", nargs=-1, type=click.Choice(BENCHMARKS))
def main(folder: Path, names: tuple[str, ...]) -> None:
    """Runs the benchmarks NAMES (default: all) and writes their tables into FOLDER."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)  # every figure is of one core
    for name in names or BENCHMARKS:
        importlib.import_module(f"Benchmarks.{name}").run(folder)


if __name__ == "__main__":
    main()
