"""Embedded federation: coordinator, worker, broker and store in one process.

Coordinator and worker have a thread each. `fccl demo` and `benchmarks/federation.py` run it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from broker.embedded.broker import EmbeddedBroker, EmbeddedServer
from broker.protocol import LOCAL, UPDATE_QUEUE_BYTES
from cli.run.job import host_name
from common.clock import steady_clock
from common.config.config import IncrementalConfig
from common.paths import cache_dir
from common.protocol.feed import Event
from common.protocol.naming import LOCAL_SITE
from common.software import software_version
from common.store.embedded import EmbeddedStore
from coordinator.plugin_source import PluginSource
from coordinator.samples_source import SamplesSource
from coordinator.scores_source import ScoreSource
from coordinator.service import RunOutcome, Service
from coordinator.storage.run import Run
from learning.training.device import Compute
from worker.factory import Connections, WorkerCallbacks, WorkerSettings, start_worker

AWAKE_S = 0.5


@dataclass(frozen=True)
class FederationCallbacks:
    """Callbacks, each called in the thread of the coordinator or the worker."""

    on_event: Callable[[Event], None]
    on_worker_event: Callable[[str, str], None] = lambda kind, text: None
    on_progress: Callable[[str, float], None] = lambda message, fraction: None


class EmbeddedFederation:
    """Federation that runs from `start` until its run ends or `stop` is called."""

    def __init__(
        self,
        run: Run,
        compute: Compute,
        incremental: IncrementalConfig,
        samples: SamplesSource,
        callbacks: FederationCallbacks,
        update_bytes: int = UPDATE_QUEUE_BYTES,
        scores: ScoreSource | None = None,
        evaluators: PluginSource | None = None,
        trackers: PluginSource | None = None,
    ) -> None:
        self.store = EmbeddedStore()
        self.errors: list[BaseException] = []  # of the two threads
        self.stop_requested = threading.Event()
        self.abandon_task = threading.Event()  # set when the worker's task is no longer needed
        self._run, self._compute, self._incremental = run, compute, incremental
        self._samples, self._scores, self._callbacks = samples, scores, callbacks
        self._evaluators, self._trackers = evaluators, trackers
        self._update_bytes = update_bytes  # quota of the update queue
        self._server = EmbeddedServer()
        self._ended = threading.Event()
        self._outcome: RunOutcome | None = None
        self._threads = [
            threading.Thread(target=self._serve_coordinator, name="coordinator"),
            threading.Thread(target=self._serve_worker, name="worker"),
        ]

    @property
    def worker_state(self) -> Path:
        """The worker's state directory, which holds the inboxes."""
        return self._run.directory.parent / ".workers"

    @property
    def ended(self) -> bool:
        return self._ended.is_set()

    def start(self) -> None:
        """Start coordinator and worker, after the store."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Ask the coordinator to end, and the worker to abandon its task."""
        self.stop_requested.set()
        self.abandon_task.set()

    def join(self) -> RunOutcome:
        """Wait for the end of both threads and return the outcome.

        Raises:
            BaseException: Raised in one of the threads.
        """
        for thread in self._threads:
            while thread.is_alive():  # wakes up to handle a signal that another thread received
                thread.join(AWAKE_S)
        if self.errors:
            raise self.errors[0]
        assert self._outcome is not None
        return self._outcome

    def _serve_coordinator(self) -> None:
        try:
            service = Service(
                self._run,
                EmbeddedBroker(self._server),
                self.store.connect(),
                steady_clock(),
                users={LOCAL_SITE: LOCAL_SITE},
                on_event=self._callbacks.on_event,
                volatile=True,
                update_bytes=self._update_bytes,
                samples=self._samples,
                scores=self._scores,
                evaluators=self._evaluators,
                trackers=self._trackers,
            )
            self._outcome = service.serve(self.stop_requested)
        except BaseException as error:  # raised again by `join`
            self.errors.append(error)
        finally:
            self.abandon_task.set()
            self._ended.set()

    def _serve_worker(self) -> None:
        try:
            settings = WorkerSettings(
                name=self._run.name,
                site=LOCAL,
                data=self._run.directory / "clients",
                state=self.worker_state,
                cache=cache_dir(),
                host=host_name(),
                software=software_version(),
                compute=self._compute,
                incremental=self._incremental,
            )
            connections = Connections(
                EmbeddedBroker(self._server), self.store.connect(), self.store.connect()
            )
            callbacks = WorkerCallbacks(
                on_event=self._callbacks.on_worker_event, on_progress=self._callbacks.on_progress
            )
            worker = start_worker(settings, self._run.run_id, connections, time.time, callbacks)
            worker.serve(self._ended, abandon=self.abandon_task)
        except BaseException as error:  # raised again by `join`
            self.errors.append(error)
            self.stop_requested.set()
