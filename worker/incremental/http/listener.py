"""Listens on loopback for `worker/incremental/http/endpoint.py`, in threads of its own.

Whoever connects can cost the worker little: so many connections at a time, one request each, that
must have come within seconds, and a body of bounded size. An error is counted, and ends nothing.
"""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

from common.errors import ConfigError
from worker.incremental.http.endpoint import Endpoint, HttpError, Request, Response, encoded

HOST = "127.0.0.1"
CONNECTIONS = 16  # at a time
REQUEST_S = 15.0  # in which all of a request must have come
LINGER_S = 2.0  # for a client that still sends what is not read
LINGER_BYTES = 8 * 1024 * 1024

Counted = Callable[[int], None]
"""Told the status of every answer, from several threads."""


class Listener(socketserver.ThreadingMixIn, HTTPServer):
    """A bound port; serves within `serving`."""

    daemon_threads = True  # whoever hangs must not keep the process
    block_on_close = False
    request_queue_size = CONNECTIONS

    def __init__(self, port: int, counted: Counted = lambda status: None) -> None:
        """Bind it.

        Args:
            port: Of loopback; 0 for any free one.
            counted: See `Counted`.

        Raises:
            ConfigError: The port is taken.
        """
        self.endpoint: Endpoint | None = None
        self.counted = counted
        self._lock = threading.Lock()
        self._since: dict[socket.socket, float] = {}  # of connections whose request still comes
        self._places = threading.BoundedSemaphore(CONNECTIONS)
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            raise ConfigError(
                f"cannot listen on {HOST}:{port}: {error.strerror or error}",
                "choose another --inbox-port; 0 takes any free one",
            ) from None

    @property
    def port(self) -> int:
        """The port that it is."""
        return int(self.server_address[1])

    def server_bind(self) -> None:
        """Without the name look-up of `http.server`, which waits for a DNS server that is away."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = HOST, self.port

    @contextlib.contextmanager
    def serving(self, endpoint: Endpoint) -> Iterator[None]:
        """Answer for as long as the block runs."""
        self.endpoint = endpoint
        thread = threading.Thread(target=self.serve_forever, name="inbox", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self.shutdown()

    # of each connection

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Whether there is a place for it."""
        if not self._places.acquire(blocking=False):
            self.counted(HTTPStatus.SERVICE_UNAVAILABLE)
            with contextlib.suppress(OSError):  # there is room for so little in any socket
                request.sendall(BUSY)
            return False
        with self._lock:
            self._since[request] = time.monotonic()
        return True

    def arrived(self, request: socket.socket) -> None:
        """All of its request has come."""
        with self._lock:
            self._since.pop(request, None)

    def process_request(self, request: Any, client_address: Any) -> None:
        """See `ThreadingMixIn`."""
        try:
            super().process_request(request, client_address)
        except BaseException:  # no thread could be started
            self._left(request)
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """See `ThreadingMixIn`."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._left(request)

    def _left(self, request: socket.socket) -> None:
        self.arrived(request)
        self._places.release()

    def service_actions(self) -> None:
        """Twice a second: cut off whoever takes too long to ask, however little comes at a time."""
        until = time.monotonic() - REQUEST_S
        with self._lock:
            late = [request for request, since in self._since.items() if since < until]
        for request in late:
            self.arrived(request)
            with contextlib.suppress(OSError):
                request.shutdown(socket.SHUT_RD)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news."""


class _Handler(BaseHTTPRequestHandler):
    server: Listener
    protocol_version = "HTTP/1.1"  # understands `Expect: 100-continue`
    timeout = REQUEST_S

    def do_GET(self) -> None:
        """Answer one request; whatever goes wrong is an answer too."""
        self.close_connection = True
        try:
            found = self._found()
        except HttpError as refusal:
            found = refusal.answer
        except OSError:  # it went away, or took too long
            return
        except Exception:  # the worker goes on; a traceback could hold a text
            found = Response(HTTPStatus.INTERNAL_SERVER_ERROR, {"error": "unexpected"})
        self._send(found)

    do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_OPTIONS = do_GET

    def _found(self) -> Response:
        endpoint = self.server.endpoint
        assert endpoint is not None, "it is opened before it serves"
        headers: dict[str, str] = {}
        for name, text in self.headers.items():
            key = name.lower()
            headers[key] = f"{headers[key]},{text}" if key in headers else text
        request = Request(self.command, self.path, headers)
        length = endpoint.length(request)
        body = self.rfile.read(length) if length else b""
        self.server.arrived(self.request)
        if len(body) < length:
            raise HttpError(HTTPStatus.REQUEST_TIMEOUT, "the body is shorter than Content-Length")
        return endpoint.answer(request, body)

    def _send(self, found: Response) -> None:
        data = encoded(found)
        self.server.counted(found.status)
        self.send_response(found.status)
        headers = {
            "Content-Type": "application/json",
            "Content-Length": str(len(data)),
            "Cache-Control": "no-store",
            "Connection": "close",
            **found.headers,
        }
        for name, text in headers.items():
            self.send_header(name, text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)
        self._linger()

    def _linger(self) -> None:
        """Read on for a moment: closing on what is unread would take the answer from the client."""
        until = time.monotonic() + LINGER_S
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
            self.connection.settimeout(LINGER_S)
            read = 0
            while read < LINGER_BYTES and time.monotonic() < until:
                chunk = self.connection.recv(64 * 1024)
                if not chunk:
                    return
                read += len(chunk)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What `http.server` itself refuses: as JSON, and without what was sent."""
        self.close_connection = True
        self.command = getattr(self, "command", None) or "GET"
        status = HTTPStatus(code)
        self._send(Response(status, {"error": status.phrase}))

    def version_string(self) -> str:
        """Whose answer it is, and no more."""
        return "fccl"

    def log_message(self, format: str, *args: Any) -> None:
        """What is asked may be a text: it is written nowhere."""


def _busy() -> bytes:
    data = encoded(Response(HTTPStatus.SERVICE_UNAVAILABLE, {"error": "too many connections"}))
    head = (
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(data)}\r\nRetry-After: 1\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + data


BUSY = _busy()
