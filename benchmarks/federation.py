"""A federation in this process that an experiment watches while it runs.

As `fccl demo` runs one (`cli.demo.federation`): coordinator, broker and store, and a worker that serves
all clients, each on a thread. Here nothing is shown, and the caller looks on and stops it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from broker.embedded.broker import EmbeddedBroker, EmbeddedServer
from broker.protocol import LOCAL
from cli.run.job import host_name
from common.config.config import IncrementalConfig
from common.errors import RunError
from common.paths import cache_dir
from common.protocol.naming import LOCAL_SITE
from common.run_directory.recorded_run import read_run
from common.software import software_version
from common.store.embedded import EmbeddedStore
from coordinator.service import Service
from coordinator.storage.run import Run
from evaluation.live_samples import LiveSampler
from learning.training.device import Compute, detect
from worker.factory import Connections, WorkerCallbacks, WorkerSettings, start_worker

LOOK_S = 0.1


class Federation:
    """Runs from the beginning of a `with` block to its end."""

    def __init__(
        self, run: Run, incremental: IncrementalConfig, say: Callable[[str], None]
    ) -> None:
        self._run, self._incremental, self._say = run, incremental, say
        self._server, self._store = EmbeddedServer(), EmbeddedStore()
        self._compute: Compute = detect()
        self._stop, self._over = threading.Event(), threading.Event()
        self._abandon = threading.Event()
        self._errors: list[BaseException] = []
        self._view = self._store.connect()
        self._threads = [
            threading.Thread(target=self._guarded, args=(self._coordinate,)),
            threading.Thread(target=self._guarded, args=(self._work,)),
        ]

    @property
    def state(self) -> Path:
        """The worker's state directory: inboxes are in there."""
        return self._run.directory.parent / ".workers"

    def version(self) -> int:
        """The newest version."""
        return self._view.get_version(self._run.run_id) or 0

    def until(self, done: Callable[[], bool], what: str, limit_s: float) -> float:
        """Wait for a condition, and say how many seconds it took.

        Raises:
            RunError: It did not come true in time, or the federation has ended.
        """
        begun = time.monotonic()
        while not done():
            if self._errors:
                raise self._errors[0]
            if self._over.is_set() and not done():
                raise RunError(f"the run ended before {what}", "give it more versions")
            if time.monotonic() - begun > limit_s:
                raise RunError(f"waited {limit_s:.0f} s in vain for {what}", "see its events")
            time.sleep(LOOK_S)
        return time.monotonic() - begun

    def __enter__(self) -> Federation:
        self._store.start()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._abandon.set()
        for thread in self._threads:
            thread.join()
        self._store.close()
        self._run.journal.close()
        if error is None and self._errors:
            raise self._errors[0]

    def _guarded(self, target: Callable[[], None]) -> None:
        try:
            target()
        except BaseException as error:  # raised again where the caller waits
            self._errors.append(error)
            self._stop.set()
        finally:
            if target == self._coordinate:
                self._abandon.set()
                self._over.set()

    def _coordinate(self) -> None:
        service = Service(
            self._run,
            EmbeddedBroker(self._server),
            self._store.connect(),
            time.time,
            users={LOCAL_SITE: LOCAL_SITE},
            on_event=lambda event: self._say(f"{event.kind}: {event.text}"),
            volatile=True,
            samples=LiveSampler(
                read_run(self._run.directory), self._run.base_path, self._run.samples, time.time
            ),
        )
        service.serve(self._stop)

    def _work(self) -> None:
        settings = WorkerSettings(
            name=self._run.name,
            site=LOCAL,
            data=self._run.directory / "clients",
            state=self.state,
            cache=cache_dir(),
            host=host_name(),
            software=software_version(),
            compute=self._compute,
            incremental=self._incremental,
        )
        connections = Connections(
            EmbeddedBroker(self._server), self._store.connect(), self._store.connect()
        )
        callbacks = WorkerCallbacks(
            on_event=lambda kind, text: self._say(f"worker {kind}: {text}"),
            on_progress=lambda message, fraction: None,
        )
        worker = start_worker(settings, self._run.run_id, connections, time.time, callbacks)
        worker.serve(self._over, abandon=self._abandon)
