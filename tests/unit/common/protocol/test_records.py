"""The limits of the records' fields; their way over the wire is in `test_wire.py`."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from common.protocol.feed import Event
from common.protocol.fields import Record
from common.protocol.heartbeat import Heartbeat, LocalEvent
from common.protocol.tasks import (
    BaseRef,
    BlobRef,
    LocalTraining,
    LoraSpec,
    Receipt,
    TaskRefusal,
    TrainTask,
)
from common.protocol.updates import TensorEntry, Update
from common.protocol.versions import Adapter, VersionSummary
from tests.support.virtual_federation import make_stats

SHA = "0123456789abcdef" * 4
ENTRY = TensorEntry(name="layer.lora_A.weight", shape=(2, 3), offset=0, nbytes=24)
RECEIPT = Receipt(task_id="t000001", attempt=2, state="rejected", reason="phase over")
UPDATE = Update(
    task_id="t000001",
    attempt=1,
    client_id="client_0",
    worker_id="w0",
    phase=0,
    base_version=3,
    stats=make_stats(),
    codec="fp32",
    tensors=(ENTRY,),
    sha256=SHA,
)
TASK = TrainTask(
    task_id="t000001",
    attempt=1,
    run="run-1",
    client_id="client_0",
    phase=0,
    objective="sft",
    training=LocalTraining(
        steps=10, epochs=0, batch_size=4, lr=1e-3, max_grad_norm=1.0, prox_mu=0.0, max_length=64
    ),
    base=BaseRef(name="gpt2", revision="abc", kind="hub", digest=SHA),
    base_version=3,
    adapter=BlobRef(sha256=SHA, nbytes=99),
    lora=LoraSpec(targets=("c_attn", "c_fc")),
    update_codec="int8",
    seed=7,
    issued_at=1.5,
    deadline_s=60.0,
)
HEARTBEAT = Heartbeat(
    worker_id="w0",
    site="local",
    state="training",
    clients=("client_0", "client_1"),
    task_id="t000001",
    progress=0.5,
    last_loss=2.5,
    events=(LocalEvent(at=1.0, kind="trained", text="10 steps"),),
)
EXAMPLES: list[Record] = [
    RECEIPT,
    UPDATE,
    TASK,
    HEARTBEAT,
    ENTRY,
    TaskRefusal(task_id="t1", attempt=1, client_id="c", worker_id="w", reason="no base model"),
    Adapter(version=3, codec="bf16", tensors=(ENTRY,)),
    Event(at=1.0, level="info", kind="version", text="one", refs={"version": 1, "loss": 0.5}),
    VersionSummary(version=1, phase=0, at=1.0, sha256=SHA, nbytes=9, train_loss=2.5),
]


def test_a_record_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        RECEIPT.task_id = "t2"


def test_a_record_survives_json() -> None:
    for record in EXAMPLES:
        assert type(record).model_validate_json(record.model_dump_json()) == record


@pytest.mark.parametrize("text", ["\x1b]0;owned\x07", "line\nline", "\x9b2J", "a\u2028b", "\x7f"])
def test_text_for_people_holds_nothing_that_a_terminal_obeys(text: str) -> None:
    receipt = Receipt(task_id="t1", attempt=1, state="rejected", reason=text)
    assert receipt.reason.isprintable()


@pytest.mark.parametrize("label", ["", ".hidden", "-x", "a/b", "a b", "a\n", "é", "a" * 65])
def test_a_label_is_no_path_and_no_option(label: str) -> None:
    with pytest.raises(ValidationError):
        Receipt(task_id=label, attempt=1, state="accepted")


@pytest.mark.parametrize("shape", [(0,), (-1, 2), (2**31 + 1,), (1,) * 9])
def test_a_shape_is_positive_and_bounded(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValidationError):
        TensorEntry(name="a", shape=shape, offset=0, nbytes=0)


@pytest.mark.parametrize("progress", [-0.1, 1.1, float("nan")])
def test_progress_is_a_share(progress: float) -> None:
    with pytest.raises(ValidationError):
        Heartbeat(worker_id="w", site="s", state="training", progress=progress)


@pytest.mark.parametrize(("steps", "epochs"), [(0, 0), (5, 1)])
def test_training_takes_steps_or_epochs_but_not_both(steps: int, epochs: int) -> None:
    with pytest.raises(ValidationError, match="exactly one"):
        LocalTraining(steps=steps, epochs=epochs, batch_size=4, lr=1e-3, max_length=64)
