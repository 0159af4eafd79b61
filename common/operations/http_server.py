"""Base of a process's HTTP servers: metrics and health, and the endpoint for live input.

No client can cost the process much: connections are limited in number, and each has one request,
which must arrive within seconds.
"""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from http.server import HTTPServer
from typing import Any

LOOPBACK_NAMES = ("127.0.0.1", "localhost", "[::1]")
MAX_CONNECTIONS = 16


class ThreadedHTTPServer(socketserver.ThreadingMixIn, HTTPServer):
    """HTTP server with a daemon thread per request, no name look-up, and no output on errors.

    Attributes:
        request_s: Time within which a whole request must have arrived.
        busy_response: What a client gets while all connections are taken.
    """

    daemon_threads = True  # a client that hangs must not keep the process alive
    request_queue_size = MAX_CONNECTIONS
    request_s = 10.0
    busy_response = (
        b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nRetry-After: 1\r\n\r\n"
    )

    def __init__(self, address: tuple[str, int], handler: Any) -> None:
        """Bind the port.

        Raises:
            OSError: The port is taken, or the address is not one of this machine.
        """
        self._lock = threading.Lock()
        self._since: dict[socket.socket, float] = {}  # connections whose request is incomplete
        self._slots = threading.BoundedSemaphore(MAX_CONNECTIONS)
        try:
            super().__init__(address, handler)
        except UnicodeError:
            raise OSError("this is no name of a machine") from None

    def server_bind(self) -> None:
        """Bind without the name look-up of `http.server`, which waits for an unreachable DNS."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore a client that has gone away."""

    @contextlib.contextmanager
    def running(self, thread_name: str) -> Iterator[None]:
        """Accept connections in a thread while the block runs."""
        thread = threading.Thread(target=self.serve_forever, name=thread_name, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self.shutdown()

    def on_busy(self) -> None:
        """Note that a client was turned away because all connections are taken."""

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Return whether there is a free slot; if not, answer 503."""
        if not self._slots.acquire(blocking=False):
            self.on_busy()
            with contextlib.suppress(OSError):  # so little fits into the buffer of any socket
                request.sendall(self.busy_response)
            return False
        with self._lock:
            self._since[request] = time.monotonic()
        return True

    def mark_complete(self, request: socket.socket) -> None:
        with self._lock:
            self._since.pop(request, None)

    def process_request(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._release(request)
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._release(request)

    def _release(self, request: socket.socket) -> None:
        self.mark_complete(request)
        self._slots.release()

    def service_actions(self) -> None:
        """Cut off clients whose request takes too long; called twice a second.

        The handler's own time-out restarts with every byte that arrives.
        """
        limit = time.monotonic() - self.request_s
        with self._lock:
            late = [request for request, since in self._since.items() if since < limit]
        for request in late:
            self.mark_complete(request)
            with contextlib.suppress(OSError):
                request.shutdown(socket.SHUT_RD)


def host_name(host: str) -> str:
    """Return the name in a `Host` header, in lower case and without the port."""
    name, mark, port = host.rpartition(":")
    return (name if mark and port.isascii() and port.isdigit() else host).lower()
