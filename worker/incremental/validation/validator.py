"""External validator: a command or a URL that may veto what was learned from users.

It receives a `ValidationRequest` as JSON (figures, and the model's answers to a few items before
and after) and answers `{"accept": true}` or `{"accept": false, "reason": "…"}`. Anything else (no
answer in time, a crash, an unreadable answer) means *not accepted*: a broken validator must not let
pass what a working one would have stopped.

`training/trainer.py` calls it after the gate, through `background`. The samples are user text: they
are sent to the validator, and are part of no reason of ours, which other machines show.
"""

from __future__ import annotations

import json
import shlex
import shutil
from dataclasses import asdict, dataclass
from enum import Enum
from threading import Event
from typing import Any

from common.document.files import replace_non_finite
from common.errors import ConfigError
from common.protocol.fields import RowKind
from common.text import one_line
from common.urls import HTTP_ANY, UrlError, parse_url
from learning.evaluation.measurement import Measurement
from worker.incremental.validation import command
from worker.incremental.validation.errors import ValidatorError
from worker.incremental.validation.http import post

FORMAT = 1
MAX_REASON = 300
_KEY = "incremental.validator"


@dataclass(frozen=True)
class ValidationSample:
    """Item with the expected answer and the model's answers before and after learning."""

    input: str
    expected: str
    before: str
    after: str
    rating: str | None = None  # of the expected answer: good, bad


@dataclass(frozen=True)
class ValidationRequest:
    """Facts about a batch that the gate has accepted; the JSON format of docs/incremental.md.

    The measurements and the norm are those of `training/gate.py`.
    """

    client_id: str
    kind: RowKind
    task: str
    items: int  # including those that are held out
    new_before: Measurement
    new_after: Measurement
    anchor_before: Measurement | None
    anchor_after: Measurement | None
    norm: float
    samples: tuple[ValidationSample, ...] = ()

    def fields(self) -> dict[str, Any]:
        """Return values for JSON; a number that is not finite becomes None."""
        values: dict[str, Any] = replace_non_finite({"format": FORMAT, **asdict(self)})
        return values


class VerdictKind(Enum):
    """Outcome of a request; anything but ACCEPTED rejects the batch."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"  # the validator answered no
    FAILED = "failed"  # there was no usable answer


@dataclass(frozen=True)
class ValidatorVerdict:
    """Verdict of the validator; the reason is one line of printable text."""

    kind: VerdictKind
    reason: str

    @property
    def accepted(self) -> bool:
        return self.kind is VerdictKind.ACCEPTED


def check_spec(spec: str) -> None:
    """Check the value of `incremental.validator` when a worker starts; empty means no validator.

    A server is not contacted, since one that is down now may be up later.

    Raises:
        ConfigError: The value is neither a command on this machine nor an http(s) URL.
    """
    if not spec.strip():
        return
    if _is_url(spec):
        _check_url(spec)
        return
    program = _words(spec)[0]
    if shutil.which(program) is None:
        raise ConfigError(
            f"{_KEY}: command {one_line(program)[:80]} not found",
            "install it, or give the path of an executable file",
        )


def ask_validator(
    spec: str, request: ValidationRequest, timeout_s: float, stop: Event | None = None
) -> ValidatorVerdict:
    """Ask the validator and wait for its verdict; any fault of it is a verdict, too.

    `stop` cancels the request, and ends a command, when it is set.
    """
    data, stop = json.dumps(request.fields()).encode(), stop or Event()
    try:
        answer = (
            post(spec.strip(), data, timeout_s, stop)
            if _is_url(spec)
            else command.run(_words(spec), data, timeout_s, stop)
        )
        return _parse(answer)
    except ValidatorError as error:
        return ValidatorVerdict(VerdictKind.FAILED, f"the validator {error}")
    except ConfigError as error:
        return ValidatorVerdict(VerdictKind.FAILED, str(error))


def _parse(answer: bytes) -> ValidatorVerdict:
    try:
        values = json.loads(answer)
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict) or not isinstance(values.get("accept"), bool):
        raise ValidatorError('did not answer {"accept": true or false, "reason": "…"}')
    text = values.get("reason")
    reason = " ".join(one_line(text).split())[:MAX_REASON] if isinstance(text, str) else ""
    if values["accept"]:
        return ValidatorVerdict(VerdictKind.ACCEPTED, reason)
    reason = f"the validator rejected it: {reason or 'no reason given'}"
    return ValidatorVerdict(VerdictKind.REJECTED, reason)


def _is_url(spec: str) -> bool:
    return "://" in (spec.split() or [""])[0]


def _check_url(spec: str) -> None:
    try:
        parse_url(spec.strip(), HTTP_ANY)
    except UrlError as error:
        raise ConfigError(f"{_KEY} {error.what}", error.remedy) from None


def _words(spec: str) -> list[str]:
    try:
        words = shlex.split(spec)
    except ValueError as error:
        raise ConfigError(f"{_KEY} cannot be parsed ({error})", "quote it as for a shell") from None
    if not words or not words[0]:
        raise ConfigError(f"{_KEY} names no command", "give a command or a URL")
    return words
