"""A slow validator delays nothing, and its verdict applies only to what it was asked about."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from common.protocol.tensors import Tensors
from tests.support.incremental import (
    CONFIG,
    NEVER,
    LearnerHarness,
    classifier_harness,
    film_items,
    plus,
    same,
)
from tests.support.processes import eventually
from tests.support.tiny_encoder import encoder, saved
from worker.events import WorkerEventKind
from worker.spool import client_lock

JUDGE = """\
import json, os, sys
place = sys.argv[1]
case = json.load(sys.stdin)
with open(f"{place}/asked", "a") as asked:
    print(os.getpid(), case["items"], file=asked)
with open(f"{place}/answer") as answer:
    print(json.dumps({"accept": answer.read() == "yes"}))
"""


@dataclass
class Judge:
    """A validator that answers when the test does."""

    place: Path

    @property
    def spec(self) -> str:
        return f"{sys.executable} {self.place / 'judge.py'} {self.place}"

    @property
    def asked(self) -> list[tuple[int, int]]:
        """Process id and number of items of each request."""
        with suppress(FileNotFoundError):
            lines = (self.place / "asked").read_text().splitlines()
            return [(int(line.split()[0]), int(line.split()[1])) for line in lines]
        return []

    def say(self, word: str) -> None:
        (self.place / "answer").write_text(word)  # blocks until the validator reads


@pytest.fixture
def judge(tmp_path: Path) -> Judge:
    place = tmp_path / "judge"
    place.mkdir()
    (place / "judge.py").write_text(JUDGE)
    os.mkfifo(place / "answer")
    return Judge(place)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(encoder(layers=2), tmp_path_factory.mktemp("base"))


@pytest.fixture
def judged(tmp_path: Path, base: Path, judge: Judge) -> Iterator[LearnerHarness]:
    harness = classifier_harness(tmp_path, base)
    harness.restart(
        CONFIG.model_copy(
            update={"validator": judge.spec, "validator_timeout_s": 600.0, "gate": False}
        )
    )
    yield harness
    harness.learner.close()


def process_until_asked(harness: LearnerHarness, judge: Judge, times: int) -> None:
    def asked() -> bool:
        harness.learner.process_inboxes(NEVER)
        return len(judge.asked) == times

    eventually(f"the validator is asked {times} times", asked)


def version(adapter: Tensors, by: float) -> Tensors:
    return {name: tensor + by for name, tensor in adapter.items()}


def test_a_task_runs_while_the_validator_is_deciding(judged: LearnerHarness, judge: Judge) -> None:
    received = judged.receive()
    judged.put(film_items("good", "dull"))
    process_until_asked(judged, judge, 1)
    judged.learner.process_inboxes(NEVER)
    with client_lock(judged.state, "run-1", "client_0", 1):
        start = judged.learner.prepare_task(received, judged.base, judged.adapter, NEVER)
    assert start.unsent is None and not start.learned, "nothing is sent before it is accepted"
    assert judged.counts() == {"waiting": 12} and judged.local_model() is None
    judge.say("yes")
    judged.process_until(WorkerEventKind.LEARNED)
    assert judged.counts() == {"learned": 12} and judged.local_model() is not None
    assert len(judge.asked) == 1


def test_an_acceptance_of_an_outdated_model_is_asked_for_again(
    judged: LearnerHarness, judge: Judge
) -> None:
    judged.receive()
    judged.put(film_items("good", "dull"))
    process_until_asked(judged, judge, 1)
    judge.say("yes")
    judged.process_until(WorkerEventKind.LEARNED)
    judged.put(film_items("very", "was"))
    process_until_asked(judged, judge, 2)
    newer = version(judged.adapter, 1e-3)
    judged.receive(1, newer)

    def moved() -> bool:
        judged.learner.process_inboxes(NEVER)
        local = judged.local_model()
        return local is not None and local.version == 1

    eventually("the first batch is moved on top of the new version", moved)
    judge.say("yes")
    process_until_asked(judged, judge, 3)
    assert judged.counts() == {"learned": 12, "waiting": 12}, "it was not applied"
    judge.say("yes")
    judged.process_until(WorkerEventKind.LEARNED)
    local = judged.local_model()
    assert judged.counts() == {"learned": 24} and local is not None
    assert same(local.current, plus(newer, local.parts["unsent"])), "each was applied once"


def test_an_acceptance_does_not_restore_deleted_items(judged: LearnerHarness, judge: Judge) -> None:
    judged.receive()
    judged.put(film_items("good", "dull"))
    process_until_asked(judged, judge, 1)
    with judged.inbox() as inbox:
        inbox.forget([one.id for one in inbox.items()])
    judge.say("yes")
    judged.put(film_items("good", "dull"))
    process_until_asked(judged, judge, 2)  # the verdict on the first batch was applied before
    assert judged.local_model() is None and judged.counts() == {"waiting": 12}


def test_a_worker_that_ends_kills_the_validator_and_keeps_the_items(
    judged: LearnerHarness, judge: Judge
) -> None:
    judged.receive()
    judged.put(film_items("good", "dull"))
    process_until_asked(judged, judge, 1)
    [(process, count)] = judge.asked
    assert count == 12
    closing = threading.Thread(target=judged.learner.close)
    closing.start()
    closing.join(60)
    assert not closing.is_alive()
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)
    assert judged.counts() == {"waiting": 12}
