"""Long work as a generator: short steps for a user interface, on one thread, whatever is inside."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch

Inner, Outer, Result = TypeVar("Inner"), TypeVar("Outer"), TypeVar("Result")

STEP_S = 0.1  # a step ends with the first yield after this time


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch on one thread, and on as many as before afterwards.

    The tensors here are small. With two threads or more each operation waits for the slowest one: no gain on a free
    machine, and 16 times longer beside another program that keeps the cores busy (177 s, not 11). Sums over one thread
    also come out the same whatever number the user has set.
    """
    number = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(number)


def in_steps(work: Generator[Outer, None, None]) -> Iterator[Outer]:
    """The last state of `work` every STEP_S seconds, computed on one thread; closing it closes `work`."""
    try:
        running = True
        while running:
            state, end = None, time.perf_counter() + STEP_S
            with one_thread():
                while running and (state is None or time.perf_counter() < end):
                    new = next(work, None)
                    running = new is not None
                    state = new if running else state
            if state is not None:
                yield state
    finally:
        work.close()


def mapped(work: Generator[Inner, None, Result], function: Callable[[Inner], Outer]) -> Generator[Outer, None, Result]:
    """Yields `function` of what `work` yields, and returns what it returns."""
    while True:
        try:
            value = next(work)
        except StopIteration as end:
            return end.value
        yield function(value)
