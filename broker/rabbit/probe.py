"""A probe of RabbitMQ: whether it accepts a login, its version, and the user's permissions.

Nothing is written to the server. `fccl services` uses it to wait until its RabbitMQ is ready, and
`fccl doctor` reports its result.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterable
from dataclasses import dataclass

import pika
from pika import exceptions as pika_errors
from pika.adapters.blocking_connection import BlockingConnection

from broker.protocol import BrokerBlocked
from broker.rabbit.alarm import blocked_error, watch_alarms
from broker.rabbit.errors import channel_error, connect_error
from broker.rabbit.pika_setup import make_parameters, prepare_pika
from common.errors import BrokerError, BrokerLoginError

ALARM_SECONDS = 0.5
"""Wait for the notice of an alarm, which follows the first message."""
_NOT_ALLOWED, _NOT_FOUND = 403, 404


@dataclass(frozen=True)
class ProbeResult:
    """The result of a probe.

    Attributes:
        may_declare: Whether this user may declare queues of the prefix; None without a prefix.
        queues: Number of ready messages by queue, for the queues that exist.
        alarm: Why it takes no messages from publishers; None while it does, without a prefix, and
            for a user who may not publish to the default exchange.
    """

    product: str  # normally `RabbitMQ`
    version: str
    user: str
    may_declare: bool | None
    queues: dict[str, int]
    alarm: BrokerBlocked | None = None


def probe(
    url: str,
    ca: str | None = None,
    timeout_s: float = 5.0,
    prefix: str = "",
    queues: Iterable[str] = (),
) -> ProbeResult:
    """Log in, ask for versions, permissions and queues, and log out.

    Args:
        timeout_s: Limit of each step.
        prefix: Prefix of the queues that the user wants to declare; empty to leave that out.
        queues: Names of queues to look for.

    Raises:
        BrokerError: RabbitMQ cannot be reached, or refuses.
    """
    prepare_pika()
    parameters = make_parameters(url, ca)
    parameters.socket_timeout = parameters.stack_timeout = timeout_s
    parameters.blocked_connection_timeout = timeout_s
    try:
        connection = BlockingConnection(parameters)
    except Exception as error:  # pika's own, and others that it lets through
        raise connect_error(error, f"{parameters.host}:{parameters.port}") from None
    try:
        product, version = _server(connection)
        return ProbeResult(
            product,
            version,
            str(parameters.credentials.username),
            _may_declare(connection, prefix) if prefix else None,
            _waiting(connection, queues),
            _alarm(connection, f"{parameters.host}:{parameters.port}") if prefix else None,
        )
    except (pika_errors.AMQPError, OSError) as error:
        raise channel_error(error) from None
    finally:
        _close(connection)


def login_refused(url: str, ca: str | None = None) -> bool:
    """Return whether RabbitMQ refuses the login of a URL; False if it cannot be reached."""
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
    """Return whether the user may declare queues of this prefix.

    Deleting needs the same permission, and for a queue that does not exist it does nothing.
    """
    channel = connection.channel()
    try:
        name = f"{prefix}{secrets.token_hex(16)}"
        channel.queue_delete(name, if_unused=True, if_empty=True)
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


def _alarm(connection: BlockingConnection, where: str) -> BrokerBlocked | None:
    """Return the error of publishers, if RabbitMQ is in alarm; it says so to those who publish.

    The message is for a queue that does not exist, so none is stored.
    """
    reasons: list[str] = []
    watch_alarms(connection, reasons.append, lambda: None)
    channel = connection.channel()
    channel.confirm_delivery()
    try:
        channel.basic_publish("", f"fccl.probe.{secrets.token_hex(16)}", b"", mandatory=True)
    except pika_errors.UnroutableError:  # in an alarm the first message is still taken
        connection.process_data_events(time_limit=ALARM_SECONDS)
    except pika_errors.ChannelClosedByBroker as error:
        if error.reply_code != _NOT_ALLOWED:
            raise
    except pika_errors.AMQPError:
        if not reasons:
            raise
    return blocked_error(where, reasons[0]) if reasons else None


def _close(connection: pika.BlockingConnection) -> None:
    with contextlib.suppress(pika_errors.AMQPError):  # already closed
        connection.close()
