"""The command line, `python -m diffus` or `diffus`: one group, a file for each command."""

from __future__ import annotations

import importlib.util
import signal
import sys
import threading

import click

from .benchmark import benchmark
from .common import Commands
from .evaluate import evaluate
from .export import export_command, maps_command
from .fit import fit
from .impedance import train_impedance
from .probes import fan, presets
from .register import register
from .render import render

CONTEXT = {"help_option_names": ["-h", "--help"], "show_default": True}


@click.group(cls=Commands, context_settings=CONTEXT)
@click.version_option(package_name="diffus")
def main() -> None:
    """Simulates ultrasound from MRI, CT or labels, and registers tracked ultrasound to them.

    Not for clinical decisions.
    """
    if threading.current_thread() is threading.main_thread():
        # Ends as an error does, so that unfinished files go.
        signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))


for command in (
    render,
    register,
    fit,
    export_command,
    maps_command,
    fan,
    presets,
    evaluate,
    benchmark,
    train_impedance,
):
    main.add_command(command)

if importlib.util.find_spec("diffus.studies"):  # in the wheel, not in the Slicer package
    from .study import study

    main.add_command(study)
