"""A whole federation in this process; `cli/demo.py` imports it once the arguments are right."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Any

from rich.live import Live
from rich.markdown import Markdown

from broker.embedded import EmbeddedBroker, EmbeddedServer
from broker.protocol import LOCAL
from cli import coordinating
from cli.console import Output
from cli.stopping import on_signals
from cli.worker import host
from common import view as viewing
from common.config import FederationConfig, IncrementalConfig
from common.embedded import EmbeddedStore
from common.errors import StoreError
from common.paths import cache_dir
from common.software import software
from coordinator.run import SITE, Run
from coordinator.service import Outcome, Service
from learning.device import Compute, detect
from tui.panel import panel
from worker.service import Setting, Worker

REFRESH_S = 0.5
USER = "local"


def serve(config: FederationConfig, mode: str, output: Output) -> int:
    """Run the federation; returns the exit code."""
    begun = time.time()
    run = coordinating.open_run(config, mode, output, forget=lambda old: None)
    compute = detect()
    store = EmbeddedStore()
    store.announce(run.directory)
    output.say(f"watch it from another terminal: fccl status --run {run.directory}")
    try:
        outcome = _Federation(run, store, compute, output, config.incremental).serve()
    finally:
        store.close(run.directory)
    path = coordinating.conclude(run, outcome, lambda: compute, output)
    if path is not None:
        text = path.read_text(encoding="utf-8")
        output.console.print(Markdown(text) if output.live else text, markup=False)
        output.say(f"report: {path}")
    output.say(f"took {time.time() - begun:.0f} s")
    return coordinating.exit_code(outcome)


@dataclass
class _Ended:
    """What a thread came to."""

    value: Any = None
    error: BaseException | None = None


class _Federation:
    """One coordinator thread, one training thread, and the view on the main thread."""

    def __init__(
        self,
        run: Run,
        store: EmbeddedStore,
        compute: Compute,
        output: Output,
        incremental: IncrementalConfig,
    ) -> None:
        self._incremental = incremental
        self._run, self._store, self._compute, self._output = run, store, compute, output
        self._server = EmbeddedServer()
        self._stop = threading.Event()
        self._over = threading.Event()  # the coordinator has ended, so the worker may
        self._abandon = threading.Event()  # nobody waits for the task at hand any more

    def serve(self) -> Outcome:
        on_signals([self._stop, self._abandon])
        coordinator, worker = _Ended(), _Ended()
        threads = [
            threading.Thread(target=self._guard, args=(self._coordinate, coordinator)),
            threading.Thread(target=self._guard, args=(self._work, worker)),
        ]
        for thread in threads:
            thread.start()
        self._watch(threads[0])
        for thread in threads:
            _join(thread)
        for ended in (coordinator, worker):
            if ended.error is not None:
                raise ended.error
        outcome: Outcome = coordinator.value
        return outcome

    def _guard(self, target: Any, ended: _Ended) -> None:
        try:
            ended.value = target()
        except BaseException as error:  # raised again in the main thread
            ended.error = error
            self._stop.set()
        finally:
            if target == self._coordinate:
                self._abandon.set()
                self._over.set()

    def _coordinate(self) -> Outcome:
        broker = EmbeddedBroker(self._server, USER)
        service = Service(
            self._run,
            broker,
            self._store.open(),
            time.time,
            users={SITE: USER},
            listen=(lambda event: None) if self._output.live else self._output.event,
            volatile=True,
        )
        return service.serve(self._stop)

    def _work(self) -> None:
        setting = Setting(
            name=self._run.name,
            site=LOCAL,
            data=self._run.directory / "clients",
            state=self._run.directory.parent / ".workers",
            cache=cache_dir(),
            host=host(),
            software=software(),
        )
        worker = Worker(
            setting,
            self._run.run_id,
            EmbeddedBroker(self._server, USER),
            (self._store.open(), self._store.open()),
            self._compute,
            time.time,
            told=lambda kind, text: None,
            report=self._output.report,
            incremental=self._incremental,
        )
        worker.serve(self._over, abandon=self._abandon)

    def _watch(self, coordinator: threading.Thread) -> None:
        store = self._store.open()
        if not self._output.live:
            _join(coordinator)
            return
        with Live(console=self._output.console, auto_refresh=False, transient=True) as live:
            while coordinator.is_alive():
                try:
                    view = viewing.read(store, self._run.name)
                    live.update(panel(view, time.time()), refresh=True)
                except StoreError:
                    pass  # the coordinator has not published anything yet
                coordinator.join(REFRESH_S)


def _join(thread: threading.Thread) -> None:
    """Wait for a thread, and wake often: a signal that another thread took is handled here."""
    while thread.is_alive():
        thread.join(REFRESH_S)
