"""TCP proxies between processes under test and a broker or a store.

`Recorder` keeps every byte, per connection and direction, in order, so that a message is found in
one piece.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from threading import Lock, Thread
from typing import Self, TypeVar
from urllib.parse import urlsplit

from common.errors import WireError
from common.protocol.fields import Record
from common.protocol.wire import unpack

PORTS = {"amqp": 5672, "redis": 6379}
MAGIC = b"FCCL"
PREFIX = 9  # magic, schema version, length of the header

R = TypeVar("R", bound=Record)
Carrier = Callable[[socket.socket, bytes], None]
"""Forwards a piece of data to a socket; an `OSError` ends the direction."""


class Proxy:
    """Proxy that forwards connections to a server; use `url` in place of the server's own."""

    def __init__(self, url: str) -> None:
        """Listen on a loopback port.

        Args:
            url: `amqp://` or `redis://` URL of the server.
        """
        parts = urlsplit(url)
        self._server = (parts.hostname or "127.0.0.1", parts.port or PORTS[parts.scheme])
        self._listener = socket.create_server(("127.0.0.1", 0))
        user, at, _ = parts.netloc.rpartition("@")
        place = f"{user}{at}127.0.0.1:{self._listener.getsockname()[1]}"
        self.url = parts._replace(netloc=place).geturl()
        self._lock = Lock()
        self._sockets: list[socket.socket] = []
        Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop listening, and cut all connections."""
        _shut(self._listener)
        self.cut()

    def cut(self) -> None:
        """Cut all connections."""
        with self._lock:
            sockets, self._sockets = self._sockets, []
        for each in sockets:
            _shut(each)

    def carriers(self) -> tuple[Carrier, Carrier]:
        """Return what forwards the data of a new connection, to the server and back."""
        return socket.socket.sendall, socket.socket.sendall

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:  # closed
                return
            try:
                server = socket.create_connection(self._server)
            except OSError:  # down: the client finds its connection closed, and tries again
                client.close()
                continue
            there, back = self.carriers()
            with self._lock:
                self._sockets += [client, server]
            for source, target, carry in ((client, server, there), (server, client, back)):
                Thread(target=_pump, args=(source, target, carry), daemon=True).start()


def _pump(source: socket.socket, target: socket.socket, carry: Carrier) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            carry(target, data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def _shut(each: socket.socket) -> None:
    with contextlib.suppress(OSError):
        each.shutdown(socket.SHUT_RDWR)
    each.close()


@dataclass
class Stream:
    """The bytes that one connection has carried, to the server and back."""

    sent: bytearray = field(default_factory=bytearray)
    received: bytearray = field(default_factory=bytearray)


class Recorder(Proxy):
    """Proxy that keeps what it forwards, also after `close`; it could not read TLS."""

    def __init__(self, url: str) -> None:
        self._streams: list[Stream] = []
        super().__init__(url)

    def sent(self) -> list[bytes]:
        """Return what each connection has sent to the server so far."""
        with self._lock:
            return [bytes(stream.sent) for stream in self._streams]

    def all(self) -> bytes:
        """Return everything, one stream after the other."""
        with self._lock:
            return b"\n".join(bytes(part) for s in self._streams for part in (s.sent, s.received))

    def carriers(self) -> tuple[Carrier, Carrier]:
        stream = Stream()
        with self._lock:
            self._streams.append(stream)
        return self._keeper(stream.sent), self._keeper(stream.received)

    def _keeper(self, kept: bytearray) -> Carrier:
        def carry(target: socket.socket, data: bytes) -> None:
            with self._lock:
                kept.extend(data)  # before it is forwarded: what has arrived is always recorded
            target.sendall(data)

        return carry


def records(streams: list[bytes], kind: type[R]) -> Iterator[R]:
    """Yield the framed records of a kind in recorded streams, in order; headers only."""
    for stream in streams:
        at = stream.find(MAGIC)
        while at >= 0:
            size = int.from_bytes(stream[at + 5 : at + PREFIX], "little")
            with contextlib.suppress(WireError):
                yield unpack(kind, stream[at : at + PREFIX + size])[0]
            at = stream.find(MAGIC, at + 1)
