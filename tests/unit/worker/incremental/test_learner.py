"""From an inbox to the client's model, and from there into an update."""

from __future__ import annotations

import multiprocessing
import sqlite3
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch

from common import files
from common.config.config import IncrementalConfig
from common.errors import ConfigError
from common.protocol.heartbeat import InboxFigures
from common.protocol.tasks import Receipt, TrainTask
from common.protocol.tensors import Tensors
from common.store.embedded import EmbeddedStore
from learning.data.row_types import LabelledText
from learning.data.rows import write
from learning.models import lora, objective_model
from learning.training.device import Compute
from tests.support.processes import eventually
from tests.support.tiny_encoder import encoder, saved
from tests.support.worker_records import NOTHING, task
from worker import spool
from worker.data.shards import ClientData
from worker.incremental.inbox import schema
from worker.incremental.inbox.inbox import Inbox
from worker.incremental.inbox.items import Item
from worker.incremental.inbox.learning_store import LearningStore, LocalModel
from worker.incremental.learner import Callbacks, Learner, LearnerSettings
from worker.incremental.serving import served_run
from worker.incremental.serving.client_model import load_client_model
from worker.models.loaded import ModelCache
from worker.models.source import ModelSource
from worker.spool import PendingUpdate, claim_slot
from worker.trainer import l2_norm

LABELS = ("bad", "fine")
COMPUTE = Compute(torch.device("cpu"), threads=1, autocast=False)
CONFIG = IncrementalConfig(lr=3e-2, max_norm=100.0)
NEVER = threading.Event()
OWN = [
    LabelledText(f"{first} {second} {word} film", label)
    for label, word in (("fine", "good"), ("bad", "dull"))
    for first in ("a", "it", "was", "very")
    for second in ("plot", "and", "not", "very", "was")
]


def items(fine: str, bad: str, count: int = 6) -> list[Item]:
    """Items in which two words tell the class."""
    fillers = ("a", "it", "was", "and", "plot", "not")[:count]
    return [
        Item("cls", {"text": f"{filler} {word} film", "label": label}, "films")
        for filler in fillers
        for word, label in ((fine, "fine"), (bad, "bad"))
    ]


@dataclass
class Stage:
    """A client with a model, rows and an inbox, and the learner of its worker."""

    root: Path
    base: Path
    adapter: Tensors
    told: list[tuple[str, str]] = field(default_factory=list)
    rows: tuple[InboxFigures, ...] = ()
    wishes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        (self.root / "cache" / "models").mkdir(parents=True)
        (self.root / "cache" / "models" / NOTHING).symlink_to(self.base)
        (self.root / "clients").mkdir()
        write(self.root / "clients" / "client_0_cls.jsonl", OWN)
        self.store = EmbeddedStore()
        self.slot = claim_slot(self.state, "run-1")
        self.start()

    @property
    def state(self) -> Path:
        return self.root / "state"

    def start(self, config: IncrementalConfig = CONFIG) -> None:
        """A worker begins, or begins again."""

        def shown(rows: tuple[InboxFigures, ...], wishes: tuple[str, ...]) -> None:
            self.rows, self.wishes = rows, wishes

        self.learner = Learner(
            LearnerSettings(self.state, "run-1", "run", ("client_0",)),
            config,
            ClientData(self.root / "clients"),
            ModelCache(COMPUTE),
            ModelSource(
                self.store.connect(), "run-1", self.root / "cache", lambda text, part: None
            ),
            self.slot,
            time.time,
            Callbacks(
                lambda kind, text: self.told.append((kind, text)), shown, lambda digest: None
            ),
        )

    def put(self, new: Sequence[Item]) -> None:
        with Inbox(schema.inbox_path(self.state, "client_0"), CONFIG) as inbox:
            inbox.put(new, "learn")

    def attend(self, *kinds: str) -> None:
        """Let it look until it has said something of these kinds."""
        before = len(self.told)

        def said() -> bool:
            self.learner.process_inboxes(NEVER)
            return any(kind in kinds for kind, _ in self.told[before:])

        eventually(f"one of {kinds}: {self.told[before:]}", said)

    def seen(self, version: int = 0, adapter: Tensors | None = None) -> TrainTask:
        wanted = self.task(version)
        self.learner.note_version(wanted, self.adapter if adapter is None else adapter)
        return wanted

    def task(self, version: int = 0, task_id: str = "t1") -> TrainTask:
        return task(
            task_id,
            objective="classification",
            labels=LABELS,
            base_version=version,
            max_length=32,
        )

    def local(self) -> LocalModel | None:
        with self.book() as book:
            return book.local("run-1")

    def book(self) -> LearningStore:
        return LearningStore(schema.inbox_path(self.state, "client_0"))

    def counts(self) -> dict[str, int]:
        with Inbox(schema.inbox_path(self.state, "client_0"), CONFIG) as inbox:
            return {state: count for state, count in inbox.counts().items() if count}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(encoder(layers=2), tmp_path_factory.mktemp("base"))


@pytest.fixture
def stage(tmp_path: Path, base: Path) -> Stage:
    found = objective_model.load_for_objective("classification", base, LABELS, COMPUTE.device)
    adapter = lora.read_adapter(lora.attach(found.model, task().lora, seed=7))
    return Stage(tmp_path, base, adapter)


def same(one: Tensors, other: Tensors) -> bool:
    return all(np.allclose(one[name], other[name], atol=1e-6) for name in one)


def plus(one: Tensors, other: Tensors) -> Tensors:
    return {name: one[name] + other[name] for name in one}


def test_what_users_say_is_learned_at_once_and_shows(stage: Stage) -> None:
    stage.seen()
    stage.put(items("good", "dull"))
    stage.attend("learned")
    assert stage.counts() == {"learned": 12}
    [row] = stage.rows
    assert row.verdict == "accepted" and row.new_before and row.new_after
    assert row.new_after < row.new_before
    current, local = load_client_model(stage.state, "client_0"), stage.local()
    assert local is not None and current.local
    assert same(current.adapter, plus(stage.adapter, local.parts["unsent"]))
    assert not stage.wishes  # without incremental.push


def tell(state: Path, number: int) -> None:
    for _ in range(60):
        served_run.write(
            state, served_run.ServedRun(run="r", name="r", clients=(f"client_{number}",) * 500)
        )


def test_workers_of_one_machine_tell_what_they_serve_at_once(tmp_path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    workers = [fork.Process(target=tell, args=(tmp_path, number)) for number in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0, 0]
    found = served_run.read(tmp_path)
    assert found is not None and len(set(found.clients)) == 1 and len(found.clients) == 500


def test_items_before_any_version_wait(stage: Stage) -> None:
    stage.put(items("good", "dull"))
    stage.attend("waiting")
    assert stage.counts() == {"waiting": 12}
    stage.seen()
    stage.put(items("bright", "slow", 1))
    stage.attend("learned", "unlearned")
    assert "waiting" not in stage.counts()


def test_flipped_labels_are_rejected_with_the_reason_and_change_nothing(stage: Stage) -> None:
    stage.seen()
    stage.put(items("good", "dull"))
    stage.attend("learned")
    before = load_client_model(stage.state, "client_0").adapter
    stage.put(items("slow", "bright", 1) + items("dull", "good"))
    stage.attend("unlearned")
    assert same(load_client_model(stage.state, "client_0").adapter, before)
    assert stage.rows[0].verdict == "rejected"
    assert "it forgets" in stage.rows[0].reason


def test_a_class_that_there_is_not_is_refused(stage: Stage) -> None:
    stage.seen()
    stage.put([Item("cls", {"text": "a film", "label": "middling"}, "films")])

    def refused() -> bool:
        stage.learner.process_inboxes(NEVER)
        return stage.counts() == {"rejected": 1}

    eventually("it is refused", refused)
    assert stage.local() is None


def test_what_was_learned_rides_once_and_is_settled_by_its_receipt(stage: Stage) -> None:
    stage.start(CONFIG.model_copy(update={"push": True}))
    wanted = stage.seen()
    stage.put(items("good", "dull"))
    stage.attend("learned")
    assert stage.wishes == ("client_0",)
    local = stage.local()
    assert local is not None
    start = stage.learner.prepare_task(wanted, stage.base, stage.adapter, NEVER)
    assert start.samples == 12 and start.unsent is not None
    assert same(start.unsent, local.parts["unsent"])
    assert 0 < len(start.learned) < 12  # those held out are not trained on
    assert stage.wishes == ()
    files.write_durable(stage.state / "run-1" / "slots" / "0" / "updates" / "t1.1", b"")
    again = stage.learner.prepare_task(stage.task(0, "t2"), stage.base, stage.adapter, NEVER)
    assert again.unsent is None and again.samples == 0
    for _ in range(2):  # a receipt may be seen twice
        stage.learner.apply_receipt(
            PendingUpdate("t1", 1, Path()), Receipt(task_id="t1", attempt=1, state="accepted")
        )
    assert stage.counts() == {"settled": 12}
    after = stage.local()
    assert after is not None and set(after.parts) == {"personal"}
    assert same(after.current, local.current)


@pytest.mark.parametrize(
    ("state", "attempt"), [("rejected", 1), ("accepted", 2)], ids=["rejected", "another attempt"]
)
def test_what_did_not_arrive_rides_again(stage: Stage, state: str, attempt: int) -> None:
    wanted = stage.seen()
    stage.put(items("good", "dull"))
    stage.attend("learned")
    stage.learner.prepare_task(wanted, stage.base, stage.adapter, NEVER)
    receipt = Receipt.model_validate({"task_id": "t1", "attempt": attempt, "state": state})
    stage.learner.apply_receipt(PendingUpdate("t1", 1, Path()), receipt)
    assert stage.counts() == {"learned": 12}
    again = stage.learner.prepare_task(stage.task(0, "t2"), stage.base, stage.adapter, NEVER)
    assert again.samples == 12


def test_a_ride_in_an_update_that_never_was_is_taken_back(stage: Stage) -> None:
    wanted = stage.seen()
    stage.put(items("good", "dull"))
    stage.attend("learned")
    stage.learner.prepare_task(wanted, stage.base, stage.adapter, NEVER)
    stage.start()  # killed before its update was on the disk
    again = stage.learner.prepare_task(stage.task(0, "t1"), stage.base, stage.adapter, NEVER)
    assert again.samples == 12 and again.unsent is not None


def test_a_newer_version_is_learned_on_top_of_and_nothing_is_lost(stage: Stage) -> None:
    stage.seen()
    stage.put(items("good", "dull"))
    stage.attend("learned")
    moved = {name: tensor + 1e-3 for name, tensor in stage.adapter.items()}
    stage.seen(1, moved)
    stage.learner.process_inboxes(NEVER)
    local = stage.local()
    assert local is not None and local.version == 1
    assert same(local.current, plus(moved, local.parts["unsent"]))
    assert stage.counts() == {"learned": 12}


def test_what_is_too_much_for_a_newer_version_is_kept_in_part(stage: Stage) -> None:
    stage.seen()
    stage.put(items("good", "dull"))
    stage.attend("learned")
    local = stage.local()
    assert local is not None
    whole = l2_norm(local.parts["unsent"])
    part = 0.7 * whole / l2_norm(stage.adapter)  # the whole is over it, half is under it
    stage.start(CONFIG.model_copy(update={"max_norm": part}))
    stage.seen(1, stage.adapter)
    stage.attend("rebased", "unlearned")
    after = stage.local()
    assert after is not None and after.version == 1
    assert l2_norm(after.parts["unsent"]) == pytest.approx(whole / 2, rel=0.2)  # it is learned anew
    assert stage.counts() == {"learned": 12}


def test_the_model_of_a_task_is_left_as_it_was_between_its_steps(stage: Stage) -> None:
    wanted = stage.seen()
    stage.put(items("good", "dull"))
    stage.attend("learned")
    loaded = stage.learner._models.current
    assert loaded is not None
    half = {name: tensor + 0.5 for name, tensor in stage.adapter.items()}
    lora.write_adapter(loaded.model, half)
    stage.put(items("bright", "slow", 5))

    def learned() -> bool:
        stage.learner.between_steps(wanted, NEVER)
        return stage.counts().get("waiting", 0) == 0

    with spool.client_lock(stage.state, "run-1", "client_0", 1):
        eventually("it looks", learned)
    assert same(lora.read_adapter(loaded.model), half)


def test_a_validator_can_say_no_and_what_it_says_stays_with_the_client(
    stage: Stage, tmp_path: Path
) -> None:
    """Its reason may repeat what users wrote, so nobody else is told it."""
    judge = tmp_path / "judge.py"
    judge.write_text(
        "import json, sys\n"
        "case = json.load(sys.stdin)\n"
        "seen = case['samples'][0]\n"
        "print(json.dumps({'accept': False, 'reason': 'I saw ' + seen['input']}))\n"
    )
    stage.start(CONFIG.model_copy(update={"validator": f"{sys.executable} {judge}"}))
    stage.seen()
    stage.put(items("good", "dull"))
    stage.attend("unlearned")
    assert stage.counts() == {"rejected": 12} and stage.local() is None
    with Inbox(schema.inbox_path(stage.state, "client_0"), CONFIG) as inbox:
        [reason] = inbox.reasons()
    assert "I saw" in reason and "film" in reason
    told = f"{stage.rows} {stage.told}"
    assert "the validator did not accept it" in told and "I saw" not in told


def test_a_validator_that_there_is_not_is_found_at_the_start(stage: Stage) -> None:
    with pytest.raises(ConfigError, match="there is no command nowhere"):
        stage.start(CONFIG.model_copy(update={"validator": "nowhere --strict"}))


def test_items_that_no_longer_fit_the_model_are_given_up_with_the_reason(stage: Stage) -> None:
    """A class that went away, as no version of one run can; a damaged row is alike."""
    stage.seen()
    stage.put(items("good", "dull"))
    stage.attend("learned")
    with sqlite3.connect(schema.inbox_path(stage.state, "client_0")) as db:
        db.execute("""UPDATE item SET fields = '{"text": "a film", "label": "gone"}'""")
    stage.seen(1)
    stage.attend("unlearned")
    assert stage.counts() == {"rejected": 12} and stage.local() is None


def test_what_a_user_takes_back_while_it_is_learned_stays_taken_back(stage: Stage) -> None:
    stage.seen()
    stage.put(items("good", "dull"))
    with stage.book() as book:
        waiting = [entry.id for entry in book.entries("waiting")]
        with Inbox(schema.inbox_path(stage.state, "client_0"), CONFIG) as inbox:
            inbox.put([Item("cls", {"text": "a good film", "label": "bad"}, "films")], "learn")
        book.refuse(waiting, "tried")
    assert stage.counts() == {"rejected": 11, "superseded": 1, "waiting": 1}
