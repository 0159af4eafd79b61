"""From an inbox to the client's model, and from there into an update."""

from __future__ import annotations

import multiprocessing
import sqlite3
import sys
from pathlib import Path

import pytest

from common import files
from common.errors import ConfigError
from common.protocol.tasks import Receipt
from learning.models import lora
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
from worker import spool
from worker.events import WorkerEventKind
from worker.incremental.inbox import schema
from worker.incremental.inbox.items import Item
from worker.incremental.serving import served_run
from worker.incremental.serving.client_model import load_client_model
from worker.spool import PendingUpdate
from worker.trainer import l2_norm

WAITING, LEARNED = WorkerEventKind.WAITING, WorkerEventKind.LEARNED
UNLEARNED, REBASED = WorkerEventKind.UNLEARNED, WorkerEventKind.REBASED


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(encoder(layers=2), tmp_path_factory.mktemp("base"))


@pytest.fixture
def harness(tmp_path: Path, base: Path) -> LearnerHarness:
    return classifier_harness(tmp_path, base)


def test_items_are_learned_at_once_and_change_the_clients_model(harness: LearnerHarness) -> None:
    harness.receive()
    harness.put(film_items("good", "dull"))
    harness.process_until(LEARNED)
    assert harness.counts() == {"learned": 12}
    [row] = harness.figures
    assert row.verdict == "accepted" and row.new_before and row.new_after
    assert row.new_after < row.new_before
    current, local = load_client_model(harness.state, "client_0"), harness.local_model()
    assert local is not None and current.local
    assert same(current.adapter, plus(harness.adapter, local.parts["unsent"]))
    assert not harness.wishes  # without incremental.push


def announce(state: Path, number: int) -> None:
    for _ in range(60):
        served_run.write(
            state, served_run.ServedRun(run="r", name="r", clients=(f"client_{number}",) * 500)
        )


def test_workers_of_one_machine_can_announce_their_runs_concurrently(tmp_path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    workers = [fork.Process(target=announce, args=(tmp_path, number)) for number in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0, 0]
    found = served_run.read(tmp_path)
    assert found is not None and len(set(found.clients)) == 1 and len(found.clients) == 500


def test_items_wait_until_a_version_has_been_received(harness: LearnerHarness) -> None:
    harness.put(film_items("good", "dull"))
    harness.process_until(WAITING)
    assert harness.counts() == {"waiting": 12}
    harness.receive()
    harness.put(film_items("bright", "slow", 1))
    harness.process_until(LEARNED, UNLEARNED)
    assert "waiting" not in harness.counts()


def test_flipped_labels_are_rejected_with_a_reason_and_change_nothing(
    harness: LearnerHarness,
) -> None:
    harness.receive()
    harness.put(film_items("good", "dull"))
    harness.process_until(LEARNED)
    before = load_client_model(harness.state, "client_0").adapter
    harness.put(film_items("slow", "bright", 1) + film_items("dull", "good"))
    harness.process_until(UNLEARNED)
    assert same(load_client_model(harness.state, "client_0").adapter, before)
    assert harness.figures[0].verdict == "rejected"
    assert "forgetting" in harness.figures[0].reason


def test_an_item_with_an_unknown_class_is_rejected(harness: LearnerHarness) -> None:
    harness.receive()
    harness.put([Item("cls", {"text": "a film", "label": "middling"}, "films")])

    def rejected() -> bool:
        harness.learner.process_inboxes(NEVER)
        return harness.counts() == {"rejected": 1}

    eventually("it is rejected", rejected)
    assert harness.local_model() is None


def test_what_was_learned_is_in_one_update_and_settled_by_its_receipt(
    harness: LearnerHarness,
) -> None:
    harness.restart(CONFIG.model_copy(update={"push": True}))
    received = harness.receive()
    harness.put(film_items("good", "dull"))
    harness.process_until(LEARNED)
    assert harness.wishes == ("client_0",)
    local = harness.local_model()
    assert local is not None
    start = harness.learner.prepare_task(received, harness.base, harness.adapter, NEVER)
    assert start.samples == 12 and start.unsent is not None
    assert same(start.unsent, local.parts["unsent"])
    assert 0 < len(start.learned) < 12  # those held out are not trained on
    assert harness.wishes == ()
    files.write_durable(harness.state / "run-1" / "slots" / "0" / "updates" / "t1.1", b"")
    again = harness.learner.prepare_task(
        harness.task(0, "t2"), harness.base, harness.adapter, NEVER
    )
    assert again.unsent is None and again.samples == 0
    for _ in range(2):  # a receipt may be seen twice
        harness.learner.apply_receipt(
            PendingUpdate("t1", 1, Path()), Receipt(task_id="t1", attempt=1, state="accepted")
        )
    assert harness.counts() == {"settled": 12}
    after = harness.local_model()
    assert after is not None and set(after.parts) == {"personal"}
    assert same(after.current, local.current)


@pytest.mark.parametrize(
    ("state", "attempt"), [("rejected", 1), ("accepted", 2)], ids=["rejected", "another attempt"]
)
def test_what_was_in_an_update_that_was_not_accepted_is_sent_again(
    harness: LearnerHarness, state: str, attempt: int
) -> None:
    received = harness.receive()
    harness.put(film_items("good", "dull"))
    harness.process_until(LEARNED)
    harness.learner.prepare_task(received, harness.base, harness.adapter, NEVER)
    receipt = Receipt.model_validate({"task_id": "t1", "attempt": attempt, "state": state})
    harness.learner.apply_receipt(PendingUpdate("t1", 1, Path()), receipt)
    assert harness.counts() == {"learned": 12}
    again = harness.learner.prepare_task(
        harness.task(0, "t2"), harness.base, harness.adapter, NEVER
    )
    assert again.samples == 12


def test_what_was_prepared_for_an_update_that_was_never_written_is_sent_again(
    harness: LearnerHarness,
) -> None:
    received = harness.receive()
    harness.put(film_items("good", "dull"))
    harness.process_until(LEARNED)
    harness.learner.prepare_task(received, harness.base, harness.adapter, NEVER)
    harness.restart()  # killed before its update was on the disk
    again = harness.learner.prepare_task(
        harness.task(0, "t1"), harness.base, harness.adapter, NEVER
    )
    assert again.samples == 12 and again.unsent is not None


def test_what_was_learned_is_moved_on_top_of_a_newer_version(harness: LearnerHarness) -> None:
    harness.receive()
    harness.put(film_items("good", "dull"))
    harness.process_until(LEARNED)
    moved = {name: tensor + 1e-3 for name, tensor in harness.adapter.items()}
    harness.receive(1, moved)
    harness.learner.process_inboxes(NEVER)
    local = harness.local_model()
    assert local is not None and local.version == 1
    assert same(local.current, plus(moved, local.parts["unsent"]))
    assert harness.counts() == {"learned": 12}


def test_what_is_too_large_for_a_newer_version_is_learned_anew_in_part(
    harness: LearnerHarness,
) -> None:
    harness.receive()
    harness.put(film_items("good", "dull"))
    harness.process_until(LEARNED)
    local = harness.local_model()
    assert local is not None
    whole = l2_norm(local.parts["unsent"])
    part = 0.7 * whole / l2_norm(harness.adapter)  # the whole is over it, half is under it
    harness.restart(CONFIG.model_copy(update={"max_norm": part}))
    harness.receive(1, harness.adapter)
    harness.process_until(REBASED, UNLEARNED)
    after = harness.local_model()
    assert after is not None and after.version == 1
    assert l2_norm(after.parts["unsent"]) == pytest.approx(whole / 2, rel=0.2)  # it is learned anew
    assert harness.counts() == {"learned": 12}


def test_learning_between_steps_leaves_the_model_of_the_task_as_it_was(
    harness: LearnerHarness,
) -> None:
    received = harness.receive()
    harness.put(film_items("good", "dull"))
    harness.process_until(LEARNED)
    loaded = harness.models.current
    assert loaded is not None
    half = {name: tensor + 0.5 for name, tensor in harness.adapter.items()}
    lora.write_adapter(loaded.model, half)
    harness.put(film_items("bright", "slow", 5))

    def learned() -> bool:
        harness.learner.between_steps(received, NEVER)
        return harness.counts().get("waiting", 0) == 0

    with spool.client_lock(harness.state, "run-1", "client_0", 1):
        eventually("the items are processed", learned)
    assert same(lora.read_adapter(loaded.model), half)


def test_a_validator_can_reject_a_batch_and_its_reason_stays_with_the_client(
    harness: LearnerHarness, tmp_path: Path
) -> None:
    """Its reason may repeat what users wrote, so it does not leave the machine."""
    judge = tmp_path / "judge.py"
    judge.write_text(
        "import json, sys\n"
        "case = json.load(sys.stdin)\n"
        "seen = case['samples'][0]\n"
        "print(json.dumps({'accept': False, 'reason': 'I saw ' + seen['input']}))\n"
    )
    harness.restart(CONFIG.model_copy(update={"validator": f"{sys.executable} {judge}"}))
    harness.receive()
    harness.put(film_items("good", "dull"))
    harness.process_until(UNLEARNED)
    assert harness.counts() == {"rejected": 12} and harness.local_model() is None
    with harness.inbox() as inbox:
        [reason] = {stored.reason for stored in inbox.items("rejected")}
    assert "I saw" in reason and "film" in reason
    public = f"{harness.figures} {harness.events}"
    assert "the validator did not accept it" in public and "I saw" not in public


def test_a_validator_that_does_not_exist_is_found_at_the_start(harness: LearnerHarness) -> None:
    with pytest.raises(ConfigError, match=r"incremental\.validator"):
        harness.restart(CONFIG.model_copy(update={"validator": "nowhere --strict"}))


def test_items_that_no_longer_fit_the_model_are_given_up_with_a_reason(
    harness: LearnerHarness,
) -> None:
    """A class cannot disappear within a run, but a damaged row has the same effect."""
    harness.receive()
    harness.put(film_items("good", "dull"))
    harness.process_until(LEARNED)
    with sqlite3.connect(schema.inbox_path(harness.state, "client_0")) as db:
        db.execute("""UPDATE item SET fields = '{"text": "a film", "label": "gone"}'""")
    harness.receive(1)
    harness.process_until(UNLEARNED)
    assert harness.counts() == {"rejected": 12} and harness.local_model() is None


def test_an_item_that_is_superseded_while_it_is_learned_stays_superseded(
    harness: LearnerHarness,
) -> None:
    harness.receive()
    harness.put(film_items("good", "dull"))
    with harness.learning_store() as store:
        waiting = [stored.id for stored in store.items("waiting")]
        with harness.inbox() as inbox:
            inbox.put([Item("cls", {"text": "a good film", "label": "bad"}, "films")], "learn")
        store.reject_items(waiting, "tried")
    assert harness.counts() == {"rejected": 11, "superseded": 1, "waiting": 1}
