"""Files by which a worker announces which clients it serves, and with which model.

    STATE/inbox/served.json      run, clients, kinds of rows, classes
    STATE/<run id>/model         the newest version that a worker of this machine has received

`fccl learn`, `fccl try`, `fccl inbox` and the HTTP endpoint need them to name a client, to refuse
an unknown class, and to answer. A file that cannot be written or is damaged raises `DataError`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from filelock import FileLock
from pydantic import BeforeValidator, Field, ValidationError

from common.errors import DataError, WireError
from common.files import make_private, write_durable
from common.protocol.adapter_frame import pack_adapter, unpack_adapter
from common.protocol.fields import ClassNames, Identifier, Record, RowKind, RunId, list_to_tuple
from common.protocol.tensors import Tensors
from common.protocol.versions import CurrentModel
from common.protocol.wire import pack, unpack

FILE = "served.json"
LOCK_S = 30.0


class ServedRun(Record):
    """Run and clients that a worker of this machine serves, or served last."""

    run: RunId
    name: Identifier
    clients: Annotated[
        tuple[Identifier, ...], Field(max_length=4096), BeforeValidator(list_to_tuple)
    ]
    kinds: Annotated[tuple[RowKind, ...], BeforeValidator(list_to_tuple)] = ()
    labels: Annotated[ClassNames, BeforeValidator(list_to_tuple)] = ()


def write(state: Path, served: ServedRun) -> None:
    """Write the file; of several workers the last one counts."""
    _write_locked(state / "inbox" / FILE, served.model_dump_json().encode())


def read(state: Path) -> ServedRun | None:
    """Return what a worker wrote last; None if none has run yet."""
    path = state / "inbox" / FILE
    try:
        return ServedRun.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError):
        raise DataError(
            f"{path} cannot be read", "start `fccl worker`, which writes it anew"
        ) from None


def save_model(state: Path, model: CurrentModel, adapter: Tensors) -> None:
    frame = pack_adapter(model.version, "fp32", adapter)
    _write_locked(state / model.run / "model", pack(model, frame))


def load_model(state: Path, run: str) -> tuple[CurrentModel, Tensors] | None:
    """Return the saved version and its θ; None if there is none."""
    path = state / run / "model"
    try:
        found, frame = unpack(CurrentModel, path.read_bytes())
        return found, unpack_adapter(frame)[1]
    except FileNotFoundError:
        return None
    except WireError as error:
        raise DataError(
            f"{path}: {error.what}", "delete it; a worker saves it again with its next task"
        ) from None
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}", "check its owner and permissions") from None


def _write_locked(path: Path, data: bytes) -> None:
    """Write a file that several workers of one machine share, one at a time."""
    try:
        make_private(path.parent)
        with FileLock(path.with_name(f".{path.name}.lock"), timeout=LOCK_S):
            write_durable(path, data, 0o600)
    except OSError as error:  # includes the lock's `Timeout`
        raise DataError(
            f"{path}: {error.strerror or error}", "make room, or set --state to a writable place"
        ) from None
