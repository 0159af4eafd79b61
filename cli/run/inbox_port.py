"""Port of `fccl worker --inbox-port`, at which applications of this machine post live input."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cli.console import Output
from cli.run.job import WorkerJob
from common.config.config import IncrementalConfig
from common.errors import ConfigError

if TYPE_CHECKING:
    from worker.incremental.http.listener import Listener


@contextmanager
def open_port(port: int | None, incremental: IncrementalConfig) -> Iterator[Listener | None]:
    """Bind the port while the block runs; None without a port.

    Raises:
        ConfigError: Incremental learning is switched off, or the port is taken.
    """
    if port is None:
        yield None
        return
    if not incremental.enabled:
        raise ConfigError(
            "--inbox-port needs incremental learning, but incremental.enabled is false",
            "set incremental.enabled to true, or leave --inbox-port out",
        )
    from worker.incremental.http.listener import Listener

    with Listener(port) as listener:
        yield listener


@contextmanager
def serve_inbox(listener: Listener | None, job: WorkerJob, output: Output) -> Iterator[None]:
    """Answer requests while the block runs; print the address and the file of the token."""
    if listener is None:
        yield
        return
    from worker.incremental.http.endpoint import Endpoint
    from worker.incremental.http.listener import HOST
    from worker.incremental.http.token import load_or_create_token, token_path

    endpoint = Endpoint(job.state, job.config.incremental, load_or_create_token(job.state))
    with listener.serving(endpoint):
        url = f"http://{HOST}:{listener.port}/learn"
        output.print(f"live input: POST to {url}, with the token in {token_path(job.state)}")
        yield
