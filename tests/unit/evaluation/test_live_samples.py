"""Live samples: which versions answer, what they answer, and what is kept and shown."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.errors import RunError
from common.files import append_jsonl
from common.protocol.versions import SampleAnswer
from common.run_directory import samples
from common.run_directory.recorded_run import RecordedRun, read_run
from coordinator.core.events import LogEvent
from evaluation import live_samples
from evaluation.live_samples import LiveSampler, is_due
from tests.support.evaluated_runs import causal_config, classifier_config, make_run, write_sources

NOW = 5.0


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sources(tmp_path_factory.mktemp("place"))


def make(directory: Path, table: dict[str, object], **settings: object) -> RecordedRun:
    """Make a run with versions 0, 1 and 3: what is left of four."""
    return read_run(make_run(directory, {**table, "samples": settings}))


def sampler_of(run: RecordedRun) -> LiveSampler:
    return LiveSampler(run, Path(run.base.name), run.config.samples, lambda: NOW)


def sampled(
    run: RecordedRun, *versions: int, known: tuple[SampleAnswer, ...] = ()
) -> Iterator[SampleAnswer | LogEvent]:
    """Offer versions, and yield what is found once all have answered."""
    sampler = sampler_of(run)
    sampler.start(0, known)
    for version in versions:
        sampler.offer(version)
    sampler.finish(threading.Event())
    found, notes = sampler.collect()
    yield from found
    yield from notes


def sample(version: int, asked: str = "Why?", **changed: object) -> SampleAnswer:
    fields = {"version": version, "at": NOW, "kind": "sft", "asked": asked}
    return SampleAnswer.model_validate(
        {**fields, "expected": "Because.", "answer": "So.", **changed}
    )


def test_the_base_every_eighth_of_the_plan_and_each_phases_last_are_due() -> None:
    long = (30, 33)
    assert [v for v in range(34) if is_due(long, None, v)] == [*range(0, 29, 4), 30, 32, 33]
    assert [v for v in range(34) if is_due(long, 20, v)] == [0, 20, 30, 33]
    assert all(is_due((3,), None, v) for v in range(4))


def test_each_version_answers_rows_of_both_kinds(place: Path, tmp_path: Path) -> None:
    run = make(tmp_path, causal_config(place), prompts=3, new_tokens=3)
    found = list(sampled(run, 1, 2, 3))
    assert all(isinstance(each, SampleAnswer) for each in found), found
    asked = [(each.version, each.kind) for each in found if isinstance(each, SampleAnswer)]
    three = ("sft", "sft", "va")  # version 2 was removed before it could be asked
    assert asked == [(version, kind) for version in (0, 1, 3) for kind in three]
    first = found[0]
    assert isinstance(first, SampleAnswer)
    assert first.asked.startswith("Say ") and first.expected.startswith("Number ")
    assert first.at == NOW and first.probability is None


def test_a_text_gets_its_likeliest_class_with_the_probability(place: Path, tmp_path: Path) -> None:
    found = list(sampled(make(tmp_path, classifier_config(place), prompts=2)))
    assert len(found) == 2
    for each in found:
        assert isinstance(each, SampleAnswer)
        assert {each.expected, each.answer} <= {"good", "bad"}
        assert each.probability is not None and 0.5 <= each.probability <= 1


def test_prompts_of_a_file_are_answered_instead_of_held_out_rows(
    place: Path, tmp_path: Path
) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"prompt": "Why?"}\n{"instruction": "Say it.", "output": "It."}\n')
    config = {**causal_config(place), "data": {"clients": 0}}
    found = list(sampled(make(tmp_path, config, prompts_file=str(file), new_tokens=1)))
    answered = [(e.asked, e.expected) for e in found if isinstance(e, SampleAnswer)]
    assert answered == [("Why?", ""), ("Say it.", "It.")]


def test_known_answers_are_not_generated_again(place: Path, tmp_path: Path) -> None:
    run = make(tmp_path, causal_config(place), prompts=1, new_tokens=1)
    known = tuple(each for each in sampled(run) if isinstance(each, SampleAnswer))
    assert [each.version for each in known] == [0]
    versions = [e.version for e in sampled(run, 1, known=known) if isinstance(e, SampleAnswer)]
    assert versions == [1]


def test_slow_answers_skip_versions_other_than_phase_ends_and_the_newest(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make(tmp_path, causal_config(place), prompts=1, new_tokens=1)
    slow, asked = threading.Event(), list[int]()

    class Slow:
        def __init__(self, *_: object) -> None:
            pass

        def load(self) -> None:
            slow.wait()

        def answers(self, version: int, _: object) -> Iterator[SampleAnswer]:
            asked.append(version)
            yield from ()

    monkeypatch.setattr(live_samples, "SampleAnswerer", Slow)
    sampler = sampler_of(run)
    sampler.start(0, ())
    for version in range(1, 4):  # the phases end at 1 and 3
        sampler.offer(version)
    slow.set()
    sampler.finish(threading.Event())
    assert asked == [0, 1, 3]


def test_a_failure_is_one_warning_and_without_prompts_there_is_no_thread(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make(tmp_path, causal_config(place), prompts=1)
    (run.directory / "clients" / "heldout_sft.jsonl").unlink()
    [note] = sampled(run, 1, 3)
    assert isinstance(note, LogEvent)
    assert (note.level, note.kind) == ("warning", "samples")
    assert note.text.startswith("no more samples of versions: ")
    heavy = make(tmp_path / "heavy", causal_config(place), prompts=1, model_mb=1)
    monkeypatch.setattr(live_samples, "MB", 1000)
    [note] = sampled(heavy)
    assert isinstance(note, LogEvent) and note.level == "info"
    assert note.text.endswith("samples.model_mb allows 1")
    idle = sampler_of(make(tmp_path / "none", causal_config(place), prompts=0))
    idle.start(0, ())
    assert not idle.running


# what is kept and shown


def test_the_file_is_read_without_repetitions_or_a_torn_end(tmp_path: Path) -> None:
    assert samples.read_samples(tmp_path) == ()
    path = tmp_path / samples.FILE
    append_jsonl(path, [sample(v).fields() for v in (0, 1)])
    append_jsonl(path, [sample(1, answer="No.").fields()])
    with path.open("a") as file:
        file.write('{"version": 2, "as')
    assert [(s.version, s.answer) for s in samples.read_samples(tmp_path)] == [
        (0, "So."),
        (1, "No."),
    ]
    path.write_text('{"version": -1}\n')
    with pytest.raises(RunError, match="is damaged"):
        samples.read_samples(tmp_path)


def test_the_base_and_the_newest_are_shown() -> None:
    many = [sample(version, asked) for version in range(80) for asked in "ab"]
    shown = samples.select_shown(reversed(many))
    assert len(shown) == samples.MAX_SHOWN
    assert [s.version for s in shown[:3]] == [0, 0, 31]
    assert shown[-1].version == 79
    assert samples.select_shown(many[:3]) == tuple(many[:3])


def test_what_a_model_says_cannot_steer_a_terminal() -> None:
    said = sample(0, answer="\x1b[2J\x07two\nlines \u202egnol").answer
    assert said == " [2J two lines  gnol"
