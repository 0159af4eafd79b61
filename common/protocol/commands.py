"""What an operator asks of a running coordinator, and what it answers.

A command lies in the store until the coordinator has journaled it; only then is there an answer.
`fccl pause|resume|drain|stop|kick|reissue` and the controls of `fccl tui` come this way. Whoever
may write the store's keys may command; an invited site may not (`common/store/acl.py`).
"""

from __future__ import annotations

import getpass
import secrets
import socket
import time
from typing import Annotated, Literal, get_args

from pydantic import Field

from common.protocol.fields import Identifier, Record, Seconds, ShortText
from common.protocol.wire import pack
from common.store.store import Store

CommandName = Literal["pause", "resume", "drain", "stop", "kick", "pardon", "reissue"]
ACTIONS: tuple[CommandName, ...] = get_args(CommandName)
ACTIONS_WITH_TARGET: tuple[CommandName, ...] = ("kick", "pardon", "reissue")


class Command(Record):
    """One thing that is asked.

    Attributes:
        command_id: Names it; the same one is carried out once.
        action: What.
        target: A client (kick, pardon), or a client or task (reissue); empty for the others.
        by: Who asks; only informs.
        at: When, on the asker's clock; only informs.
    """

    command_id: Identifier
    action: CommandName
    target: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{0,64}$")] = ""
    by: ShortText = ""
    at: Seconds = 0.0


class CommandReply(Record):
    """What became of a command; journaled before."""

    command_id: Identifier
    state: Literal["done", "refused"]
    reason: ShortText = ""


def send(store: Store, run: str, action: CommandName, target: str = "") -> Command:
    """Ask the coordinator of a run.

    Args:
        store: As a user who may write its keys.
        run: The run's id.
        action: What is asked.
        target: Of what, where the action has one.

    Raises:
        StoreError: Out of reach.
    """
    command = Command(
        command_id=secrets.token_hex(8), action=action, target=target, by=_who(), at=time.time()
    )
    store.put_command(run, pack(command))
    return command


def withdraw(store: Store, run: str, command: Command) -> None:
    """Ask no more for what nobody has answered: it must not happen hours later.

    Raises:
        StoreError: Out of reach.
    """
    store.remove_command(run, pack(command))


def read_reply(store: Store, run: str, command_id: str) -> CommandReply | None:
    """What the coordinator said; None while it has not.

    Raises:
        StoreError: Out of reach.
    """
    return store.get_reply(CommandReply, run, command_id)


def _who() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        user = "someone"
    return f"{user}@{socket.gethostname()}"
