"""pika's errors, in our words: what was refused, where, and what to do about it.

`broker.rabbit.connection` and `broker.rabbit.broker` let no pika error out; they pass each through here. A URL
holds a password, so only host and port are ever named.
"""

from __future__ import annotations

from pika import exceptions as pika_errors

from broker.protocol import QueueFull, QueueMissing
from common.errors import BrokerError, BrokerLoginError
from common.tls.verification import explain_tls_error

_NOT_ALLOWED, _NOT_FOUND, _PRECONDITION_FAILED = 403, 404, 406


def describe(error: BaseException) -> str:
    """The innermost cause in a few words; pika wraps the operating system's error twice."""
    inner = _innermost(error)
    if isinstance(inner, pika_errors.ConnectionBlockedTimeout):
        return "the broker blocks publishers (memory or disk alarm)"
    if isinstance(inner, pika_errors.ConnectionClosed):
        return f"closed by the broker: {inner.reply_text}"
    if isinstance(inner, OSError):
        return inner.strerror or str(inner) or type(inner).__name__
    return str(inner) or type(inner).__name__


def connect_error(error: BaseException, where: str) -> BrokerError:
    """Why no connection could be made.

    Args:
        error: What pika raised.
        where: host:port.
    """
    inner = _innermost(error)
    if isinstance(inner, pika_errors.ProbableAuthenticationError | pika_errors.AuthenticationError):
        return BrokerLoginError(
            f"RabbitMQ at {where} refuses this user or password", "check the broker URL"
        )
    if isinstance(inner, pika_errors.ProbableAccessDeniedError):
        return BrokerError(
            f"RabbitMQ at {where} refuses this virtual host", "check the end of the broker URL"
        )
    if tls := explain_tls_error(error, "broker"):
        return BrokerError(f"RabbitMQ at {where} {tls[0]}", tls[1])
    if isinstance(inner, pika_errors.IncompatibleProtocolError | pika_errors.StreamLostError):
        return BrokerError(
            f"what listens at {where} does not answer as RabbitMQ does",
            "check the broker URL: amqps:// for a TLS port; or wait until it is ready",
        )
    return BrokerError(
        f"cannot reach RabbitMQ at {where}: {describe(error)}",
        "start it, or set the broker URL (amqp://user:password@host:port/vhost)",
    )


def channel_error(error: BaseException) -> BrokerError:
    """Why the broker refused an operation on a connection that still stands."""
    if isinstance(error, BrokerError):
        return error
    if isinstance(error, pika_errors.NackError):
        return QueueFull("the broker refused the message: the queue holds its limit of bytes")
    if isinstance(error, pika_errors.UnroutableError):
        return QueueMissing("no queue takes this message", "start the coordinator of this run")
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
