"""A run that began with an exported adapter is reported from where the earlier run ended."""

from __future__ import annotations

from pathlib import Path

import pytest

from evaluation.assessed import Assessment
from evaluation.assessment import assess
from evaluation.evaluator import Evaluator
from evaluation.export.export import ExportOptions, export_version
from evaluation.report import figure_tables
from evaluation.report.build import build_report
from tests.support.evaluated_runs import FEW, evaluator_of, make_run, write_sources

OPTIONS = ExportOptions(version=3, merge=False, precision=None, with_base=None)


def plan(place: Path, **model: object) -> dict[str, object]:
    return {
        "model": {"name": str(place / "causal"), "max_length": 128, "lora": {"r": 4, "alpha": 8}}
        | model,
        "data": {"sft": str(place / "sft.jsonl"), "clients": 2},
        "phase": [{"versions": 3}],
    }


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Evaluator:
    place = write_sources(tmp_path_factory.mktemp("first"))
    return evaluator_of(make_run(place, plan(place)))


@pytest.fixture(scope="module")
def second(first: Evaluator, tmp_path_factory: pytest.TempPathFactory) -> Evaluator:
    """A run that begins with version 3 of the first."""
    place, out = first.run.directory.parent, tmp_path_factory.mktemp("second")
    export_version(first.run, place / "causal", OPTIONS, out / "adapter")
    return evaluator_of(make_run(out, plan(place, adapter=str(out / "adapter"))))


def heldout(found: Assessment) -> list[float]:
    return [one.values["nats_per_token"] for one in found.kinds[0].heldout]


def test_it_continues_at_the_loss_where_the_earlier_run_ended(
    first: Evaluator, second: Evaluator
) -> None:
    ended, begun = assess(first, 3, FEW), assess(second, 0, FEW)
    assert heldout(begun) == [heldout(ended)[-1]] != [heldout(ended)[0]]
    assert begun.kinds[0].clients.keys() == ended.kinds[0].clients.keys()


def test_version_0_is_called_the_start_and_not_the_base(
    first: Evaluator, second: Evaluator
) -> None:
    assert [subject.title for subject in assess(second, 3, FEW).subjects] == ["start", "version 3"]
    report = build_report(second, 3, FEW)
    text = str(
        figure_tables.build_title(report) + figure_tables.build_metrics(report.assessment, "")
    )
    assert f"The run began with version 3 of run {first.run.run_id}" in text
    assert "not the bare base model" in text
    assert "the start's nats per token" in text and "the base's" not in text
    assert "The run began" not in str(figure_tables.build_title(build_report(first, 3, FEW)))


def test_the_card_of_its_export_names_the_adapter_with_which_it_began(
    first: Evaluator, second: Evaluator, tmp_path: Path
) -> None:
    base = first.run.directory.parent / "causal"
    export_version(second.run, base, OPTIONS, tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert (
        f"the run began with an adapter of that base: version 3 of run {first.run.run_id}" in card
    )
    assert str(tmp_path.parent) not in card
