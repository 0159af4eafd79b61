"""Versions of a run are evaluated side by side, on rows that no task has seen."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from common.config.config import PhaseConfig
from common.errors import RunError
from common.protocol.tasks import ModelPrecision
from common.protocol.versions import SampleAnswer
from common.run_directory.recorded_run import read_run
from evaluation.assessed import Assessment, choose_versions
from evaluation.assessment import assess
from evaluation.comparison import check_comparable, compare
from evaluation.evaluator import (
    HELDOUT,
    EvaluationLimits,
    Evaluator,
    find_reward_reference,
    pick_evenly,
)
from evaluation.prompts import format_line, format_question
from evaluation.report import files
from evaluation.report.build import build_report
from learning.data import rows as rows_of
from learning.data.row_types import Conversation, Message, PreferencePair
from learning.evaluation.inference import evaluate
from learning.objectives.classification import predict
from tests.support.evaluated_runs import (
    CPU,
    FEW,
    LIMITS,
    causal_config,
    classifier_config,
    evaluator_of,
    make_run,
    write_sources,
)
from tests.support.tiny_model import tiny_model

TWO = (PhaseConfig(versions=1), PhaseConfig(objective="dpo", versions=2, beta=0.5))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sources(tmp_path_factory.mktemp("place"))


@pytest.fixture(scope="module")
def causal(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Evaluator:
    return evaluator_of(make_run(tmp_path_factory.mktemp("causal"), causal_config(place)))


@pytest.fixture(scope="module")
def found(causal: Evaluator) -> Assessment:
    return assess(causal, 3, FEW)


# Which versions are evaluated


def test_the_base_the_ends_of_earlier_phases_and_the_version_are_evaluated() -> None:
    def versions(version: int) -> list[int]:
        return [subject.version for subject in choose_versions(TWO, version)]

    assert versions(0) == [0]
    assert versions(1) == [0, 1]
    assert versions(3) == [0, 1, 3]
    assert choose_versions(TWO, 3)[1].title == "version 1 (after sft)"


def test_rewards_are_relative_to_the_start_of_the_newest_phase_of_preferences() -> None:
    again = (*TWO, PhaseConfig(objective="dpo", versions=4, beta=2.0))
    assert [find_reward_reference(again, v, "va")[0] for v in (0, 1, 2, 3, 5)] == [0, 1, 1, 3, 3]
    assert find_reward_reference(again, 0, "va")[1] == TWO[1]
    assert find_reward_reference(again, 5, "va")[1] == again[2]
    assert find_reward_reference((TWO[0],), 1, "va") == (0, None)


def test_rows_are_chosen_evenly_and_always_the_same() -> None:
    assert pick_evenly(range(10), 3) == [0, 3, 6]
    assert pick_evenly(range(3), 10) == [0, 1, 2]
    assert pick_evenly([], 5) == []


# Figures of a whole run


def test_every_version_has_metrics_on_held_out_rows_and_on_each_clients_rows(
    found: Assessment,
) -> None:
    assert [subject.version for subject in found.subjects] == [0, 1, 3]
    assert [each.kind for each in found.kinds] == ["sft", "va"]
    for each in found.kinds:
        assert len(each.heldout) == len(each.pooled) == 3
        assert set(each.clients) == {"client_0", "client_1"}
        rows = sum(own[-1].rows for own in each.clients.values())
        assert each.pooled[-1].rows == rows > 0
        assert 0 < each.heldout[-1].rows <= 4


def test_pooled_metrics_are_over_the_rows_of_all_clients(found: Assessment) -> None:
    sft = found.kinds[0]
    for subject in range(3):
        own = [by_version[subject].values for by_version in sft.clients.values()]
        nats = sum(v["nats_per_token"] * v["tokens"] for v in own)
        pooled = sft.pooled[subject].values
        assert pooled["nats_per_token"] * pooled["tokens"] == pytest.approx(nats)


def test_the_base_is_measured_without_an_adapters_effect(
    causal: Evaluator, found: Assessment
) -> None:
    rows = causal.build_set("sft", 3, FEW)
    alone = evaluate(tiny_model(), [rows.examples[i] for i in rows.indexes([HELDOUT])])
    values = [figures.values["nats_per_token"] for figures in found.kinds[0].heldout]
    assert values[0] == pytest.approx(alone.values["nats_per_token"], rel=1e-5)
    assert values[1] != values[0] and values[2] != values[1]


def test_metrics_are_computed_in_the_precision_of_training(
    causal: Evaluator, found: Assessment
) -> None:
    exact = ModelPrecision(dtype="float32")
    fast = evaluator_of(causal.run.directory, replace(CPU, autocast=True), exact)
    one, two = (
        each.kinds[0].heldout[-1].values["nats_per_token"] for each in (assess(fast, 3, FEW), found)
    )
    assert one == pytest.approx(two, rel=0.01) and one != two


def test_preferences_compare_with_the_version_that_the_phase_began_with(found: Assessment) -> None:
    va = found.kinds[1]
    assert (va.reference, va.beta) == (1, 0.5)
    reference = va.heldout[1].values
    assert (reference["reward_accuracy"], reference["reward_margin"]) == (0.5, 0.0)
    assert va.heldout[2].values["reward_margin"] != 0.0


def test_held_out_instructions_are_answered_by_every_version(found: Assessment) -> None:
    assert len(found.samples) == 2
    assert all(len(sample.answers) == 3 for sample in found.samples)
    assert all(sample.expected.startswith("Number ") for sample in found.samples)


@pytest.mark.parametrize("model", [{"lora": {"r": 2}}, {"lora": False}], ids=["lora", "whole"])
def test_a_classifiers_head_is_evaluated_with_each_version(
    place: Path, tmp_path: Path, model: dict[str, object]
) -> None:
    evaluator = evaluator_of(make_run(tmp_path, classifier_config(place, **model)))
    found = assess(evaluator, 3, FEW)
    (cls,) = found.kinds
    assert found.labels == ("bad", "good")
    assert cls.heldout[0].values["loss"] != cls.heldout[1].values["loss"]
    assert sum(map(sum, cls.heldout[1].confusion)) == cls.heldout[1].rows
    assert {answer for sample in found.samples for answer in sample.answers} <= {"bad", "good"}
    evaluator.load_tensors(evaluator.run.tensors(3))
    rows = evaluator.build_set("cls", 3, FEW)
    texts = [rows.examples[i] for i in rows.indexes([HELDOUT])]
    assert cls.heldout[1].values["loss"] == pytest.approx(
        predict(evaluator.model, texts).loss, rel=1e-4
    )


def test_a_run_of_preferences_alone_answers_their_prompts_and_compares_with_the_base(
    place: Path, tmp_path: Path
) -> None:
    table = {**causal_config(place), "phase": [{"objective": "dpo", "versions": 3}]}
    found = assess(evaluator_of(make_run(tmp_path, table)), 3, FEW)
    assert [subject.title for subject in found.subjects] == ["base", "version 3"]
    (va,) = found.kinds
    assert (va.reference, va.beta) == (0, 0.1)
    assert va.heldout[0].values["reward_margin"] == 0.0
    assert all(s.asked.endswith("odd?") and s.expected.startswith("It is") for s in found.samples)
    assert len(found.samples) == 2


def test_conversations_are_scored_on_all_answers_and_asked_for_the_last_one(
    place: Path, tmp_path: Path
) -> None:
    turns = [("system", "Be brief."), ("user", "One?"), ("assistant", "1"), ("user", "Two?")]
    messages = tuple(Message(*turn) for turn in turns)  # type: ignore[arg-type]
    rows = [Conversation((*messages, Message("assistant", f"2 and {i:02}"))) for i in range(40)]
    rows_of.write(tmp_path / "talks.jsonl", rows)
    config = causal_config(place) | {
        "data": {"sft": str(tmp_path / "talks.jsonl"), "clients": 2},
        "phase": [{"versions": 3}],
    }
    found = assess(evaluator_of(make_run(tmp_path, config)), 3, FEW)
    (kind,) = found.kinds
    whole = kind.heldout[0]
    assert whole.values["bytes"] == whole.rows * len("1" + "2 and 00")
    for sample in found.samples:
        assert sample.asked == "(after a system prompt and 2 earlier turns) Two?"
        assert sample.expected.startswith("2 and ")
        assert len(sample.answers) == 2


def test_the_turns_before_a_question_are_named_in_few_words() -> None:
    said = [Message("user", "a"), Message("assistant", "b"), Message("user", "c")]
    assert format_question(Conversation((*said[:1], Message("assistant", "d")))) == "a"
    asked = Conversation((*said, Message("assistant", "d")))
    assert format_question(asked) == "(after 2 earlier turns) c"
    assert format_question(PreferencePair(tuple(said), "d", "e")) == "(after 2 earlier turns) c"
    assert format_question(PreferencePair("a", "d", "e")) == "a"
    system = Message("system", "s")
    after_system = PreferencePair((system, *said[:1]), "d", "e")
    assert format_question(after_system) == "(after a system prompt) a"


def test_no_rows_are_answered_if_none_are_requested(causal: Evaluator) -> None:
    assert assess(causal, 0, replace(FEW, samples=0)).samples == ()


def test_rows_and_model_output_become_one_printable_line() -> None:
    assert format_line("a\n\x1b[31m  red\u202e\x00") == "a [31m red"
    assert len(format_line("x" * 1000)) == 300


# Two runs


def test_a_run_compared_with_itself_has_the_same_figures_on_both_sides(
    causal: Evaluator, found: Assessment
) -> None:
    both = compare(causal, 3, causal, 3, FEW)
    assert both.same_base
    assert [each.kind for each in both.kinds] == ["sft", "va"]
    for each, own in zip(both.kinds, found.kinds, strict=True):
        assert each.left_out == 0
        assert each.figures[0] == each.figures[1]
        for key, value in own.heldout[-1].values.items():
            assert each.figures[0].values[key] == pytest.approx(value, rel=1e-4, abs=1e-5)


def test_two_runs_of_one_name_are_told_apart_by_their_paths(
    causal: Evaluator, tmp_path: Path
) -> None:
    copy = tmp_path / "x"
    shutil.copytree(causal.run.directory, copy)
    both = compare(causal, 3, evaluator_of(copy), 3, FEW)
    assert [side.name for side in both.sides] == [str(causal.run.directory), str(copy)]


def test_another_run_is_compared_on_the_rows_that_fit_into_both(
    causal: Evaluator, place: Path, tmp_path: Path
) -> None:
    table = causal_config(place)
    model = table["model"]
    assert isinstance(model, dict)
    longest = max(_lengths(causal))
    table["model"] = {**model, "max_length": longest - 1, "lora": {"r": 4}}
    other = evaluator_of(make_run(tmp_path, table))
    limits = EvaluationLimits(heldout=dict.fromkeys(LIMITS, 400), client=LIMITS, samples=0)
    both = compare(causal, 3, other, 0, limits)
    va = both.kinds[1]
    assert va.left_out > 0
    assert va.figures[0].rows == va.figures[1].rows
    assert va.figures[0].rows + va.left_out == len(_lengths(causal))


def _lengths(evaluator: Evaluator) -> list[int]:
    limits = EvaluationLimits(heldout=dict.fromkeys(LIMITS, 400), client=LIMITS, samples=0)
    rows = evaluator.build_set("va", 3, limits)
    return [rows.examples[i].length for i in rows.indexes([HELDOUT])]


def test_runs_that_learn_different_things_are_not_compared(
    causal: Evaluator, place: Path, tmp_path: Path
) -> None:
    other = read_run(make_run(tmp_path, classifier_config(place)))
    assert other.config.kinds == ("cls",)
    with pytest.raises(RunError, match=r"learns sft and va, .* learns cls; compare runs"):
        check_comparable(causal.run, other)


# What a report costs


def test_a_run_of_sites_only_is_evaluated_on_its_own_held_out_rows(
    place: Path, tmp_path: Path
) -> None:
    both = tmp_path / "heldout.jsonl"
    both.write_text("".join((place / f"{kind}.jsonl").read_text() for kind in ("sft", "va")))
    table = {**causal_config(place), "data": {"clients": 0}, "evaluation": {"rows": str(both)}}
    run = make_run(tmp_path, table)
    report = build_report(evaluator_of(run), 3, FEW)
    texts, pairs = report.assessment.kinds
    assert (texts.heldout[-1].rows, pairs.heldout[-1].rows) == (4, 4)
    assert texts.clients == {} and texts.pooled[-1].rows == 0
    text = files.write_report(report, tmp_path / "report").read_text()
    assert "4 held-out rows" in text and "No client has validation rows" not in text
    assert "No client has evaluated a version yet." in text


def test_a_large_model_is_evaluated_on_a_sample_of_every_owners_rows(causal: Evaluator) -> None:
    whole = causal.build_set("va", 3, FEW)
    tokens = sum(whole.costs())
    # A preference pair is read twice, once with each answer.
    assert tokens == sum(e.chosen.length + e.rejected.length for e in whole.examples)
    half = causal.build_set("va", 3, replace(FEW, tokens=tokens + 2))  # of two kinds
    assert half.available == whole.available == len(whole.rows)
    for owner in {HELDOUT, *whole.clients}:
        before, after = len(whole.indexes([owner])), len(half.indexes([owner]))
        assert after == max(1, before // 2)
    assert [half.rows[i] for i in half.indexes([HELDOUT])] == pick_evenly(
        [whole.rows[i] for i in whole.indexes([HELDOUT])], len(half.indexes([HELDOUT]))
    )
    none = causal.build_set("va", 3, replace(FEW, tokens=1))
    assert all(len(none.indexes([owner])) == 1 for owner in {HELDOUT, *whole.clients})


def test_the_limit_of_a_report_follows_from_the_size_of_the_model(causal: Evaluator) -> None:
    parameters = sum(p.numel() for p in causal.model.parameters())
    assert causal.report_limits().tokens == int(2e12 / parameters)


def test_a_report_shows_what_versions_answered_during_the_run(
    causal: Evaluator, found: Assessment, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(version: int, asked: str) -> SampleAnswer:
        return SampleAnswer(
            version=version, at=0.0, kind="sft", asked=asked, expected="1", answer=f"v{version}"
        )

    begun = [answer(0, "Known?"), answer(1, "Known?"), answer(3, "Known?"), answer(0, "Half?")]
    run = replace(causal.run, samples=tuple(begun))
    monkeypatch.setattr(causal, "run", run)
    [shown] = assess(causal, 3, replace(FEW, recorded=True)).samples
    assert (shown.asked, shown.expected, shown.answers) == ("Known?", "1", ("v0", "v1", "v3"))
    assert assess(causal, 3, FEW).samples == found.samples

    monkeypatch.setattr(causal, "run", replace(run, samples=tuple(begun[1:])))
    assert assess(causal, 3, replace(FEW, recorded=True)).samples == found.samples


def test_progress_says_which_version_is_evaluated_on_how_many_rows(causal: Evaluator) -> None:
    seen: list[tuple[str, float]] = []
    found = assess(causal, 3, FEW, lambda text, share: seen.append((text, share)))
    rows = sum(each.heldout[0].rows + each.pooled[0].rows for each in found.kinds)
    assert list(dict.fromkeys(text for text, _ in seen)) == [
        f"evaluating version {version} on {rows} rows" for version in (0, 1, 3)
    ]
    shares = [share for _, share in seen]
    assert shares == sorted(shares) and shares[0] == 0 and shares[-1] == pytest.approx(1)
