"""Timing, memory and tables for every benchmark."""

from __future__ import annotations

import csv
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from rich.console import Console
from rich.table import Table

console = Console()
SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


def has_shared_data(name: str) -> bool:
    """Whether the shared test data is present; says that the benchmark of this name is left out, if not."""
    if not SHARED.is_dir():
        console.print(f"{name}: left out, for the shared test data is not present at {SHARED}")
    return SHARED.is_dir()


def best_of(*tasks: Callable[[], object], repeats: int = 12) -> list[float]:
    """Seconds of each task, the best of `repeats`, taken in turns: the machine's noise then meets all of them alike."""
    for task in tasks:
        task()
    best = [float("inf")] * len(tasks)
    for _ in range(repeats):
        for n, task in enumerate(tasks):
            start = time.perf_counter()
            task()
            best[n] = min(best[n], time.perf_counter() - start)
    return best


def peak_mb(script: str) -> float:
    """MB that `script` adds at its peak to the resident memory of a fresh Python; it calls `mark()` to begin counting.

    Linux only: the kernel's high-water mark is reset there.
    """
    prelude = (
        "import gc\n"
        "def memory(key):\n"
        "    with open('/proc/self/status') as status:\n"
        "        return next(int(line.split()[1]) for line in status if line.startswith(key)) / 1024\n"
        "def mark():\n"
        "    gc.collect()\n"
        "    with open('/proc/self/clear_refs', 'w') as refs: refs.write('5')\n"
        "    at.append(memory('VmRSS'))\n"
        "at = []\n"
    )
    path = os.pathsep.join(sys.path)
    done = subprocess.run(
        [sys.executable, "-c", prelude + script + "\nprint(memory('VmHWM') - at[0])"],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
    )
    return float(done.stdout.split()[-1])


def versions() -> str:
    """Machine and versions, one line."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "numpy", "scipy", "SimpleITK"))
    return f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {packages}"


def report(folder: Path, name: str, title: str, header: list[str], rows: list[list[object]]) -> None:
    """Prints a table and writes it to `folder`/`name`.csv, versions in the first line."""
    table = Table(title=title)
    for column in header:
        table.add_column(column)
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    console.print(table)
    with open(folder / f"{name}.csv", "w", newline="") as file:
        file.write(f"# {title}; {versions()}\n")
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
