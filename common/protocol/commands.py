"""Commands of operators to a running coordinator, and its replies.

A command stays in the store until the coordinator has journaled it; only then is there a reply.
`fccl pause|resume|drain|stop|kick|reissue` and the controls of `fccl tui` send them. Everyone with
write access to the store's keys may send commands; an invited site has none
(`common/store/acl.py`). The functions raise `StoreError` if the store cannot be reached.
"""

from __future__ import annotations

import getpass
import secrets
import socket
import time
from typing import Annotated, Literal

from pydantic import Field

from common.protocol.fields import Identifier, Record, Seconds, ShortText
from common.protocol.wire import pack
from common.store.store import Store

CommandName = Literal[
    "pause", "resume", "drain", "stop", "kick", "pardon", "reissue", "min-clients", "evaluate"
]
ACTIONS_WITH_TARGET: tuple[CommandName, ...] = (
    "kick",
    "pardon",
    "reissue",
    "min-clients",
    "evaluate",
)


class Command(Record):
    """A command of an operator; with the same id it is carried out once.

    The target is a client (kick, pardon), a client or task (reissue), a number of clients
    (min-clients) or a version (evaluate); empty for the others.
    """

    command_id: Identifier
    action: CommandName
    target: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{0,64}$")] = ""
    by: ShortText = ""  # the operator, for people only
    at: Seconds = 0.0  # on the operator's clock, for people only


class CommandReply(Record):
    """What became of a command, published after it was journaled."""

    command_id: Identifier
    state: Literal["done", "refused"]
    reason: ShortText = ""


def send(store: Store, run: str, action: CommandName, target: str = "") -> Command:
    command = Command(
        command_id=secrets.token_hex(8),
        action=action,
        target=target,
        by=_operator(),
        at=time.time(),
    )
    store.put_command(run, pack(command))
    return command


def withdraw(store: Store, run: str, command: Command) -> None:
    """Withdraw a command without a reply, so that it is not carried out hours later."""
    store.remove_command(run, pack(command))


def read_reply(store: Store, run: str, command_id: str) -> CommandReply | None:
    return store.get_reply(CommandReply, run, command_id)


def _operator() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        user = "someone"
    return f"{user}@{socket.gethostname()}"
