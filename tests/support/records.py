"""Examples of every record, for tests of their limits and of their way over the wire."""

from __future__ import annotations

from common.protocol.delivery import (
    DeliveredAdapter,
    DeliveredCard,
    DeliveredVersion,
    Delivery,
)
from common.protocol.feed import Event
from common.protocol.fields import Record
from common.protocol.heartbeat import Heartbeat, LocalEvent
from common.protocol.tasks import (
    BaseRef,
    BlobRef,
    LocalTraining,
    LoraSpec,
    PromptSpec,
    Receipt,
    TaskRefusal,
    TrainTask,
)
from common.protocol.updates import TensorEntry, Update
from common.protocol.versions import Adapter, CurrentModel, VersionSummary
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
    layout=SHA,
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
    prompt=PromptSpec(template="{{ messages }}"),
    layout=SHA,
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
MODEL = CurrentModel(
    run="run-1",
    version=3,
    phase=0,
    objective="sft",
    base=TASK.base,
    adapter=TASK.adapter,
    lora=TASK.lora,
    max_length=64,
    prompt=TASK.prompt,
)
DELIVERY = Delivery(
    run="run-1",
    at=5.0,
    objective="sft",
    base=TASK.base,
    lora=TASK.lora,
    prompt=TASK.prompt,
    final=DeliveredVersion(
        version=3,
        adapter=DeliveredAdapter(sha256=SHA, nbytes=99),
        card=DeliveredCard(sha256=SHA, nbytes=9),
    ),
)
_NO_LAYOUT = {"layout": None, "tensors": (ENTRY,)}
SCHEMA_1: list[Record] = [
    UPDATE.model_copy(update=_NO_LAYOUT),
    TASK.model_copy(update={"prompt": None, "layout": None}),
    Adapter(version=3, codec="bf16", tensors=(ENTRY,)),
    MODEL.model_copy(update={"prompt": None}),
]
"""Records of kinds that schema 2 changed, in their older form."""
EXAMPLES: list[Record] = [
    RECEIPT,
    UPDATE,
    TASK,
    HEARTBEAT,
    ENTRY,
    TaskRefusal(task_id="t1", attempt=1, client_id="c", worker_id="w", reason="no base model"),
    Adapter(version=3, codec="bf16", layout=SHA, layout_bytes=9),
    MODEL,
    DELIVERY,
    *SCHEMA_1,
    Event(at=1.0, level="info", kind="version", text="one", refs={"version": 1, "loss": 0.5}),
    VersionSummary(version=1, phase=0, at=1.0, sha256=SHA, nbytes=9, train_loss=2.5),
]
