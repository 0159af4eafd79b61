"""The current model of a client: the newest global version plus what the client has learned.

`fccl try` answers with it in a process of its own, and loads it again when the worker has accepted
something new.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from safetensors.numpy import load

from common.errors import DataError
from common.protocol.adapter_form import is_frozen, lora_of_rank
from common.protocol.tasks import LoraSpec
from common.protocol.tensors import Tensors
from common.protocol.versions import CurrentModel
from worker.incremental.inbox import schema
from worker.incremental.inbox.schema import InboxFile
from worker.incremental.serving import served_run


@dataclass(frozen=True)
class ClientModel:
    """Model of one client."""

    model: CurrentModel  # with the global version that it is, or is based on
    adapter: Tensors  # θ
    local: bool  # whether it has learned something on top of the global version
    revision: str  # changes whenever the model does


def load_client_model(state: Path, client_id: str) -> ClientModel:
    """Load a client's model as its worker saved it.

    Raises:
        DataError: No worker of this machine has received a model yet, or a file is damaged.
    """
    served = served_run.read(state)
    found = None if served is None else served_run.load_model(state, served.run)
    if found is None:
        raise DataError(
            f"no worker has saved a model in {state} yet",
            "start `fccl worker` (or `fccl demo`), or give its --state",
        )
    model, adapter = found
    path = schema.inbox_path(state, client_id)
    rows = []
    if path.exists():
        with closing(InboxFile(path)) as file:
            rows = file.query(
                "SELECT version, tensors, (SELECT max(id) FROM batch) FROM local"
                " WHERE role = 'current' AND run = ?",
                model.run,
            )
    if not rows:
        return ClientModel(model, adapter, local=False, revision=f"{model.run}.{model.version}")
    version, data, batch = rows[0]
    tensors = load(data)
    own = model.model_copy(update={"version": version, "lora": _lora(model.lora, tensors)})
    return ClientModel(own, tensors, local=True, revision=f"{model.run}.{version}.{batch}")


def _lora(spec: LoraSpec | None, tensors: Tensors) -> LoraSpec | None:
    """Return the settings of LoRA of a client's tensors, whose rank may be below the version's."""
    ranks = {tensor.shape[0] for name, tensor in tensors.items() if is_frozen(name)}
    return spec if spec is None or not ranks else lora_of_rank(spec, max(ranks))
