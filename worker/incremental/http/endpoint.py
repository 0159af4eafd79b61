"""HTTP endpoint of a worker, through which applications of this machine add items to inboxes.

    POST /learn[?client=NAME][&task=NAME]   an item, an array of items, or a line of JSON for each
    GET  /inbox[?client=NAME]               number of items in each state

Both require `Authorization: Bearer TOKEN` (`worker/incremental/http/token.py`). The endpoint is
bound to loopback, and refuses what a web page in a browser of this machine could send: requests
with an `Origin`, or for the name of another host.

`listener` reads the requests. A response depends only on the request and on what is on the disk; no
text is logged or part of an error.
"""

from __future__ import annotations

import hmac
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any, get_args
from urllib.parse import SplitResult, parse_qsl, urlsplit

from common.config.config import IncrementalConfig
from common.errors import DataError
from common.operations.http_server import LOOPBACK_NAMES, host_name
from worker.incremental.inbox import items, schema
from worker.incremental.inbox.inbox import (
    BatchTooLarge,
    Inbox,
    InboxFull,
    PutResult,
    RateLimited,
    ResultState,
    item_results,
)
from worker.incremental.inbox.item_parser import ItemParser, max_json_bytes, parse_json
from worker.incremental.inbox.items import Item
from worker.incremental.inbox.schema import ITEM_STATES, DiskFull, InboxBusy
from worker.incremental.serving import served_run
from worker.incremental.serving.served_run import ServedRun

METHODS: Mapping[str, str] = {"/learn": "POST", "/inbox": "GET"}
QUERIES: Mapping[str, frozenset[str]] = {
    "/learn": frozenset({"client", "task"}),
    "/inbox": frozenset({"client"}),
}
BODY_BYTES = 1024 * 1024  # of a request, in addition to one item of full length
FULL_S = 5  # Retry-After of a full inbox
BUSY_S = 1  # Retry-After of a locked inbox
JSON_LINES = ("application/x-ndjson", "application/jsonl", "application/jsonlines")


@dataclass(frozen=True)
class Request:
    """Request without its body."""

    method: str  # in upper case
    target: str  # path and query
    headers: Mapping[str, str]  # by name in lower case; repeated ones are joined by commas


@dataclass(frozen=True)
class Response:
    """Response, with a body that is sent as JSON."""

    status: HTTPStatus
    body: Mapping[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)


class HttpError(Exception):
    """Error response to a request; nothing was stored."""

    def __init__(self, status: HTTPStatus, reason: str, **headers: str) -> None:
        named = {name.replace("_", "-"): text for name, text in headers.items()}
        self.response = Response(status, {"error": reason}, named)
        super().__init__(reason)


class Endpoint:
    """Endpoint of one state directory. Methods may be called from any thread."""

    def __init__(self, state: Path, limits: IncrementalConfig, token: str) -> None:
        self._state, self._limits = state, limits
        self._token = token.encode()
        self.max_body = BODY_BYTES + max_json_bytes(limits)

    def body_length(self, request: Request) -> int:
        """Check everything but the body, and return the number of bytes of the body to read.

        Raises:
            HttpError: The request is refused, whatever its body.
        """
        self._check_access(request)
        path = _parts(request).path
        if path not in METHODS:
            raise HttpError(HTTPStatus.NOT_FOUND, f"use {' or '.join(METHODS)}")
        if request.method != METHODS[path]:
            raise HttpError(
                HTTPStatus.METHOD_NOT_ALLOWED, f"{path} takes {METHODS[path]}", Allow=METHODS[path]
            )
        self._query(request)
        return self._content_length(request) if request.method == "POST" else 0

    def respond(self, request: Request, body: bytes) -> Response:
        """Return the response to a request that `body_length` has accepted."""
        query = self._query(request)
        served = self._served()
        clients = self._clients(served, query.get("client"))
        try:
            if request.method == "GET":
                return Response(HTTPStatus.OK, {name: self._counts(name) for name in clients})
            if len(clients) != 1:
                raise HttpError(
                    HTTPStatus.BAD_REQUEST,
                    f"name one with ?client=: {items.name_list(served.clients)}",
                )
            parser = ItemParser(self._limits, served, query.get("task", items.DEFAULT_TASK))
            content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
            return self._store(parser, clients[0], _records(body, content_type))
        except DataError as error:  # of the file; faults of an item are part of its own result
            raise _http_error(error) from None

    def _check_access(self, request: Request) -> None:
        # A foreign name may resolve to this machine.
        if host_name(request.headers.get("host", "")) not in LOOPBACK_NAMES:
            names = ", ".join(LOOPBACK_NAMES)
            raise HttpError(HTTPStatus.FORBIDDEN, f"Host must be one of {names}")
        if "origin" in request.headers:
            raise HttpError(HTTPStatus.FORBIDDEN, "requests of web pages are refused (Origin)")
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        known = hmac.compare_digest(token.strip().encode("utf-8", "replace"), self._token)
        if scheme.lower() != "bearer" or not known:
            raise HttpError(
                HTTPStatus.UNAUTHORIZED,
                "the token is missing or wrong: Authorization: Bearer TOKEN",
                WWW_Authenticate="Bearer",
            )

    def _content_length(self, request: Request) -> int:
        text = request.headers.get("content-length", "")
        if not text or "transfer-encoding" in request.headers:
            raise HttpError(HTTPStatus.LENGTH_REQUIRED, "Content-Length is missing")
        if not (text.isascii() and text.isdigit()):
            raise HttpError(HTTPStatus.BAD_REQUEST, "Content-Length is not a number")
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
        allowed = QUERIES[parts.path]
        if len(dict(pairs)) != len(pairs) or not allowed.issuperset(name for name, _ in pairs):
            known = " and ".join(sorted(allowed))
            raise HttpError(HTTPStatus.BAD_REQUEST, f"the query may have {known}, each once")
        query = dict(pairs)
        try:
            items.check_task(query.get("task", items.DEFAULT_TASK))
        except DataError as error:
            raise HttpError(HTTPStatus.BAD_REQUEST, str(error)) from None
        return query

    def _served(self) -> ServedRun:
        try:
            served = served_run.read(self._state)
        except DataError as error:
            raise HttpError(HTTPStatus.SERVICE_UNAVAILABLE, str(error)) from None
        if served is None:
            reason = "the worker is waiting for its run and serves no client yet"
            raise HttpError(HTTPStatus.SERVICE_UNAVAILABLE, reason, Retry_After=str(FULL_S))
        return served

    def _clients(self, served: ServedRun, client: str | None) -> tuple[str, ...]:
        if client is None:
            return served.clients
        if client not in served.clients:
            raise HttpError(
                HTTPStatus.NOT_FOUND,
                f"the worker does not serve this client; it serves"
                f" {items.name_list(served.clients)}",
            )
        return (client,)

    def _counts(self, client: str) -> dict[str, int]:
        path = schema.inbox_path(self._state, client)
        if not path.exists():
            return dict.fromkeys(ITEM_STATES, 0)
        with Inbox(path, self._limits) as inbox:
            return inbox.counts()

    def _store(self, parser: ItemParser, client: str, records: Sequence[object]) -> Response:
        parsed = [_parse(parser, record) for record in records]
        valid = [each for each in parsed if isinstance(each, Item)]
        stored: tuple[PutResult, ...] = ()
        if valid:
            with Inbox(schema.inbox_path(self._state, client), self._limits) as inbox:
                stored = inbox.put_each(valid, "http")
        results = item_results(parsed, stored)
        counts = {
            state: sum(each.state == state for each in results) for state in get_args(ResultState)
        }
        status = HTTPStatus.MULTI_STATUS if counts["refused"] else HTTPStatus.OK
        if counts["refused"] == len(results):
            status = HTTPStatus.BAD_REQUEST
        fields = [{name: text for name, text in asdict(each).items() if text} for each in results]
        return Response(status, {"client": client, **counts, "items": fields})


def _http_error(error: DataError) -> HttpError:
    """Return the response to a request whose items the inbox refuses."""
    reason = str(error)
    match error:
        case BatchTooLarge():
            return HttpError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, reason)
        case RateLimited():
            wait = str(max(1, math.ceil(error.wait_s)))
            return HttpError(HTTPStatus.TOO_MANY_REQUESTS, reason, Retry_After=wait)
        case InboxFull():
            return HttpError(HTTPStatus.SERVICE_UNAVAILABLE, reason, Retry_After=str(FULL_S))
        case InboxBusy():
            return HttpError(HTTPStatus.SERVICE_UNAVAILABLE, reason, Retry_After=str(BUSY_S))
        case DiskFull():
            return HttpError(HTTPStatus.INSUFFICIENT_STORAGE, reason)
    return HttpError(HTTPStatus.SERVICE_UNAVAILABLE, reason)


def _parts(request: Request) -> SplitResult:
    try:
        return urlsplit(request.target)
    except ValueError:
        raise HttpError(HTTPStatus.BAD_REQUEST, "the path is not valid") from None


def _records(body: bytes, content_type: str) -> Sequence[object]:
    """Return the records of a body of JSON or of lines; of a line that is not JSON, the error."""
    lines = [line for line in body.splitlines() if line.strip()]
    if content_type in JSON_LINES:
        records: object = [_parse_line(line) for line in lines]
    else:
        try:
            records = parse_json(body)
        except DataError as error:
            records = [_parse_line(line) for line in lines]
            if len(lines) < 2 or all(isinstance(record, DataError) for record in records):
                raise HttpError(HTTPStatus.BAD_REQUEST, str(error)) from None
    if isinstance(records, Mapping):
        return [records]
    if not isinstance(records, list) or not records:
        reason = "send an item (a JSON object), an array of items, or one line of JSON for each"
        raise HttpError(HTTPStatus.BAD_REQUEST, reason)
    return records


def _parse_line(data: bytes) -> object:
    try:
        return parse_json(data)
    except DataError as error:
        return error


def _parse(parser: ItemParser, record: object) -> Item | DataError:
    if isinstance(record, DataError):
        return record
    try:
        return parser.parse(record)
    except DataError as error:
        return error


def encode_body(response: Response) -> bytes:
    return json.dumps(dict(response.body)).encode() + b"\n"
