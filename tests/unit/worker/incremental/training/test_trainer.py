"""A validator that takes its time holds nobody up, and what it says is about what it was asked."""

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
from learning.models import lora, objective_model
from tests.support.processes import eventually
from tests.support.tiny_encoder import encoder, saved
from tests.support.worker_records import task
from tests.unit.worker.incremental.test_learner import (
    COMPUTE,
    CONFIG,
    LABELS,
    NEVER,
    Stage,
    items,
    plus,
    same,
)
from worker.incremental.inbox import schema
from worker.incremental.inbox.inbox import Inbox
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
    """A validator that has an answer when the test has one."""

    place: Path

    @property
    def spec(self) -> str:
        return f"{sys.executable} {self.place / 'judge.py'} {self.place}"

    @property
    def asked(self) -> list[tuple[int, int]]:
        """The process that was asked, and about how many items, each time."""
        with suppress(FileNotFoundError):
            lines = (self.place / "asked").read_text().splitlines()
            return [(int(line.split()[0]), int(line.split()[1])) for line in lines]
        return []

    def say(self, word: str) -> None:
        (self.place / "answer").write_text(word)  # waits until it listens


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
def judged(tmp_path: Path, base: Path, judge: Judge) -> Iterator[Stage]:
    found = objective_model.load_for_objective("classification", base, LABELS, COMPUTE.device)
    adapter = lora.read_adapter(lora.attach(found.model, task().lora, seed=7))
    stage = Stage(tmp_path, base, adapter)
    stage.start(
        CONFIG.model_copy(
            update={"validator": judge.spec, "validator_timeout_s": 600.0, "gate": False}
        )
    )
    yield stage
    stage.learner.close()


def attend_until_asked(stage: Stage, judge: Judge, times: int) -> None:
    def asked() -> bool:
        stage.learner.process_inboxes(NEVER)
        return len(judge.asked) == times

    eventually(f"the validator is asked {times} times", asked)


def version(adapter: Tensors, by: float) -> Tensors:
    return {name: tensor + by for name, tensor in adapter.items()}


def test_a_task_begins_and_ends_while_the_validator_thinks(judged: Stage, judge: Judge) -> None:
    wanted = judged.seen()
    judged.put(items("good", "dull"))
    attend_until_asked(judged, judge, 1)
    judged.learner.process_inboxes(NEVER)
    with client_lock(judged.state, "run-1", "client_0", 1):
        start = judged.learner.prepare_task(wanted, judged.base, judged.adapter, NEVER)
    assert start.unsent is None and not start.learned, "nothing rides that nobody has accepted"
    assert judged.counts() == {"waiting": 12} and judged.local() is None
    judge.say("yes")
    judged.attend("learned")
    assert judged.counts() == {"learned": 12} and judged.local() is not None
    assert len(judge.asked) == 1


def test_a_yes_about_a_model_that_is_no_more_is_asked_for_again(
    judged: Stage, judge: Judge
) -> None:
    judged.seen()
    judged.put(items("good", "dull"))
    attend_until_asked(judged, judge, 1)
    judge.say("yes")
    judged.attend("learned")
    judged.put(items("very", "was"))
    attend_until_asked(judged, judge, 2)
    newer = version(judged.adapter, 1e-3)
    judged.seen(1, newer)

    def moved() -> bool:
        judged.learner.process_inboxes(NEVER)
        local = judged.local()
        return local is not None and local.version == 1

    eventually("the first lesson is on the new version", moved)
    judge.say("yes")
    attend_until_asked(judged, judge, 3)
    assert judged.counts() == {"learned": 12, "waiting": 12}, "it was not applied"
    judge.say("yes")
    judged.attend("learned")
    local = judged.local()
    assert judged.counts() == {"learned": 24} and local is not None
    assert same(local.current, plus(newer, local.parts["unsent"])), "each was applied once"


def test_a_yes_does_not_bring_back_what_was_taken_back(judged: Stage, judge: Judge) -> None:
    judged.seen()
    judged.put(items("good", "dull"))
    attend_until_asked(judged, judge, 1)
    with Inbox(schema.inbox_path(judged.state, "client_0"), CONFIG) as inbox:
        inbox.forget([one.id for one in inbox.items()])
    judge.say("yes")
    learner = judged.learner

    def heard() -> bool:
        learner.process_inboxes(NEVER)
        return not learner._tutor.asks("client_0")

    eventually("the answer is taken", heard)
    assert judged.local() is None and judged.counts() == {}
    judged.put(items("good", "dull"))
    attend_until_asked(judged, judge, 2)


def test_a_worker_that_ends_leaves_no_validator_and_keeps_the_items(
    judged: Stage, judge: Judge
) -> None:
    judged.seen()
    judged.put(items("good", "dull"))
    attend_until_asked(judged, judge, 1)
    [(process, count)] = judge.asked
    assert count == 12
    closing = threading.Thread(target=judged.learner.close)
    closing.start()
    closing.join(60)
    assert not closing.is_alive()
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)
    assert judged.counts() == {"waiting": 12}
