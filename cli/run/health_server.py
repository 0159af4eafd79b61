"""Metrics and health of a long-running command, for those who operate it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry

from broker.protocol import BrokerState, BrokerStatus
from common.config.config import OperationsConfig
from common.operations import metrics_server
from common.operations.health import Health

COORDINATOR_LIMIT_S = 180.0  # a turn waits a minute for a lost broker, and may write a large model
WORKER_LIMIT_S = 600.0  # the longest that one step, or measuring one holdout, may take
PARTS = ("broker", "store", "run")


@dataclass(frozen=True)
class ProcessStatus:
    """Metrics and health of this process."""

    registry: CollectorRegistry
    health: Health

    def set_broker(self, status: BrokerStatus) -> None:
        connected = status.state is BrokerState.CONNECTED
        self.health.set_problem("broker", "" if connected else str(status))

    def set_over(self) -> None:
        """Report that the main loop has ended."""
        self.health.pause()
        self.health.set_problem("run", "over")


@contextlib.contextmanager
def serve_status(operations: OperationsConfig, limit_s: float) -> Iterator[ProcessStatus]:
    """Serve metrics and health of this process while the block runs, if they are switched on.

    A turn of the main loop may take `limit_s` before the process counts as unhealthy.

    Raises:
        ConfigError: The port is taken.
    """
    status = ProcessStatus(metrics_server.new_registry(), Health(PARTS, limit_s))
    with metrics_server.serve(operations, status.registry, status.health):
        yield status
