"""Translation of pika's errors: what was refused, where, and what to do about it.

`broker.rabbit.connection` and `broker.rabbit.probe` let no pika error through; each passes here.
A URL holds a password, so messages name only host and port.
"""

from __future__ import annotations

from pika import exceptions as pika_errors

from broker.protocol import QueueFull, QueueMissing
from common.errors import BrokerError, BrokerLoginError
from common.tls.verification import explain_tls_error

_NOT_ALLOWED, _NOT_FOUND, _PRECONDITION_FAILED = 403, 404, 406


def describe(error: BaseException) -> str:
    """Return the innermost cause in a few words; pika wraps the system's errors twice."""
    inner = _innermost(error)
    if isinstance(inner, pika_errors.ConnectionBlockedTimeout):
        return "RabbitMQ refuses publishers (memory or disk alarm)"
    if isinstance(inner, pika_errors.ConnectionClosed):
        return f"closed by the broker: {inner.reply_text}"
    if isinstance(inner, OSError):
        return inner.strerror or str(inner) or type(inner).__name__
    return str(inner) or type(inner).__name__


def connect_error(error: BaseException, where: str) -> BrokerError:
    """Return the error for a connection to `where` (host:port) that could not be made."""
    inner = _innermost(error)
    if isinstance(inner, pika_errors.ProbableAuthenticationError | pika_errors.AuthenticationError):
        return BrokerLoginError(
            f"RabbitMQ at {where} refuses this user or password",
            "check user and password in broker.url",
        )
    if isinstance(inner, pika_errors.ProbableAccessDeniedError):
        return BrokerError(
            f"RabbitMQ at {where} refuses this virtual host",
            "check the last part of broker.url, which names it",
        )
    if tls := explain_tls_error(error, "broker"):
        return BrokerError(f"RabbitMQ at {where} {tls[0]}", tls[1])
    if isinstance(inner, pika_errors.IncompatibleProtocolError | pika_errors.StreamLostError):
        return BrokerError(
            f"the server at {where} does not answer like RabbitMQ",
            "check broker.url (amqps:// for a TLS port), or wait until RabbitMQ has started",
        )
    return BrokerError(
        f"cannot reach RabbitMQ at {where}: {describe(error)}",
        "start it, or set broker.url to amqp://user:password@host:port/vhost",
    )


def channel_error(error: BaseException) -> BrokerError:
    """Return the error for an operation that the broker refused, on an open connection."""
    if isinstance(error, BrokerError):
        return error
    if isinstance(error, pika_errors.NackError):
        return QueueFull("the broker refused the message: the queue is at its limit of bytes")
    if isinstance(error, pika_errors.UnroutableError):
        return QueueMissing(
            "no queue is bound for this message", "start the coordinator of this run"
        )
    if not isinstance(error, pika_errors.ChannelClosedByBroker):
        return BrokerError(f"RabbitMQ operation failed: {describe(error)}")
    if error.reply_code == _NOT_FOUND:
        return QueueMissing(error.reply_text, "start the coordinator of this run")
    remedies = {
        _NOT_ALLOWED: "give this user permission on this run's queues",
        _PRECONDITION_FAILED: "keep the run's settings, or start a new run",
    }
    return BrokerError(f"RabbitMQ refused: {error.reply_text}", remedies.get(error.reply_code, ""))


def _innermost(error: BaseException) -> BaseException:
    while True:
        wrapped = getattr(error, "exception", None) or (error.args[0] if error.args else None)
        if not isinstance(wrapped, BaseException):
            return error
        error = wrapped
