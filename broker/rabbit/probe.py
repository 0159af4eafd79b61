"""A look at RabbitMQ from outside: does it take this login, which version is it, what may we do?

Nothing is written to the server. `fccl services` waits with this until its RabbitMQ is ready, and
`fccl doctor` reports it.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterable
from dataclasses import dataclass

import pika
from pika import exceptions as pika_errors
from pika.adapters.blocking_connection import BlockingConnection

from broker.rabbit.errors import channel_error, connect_error
from broker.rabbit.pika_setup import make_parameters, prepare_pika
from common.errors import BrokerError, BrokerLoginError

_NOT_ALLOWED, _NOT_FOUND = 403, 404


@dataclass(frozen=True)
class ProbeResult:
    """What a login shows.

    Attributes:
        product: `RabbitMQ`, most likely.
        version: Of the server.
        user: Who we are there.
        may_declare: Whether this user may make queues of that prefix; None where nobody asked.
        queues: Messages that wait, by queue, for those that are there.
    """

    product: str
    version: str
    user: str
    may_declare: bool | None
    queues: dict[str, int]


def probe(
    url: str,
    ca: str | None = None,
    timeout_s: float = 5.0,
    prefix: str = "",
    queues: Iterable[str] = (),
) -> ProbeResult:
    """Log in, look, and leave.

    Args:
        url: amqp:// or amqps://, with user and password.
        ca: Certificates (PEM) that may vouch for an amqps:// server; the system's without.
        timeout_s: For each step.
        prefix: Of the queues that the user wants to make; empty: do not ask.
        queues: Queues to look for.

    Raises:
        BrokerError: RabbitMQ cannot be reached, or refuses.
    """
    prepare_pika()
    parameters = make_parameters(url, ca)
    parameters.socket_timeout = parameters.stack_timeout = timeout_s
    parameters.blocked_connection_timeout = timeout_s
    try:
        connection = BlockingConnection(parameters)
    except Exception as error:  # pika's, and any that it lets through
        raise connect_error(error, f"{parameters.host}:{parameters.port}") from None
    try:
        product, version = _server(connection)
        return ProbeResult(
            product,
            version,
            str(parameters.credentials.username),
            _may_declare(connection, prefix) if prefix else None,
            _waiting(connection, queues),
        )
    except (pika_errors.AMQPError, OSError) as error:
        raise channel_error(error) from None
    finally:
        _close(connection)


def login_refused(url: str, ca: str | None = None) -> bool:
    """Whether RabbitMQ refuses the user or password of a URL; False where it is not reached."""
    try:
        probe(url, ca)
    except BrokerLoginError:
        return True
    except BrokerError:
        return False
    return False


def _server(connection: BlockingConnection) -> tuple[str, str]:
    implementation = getattr(connection, "_impl", None)  # pika has no public way to them
    properties = getattr(implementation, "server_properties", None) or {}
    return str(properties.get("product", "the broker")), str(properties.get("version", "unknown"))


def _may_declare(connection: BlockingConnection, prefix: str) -> bool:
    """Deleting needs the permission of declaring; of a queue that is not there, it does nothing."""
    channel = connection.channel()
    try:
        nobody = f"{prefix}{secrets.token_hex(16)}"
        channel.queue_delete(nobody, if_unused=True, if_empty=True)
    except pika_errors.ChannelClosedByBroker as error:
        if error.reply_code == _NOT_ALLOWED:
            return False
        if error.reply_code != _NOT_FOUND:
            raise
    return True


def _waiting(connection: BlockingConnection, queues: Iterable[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for queue in queues:
        channel = connection.channel()
        try:
            found[queue] = int(channel.queue_declare(queue, passive=True).method.message_count)
        except pika_errors.ChannelClosedByBroker as error:
            if error.reply_code not in (_NOT_ALLOWED, _NOT_FOUND):
                raise
    return found


def _close(connection: pika.BlockingConnection) -> None:
    with contextlib.suppress(pika_errors.AMQPError):  # it is closed already
        connection.close()
