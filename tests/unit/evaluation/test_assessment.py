"""Versions of a run are evaluated side by side, on rows that no task has seen."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from common.config.config import PhaseConfig
from common.config.loader import parse
from common.errors import RunError
from common.protocol.tensors import Tensors
from common.protocol.versions import VersionSummary
from coordinator.storage import run as runs
from evaluation import opening, run_record
from evaluation.assessment import Assessment, assess, kinds, versions_to_evaluate
from evaluation.comparison import check_comparable, compare
from evaluation.evaluator import HELDOUT, EvaluationLimits, Evaluator, pick_evenly, reward_reference
from evaluation.opening import Opened
from evaluation.prompts import printable_line
from learning.data import rows as rows_of
from learning.data.row_types import Instruction, LabelledText, PreferencePair
from learning.evaluation.inference import evaluate
from learning.objectives.classification import predict
from learning.training.device import Compute
from preparation import run as preparation
from tests.support.tiny_encoder import encoder, saved
from tests.support.tiny_model import tiny_model, tiny_tokenizer

CPU = Compute(torch.device("cpu"), 1, autocast=False)
LIMITS = {"sft": 4, "va": 4, "cls": 4}
FEW = EvaluationLimits(heldout=LIMITS, client=LIMITS, samples=2, new_tokens=3)
TWO = (PhaseConfig(versions=1), PhaseConfig(objective="dpo", versions=2, beta=0.5))


def look(directory: Path) -> Opened:
    found = run_record.read(directory)
    return opening.look(found, Path(found.base.name))


def moved(tensors: Tensors, by: float) -> Tensors:
    return {name: (tensor + by).astype(tensor.dtype) for name, tensor in tensors.items()}


def make(directory: Path, table: dict[str, object], name: str = "r") -> Path:
    """A run with versions 0 to 3, of which retention has removed version 2."""
    config = parse({"run": {"name": name, "dir": str(directory)}, **table}, "test")
    cache = directory / "cache"
    origin = preparation.origin(config, cache, lambda message, done: None, lambda line: None)
    runs.create_run(config, origin, 0.0)
    run = runs.open_run(config, lambda base: Path(base.name))
    start = run.versions.read(0)
    for version in range(1, 4):
        ref = run.versions.stage(version, moved(start, 0.01 * version))
        run.journal.put_version(
            VersionSummary(version=version, phase=0, at=0.0, sha256=ref.sha256, nbytes=ref.nbytes)
        )
        run.versions.place(version, ref.sha256)
    run.versions.retain({0, 1, 3})
    run.journal.close()
    return run.directory


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return filled(tmp_path_factory.mktemp("place"))


def filled(place: Path) -> Path:
    """A causal model, an encoder and files of rows."""
    tiny_model().save_pretrained(place / "causal")
    tiny_tokenizer().save_pretrained(place / "causal")
    saved(encoder(), place / "encoder")
    rows_of.write(
        place / "sft.jsonl", [Instruction(f"Say {i}.", "", f"Number {i}.") for i in range(60)]
    )
    rows_of.write(
        place / "va.jsonl",
        [PreferencePair(f"Is {i} odd?", f"It is {i}.", "No idea.") for i in range(60)],
    )
    words = [("good", "it was a good film"), ("bad", "dull and slow plot")]
    rows_of.write(
        place / "cls.jsonl",
        [
            LabelledText(f"{text}{' very' * (i % 30)}", label)
            for i in range(30)
            for label, text in words
        ],
    )
    return place


def causal(place: Path) -> dict[str, object]:
    return {
        "model": {"name": str(place / "causal"), "max_length": 128, "lora": {"r": 2}},
        "data": {"sft": str(place / "sft.jsonl"), "va": str(place / "va.jsonl"), "clients": 2},
        "phase": [
            {"versions": 1},
            {"objective": "dpo", "versions": 2, "beta": 0.5},
        ],
    }


def classifying(place: Path, **model: object) -> dict[str, object]:
    return {
        "model": {"name": str(place / "encoder"), "max_length": 32, **model},
        "data": {"cls": str(place / "cls.jsonl"), "clients": 2, "partition": "length"},
        "phase": [{"objective": "classification", "versions": 3}],
    }


@pytest.fixture(scope="module")
def seen(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Opened:
    directory = make(tmp_path_factory.mktemp("causal"), causal(place))
    return look(directory)


@pytest.fixture(scope="module")
def found(seen: Opened) -> Assessment:
    return assess(seen, 3, CPU, FEW)


# Looking at a run


def test_looking_at_a_run_changes_nothing_in_its_directory(seen: Opened) -> None:
    directory = seen.directory

    def state() -> dict[str, tuple[int, int]]:
        paths = directory.rglob("*")
        return {str(p): (p.stat().st_mtime_ns, p.stat().st_size) for p in paths if p.is_file()}

    before = state()
    assert run_record.read(directory).present == (0, 1, 3)
    assert state() == before


@pytest.fixture
def running(seen: Opened) -> Iterator[sqlite3.Connection]:
    """A coordinator's connection with a version that only its write-ahead log holds."""
    with closing(sqlite3.connect(seen.directory / "run.db", isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        (text,) = db.execute("SELECT summary FROM version WHERE version = 3").fetchone()
        summary = json.dumps({**json.loads(text), "version": 4})
        db.execute("INSERT INTO version VALUES (4, ?)", (summary,))
        yield db
        db.execute("DELETE FROM version WHERE version = 4")


def test_a_running_coordinators_last_commit_is_seen_and_its_epoch_stays(
    seen: Opened, running: sqlite3.Connection
) -> None:
    epoch = running.execute("SELECT value FROM epoch").fetchone()
    now = run_record.read(seen.directory)
    assert [summary.version for summary in now.summaries] == [0, 1, 2, 3, 4]
    assert now.choose(None) == 3  # version 4 has a row, and no directory yet
    assert running.execute("SELECT value FROM epoch").fetchone() == epoch


def test_a_directory_that_holds_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="holds no run"):
        run_record.read(tmp_path)


def test_a_run_is_found_where_it_was_moved_to(place: Path, tmp_path: Path) -> None:
    directory = make(tmp_path, classifying(place))
    aside = directory.rename(tmp_path / "r.old-20261124")
    assert look(aside).tensors(3)


# Who is evaluated, and against whom


def test_the_base_each_earlier_phases_end_and_the_version_are_subjects() -> None:
    def versions(version: int) -> list[int]:
        return [subject.version for subject in versions_to_evaluate(TWO, version)]

    assert versions(0) == [0]
    assert versions(1) == [0, 1]
    assert versions(3) == [0, 1, 3]
    assert versions_to_evaluate(TWO, 3)[1].title == "version 1 (after sft)"


def test_rewards_compare_with_where_the_newest_phase_of_preferences_began() -> None:
    again = (*TWO, PhaseConfig(objective="dpo", versions=4, beta=2.0))
    assert [reward_reference(again, v)[0] for v in (0, 1, 2, 3, 5)] == [0, 1, 1, 3, 3]
    assert reward_reference(again, 0)[1] == TWO[1]
    assert reward_reference(again, 5)[1] == again[2]
    assert reward_reference((TWO[0],), 1) == (0, None)


def test_rows_are_chosen_evenly_and_always_the_same() -> None:
    assert pick_evenly(range(10), 3) == [0, 3, 6]
    assert pick_evenly(range(3), 10) == [0, 1, 2]
    assert pick_evenly([], 5) == []


# Figures of a whole run


def test_every_subject_has_figures_on_the_held_out_rows_and_on_each_clients_own(
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


def test_all_clients_together_are_their_rows_together(found: Assessment) -> None:
    sft = found.kinds[0]
    for subject in range(3):
        own = [by_subject[subject].values for by_subject in sft.clients.values()]
        nats = sum(v["nats_per_token"] * v["tokens"] for v in own)
        pooled = sft.pooled[subject].values
        assert pooled["nats_per_token"] * pooled["tokens"] == pytest.approx(nats)


def test_the_base_is_measured_without_an_adapters_effect(seen: Opened, found: Assessment) -> None:
    exam = Evaluator(seen, CPU).exam("sft", 3, FEW)
    alone = evaluate(tiny_model(), [exam.examples[i] for i in exam.places([HELDOUT])], 4)
    values = [figures.values["nats_per_token"] for figures in found.kinds[0].heldout]
    assert values[0] == pytest.approx(alone.values["nats_per_token"], rel=1e-5)
    assert values[1] != values[0] and values[2] != values[1]


def test_figures_are_those_of_float32_whatever_trains_faster(
    seen: Opened, found: Assessment
) -> None:
    assert assess(seen, 3, replace(CPU, autocast=True), FEW).kinds == found.kinds


def test_preferences_compare_with_the_version_that_the_phase_began_with(found: Assessment) -> None:
    va = found.kinds[1]
    assert (va.reference, va.beta) == (1, 0.5)
    reference = va.heldout[1].values
    assert (reference["reward_accuracy"], reference["reward_margin"]) == (0.5, 0.0)
    assert va.heldout[2].values["reward_margin"] != 0.0


def test_held_out_instructions_are_answered_by_every_subject(found: Assessment) -> None:
    assert len(found.samples) == 2
    assert all(len(sample.answers) == 3 for sample in found.samples)
    assert all(sample.expected.startswith("Number ") for sample in found.samples)


@pytest.mark.parametrize("model", [{"lora": {"r": 2}}, {"lora": False}], ids=["lora", "whole"])
def test_a_classifiers_head_is_evaluated_with_each_version(
    place: Path, tmp_path: Path, model: dict[str, object]
) -> None:
    seen = look(make(tmp_path, classifying(place, **model)))
    found = assess(seen, 3, CPU, FEW)
    (cls,) = found.kinds
    assert found.labels == ("bad", "good")
    assert cls.heldout[0].values["loss"] != cls.heldout[1].values["loss"]
    assert sum(map(sum, cls.heldout[1].confusion)) == cls.heldout[1].rows
    assert {answer for sample in found.samples for answer in sample.answers} <= {"bad", "good"}
    bench = Evaluator(seen, CPU)
    bench.become(seen.tensors(3))
    exam = bench.exam("cls", 3, FEW)
    texts = [exam.examples[i] for i in exam.places([HELDOUT])]
    assert cls.heldout[1].values["loss"] == pytest.approx(
        predict(bench.model, texts).loss, rel=1e-4
    )


def test_a_run_of_preferences_alone_answers_their_prompts_and_compares_with_the_base(
    place: Path, tmp_path: Path
) -> None:
    table = {**causal(place), "phase": [{"objective": "dpo", "versions": 3}]}
    found = assess(look(make(tmp_path, table)), 3, CPU, FEW)
    assert [subject.title for subject in found.subjects] == ["base", "version 3"]
    (va,) = found.kinds
    assert (va.reference, va.beta) == (0, 0.1)
    assert va.heldout[0].values["reward_margin"] == 0.0
    assert all(s.asked.endswith("odd?") and s.expected.startswith("It is") for s in found.samples)
    assert len(found.samples) == 2


def test_no_samples_are_taken_where_none_are_wanted(seen: Opened) -> None:
    assert assess(seen, 0, CPU, replace(FEW, samples=0)).samples == ()


def test_rows_and_model_output_become_one_printable_line() -> None:
    assert printable_line("a\n\x1b[31m  red\u202e\x00") == "a [31m red"
    assert len(printable_line("x" * 1000)) == 300


# Two runs


def test_a_run_compared_with_itself_has_the_same_figures_on_both_sides(
    seen: Opened, found: Assessment
) -> None:
    both = compare(seen, 3, seen, 3, CPU, FEW)
    assert both.same_base
    assert [each.kind for each in both.kinds] == ["sft", "va"]
    for each, own in zip(both.kinds, found.kinds, strict=True):
        assert each.left_out == 0
        assert each.figures[0] == each.figures[1]
        for key, value in own.heldout[-1].values.items():
            assert each.figures[0].values[key] == pytest.approx(value, rel=1e-4, abs=1e-5)


def test_two_runs_of_one_name_are_told_apart_by_their_place(seen: Opened, tmp_path: Path) -> None:
    both = compare(seen, 3, replace(seen, directory=tmp_path / "x"), 3, CPU, FEW)
    assert [side.name for side in both.sides] == [str(seen.directory), str(tmp_path / "x")]


def test_another_run_is_compared_on_the_rows_that_fit_into_both(
    seen: Opened, place: Path, tmp_path: Path
) -> None:
    table = causal(place)
    model = table["model"]
    assert isinstance(model, dict)
    longest = max(_lengths(seen))
    table["model"] = {**model, "max_length": longest - 1, "lora": {"r": 4}}
    other = look(make(tmp_path, table))
    sizes = EvaluationLimits(heldout=dict.fromkeys(LIMITS, 400), client=LIMITS, samples=0)
    both = compare(seen, 3, other, 0, CPU, sizes)
    va = both.kinds[1]
    assert va.left_out > 0
    assert va.figures[0].rows == va.figures[1].rows
    assert va.figures[0].rows + va.left_out == len(_lengths(seen))


def _lengths(run: Opened) -> list[int]:
    sizes = EvaluationLimits(heldout=dict.fromkeys(LIMITS, 400), client=LIMITS, samples=0)
    exam = Evaluator(run, CPU).exam("va", 3, sizes)
    return [exam.examples[i].length for i in exam.places([HELDOUT])]


def test_runs_that_learn_different_things_are_not_compared(
    seen: Opened, place: Path, tmp_path: Path
) -> None:
    other = look(make(tmp_path, classifying(place)))
    assert kinds(other.phases) == ("cls",)
    with pytest.raises(RunError, match=r"learns sft and va, .* cls; compare runs"):
        check_comparable(seen, other)
