"""What a worker tells the front doors on its machine: which clients it serves, and of which model.

    STATE/inbox/served.json      run, clients, classes
    STATE/<run id>/model         the newest version that a worker of this machine has seen

A front door needs them to name a client, to refuse a class that there is not, and to answer.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from filelock import FileLock
from pydantic import BeforeValidator, Field, ValidationError

from common.errors import DataError, WireError
from common.files import write_durable
from common.protocol import codec
from common.protocol.fields import ClassNames, Identifier, Record, RowKind, RunId, list_to_tuple
from common.protocol.tensors import Tensors
from common.protocol.versions import Adapter, CurrentModel
from common.protocol.wire import pack, unpack

FILE = "served.json"
LOCK_S = 30.0


class ServedRun(Record):
    """What a worker of this machine serves, or served last."""

    run: RunId
    name: Identifier
    clients: Annotated[
        tuple[Identifier, ...], Field(max_length=4096), BeforeValidator(list_to_tuple)
    ]
    kinds: Annotated[tuple[RowKind, ...], BeforeValidator(list_to_tuple)] = ()
    labels: Annotated[ClassNames, BeforeValidator(list_to_tuple)] = ()


def write(state: Path, served: ServedRun) -> None:
    """Tell it; whoever comes last is believed.

    Raises:
        DataError: The disk refuses.
    """
    _durable(state / "inbox" / FILE, served.model_dump_json().encode())


def read(state: Path) -> ServedRun | None:
    """What a worker told last; None where none ever ran.

    Raises:
        DataError: The file is not one of these.
    """
    path = state / "inbox" / FILE
    try:
        return ServedRun.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError):
        raise DataError(
            f"{path} cannot be read", "start `fccl worker` once: it is written anew"
        ) from None


def keep_model(state: Path, model: CurrentModel, adapter: Tensors) -> None:
    """Keep the newest version: its description, and θ.

    Raises:
        DataError: The disk refuses.
    """
    entries, data = codec.encode("fp32", adapter)
    frame = pack(Adapter(version=model.version, codec="fp32", tensors=entries), data)
    _durable(state / model.run / "model", pack(model, frame))


def _durable(path: Path, data: bytes) -> None:
    """Several workers of one machine write the same file: one after the other."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with FileLock(path.with_name(f".{path.name}.lock"), timeout=LOCK_S):
            write_durable(path, data, 0o600)
    except OSError as error:  # a `Timeout` of the lock is one too
        raise DataError(
            f"{path}: {error.strerror or error}", "make room, or set --state to a writable place"
        ) from None


def model(state: Path, run: str) -> tuple[CurrentModel, Tensors] | None:
    """The newest version that was kept, and its θ; None where there is none.

    Raises:
        DataError: The file is damaged.
    """
    path = state / run / "model"
    try:
        found, frame = unpack(CurrentModel, path.read_bytes())
        header, data = unpack(Adapter, bytes(frame))
        return found, codec.decode(header.codec, header.tensors, data)
    except FileNotFoundError:
        return None
    except WireError as error:
        raise DataError(
            f"{path}: {error.what}", "remove it: the next task brings it back"
        ) from None
