"""The endpoint of a worker: applications of this machine tell clients' models something over HTTP.

    POST /learn[?client=NAME][&task=NAME]   an item, an array of items, or a line of JSON for each
    GET  /inbox[?client=NAME]               how many items are in which state

Both want `Authorization: Bearer TOKEN` (`worker/incremental/http/token.py`). It listens on loopback, and
refuses what a web page of a browser on this machine could send: a request with an `Origin`, or for
another host's name. What `listener` reads is answered here, by functions of the request alone and
of what is on the disk; nothing of it is kept in memory, and nothing of a text is told or logged.
"""

from __future__ import annotations

import hmac
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, parse_qsl, urlsplit

from common.config.config import IncrementalConfig
from common.errors import DataError
from worker.incremental.inbox import items, schema
from worker.incremental.inbox.inbox import (
    STATES,
    BatchTooLarge,
    Inbox,
    InboxFull,
    PutResult,
    RateLimited,
)
from worker.incremental.inbox.item_parser import ItemParser, max_json_bytes, parse_json
from worker.incremental.inbox.items import Item
from worker.incremental.inbox.schema import DiskFull, InboxBusy
from worker.incremental.serving import served_run

LOCALHOST = ("127.0.0.1", "localhost", "[::1]")
METHODS: Mapping[str, str] = {"/learn": "POST", "/inbox": "GET"}
QUERIES: Mapping[str, frozenset[str]] = {
    "/learn": frozenset({"client", "task"}),
    "/inbox": frozenset({"client"}),
}
MANY = 1024 * 1024  # bytes of a request, beside its one item of full length
FULL_S = 5  # until a full inbox may have room
BUSY_S = 1
LINES = ("application/x-ndjson", "application/jsonl", "application/jsonlines")


@dataclass(frozen=True)
class Request:
    """What was asked, without its body.

    Attributes:
        method: In capitals.
        target: Path and query.
        headers: By name in small letters; one that came twice is joined by a comma.
    """

    method: str
    target: str
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Response:
    """What is said of it, as JSON."""

    status: HTTPStatus
    body: Mapping[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)


class HttpError(Exception):
    """A request that is not served."""

    def __init__(self, status: HTTPStatus, why: str, **headers: str) -> None:
        self.answer = Response(
            status, {"error": why}, {name.replace("_", "-"): text for name, text in headers.items()}
        )
        super().__init__(why)


class Endpoint:
    """Of one state directory. Methods may be called from any thread."""

    def __init__(self, state: Path, limits: IncrementalConfig, token: str) -> None:
        """Nothing is asked yet.

        Args:
            state: The worker's state directory.
            limits: How much its inboxes take.
            token: That a request must bring.
        """
        self._state, self._limits = state, limits
        self._token = token.encode()
        self.max_body = MANY + max_json_bytes(limits)

    def length(self, request: Request) -> int:
        """How many bytes of a body to read; 0 for none. Checks all but the body.

        Raises:
            Refusal: It is not served, whatever the body is.
        """
        self._check_door(request)
        path = _parts(request).path
        if path not in METHODS:
            raise HttpError(HTTPStatus.NOT_FOUND, f"there are {' and '.join(METHODS)}")
        if request.method != METHODS[path]:
            raise HttpError(
                HTTPStatus.METHOD_NOT_ALLOWED, f"{path} takes {METHODS[path]}", Allow=METHODS[path]
            )
        self._query(request)
        return self._length(request) if request.method == "POST" else 0

    def answer(self, request: Request, body: bytes) -> Response:
        """The answer to a request that `length` has passed.

        Raises:
            Refusal: It is not served.
        """
        query = self._query(request)
        told = self._served()
        clients = self._clients(told, query.get("client"))
        try:
            if request.method == "GET":
                return Response(HTTPStatus.OK, {name: self._counts(name) for name in clients})
            if len(clients) != 1:
                raise HttpError(
                    HTTPStatus.BAD_REQUEST,
                    f"choose one with ?client=: {items.listed(told.clients)}",
                )
            intake = ItemParser(self._limits, told, query.get("task", items.TASK))
            return self._learn(intake, clients[0], _records(body, _type(request)))
        except BatchTooLarge as error:
            raise HttpError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, str(error)) from None
        except RateLimited as error:
            wait = str(max(1, math.ceil(error.wait_s)))
            raise HttpError(HTTPStatus.TOO_MANY_REQUESTS, str(error), Retry_After=wait) from None
        except InboxFull as error:
            wait = str(FULL_S)
            raise HttpError(HTTPStatus.SERVICE_UNAVAILABLE, str(error), Retry_After=wait) from None
        except DiskFull as error:
            raise HttpError(HTTPStatus.INSUFFICIENT_STORAGE, str(error)) from None
        except InboxBusy as error:
            wait = str(BUSY_S)
            raise HttpError(HTTPStatus.SERVICE_UNAVAILABLE, str(error), Retry_After=wait) from None
        except DataError as error:  # of the file; what an item lacks is told of that item
            raise HttpError(HTTPStatus.SERVICE_UNAVAILABLE, str(error)) from None

    # who may come in

    def _check_door(self, request: Request) -> None:
        host = request.headers.get("host", "")
        name, _, port = host.rpartition(":")
        if not (port.isascii() and port.isdigit() and name):
            name = host
        if name.lower() not in LOCALHOST:  # a name of somebody else's that leads here
            raise HttpError(HTTPStatus.FORBIDDEN, f"Host must be one of {', '.join(LOCALHOST)}")
        if "origin" in request.headers:
            raise HttpError(HTTPStatus.FORBIDDEN, "web pages are not served (Origin)")
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        known = hmac.compare_digest(token.strip().encode("utf-8", "replace"), self._token)
        if scheme.lower() != "bearer" or not known:
            raise HttpError(
                HTTPStatus.UNAUTHORIZED,
                "the token is missing, or another: Authorization: Bearer TOKEN",
                WWW_Authenticate="Bearer",
            )

    def _length(self, request: Request) -> int:
        text = request.headers.get("content-length", "")
        if not text or "transfer-encoding" in request.headers:
            raise HttpError(HTTPStatus.LENGTH_REQUIRED, "Content-Length is missing")
        if not (text.isascii() and text.isdigit()):
            raise HttpError(HTTPStatus.BAD_REQUEST, "Content-Length is no number")
        if len(text) > 15 or int(text) > self.max_body:
            raise HttpError(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"the body has more than {self.max_body} bytes: send fewer items at a time",
            )
        return int(text)

    def _query(self, request: Request) -> dict[str, str]:
        parts = _parts(request)
        try:
            pairs = parse_qsl(parts.query, keep_blank_values=True, max_num_fields=10)
        except ValueError:
            raise HttpError(HTTPStatus.BAD_REQUEST, "the query has too many parts") from None
        wanted = QUERIES[parts.path]
        if len(dict(pairs)) != len(pairs) or not wanted.issuperset(name for name, _ in pairs):
            known = " and ".join(sorted(wanted))
            raise HttpError(HTTPStatus.BAD_REQUEST, f"the query may have {known}, each once")
        query = dict(pairs)
        try:
            items.check_task(query.get("task", items.TASK))
        except DataError as error:
            raise HttpError(HTTPStatus.BAD_REQUEST, str(error)) from None
        return query

    # what is done

    def _served(self) -> served_run.ServedRun:
        try:
            told = served_run.read(self._state)
        except DataError as error:
            raise HttpError(HTTPStatus.SERVICE_UNAVAILABLE, str(error)) from None
        if told is None:
            wait = str(FULL_S)
            why = "the worker waits for its run: it serves no client yet"
            raise HttpError(HTTPStatus.SERVICE_UNAVAILABLE, why, Retry_After=wait)
        return told

    def _clients(self, told: served_run.ServedRun, client: str | None) -> tuple[str, ...]:
        if client is None:
            return told.clients
        if client not in told.clients:
            raise HttpError(
                HTTPStatus.NOT_FOUND,
                f"the worker serves no such client; it serves {items.listed(told.clients)}",
            )
        return (client,)

    def _counts(self, client: str) -> dict[str, int]:
        path = schema.inbox_path(self._state, client)
        if not path.exists():
            return dict.fromkeys(STATES, 0)
        with Inbox(path, self._limits) as inbox:
            return inbox.counts()

    def _learn(self, intake: ItemParser, client: str, records: Sequence[object]) -> Response:
        read = [_read(intake, record) for record in records]
        found = [one for one in read if isinstance(one, Item)]
        taken: tuple[PutResult, ...] = ()
        if found:
            with Inbox(schema.inbox_path(self._state, client), self._limits) as inbox:
                taken = inbox.put_each(found, "http")
        rest = iter(taken)
        told = [_told(next(rest) if isinstance(one, Item) else one) for one in read]
        counts = {state: sum(one["state"] == state for one in told) for state in COUNTED}
        status = HTTPStatus.MULTI_STATUS if counts["refused"] else HTTPStatus.OK
        if counts["refused"] == len(told):
            status = HTTPStatus.BAD_REQUEST
        return Response(status, {"client": client, **counts, "items": told})


COUNTED = ("accepted", "duplicate", "refused")


def _parts(request: Request) -> SplitResult:
    try:
        return urlsplit(request.target)
    except ValueError:
        raise HttpError(HTTPStatus.BAD_REQUEST, "the path is none") from None


def _records(body: bytes, content: str) -> Sequence[object]:
    """The items of a body: JSON, or lines of JSON; an error stands for a line that is none.

    Raises:
        Refusal: The body is neither.
    """
    lines = [line for line in body.splitlines() if line.strip()]
    if content in LINES:
        found: object = [_line(line) for line in lines]
    else:
        try:
            found = parse_json(body)
        except DataError as error:
            if len(lines) < 2:
                raise HttpError(HTTPStatus.BAD_REQUEST, str(error)) from None
            found = [_line(line) for line in lines]
            if all(isinstance(line, DataError) for line in found):
                raise HttpError(HTTPStatus.BAD_REQUEST, str(error)) from None
    if isinstance(found, Mapping):
        return [found]
    if not isinstance(found, list) or not found:
        why = "give an item (a JSON object), an array of items, or a line of JSON for each"
        raise HttpError(HTTPStatus.BAD_REQUEST, why)
    return found


def _line(data: bytes) -> object:
    try:
        return parse_json(data)
    except DataError as error:
        return error


def _read(intake: ItemParser, record: object) -> Item | DataError:
    if isinstance(record, DataError):
        return record
    try:
        return intake.item(record)
    except DataError as error:
        return error


def _told(found: PutResult | DataError) -> dict[str, str]:
    if isinstance(found, DataError):
        return {"state": "refused", "reason": str(found)}
    if found.new:
        return {"state": "accepted"}
    return {"state": "duplicate"} | ({"reason": "it was rejected before"} if found.rejected else {})


def _type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def encoded(answer: Response) -> bytes:
    """The body of an answer."""
    return json.dumps(dict(answer.body)).encode() + b"\n"
