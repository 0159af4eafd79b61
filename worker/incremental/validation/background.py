"""Background calls of the external validator, so that the worker goes on training meanwhile.

There is at most one request per client at a time. However the worker ends, no command is left
running.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor

from worker.incremental.validation import validator
from worker.incremental.validation.validator import ValidationRequest, ValidatorVerdict

MAX_PARALLEL = 4  # requests of one worker; those of further clients wait for a free thread


class BackgroundValidator:
    """Threads that call the validator, started by the first request; an empty `spec` means none."""

    def __init__(self, spec: str, timeout_s: float) -> None:
        self._spec, self._timeout_s = spec, timeout_s
        self._stop = threading.Event()
        self._threads = ThreadPoolExecutor(MAX_PARALLEL, thread_name_prefix="validator")
        self._futures: dict[str, Future[ValidatorVerdict]] = {}

    @property
    def configured(self) -> bool:
        return bool(self._spec)

    def submit(self, client: str, request: ValidationRequest) -> None:
        """Start a request about a client's batch; the verdict on an earlier one must be taken."""
        self._futures[client] = self._threads.submit(
            validator.ask_validator, self._spec, request, self._timeout_s, self._stop
        )

    def answered(self) -> list[str]:
        """Return the clients with a verdict that has not been taken."""
        return [client for client, future in self._futures.items() if future.done()]

    def take(self, client: str) -> ValidatorVerdict | None:
        """Return the verdict on a client's batch and forget it; None if there is none yet."""
        if not self._futures[client].done():
            return None
        return self._futures.pop(client).result()

    def close(self) -> None:
        """Cancel all requests, ending commands that run, and wait for the threads."""
        self._stop.set()
        self._threads.shutdown(cancel_futures=True)
        self._futures.clear()
