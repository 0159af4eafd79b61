"""Networks of the sites: a proxy between a site and a server, which counts bytes and can be cut."""

from __future__ import annotations

import socket
import time
from threading import Event, Lock
from urllib.parse import urlsplit

from tests.support.tcp_proxy import Carrier, Proxy

STEP_S = 0.05


class Network:
    """The networks of all sites, which are cut and restored together.

    While they are cut, nothing arrives and no connection ends: both sides only see silence.
    """

    def __init__(self) -> None:
        self.cut = Event()
        self._closed = Event()
        self._lock = Lock()
        self._proxies: list[Proxy] = []
        self.nbytes = 0

    def connect(self, url: str) -> str:
        """Return the URL at which one site finds a server."""
        proxy = _Line(url, self)
        self._proxies.append(proxy)
        return proxy.url

    def connect_port(self, port: int) -> str:
        """Return HOST:PORT at which one site finds a port of this machine."""
        return urlsplit(self.connect(f"tcp://127.0.0.1:{port}")).netloc

    def close(self) -> None:
        self._closed.set()
        for proxy in self._proxies:
            proxy.close()

    def pass_on(self, data: bytes) -> None:
        """Wait until the data may pass, and count them."""
        while self.cut.is_set() and not self._closed.is_set():
            time.sleep(STEP_S)
        with self._lock:
            self.nbytes += len(data)


class _Line(Proxy):
    def __init__(self, url: str, network: Network) -> None:
        self._network = network
        super().__init__(url)

    def carriers(self) -> tuple[Carrier, Carrier]:
        def carry(target: socket.socket, data: bytes) -> None:
            self._network.pass_on(data)
            target.sendall(data)

        return carry, carry
