"""What clients evaluated is in the report: pooled, by client, the worst and the best version."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from common.document.blocks import Block, Paragraph, Table
from common.document.markdown import to_markdown
from common.evaluation.sums import EvaluationSums
from common.run_directory.recorded_run import read_run
from evaluation.report import federated_tables, files
from evaluation.report.federated_tables import MAX_COLUMNS
from evaluation.report.report import Report, recorded_report
from tests.support.evaluated_sites import add_members, add_round, class_sums, text_sums
from tests.support.site_runs import site_run

SITES = ("alpha", "beta")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Return a run of two sites of which version 2 is worse than version 1."""
    directory = site_run(tmp_path, SITES)
    add_members(directory, "sft", dict.fromkeys(SITES, 50))
    for version, nats in ((0, 4.0), (1, 2.0), (2, 3.0)):
        sums = {"alpha": text_sums(10, nats), "beta": text_sums(30, nats + 1)}
        add_round(directory, version, sums if version < 2 else {"alpha": sums["alpha"]},
                  asked=() if version < 2 else ("beta",), at=10.0 + version)  # fmt: skip
    return directory


def report_on(directory: Path, version: int = 2) -> Report:
    return recorded_report(read_run(directory), version)


def tables(blocks: list[Block]) -> list[Table]:
    return [block for block in blocks if isinstance(block, Table)]


def test_the_pooled_figures_weigh_rows_and_the_best_version_is_marked(run: Path) -> None:
    pooled, clients = tables(federated_tables.build_evaluations(report_on(run), ""))
    assert pooled.header[:2] == ("version", "nats per token")
    assert [row[0] for row in pooled.rows] == ["0", "1 (best)", "2"]
    assert [row[1] for row in pooled.rows] == ["4.750", "2.750", "3.000"]
    assert pooled.rows[1][4:] == ("40", "2 of 2", "3.000 (beta)", "1.000", "0.500")
    assert pooled.rows[2][5] == "1 of 2"
    assert clients.header == ("nats per token", "rows", "version 0", "version 1", "version 2")
    assert clients.rows[1] == ("beta", "30", "5.000", "3.000", "–")


def test_clients_that_did_not_answer_and_the_best_version_are_named(run: Path) -> None:
    text = to_markdown(federated_tables.build_evaluations(report_on(run), ""))
    assert "Without an answer for version 2: beta." in text
    assert "Version 1 is the best of the last phase, by the nats per token" in text


def test_an_evaluation_in_progress_names_nobody_as_missing(run: Path) -> None:
    add_round(run, 2, {"alpha": text_sums(10, 3.0)}, asked=("beta",), at=50.0, closed=False)
    text = to_markdown(federated_tables.build_evaluations(report_on(run), ""))
    assert "Version 2 is still being evaluated." in text and "Without an answer" not in text


def test_a_report_without_rows_is_whole_and_needs_no_model(run: Path, tmp_path: Path) -> None:
    path = files.write_report(report_on(run), tmp_path / "report")
    text = path.read_text()
    assert "All rows stayed at the sites, and the coordinator has none" in text
    for heading in ("Evaluation by the clients", "Contributions", "Versions", "Updates"):
        assert f"## {heading}" in text
    assert "held-out" not in text
    values = json.loads(path.with_suffix(".json").read_text())
    assert (values["base"], values["best_version"], values["sites_only"]) == (None, 1, True)
    assert [row["version"] for row in values["evaluations"]] == [0, 1, 2]
    assert [row["client_id"] for row in values["contributions"]] == ["alpha", "beta"]
    assert (tmp_path / "report" / "evaluations.png").exists()


def test_a_run_that_no_client_has_evaluated_says_so(tmp_path: Path) -> None:
    directory = site_run(tmp_path, SITES)
    found = federated_tables.build_evaluations(report_on(directory), "")
    assert found[-1] == Paragraph("No client has evaluated a version yet.")
    dealt = site_run(tmp_path / "dealt", ("client_0",), dealt=True)
    assert federated_tables.build_evaluations(report_on(dealt), "") == []


def test_classifiers_have_their_figures_even_if_one_site_sends_no_matrix(tmp_path: Path) -> None:
    tables_of = {
        "data": {"clients": 0, "labels": ["a", "b"]},
        "phase": [{"objective": "classification", "versions": 1}],
    }
    directory = site_run(tmp_path, SITES, versions=1, **tables_of)
    whole = class_sums((3, 1), (0, 4))
    bare = EvaluationSums(rows=2, loss=1.0, correct=1)
    add_round(directory, 1, {"alpha": whole, "beta": bare})
    (pooled, _) = tables(federated_tables.build_evaluations(report_on(directory, 1), ""))
    cells = dict(zip(pooled.header, pooled.rows[0], strict=True))
    assert (cells["accuracy"], cells["macro-F1"], cells["rows"]) == ("0.800", "–", "10")


def test_a_long_run_shows_a_few_versions_of_each_client(tmp_path: Path) -> None:
    directory = site_run(tmp_path, SITES, versions=20)
    for version in range(21):
        nats = 1.0 if version == 7 else 5.0 - 0.1 * version
        add_round(directory, version, {"alpha": text_sums(10, nats)}, at=10.0 + version)
    _, clients = tables(federated_tables.build_evaluations(report_on(directory, 20), ""))
    assert len(clients.header) <= MAX_COLUMNS + 2
    assert {"version 0", "version 7", "version 20"} <= set(clients.header)


def test_reports_without_rows_import_no_torch() -> None:
    code = "import sys, evaluation.report.files; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
