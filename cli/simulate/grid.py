"""`fccl simulate --grid`: every combination of some settings, as one table."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import click

from cli.console import Output
from cli.exit_codes import FAILED, INTERRUPTED
from cli.signals import handle_signals
from common.config.config import FederationConfig
from common.files import make_private


def simulate_grid(
    config: FederationConfig,
    arguments: Sequence[str],
    folder: Path,
    jobs: int,
    output: Output,
    *,
    as_json: bool,
) -> None:
    """Simulate all cells of a grid that are not finished, and print and write the table.

    Raises:
        ConfigError: The grid is wrong, or a cell of it cannot be simulated.
        DiskError: The folder cannot be written.
    """
    from simulation.grid.cells import make_cells
    from simulation.grid.grid import read_grid
    from simulation.grid.runner import CellResult, run_cells
    from simulation.grid.table import MARKDOWN, markdown, table_rows, write_tables
    from simulation.run import check_simulation

    cells = make_cells(config, read_grid(arguments), folder)
    for cell in cells:
        check_simulation(cell.config)
    make_private(folder)
    finished = sum(cell.finished() is not None for cell in cells)
    if not as_json:
        output.print(f"{len(cells)} cells in {folder}, {finished} of them finished before")
    done = finished

    def on_done(result: CellResult) -> None:
        nonlocal done
        done += 1
        if as_json:
            return
        if result.error:
            output.print(f"{result.cell.label}: {result.error}")
        if output.live:
            output.progress(f"{done} of {len(cells)} cells", done / len(cells))
        else:
            output.print(f"{done} of {len(cells)} cells: {result.cell.label}")

    stop = threading.Event()
    handle_signals([stop])
    try:
        results = run_cells(cells, jobs, stop, on_done)
    finally:
        output.end_progress()
    rows = table_rows(results)
    write_tables(folder, rows)
    if as_json:
        click.echo(json.dumps(rows))
    else:
        output.print(markdown(rows).rstrip())
        output.print(f"table: {folder / MARKDOWN}")
    if stop.is_set():
        sys.exit(INTERRUPTED)
    if any(result.error for result in results):
        sys.exit(FAILED)
