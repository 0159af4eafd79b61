"""Settings of pika: address, time limits, and tolerance of hostile headers."""

from __future__ import annotations

import logging
import ssl

import pika
from pika import spec

from common.errors import BrokerError
from common.tls import verification
from common.urls import BROKER, UrlError, parse_url

HEARTBEAT_SECONDS = 20
CONNECT_SECONDS = 5.0
BLOCKED_SECONDS = 30.0
"""How long a broker in alarm may block a publish before the connection is made again."""


class _SafeProperties(pika.BasicProperties):  # type: ignore[misc]  # pika is untyped
    """Message properties whose headers may be malformed.

    pika raises from within its reading loop on, for example, a timestamp header of the year 10^9.
    The message would kill this connection, be redelivered, and kill the next. Headers that cannot
    be read are left out; the message is then refused later, because the sender's `user_id`, which
    comes after the headers, is missing.
    """

    def decode(self, encoded: bytes, offset: int = 0) -> pika.BasicProperties:
        """Decode as much as possible."""
        try:
            super().decode(encoded, offset)
        except Exception:
            self.headers: dict[str, object] = {}
        return self


def make_parameters(url: str, ca: str | None = None) -> pika.ConnectionParameters:
    """Return connection settings for an amqp:// or amqps:// URL.

    Certificates in the file `ca` verify an amqps:// server; None uses the system's.

    Raises:
        BrokerError: There are no certificates in `ca`, or the URL cannot be read. The message does
            not repeat the URL, which has a password.
    """
    try:
        server = parse_url(url, BROKER)
    except UrlError as error:
        raise BrokerError(f"broker.url {error.what}", error.remedy) from None
    try:
        parameters = pika.URLParameters(url)
    except Exception:  # its text may repeat the password
        raise BrokerError(
            "broker.url has an option after its ? with a value that pika refuses",
            f"write {BROKER.example}",
        ) from None
    if server.scheme == "amqps":
        parameters.ssl_options = pika.SSLOptions(verifying_context(ca), server.host)
    parameters.heartbeat = HEARTBEAT_SECONDS
    parameters.blocked_connection_timeout = BLOCKED_SECONDS
    parameters.socket_timeout = parameters.stack_timeout = CONNECT_SECONDS
    parameters.connection_attempts = 1
    return parameters


def verifying_context(ca: str | None) -> ssl.SSLContext:
    """Return a context that verifies servers by `ca`; raise `BrokerError` for a bad file."""
    try:
        return verification.verifying_context(ca)
    except OSError as error:
        raise BrokerError(*verification.explain_unreadable_ca(ca, error, "broker")) from None


def prepare_pika() -> None:
    """Make pika tolerate hostile headers, and keep its stack traces off the user's terminal.

    A lost connection is reported as a status and repaired; it is not an error to print. A level
    that the "pika" logger already has is kept.
    """
    spec.props[spec.BasicProperties.INDEX] = _SafeProperties
    logger = logging.getLogger("pika")
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.CRITICAL)
