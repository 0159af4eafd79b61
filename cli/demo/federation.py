"""A whole federation in this process; `cli/demo/command.py` imports it once the arguments are right."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from broker.embedded.broker import EmbeddedBroker, EmbeddedServer
from broker.protocol import LOCAL
from cli.console import Output
from cli.demo.messages import Telling
from cli.run import session
from cli.run.job import host_name
from cli.run.local_tasks import LocalTasks
from cli.signals import handle_signals
from common.config.config import FederationConfig, IncrementalConfig
from common.paths import cache_dir
from common.protocol.fields import RowKind
from common.protocol.naming import LOCAL_SITE
from common.software import software_version
from common.store.embedded import EmbeddedStore
from coordinator.service import RunOutcome, Service
from coordinator.storage.run import Run
from learning.evaluation.metrics import MAIN_METRIC, METRICS
from learning.training.device import Compute, detect
from worker.factory import Connections, WorkerCallbacks, WorkerSettings, start_worker

AWAKE_S = 0.5
SUMMED_UP = {**MAIN_METRIC, "sft": METRICS["sft"][1]}  # perplexity is what people have heard of


def serve(config: FederationConfig, mode: str, output: Output) -> int:
    """Run the federation; returns the exit code."""
    begun = time.time()
    tasks = LocalTasks(output.progress, output.print)
    run = session.open_run(config, mode, tasks, output, on_set_aside=lambda old: None)
    compute = detect()
    store = EmbeddedStore()
    store.start()
    store.write_address(run.directory)
    output.print(f"watch it from another terminal: fccl tui --run {run.directory}")
    if isinstance(output, Telling):
        output.announced(store.url, run.directory)
    try:
        outcome = _Federation(run, store, compute, tasks, output, config.incremental).serve()
        path = session.conclude(run, outcome, tasks, output)
        if path is not None:
            _tell(run.directory, path, output)
        output.print(f"took {time.time() - begun:.0f} s")
        if isinstance(output, Telling):
            output.ended(_summary(outcome, path))
    finally:
        store.close()
    return session.exit_code(outcome)


def _tell(directory: Path, path: Path, output: Output) -> None:
    output.print_markdown(path.read_text(encoding="utf-8"))
    output.print(f"report: {path}")
    output.print(f"play it again: fccl tui --replay {directory}")
    output.print(f"a model of it: fccl export {directory} exported --merge")


def _summary(outcome: RunOutcome, path: Path | None) -> str:
    """The end in a line: figures and files of a run with a report, else why there is none."""
    if path is None:
        word = "failed" if outcome.failed else "stopped"
        return f"the run is over, {word}: {outcome.reason}; go on with --resume"
    kinds = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))["kinds"]
    changes = (change for kind in kinds.items() if (change := _change(*kind)))
    return "; ".join(["the run is over", *changes, f"report: {path}"])


def _change(kind: RowKind, found: Mapping[str, Any]) -> str:
    metric = SUMMED_UP[kind]
    values = [one.get(metric.key) for one in found["heldout"]]
    if len(values) < 2 or None in values:  # no such rows, or a model that has lost its numbers
        return ""
    before, *_, after = (f"{value:.{metric.decimals}f}" for value in values)
    return f"{metric.title} {before} → {after} on unseen rows"


@dataclass
class _Ended:
    """What a thread came to."""

    value: Any = None
    error: BaseException | None = None


class _Federation:
    """One coordinator thread, one training thread; the main thread waits, and takes signals."""

    def __init__(
        self,
        run: Run,
        store: EmbeddedStore,
        compute: Compute,
        tasks: LocalTasks,
        output: Output,
        incremental: IncrementalConfig,
    ) -> None:
        self._incremental, self._tasks = incremental, tasks
        self._run, self._store, self._compute, self._output = run, store, compute, output
        self._server = EmbeddedServer()
        self._stop = threading.Event()
        self._over = threading.Event()  # the coordinator has ended, so the worker may
        self._abandon = threading.Event()  # nobody waits for the task at hand any more

    def serve(self) -> RunOutcome:
        handle_signals([self._stop, self._abandon])
        coordinator, worker = _Ended(), _Ended()
        threads = [
            threading.Thread(target=self._guard, args=(self._coordinate, coordinator)),
            threading.Thread(target=self._guard, args=(self._work, worker)),
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            _join(thread)
        for ended in (coordinator, worker):
            if ended.error is not None:
                raise ended.error
        outcome: RunOutcome = coordinator.value
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

    def _coordinate(self) -> RunOutcome:
        broker = EmbeddedBroker(self._server)
        service = Service(
            self._run,
            broker,
            self._store.connect(),
            time.time,
            users={LOCAL_SITE: LOCAL_SITE},
            on_event=self._output.print_event,
            volatile=True,
            samples=self._tasks.live_samples(self._run),
        )
        return service.serve(self._stop)

    def _work(self) -> None:
        settings = WorkerSettings(
            name=self._run.name,
            site=LOCAL,
            data=self._run.directory / "clients",
            state=self._run.directory.parent / ".workers",
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
            on_event=lambda kind, text: None, on_progress=self._output.progress
        )
        worker = start_worker(settings, self._run.run_id, connections, time.time, callbacks)
        worker.serve(self._over, abandon=self._abandon)


def _join(thread: threading.Thread) -> None:
    """Wait for a thread, and wake often: a signal that another thread took is handled here."""
    while thread.is_alive():
        thread.join(AWAKE_S)
