"""What an operator asks of a coordinator, through the store. A stub: the transport is to come."""

from __future__ import annotations

import uuid
from typing import Literal

from common.records import Label, Record, Text
from common.store import Store
from common.wire import pack, unpack

Action = Literal["pause", "resume", "drain", "stop", "kick", "pardon", "reissue"]


class Command(Record):
    """One request. `target` names a client (kick, pardon) or a task (reissue)."""

    command_id: Label
    action: Action
    target: str = ""
    by: Text = ""


class Answer(Record):
    """What the coordinator did."""

    state: Literal["done", "refused"]
    reason: Text = ""


def send(store: Store, run: str, action: Action, target: str = "") -> Command:
    """Ask.

    Raises:
        StoreError: Out of reach, or not allowed.
    """
    command = Command(command_id=uuid.uuid4().hex, action=action, target=target, by="stub")
    store.command("RPUSH", f"fccl:{run}:commands", pack(command))  # type: ignore[arg-type]
    return command


def answer(store: Store, run: str, command_id: str) -> Answer | None:
    """What became of it; None while nothing is decided.

    Raises:
        StoreError: Out of reach.
    """
    value = store.command("GET", f"fccl:{run}:answer:{command_id}")
    return None if value is None else unpack(Answer, value)[0]
