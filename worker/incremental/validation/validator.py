"""An external validator: a command, or a URL, that may veto what was learned from users.

It gets a `ValidationRequest` as JSON (figures, and what the model said of a few items before and after) and
answers `{"accept": true}` or `{"accept": false, "reason": "…"}`. Whatever else happens (no answer
in time, a crash, an answer that cannot be read) means *not accepted*: a broken validator must not
let pass what a working one would have stopped. After the gate on an item's way; `tutor`
asks, through `verdicts`.

The samples are user text. They go to the command's standard input or into the body of the request,
and into no reason of ours: reasons are shown on other machines.
"""

from __future__ import annotations

import json
import math
import shlex
import shutil
from dataclasses import asdict, dataclass
from threading import Event as Flag
from typing import Any

import httpx

from common.errors import ConfigError
from common.protocol.fields import RowKind, one_line
from learning.evaluation.measurement import Measurement
from worker.incremental.validation import command
from worker.incremental.validation.errors import NEVER, ValidatorError
from worker.incremental.validation.http import post

FORMAT = 1
MAX_REASON = 300
_KEY = "incremental.validator"


@dataclass(frozen=True)
class ValidationSample:
    """An item, what was expected, and what the model said before and after it learned."""

    input: str
    expected: str
    before: str
    after: str


@dataclass(frozen=True)
class ValidationRequest:
    """What a validator is told.

    Attributes:
        client_id: Whose model.
        kind: Of the items.
        task: The stream that they belong to.
        items: How many of them there are, those that only measure included.
        new_before: On new items, by the model as it was.
        new_after: The same by the model that has learned.
        anchor_before: On what the model could before; None where there is nothing to measure by.
        anchor_after: The same by the model that has learned.
        norm: L2 norm of all that was learned here and is not in the global version.
        samples: A few of the items.
    """

    client_id: str
    kind: RowKind
    task: str
    items: int
    new_before: Measurement
    new_after: Measurement
    anchor_before: Measurement | None
    anchor_after: Measurement | None
    norm: float
    samples: tuple[ValidationSample, ...] = ()

    def fields(self) -> dict[str, Any]:
        """Plain maps for JSON, in which a number that is not finite is null."""
        return {name: _finite(value) for name, value in {"format": FORMAT, **asdict(self)}.items()}


@dataclass(frozen=True)
class ValidatorVerdict:
    """Whether what was learned may be kept; the reason is one line of printable text."""

    accepted: bool
    reason: str


def check_spec(spec: str) -> None:
    """Refuse, when a worker starts, what can be no validator; an empty one is none at all.

    A server is not asked: one that does not answer now may do so later.

    Raises:
        ConfigError: It is neither a command on this machine nor an http(s) URL.
    """
    if not spec.strip():
        return
    if _is_url(spec):
        _check_url(spec)
        return
    program = _words(spec)[0]
    if shutil.which(program) is None:
        raise ConfigError(
            f"{_KEY}: there is no command {one_line(program)[:80]}",
            "install it or give its path; its file must be executable",
        )


def ask_validator(
    spec: str, case: ValidationRequest, timeout_s: float, stop: Flag = NEVER
) -> ValidatorVerdict:
    """Ask the validator, and wait.

    Args:
        spec: Of `incremental.validator`.
        case: What it is about.
        timeout_s: In which all of it must be done.
        stop: Wait no longer; whatever was asked is ended.

    Returns:
        Its verdict; *not accepted* for any fault of the validator, which is then the reason.
    """
    asked = json.dumps(case.fields()).encode()
    try:
        answer = (
            post(spec.strip(), asked, timeout_s, stop)
            if _is_url(spec)
            else command.run(_words(spec), asked, timeout_s, stop)
        )
        return _read(answer)
    except ValidatorError as fault:
        return ValidatorVerdict(False, f"the validator {fault}")
    except ConfigError as error:
        return ValidatorVerdict(False, str(error))


def _read(answer: bytes) -> ValidatorVerdict:
    try:
        found = json.loads(answer)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not isinstance(found.get("accept"), bool):
        raise ValidatorError('did not answer {"accept": true or false, "reason": "…"}')
    stated = found.get("reason")
    reason = " ".join(one_line(stated).split())[:MAX_REASON] if isinstance(stated, str) else ""
    if found["accept"]:
        return ValidatorVerdict(True, reason)
    return ValidatorVerdict(False, f"the validator says no: {reason or 'it gives no reason'}")


def _is_url(spec: str) -> bool:
    return "://" in (spec.split() or [""])[0]


def _check_url(spec: str) -> None:
    remedy = "give one such as http://127.0.0.1:8080/check"
    try:
        url = httpx.URL(spec.strip())
    except (httpx.InvalidURL, ValueError):
        raise ConfigError(f"{_KEY} is no URL", remedy) from None
    if url.scheme not in ("http", "https") or not url.host:
        raise ConfigError(f"{_KEY} is no http or https URL", remedy)


def _words(spec: str) -> list[str]:
    """Program and arguments.

    Raises:
        ConfigError: A quotation mark is open, or there is no word.
    """
    try:
        words = shlex.split(spec)
    except ValueError as error:
        raise ConfigError(f"{_KEY} is no command ({error})", "quote it as for a shell") from None
    if not words or not words[0]:
        raise ConfigError(f"{_KEY} names no command", "give a command or a URL")
    return words


def _finite(value: Any) -> Any:
    match value:
        case dict():
            return {key: _finite(each) for key, each in value.items()}
        case float() if not math.isfinite(value):
            return None
    return value
