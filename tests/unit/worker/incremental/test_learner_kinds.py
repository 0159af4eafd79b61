"""Generative models learn instructions and judged answers; `test_learner` has classifiers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from common.protocol.fields import ROW_KINDS, ObjectiveName, RowKind
from common.protocol.tasks import LoraSpec, TrainTask
from learning.data.row_types import Instruction, PreferencePair, RatedAnswer, Row
from learning.data.rows import write
from learning.models import lora, objective_model
from tests.support.conversations import dialogue
from tests.support.incremental import COMPUTE, NEVER, LearnerHarness, plus, same
from tests.support.tiny_model import tiny_model, tiny_tokenizer
from tests.support.worker_records import task
from worker.events import WorkerEventKind
from worker.incremental.inbox.items import Item
from worker.incremental.inbox.record_parser import parse
from worker.incremental.serving.client_model import load_client_model

THINGS = ("sky", "sea", "ice", "lake", "rain", "wave", "tear", "pond", "river", "cloud")
INDIFFERENT: dict[RowKind, float] = {"va": np.log(2.0), "kto": 0.5}
"""Loss of a model that is compared with itself."""
SPEC = LoraSpec(r=2, alpha=4)
OWN: dict[RowKind, list[Row]] = {
    "sft": [Instruction(f"Name thing {n}.", "", f"It is thing {n}.") for n in range(40)],
    "va": [PreferencePair(f"Name thing {n}.", f"It is {n}.", f"No, not {n}!") for n in range(40)],
    "kto": [
        RatedAnswer(f"Name thing {n}.", f"It is {n}." if n % 3 else f"No, not {n}!", n % 3 > 0)
        for n in range(40)
    ],
}


def items(kind: RowKind) -> list[Item]:
    """Ten items with the same answer about ten things, every other one after a greeting.

    Ratings are of that answer, or of another one, which is bad.
    """
    records = [
        _record(kind, THINGS[i], after_greeting=bool(i % 2), good=i % 4 < 2)
        for i in range(len(THINGS))
    ]
    return [parse(record, max_chars=1000, task="it") for record in records]


def _record(kind: RowKind, thing: str, *, after_greeting: bool, good: bool) -> dict[str, object]:
    right, wrong = "It is blue.", "No, not so!"
    question = f"Which colour has the {thing}?"
    before = dialogue("Hi", "Hello.", question) if after_greeting else dialogue(question)
    if kind == "va":
        return {"prompt": before, "chosen": right, "rejected": wrong}
    if kind == "kto":
        return {"prompt": before, "completion": right if good else wrong, "label": good}
    return {"messages": [*before, {"role": "assistant", "content": right}]}


@dataclass
class GenerativeHarness(LearnerHarness):
    """A client with a generative model in a phase of one objective, with rows of that kind."""

    objective: ObjectiveName = "sft"

    def __post_init__(self) -> None:
        super().__post_init__()
        kind = ROW_KINDS[self.objective]
        write(self.root / "clients" / f"client_0_{kind}.jsonl", OWN[kind])

    def task(self, version: int = 0, task_id: str = "t1") -> TrainTask:
        return task(task_id, objective=self.objective, base_version=version, max_length=256)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("writer")
    tiny_model().save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def generative_harness(tmp_path: Path, base: Path, objective: ObjectiveName) -> GenerativeHarness:
    found = objective_model.load_for_objective(objective, base, (), COMPUTE.device)
    adapter = lora.read_adapter(lora.attach(found.model, SPEC, seed=7))
    return GenerativeHarness(tmp_path, base, adapter, objective=objective)


# Each kind can be learned in a phase of another.
@pytest.mark.parametrize(
    ("objective", "kind"),
    [("sft", "sft"), ("sft", "va"), ("sft", "kto"), ("dpo", "sft"), ("dpo", "va"), ("kto", "kto")],
)
def test_items_move_the_loss_and_pass_the_gate(
    tmp_path: Path, base: Path, objective: ObjectiveName, kind: RowKind
) -> None:
    harness = generative_harness(tmp_path, base, objective)
    received = harness.receive()
    harness.put(items(kind))
    harness.process_until(WorkerEventKind.LEARNED, WorkerEventKind.UNLEARNED)
    assert harness.counts() == {"learned": 10}, harness.figures
    [row] = harness.figures
    assert row.verdict == "accepted"
    assert row.new_before and row.new_after and row.anchor_before and row.anchor_after
    # Compared with itself a model has no preference.
    if kind in INDIFFERENT:
        assert row.new_before == pytest.approx(INDIFFERENT[kind], abs=1e-4)
    assert row.new_after < row.new_before - 0.02
    local = harness.local_model()
    assert local is not None and set(local.parts) == {"unsent"}
    adapter = load_client_model(harness.state, "client_0").adapter
    assert same(adapter, plus(harness.adapter, local.parts["unsent"]))
    start = harness.learner.prepare_task(received, harness.base, harness.adapter, NEVER)
    assert start.samples == 10 and start.unsent is not None
    of_the_phase = kind == ROW_KINDS[objective]
    assert len(start.learned) == (8 if of_the_phase else 0)  # two of ten are held out


@pytest.mark.parametrize("label", [True, False])
def test_a_single_thumb_is_learned_without_another_answer_to_compare_with(
    tmp_path: Path, base: Path, label: bool
) -> None:
    harness = generative_harness(tmp_path, base, "sft")
    harness.receive()
    record = {"prompt": "Which colour has the sky?", "completion": "It is blue.", "label": label}
    harness.put([parse(record, max_chars=1000)])
    harness.process_until(WorkerEventKind.LEARNED, WorkerEventKind.UNLEARNED)
    assert harness.counts() == {"learned": 1}, harness.figures
