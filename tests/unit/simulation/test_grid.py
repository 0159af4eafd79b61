"""Grids: their definition, their cells, and which of these are simulated again."""

from __future__ import annotations

from pathlib import Path
from threading import Event

import pytest

from common.errors import ConfigError
from simulation.grid.cells import Cell, make_cells
from simulation.grid.grid import read_grid, split_values
from simulation.grid.runner import CellResult, run_cells
from simulation.grid.table import CSV, MARKDOWN, table_rows, write_tables
from simulation.records import SUMMARY
from tests.support.simulations import analytic_config

FILE = """
[grid]
"run.seed" = [0, 1]

[[case]]
name = "async"

[[case]]
name = "sync"
"schedule.reissue" = "commit"
"""


def cells_of(tmp_path: Path, *arguments: str) -> list[Cell]:
    config = analytic_config(tmp_path, phase={"versions": 1}, simulation={"dimension": 2})
    return make_cells(config, read_grid(arguments), tmp_path / "grid")


def test_commas_in_brackets_and_quotes_separate_nothing() -> None:
    assert split_values('1,[2,3],"a,b",x') == ["1", "[2,3]", '"a,b"', "x"]


def test_every_case_has_every_combination_of_the_axes(tmp_path: Path) -> None:
    (tmp_path / "grid.toml").write_text(FILE)
    cells = cells_of(tmp_path, str(tmp_path / "grid.toml"), "aggregation.temperature=0.5,1")
    assert len(cells) == 8 and len({cell.config.run.path for cell in cells}) == 8
    assert {cell.label for cell in cells} >= {"sync: run.seed=1, aggregation.temperature=0.5"}
    assert {(cell.case, cell.config.schedule.reissue) for cell in cells} == {
        ("async", "immediate"),
        ("sync", "commit"),
    }


@pytest.mark.parametrize(
    ("argument", "what"),
    [
        ("run.seed=0,0", "equal to another cell"),
        ("run.seed=0,-1", "run.seed"),
        ("phase.3.lr=1", "no entry 3"),
        ("aggregation.temprature=1", "unknown key"),
        ("run.name=a,b", "sets run.name itself"),
        ("run.seed=", "empty value"),
        ("missing.toml", "does not exist"),
    ],
)
def test_a_wrong_grid_is_refused(tmp_path: Path, argument: str, what: str) -> None:
    with pytest.raises(ConfigError, match=what) as caught:
        cells_of(tmp_path, argument)
    assert "\n" not in str(caught.value) and caught.value.remedy


def test_finished_cells_are_skipped_and_interrupted_ones_start_over(tmp_path: Path) -> None:
    cells = cells_of(tmp_path, "run.seed=0,1,2")
    (tmp_path / "grid").mkdir()
    done: list[CellResult] = []
    first = run_cells(cells, 1, Event(), done.append)
    assert [result.summary is not None for result in first] == [True] * 3 and len(done) == 3
    (cells[1].config.run.path / SUMMARY).unlink()  # as after a kill
    done.clear()
    again = run_cells(cells, 1, Event(), done.append)
    assert [result.cell for result in done] == [cells[1]]
    assert [r.summary.final_loss for r in again if r.summary] == [
        r.summary.final_loss for r in first if r.summary
    ]


def test_a_cell_that_fails_is_a_row_of_the_table(tmp_path: Path) -> None:
    cells = cells_of(tmp_path, "simulation.trace=missing.csv", "run.seed=0,1")
    (tmp_path / "grid").mkdir()
    rows = table_rows(run_cells(cells, 1, Event(), lambda _: None))
    assert [bool(row["error"]) for row in rows] == [True, True]
    write_tables(tmp_path, rows)
    assert "missing.csv cannot be read" in (tmp_path / MARKDOWN).read_text()
    assert (tmp_path / CSV).read_text().startswith("simulation.trace,run.seed,error,run\n")


def test_nothing_is_simulated_after_a_stop(tmp_path: Path) -> None:
    cells = cells_of(tmp_path, "run.seed=0,1")
    stop = Event()
    stop.set()
    assert run_cells(cells, 1, stop, lambda _: None) == []
