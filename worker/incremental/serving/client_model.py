"""The model that a client has now: the newest global version, and what was learned here on top.

`fccl try` answers with it, in a process of its own; what a worker accepts is seen at the next look.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path

from safetensors.numpy import load

from common.errors import DataError
from common.protocol.tensors import Tensors
from common.protocol.versions import CurrentModel
from worker.incremental.inbox import schema
from worker.incremental.serving import served_run


@dataclass(frozen=True)
class ClientModel:
    """A client's model.

    Attributes:
        model: Of which base, objective and classes it is; its version is the global one.
        adapter: θ, by tensor name.
        local: Whether it has learned something that the global version has not.
        mark: Changes whenever the model does.
    """

    model: CurrentModel
    adapter: Tensors
    local: bool
    mark: str


def load_client_model(state: Path, client_id: str) -> ClientModel:
    """The client's model as its worker left it.

    Raises:
        DataError: No worker of this machine has seen a model yet, or a file is damaged.
    """
    told = served_run.read(state)
    found = None if told is None else served_run.model(state, told.run)
    if found is None:
        raise DataError(
            f"no worker has brought a model to {state} yet",
            "start `fccl worker` (or `fccl demo`), or name its --state",
        )
    model, adapter = found
    path = schema.inbox_path(state, client_id)
    if not path.exists():
        return ClientModel(model, adapter, local=False, mark=f"{model.run}.{model.version}")
    db = schema.connect(path)
    try:
        row = db.execute(
            "SELECT version, tensors, (SELECT max(id) FROM batch) FROM local"
            " WHERE role = 'current' AND run = ?",
            (model.run,),
        ).fetchone()
    except sqlite3.Error as error:
        raise schema.unusable(path, error) from None
    finally:
        db.close()
    if row is None:
        return ClientModel(model, adapter, local=False, mark=f"{model.run}.{model.version}")
    version, tensors, batch = row
    own = model.model_copy(update={"version": version})
    return ClientModel(own, load(tensors), local=True, mark=f"{model.run}.{version}.{batch}")
