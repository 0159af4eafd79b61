"""Embedded federation (`cli/demo/embedded.py`) of an experiment that waits for conditions."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from cli.demo.embedded import EmbeddedFederation, FederationCallbacks
from cli.run.local_tasks import LocalTasks
from common.config.config import IncrementalConfig
from common.errors import RunError
from coordinator.storage.run import Run
from learning.training.device import detect

POLL_S = 0.1


class Federation:
    """Federation that runs within a `with` block."""

    def __init__(
        self, run: Run, incremental: IncrementalConfig, on_line: Callable[[str], None]
    ) -> None:
        """Create a federation of an opened run, which is closed at the end.

        `on_line` is called with a line for each event.
        """
        callbacks = FederationCallbacks(
            on_event=lambda event: on_line(f"{event.kind}: {event.text}"),
            on_worker_event=lambda kind, text: on_line(f"worker {kind}: {text}"),
        )
        tasks = LocalTasks(lambda message, part: None, on_line)
        self._federation = EmbeddedFederation(
            run,
            detect(),
            incremental,
            tasks.live_samples(run),
            callbacks,
            scores=tasks.update_scores(run),
        )
        self._run = run

    @property
    def state(self) -> Path:
        """The worker's state directory, which holds the inboxes."""
        return self._federation.worker_state

    def version(self) -> int:
        return self._store.get_version(self._run.run_id) or 0

    def wait_until(self, condition: Callable[[], bool], what: str, limit_s: float) -> float:
        """Wait for a condition and return how many seconds it took.

        Raises:
            RunError: The time is over, or the federation has ended.
        """
        started = time.monotonic()
        while not condition():
            if self._federation.errors:
                raise self._federation.errors[0]
            if self._federation.ended and not condition():
                raise RunError(f"the run ended before {what}", "give it more versions")
            if time.monotonic() - started > limit_s:
                raise RunError(f"{what} did not happen in {limit_s:.0f} s", "check its events")
            time.sleep(POLL_S)
        return time.monotonic() - started

    def __enter__(self) -> Federation:
        self._federation.store.start()
        self._store = self._federation.store.connect()
        self._federation.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._federation.stop()
        try:
            self._federation.join()
        except BaseException:
            if error is None:
                raise
        finally:
            self._federation.store.close()
            self._run.journal.close()
