"""Network between one process and one server: slow, lossy, cut, or swallowing everything."""

from __future__ import annotations

import random
import socket
import time
from dataclasses import dataclass
from threading import Event

from tests.support.tcp_proxy import Carrier, Proxy

STEP_S = 0.05


@dataclass(frozen=True)
class Weather:
    """Condition of a network."""

    delay_s: float = 0.0  # of each piece of data
    bytes_per_s: float = 0.0  # 0: as fast as possible
    loss: float = 0.0  # probability that a piece of data is torn, and its connection cut
    blackhole: bool = False  # nothing arrives, and no connection ends


FAIR = Weather()


class Link(Proxy):
    """Proxy with a condition that may change at any time."""

    def __init__(self, url: str, seed: int) -> None:
        self.weather = FAIR
        self._random = random.Random(seed)
        self._closed = Event()
        super().__init__(url)

    def close(self) -> None:
        self._closed.set()
        super().close()

    def carriers(self) -> tuple[Carrier, Carrier]:
        return self._carry, self._carry

    def _carry(self, target: socket.socket, data: bytes) -> None:
        while self.weather.blackhole and not self._closed.is_set():
            time.sleep(STEP_S)
        weather = self.weather
        time.sleep(
            weather.delay_s + (len(data) / weather.bytes_per_s if weather.bytes_per_s else 0)
        )
        if self._random.random() < weather.loss:
            target.sendall(data[: len(data) // 2])
            target.shutdown(socket.SHUT_RDWR)
            raise OSError("torn")
        target.sendall(data)
