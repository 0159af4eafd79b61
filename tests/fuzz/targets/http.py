"""The endpoint for live input, over a real socket."""

from __future__ import annotations

import json
import re
import socket
from contextlib import ExitStack
from pathlib import Path

from common.config.config import IncrementalConfig
from common.errors import WireError
from tests.fuzz import mutate
from tests.fuzz.target import Reader, Target
from worker.incremental.http.endpoint import Endpoint
from worker.incremental.http.listener import Listener
from worker.incremental.serving import served_run
from worker.incremental.serving.served_run import ServedRun

TOKEN = "0" * 43
SERVED = ServedRun(
    run="run-1", name="run", clients=("client_0", "client_1"), kinds=("sft", "va", "kto", "cls"),
    labels=("negative", "positive"),
)  # fmt: skip
ITEMS = (
    {"text": "a dull plot", "label": "negative"},
    {"prompt": "Greet me.", "response": "What?", "label": False},
    [{"instruction": "Say it.", "output": "It."}, {"prompt": "a", "chosen": "b", "rejected": "c"}],
)


def _inbox(folder: Path) -> Reader:
    """Serve an inbox for as long as this process lives."""
    served_run.write(folder, SERVED)
    kept = ExitStack()
    listener = kept.enter_context(Listener(0))
    statuses: list[int] = []
    listener.on_response = statuses.append
    config = IncrementalConfig(items_per_minute=10**6, max_waiting=50)
    kept.enter_context(listener.serving(Endpoint(folder, config, TOKEN)))

    def send(data: bytes) -> None:
        _ = kept
        answer = bytearray()
        with socket.create_connection(("127.0.0.1", listener.port), timeout=30) as connection:
            try:
                connection.sendall(data[: 1 << 21])
                connection.shutdown(socket.SHUT_WR)
                while piece := connection.recv(65536):
                    answer += piece
            except TimeoutError:
                raise
            except OSError:  # closed before everything was read, as after an empty line
                raise WireError("closed by the endpoint") from None
        _check(bytes(answer))

    return send


def _check(answer: bytes) -> None:
    """Raise `WireError` if a request was refused; anything but such an answer is a failure."""
    if not answer:
        raise WireError("closed without an answer")
    head, _, body = answer.partition(b"\r\n\r\n")
    match = re.match(rb"HTTP/1\.[01] (\d{3}) ", head)
    assert match or b"\r\n" not in answer[:20], answer[:200]  # HTTP/0.9 has no head
    status = int(match[1]) if match else 400
    assert status < 500 or status in (501, 503, 505), answer[:300]
    if body:
        json.loads(body)
    if status >= 400:
        raise WireError(f"status {status}")


def _requests() -> list[bytes]:
    requests = [b"GET /inbox HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer " + TOKEN.encode()
                + b"\r\n\r\n"]  # fmt: skip
    for item in ITEMS:
        body = json.dumps(item).encode()
        head = (
            "POST /learn?client=client_0 HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            f"Authorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        requests.append(head.encode() + body)
    return requests


def _mutate_body(random: mutate.Random, data: bytes) -> bytes:
    """Return a request whose body is another document, with the right length."""
    head, mark, body = data.partition(b"\r\n\r\n")
    body = mutate.mutate_json(random, body) if body else body
    head = re.sub(rb"Content-Length: \d+", b"Content-Length: %d" % len(body), head)
    return head + mark + body


HTTP = (
    Target("inbox-http", _inbox, _requests,
           (_mutate_body, _mutate_body, mutate.mutate_lines, mutate.mutate_bytes), 3),
)  # fmt: skip
