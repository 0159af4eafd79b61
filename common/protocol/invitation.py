"""The join token: everything that another machine needs to take part, in one line of text.

    fccl2.<base64url of JSON>.<first 8 hex digits of its SHA-256>

Format 1, of the releases before `kinds` and `labels`, is the same without these fields; a token
without them is written in it. An earlier release refuses format 2, and says which software to
install.

A token is a secret. The password in it can only be used to ask, once, that the site may join; the
worker then makes its own credentials, and only their hashes leave its machine
(`worker/site/identity.py`, `coordinator/sites/credentials.py`).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from common.errors import JoinError
from common.protocol.fields import (
    ClassNames,
    Record,
    RowKind,
    RunName,
    Seconds,
    Sha256,
    ShortText,
    list_to_tuple,
)
from common.protocol.naming import SiteName
from common.protocol.wire import explain
from common.urls import SITE_BROKER, SITE_STORE, UrlKind, parse_url

TOKEN_PREFIX = "fccl"  # noqa: S105 - no secret
TOKEN_FORMATS = (1, 2)
"""Formats that this release reads."""
MAX_TOKEN = 16 * 1024
PROTOCOL = 1
"""Version of the whole protocol of coordinator and workers; both must have the same."""

MAX_LABELS = 4 * 1024
"""Bytes of the labels that a token may carry; without them it is some 1,500 characters long."""

RowKinds = Annotated[
    tuple[RowKind, ...], Field(min_length=1, max_length=10), BeforeValidator(list_to_tuple)
]
TokenId = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]


def _check_url(kind: UrlKind) -> Callable[[str], str]:
    def check(text: str) -> str:
        if parse_url(text, kind).user is not None:
            raise ValueError("must have no user")
        return text

    return check


class Invitation(Record):
    """The content of a token.

    Attributes:
        name: Name of the runs in which the site takes part.
        ca: Certificates (PEM) to verify both servers with; None uses the system's.
        secret: Password of the store's user who asks to join.
        expires_at: On the coordinator's clock.
        kinds: The kinds of rows that the runs learn from; None in format 1.
        labels: Classes of runs that classify, where they are known and not too many for a token.
    """

    token_id: TokenId
    site: SiteName
    name: RunName
    broker: Annotated[str, Field(max_length=500), AfterValidator(_check_url(SITE_BROKER))]
    store: Annotated[str, Field(max_length=500), AfterValidator(_check_url(SITE_STORE))]
    ca: Annotated[str, Field(max_length=8192)] | None = None
    secret: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{43}$")]
    expires_at: Seconds
    kinds: RowKinds | None = None
    labels: Annotated[ClassNames, BeforeValidator(list_to_tuple)] | None = None

    @property
    def token_format(self) -> int:
        """The lowest format that has all fields of the invitation."""
        return 1 if self.kinds is None and self.labels is None else 2


class _HandshakeMessage(BaseModel):
    """A message of the handshake; JSON, so that a later version can still read and refuse it."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class JoinRequest(_HandshakeMessage):
    """Worker → coordinator, once: the hashes of the worker's new password, for both servers."""

    broker_hash: Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]{48}$")]
    store_hash: Sha256
    host: ShortText = ""
    software: ShortText = ""
    protocol: int


class JoinAnswer(_HandshakeMessage):
    """Coordinator → worker; `request` is the SHA-256 of the request that was admitted."""

    state: Literal["admitted", "refused", "expired", "revoked"]
    request: str = ""
    reason: ShortText = ""


def new_secret() -> str:
    """Return a password of 256 random bits."""
    return secrets.token_urlsafe(32)


def store_hash(password: str) -> str:
    """Return the SHA-256 of a password in hex, as Redis stores it."""
    return hashlib.sha256(password.encode()).hexdigest()


def broker_hash(password: str) -> str:
    """Return the hash of a password as RabbitMQ stores it.

    It is base64(salt ‖ SHA-256(salt ‖ password)), with 4 bytes of salt.
    """
    salt = secrets.token_bytes(4)
    digest = hashlib.sha256(salt + password.encode()).digest()
    return base64.b64encode(salt + digest).decode()


def encode(invitation: Invitation) -> str:
    """Return the token of an invitation, in the lowest format that has all of its fields."""
    text = invitation.model_dump_json(exclude_none=True)
    body = base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")
    return f"{TOKEN_PREFIX}{invitation.token_format}.{body}.{_checksum(body)}"


def short_labels(labels: tuple[str, ...]) -> tuple[str, ...] | None:
    """Return the labels for a token; None if there are none, or they would make it too long."""
    size = sum(len(label.encode()) + 3 for label in labels)  # with quotation marks and a comma
    return labels if labels and size <= MAX_LABELS else None


def decode(token: str, now: float) -> Invitation:
    """Return the invitation in a token; white space in the token is ignored.

    Raises:
        JoinError: The text is not a token, or the token has another version, is cut short or
            damaged, or has expired.
    """
    text = "".join(token.split())
    if not (text.isascii() and text.isprintable()):
        raise JoinError("this is not a join token of fccl", "paste the output of `fccl invite`")
    mark, *parts = text.split(".")
    if (
        len(text) > MAX_TOKEN
        or not mark.startswith(TOKEN_PREFIX)
        or not mark[len(TOKEN_PREFIX) :].isdigit()
    ):
        raise JoinError("this is not a join token of fccl", "paste the output of `fccl invite`")
    if mark not in [f"{TOKEN_PREFIX}{number}" for number in TOKEN_FORMATS]:
        raise JoinError(
            f"the join token has format {mark[len(TOKEN_PREFIX) :][:9]}, "
            f"this fccl reads formats 1 to {TOKEN_FORMATS[-1]}",
            "install the version of fccl that the coordinator runs",
        )
    if len(parts) != 2 or parts[1] != _checksum(parts[0]):
        raise JoinError(
            f"the join token is cut short or was changed ({len(text)} characters)",
            "copy it whole, or ask for a new one",
        )
    invitation = _parsed(parts[0])
    if now >= invitation.expires_at:
        expired = format_time(invitation.expires_at)
        raise JoinError(
            f"the join token of site {invitation.site} expired on {expired}",
            f"ask for a new one (`fccl invite {invitation.site} --again`), or set this machine's"
            " clock right",
        )
    return invitation


def format_time(at: float) -> str:
    """Return a time in UTC, for people."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _parsed(body: str) -> Invitation:
    try:
        raw = base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))
        return Invitation.model_validate_json(raw)
    except (binascii.Error, ValueError) as error:
        why = explain(error) if isinstance(error, ValidationError) else type(error).__name__
        raise JoinError(f"the join token cannot be read ({why})", "ask for a new one") from None


def _checksum(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()[:8]
