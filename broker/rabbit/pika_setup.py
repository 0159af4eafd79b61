"""How pika is set up here: where to connect, how patiently, and what it must survive."""

from __future__ import annotations

import logging
import ssl

import pika
from pika import spec

from common.errors import BrokerError
from common.tls import verification

HEARTBEAT_SECONDS = 20
CONNECT_SECONDS = 5.0
BLOCKED_SECONDS = 30.0
"""How long a broker in alarm may hold up a publish before we connect anew."""


class _SafeProperties(pika.BasicProperties):  # type: ignore[misc]  # pika is untyped
    """Message properties whose headers may be nonsense.

    pika raises from inside its reading loop on, say, a timestamp header of the year 10^9. The
    message would kill this connection, be redelivered, and kill the next. What cannot be read is
    left out; without the sender's `user_id`, which stands after the headers, it is refused later.
    """

    def decode(self, encoded: bytes, offset: int = 0) -> pika.BasicProperties:
        """Read what can be read."""
        try:
            super().decode(encoded, offset)
        except Exception:
            self.headers: dict[str, object] = {}
        return self


def make_parameters(url: str, ca: str | None = None) -> pika.ConnectionParameters:
    """Connection settings from an amqp:// or amqps:// URL.

    Args:
        url: Where, and as whom.
        ca: Certificates (PEM) that may vouch for an amqps:// server; the system's without.

    Raises:
        BrokerError: The URL cannot be read; the message does not repeat it, it has a password.
            Or there are no certificates in `ca`.
    """
    try:
        if not url.startswith(("amqp://", "amqps://")):
            raise ValueError
        parameters = pika.URLParameters(url)
    except Exception:
        raise BrokerError(
            "the broker URL cannot be read", "write amqp://user:password@host:port/vhost"
        ) from None
    if url.startswith("amqps://"):
        parameters.ssl_options = pika.SSLOptions(verifying_context(ca), parameters.host)
    parameters.heartbeat = HEARTBEAT_SECONDS
    parameters.blocked_connection_timeout = BLOCKED_SECONDS
    parameters.socket_timeout = parameters.stack_timeout = CONNECT_SECONDS
    parameters.connection_attempts = 1
    return parameters


def verifying_context(ca: str | None) -> ssl.SSLContext:
    """What verifies a server: these certificates (PEM file), or the system's.

    Raises:
        BrokerError: No certificates can be read from the file.
    """
    try:
        return verification.verifying_context(ca)
    except OSError as error:
        raise BrokerError(*verification.explain_unreadable_ca(ca, error, "broker")) from None


def prepare_pika() -> None:
    """Make pika read hostile headers, and keep its stack traces off the user's terminal.

    A lost connection is a state that is reported and repaired, no error to print. Whoever has
    set the level of the "pika" logger keeps it.
    """
    spec.props[spec.BasicProperties.INDEX] = _SafeProperties
    logger = logging.getLogger("pika")
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.CRITICAL)
