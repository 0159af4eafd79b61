"""Server of `worker/incremental/http/endpoint.py` on loopback, in threads of its own.

Connections are limited as `common/operations/http_server.py` says, and bodies are bounded. An error
is counted, and ends nothing.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Any

from common.errors import ConfigError
from common.operations.http_server import ThreadedHTTPServer
from worker.incremental.http.endpoint import Endpoint, HttpError, Request, Response, encode_body

HOST = "127.0.0.1"
REQUEST_S = 15.0  # time within which a whole request must have arrived
LINGER_S = 2.0  # for a client that is still sending what is not read
LINGER_BYTES = 8 * 1024 * 1024


class Listener(ThreadedHTTPServer):
    """Bound port; answers requests inside `serving`."""

    request_s = REQUEST_S

    def __init__(self, port: int, on_response: Callable[[int], None] = lambda status: None) -> None:
        """Bind the port, as `http.server` does; raise `ConfigError` if it is taken.

        `on_response` is called with the status of every response, from several threads.
        """
        self.endpoint: Endpoint | None = None
        self.on_response = on_response
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            raise ConfigError(
                f"cannot listen on {HOST}:{port}: {error.strerror or error}",
                "choose another --inbox-port; 0 takes any free one",
            ) from None

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    @contextlib.contextmanager
    def serving(self, endpoint: Endpoint) -> Iterator[None]:
        """Answer requests while the block runs."""
        self.endpoint = endpoint
        with self.running("inbox"):
            yield

    def on_busy(self) -> None:
        self.on_response(HTTPStatus.SERVICE_UNAVAILABLE)


class _Handler(BaseHTTPRequestHandler):
    server: Listener
    protocol_version = "HTTP/1.1"  # supports `Expect: 100-continue`
    timeout = REQUEST_S

    def do_GET(self) -> None:
        """Answer one request, with an error response if anything goes wrong."""
        self.close_connection = True
        try:
            response = self._respond()
        except HttpError as error:
            response = error.response
        except OSError:  # the client went away, or took too long
            return
        except Exception:  # the worker continues; a traceback could contain user text
            response = Response(HTTPStatus.INTERNAL_SERVER_ERROR, {"error": "unexpected error"})
        self._send(response)

    do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_OPTIONS = do_GET

    def _respond(self) -> Response:
        endpoint = self.server.endpoint
        assert endpoint is not None, "requests are handled inside `serving` only"
        headers: dict[str, str] = {}
        for name, text in self.headers.items():
            key = name.lower()
            headers[key] = f"{headers[key]},{text}" if key in headers else text
        request = Request(self.command, self.path, headers)
        length = endpoint.body_length(request)
        body = self.rfile.read(length) if length else b""
        self.server.mark_complete(self.request)
        if len(body) < length:
            raise HttpError(HTTPStatus.REQUEST_TIMEOUT, "the body is shorter than Content-Length")
        return endpoint.respond(request, body)

    def _send(self, response: Response) -> None:
        data = encode_body(response)
        self.server.on_response(response.status)
        self.send_response(response.status)
        headers = {
            "Content-Type": "application/json",
            "Content-Length": str(len(data)),
            "Cache-Control": "no-store",
            "Connection": "close",
            **response.headers,
        }
        for name, text in headers.items():
            self.send_header(name, text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)
        self._linger()

    def _linger(self) -> None:
        """Read on for a moment: closing with unread input would destroy the response in transit."""
        limit = time.monotonic() + LINGER_S
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
            self.connection.settimeout(LINGER_S)
            read = 0
            while read < LINGER_BYTES and time.monotonic() < limit:
                chunk = self.connection.recv(64 * 1024)
                if not chunk:
                    return
                read += len(chunk)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Send the errors of `http.server` itself as JSON, without repeating the request."""
        self.close_connection = True
        self.command = getattr(self, "command", None) or "GET"
        status = HTTPStatus(code)
        self._send(Response(status, {"error": status.phrase}))

    def version_string(self) -> str:
        return "fccl"  # the header Server reveals no versions

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: a request may contain user text."""


def _too_many_connections() -> bytes:
    error = {"error": "too many connections"}
    data = encode_body(Response(HTTPStatus.SERVICE_UNAVAILABLE, error))
    head = (
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(data)}\r\nRetry-After: 1\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + data


Listener.busy_response = _too_many_connections()
