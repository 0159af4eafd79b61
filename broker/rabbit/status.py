"""The status of a broker's two connections, joined into one."""

from __future__ import annotations

import threading

from broker.protocol import BrokerState, BrokerStatus, StatusListener

_CONNECTED = BrokerStatus(BrokerState.CONNECTED)


class JoinedStatus:
    """The status of all connections of one broker; reports changes only.

    A lost connection outweighs one that waits for a queue. Methods may be called from any thread.
    """

    def __init__(self, on_status: StatusListener | None) -> None:
        self._on_status = on_status
        self._lock = threading.Lock()
        self._connections: dict[str, BrokerStatus] = {}
        self._missing = ""
        self._reported: BrokerStatus | None = None

    def listener(self, connection: str) -> StatusListener:
        def on_status(status: BrokerStatus) -> None:
            with self._lock:
                self._connections[connection] = status
                self._report()

        return on_status

    def set_missing(self, reason: str) -> None:
        """Set why there is no queue to take from, e.g. it is not declared; empty when there is."""
        with self._lock:
            self._missing = reason
            self._report()

    def _report(self) -> None:
        status = self._joined()
        if status != self._reported and self._on_status is not None:
            self._reported = status
            self._on_status(status)

    def _joined(self) -> BrokerStatus:
        lost = [each for each in self._connections.values() if each.state is BrokerState.LOST]
        if lost:
            return lost[0]
        known = self._connections.values()
        if blocked := [each for each in known if each.state is BrokerState.BLOCKED]:
            return blocked[0]
        if self._missing:
            return BrokerStatus(BrokerState.WAITING, self._missing)
        return _CONNECTED
