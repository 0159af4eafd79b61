"""Base of a process's HTTP servers: metrics and health, and the endpoint for live input."""

from __future__ import annotations

import contextlib
import socketserver
import threading
from collections.abc import Iterator
from http.server import HTTPServer
from typing import Any


class ThreadedHTTPServer(socketserver.ThreadingMixIn, HTTPServer):
    """HTTP server with a daemon thread per request, no name look-up, and no output on errors."""

    daemon_threads = True  # a client that hangs must not keep the process alive

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
