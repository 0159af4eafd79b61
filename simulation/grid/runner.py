"""Runner of a grid's cells, in this process or in several.

A finished cell is skipped, and an interrupted one starts over.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import queue
import shutil
import signal
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from threading import Event as Flag
from typing import Any

from common.errors import FcclError
from common.start_lock import StartLock
from simulation.grid.cells import Cell
from simulation.records import SimulationSummary
from simulation.run import SimulationCallbacks, simulate


@dataclass(frozen=True)
class CellResult:
    """A cell and how it ended: a summary, or an error that only this cell has."""

    cell: Cell
    summary: SimulationSummary | None
    error: str = ""


def run_cells(
    cells: Sequence[Cell], jobs: int, stop: Flag, on_done: Callable[[CellResult], None]
) -> list[CellResult]:
    """Simulate the cells that are not finished; return the results of all that are, in order.

    Args:
        cells: The cells.
        jobs: Number of processes.
        stop: Ends the cells that are being simulated; they start over the next time.
        on_done: Called with each cell that has ended.
    """
    results: dict[int, CellResult] = {}
    waiting = []
    for number, cell in enumerate(cells):
        if (summary := cell.finished()) is not None:
            results[number] = CellResult(cell, summary)
        else:
            waiting.append(number)
    ended = _here(cells, waiting, stop) if jobs == 1 else _in_processes(cells, waiting, jobs, stop)
    for number, result in ended:
        if result.summary is not None or result.error:
            results[number] = result
            on_done(result)
    return [results[number] for number in sorted(results)]


def _here(
    cells: Sequence[Cell], numbers: Sequence[int], stop: Flag
) -> Iterator[tuple[int, CellResult]]:
    for number in numbers:
        if stop.is_set():
            return
        yield number, run_cell(cells[number], stop)


def run_cell(cell: Cell, stop: Flag) -> CellResult:
    """Simulate one cell; an error of its settings or its training is its result."""
    lock = StartLock(cell.config.run.path)
    try:
        lock.acquire()
        shutil.rmtree(cell.config.run.path, ignore_errors=True)  # of an interrupted simulation
        simulate(cell.config, SimulationCallbacks(), stop)
    except FcclError as error:
        return CellResult(cell, None, str(error))
    finally:
        lock.release()
    return CellResult(cell, cell.finished())


def _in_processes(
    cells: Sequence[Cell], numbers: Sequence[int], jobs: int, stop: Flag
) -> Iterator[tuple[int, CellResult]]:
    context = multiprocessing.get_context("spawn")  # torch does not survive a fork
    waiting, done, ended = context.Queue(), context.Queue(), context.Event()
    count = min(jobs, len(numbers))
    for number in [*numbers, *[None] * count]:
        waiting.put(None if number is None else (number, cells[number]))
    arguments = (waiting, done, ended, os.getpid())
    processes = [context.Process(target=_work, args=arguments, daemon=True) for _ in range(count)]
    for process in processes:
        process.start()
    rest = set(numbers)
    while rest and (any(process.is_alive() for process in processes) or not done.empty()):
        if stop.is_set():
            ended.set()
        with contextlib.suppress(queue.Empty):
            number, result = done.get(timeout=0.2)
            rest.remove(number)
            yield number, result
    for process in processes:
        process.join()
    if not stop.is_set():
        for number in rest:  # killed, for instance for lack of memory
            yield number, CellResult(cells[number], None, "its process was killed")


def _work(waiting: Any, done: Any, ended: Any, parent: int) -> None:
    """Simulate cells of a queue until it is empty; runs in a process of its own."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    warnings.filterwarnings("ignore", category=FutureWarning)  # as in the parent
    flag = _ParentFlag(ended, parent)
    while (job := waiting.get()) is not None:
        number, cell = job
        result = CellResult(cell, None) if flag.is_set() else run_cell(cell, flag)
        done.put((number, result))


class _ParentFlag(Flag):
    """Flag that is set by the parent process, or by its end."""

    def __init__(self, ended: Any, parent: int) -> None:
        super().__init__()
        self._ended, self._parent = ended, parent

    def is_set(self) -> bool:
        return bool(self._ended.is_set()) or os.getppid() != self._parent
