"""HTTP server of a long-running process for `/metrics`, `/livez` and `/readyz`.

It is read-only, shows no secrets, and is off unless `operations.metrics_port` is set. Probes answer
200, or 503 with a reason on each line. On loopback it answers only to names of loopback: a web page
may have a name that resolves here.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, disable_created_metrics, make_wsgi_app
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from common.config.config import OperationsConfig
from common.errors import ConfigError
from common.operations.health import Health
from common.operations.http_server import LOOPBACK_NAMES, ThreadedHTTPServer, host_name
from common.urls import is_loopback

App = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def new_registry() -> CollectorRegistry:
    """Return a new registry with the process's memory, processor time and open files."""
    # Otherwise every counter has a second series, which Prometheus does not use.
    disable_created_metrics()  # type: ignore[no-untyped-call]
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    return registry


class ComputedMetrics(Collector):
    """Metrics that are computed when they are scraped, in the server's thread."""

    def __init__(self, compute: Callable[[], Iterable[Metric]]) -> None:
        self._compute = compute

    def collect(self) -> Iterable[Metric]:
        return self._compute()


def gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=float(value))


def application(metrics: CollectorRegistry, health: Health, names: Collection[str] = ()) -> App:
    """Return the WSGI application for `/metrics` and the two probes.

    Args:
        names: Names of the server that a request may have in `Host`; empty for any.
    """
    prometheus: App = make_wsgi_app(metrics)

    def answer(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        if refusal := _refusal(environ, names):
            start("403 Forbidden", [("Content-Type", "text/plain; charset=utf-8")])
            return [f"{refusal}\n".encode()]
        match environ["PATH_INFO"]:
            case "/metrics":
                return prometheus(environ, start)
            case "/livez":
                return _probe(start, filter(None, [health.stalled()]))
            case "/readyz":
                return _probe(start, health.problems())
        start("404 Not Found", [("Content-Type", "text/plain; charset=utf-8")])
        return [b"/metrics, /livez, /readyz\n"]

    return answer


def _refusal(environ: Mapping[str, Any], names: Collection[str]) -> str:
    """Return why a request that a web page in a browser may have sent is refused."""
    if "HTTP_ORIGIN" in environ:
        return "requests of web pages are refused (Origin)"
    if names and host_name(environ.get("HTTP_HOST", "")) not in names:
        return f"Host must be one of {', '.join(names)}"
    return ""


def _probe(start: Callable[..., Any], problems: Iterable[str]) -> Iterable[bytes]:
    lines = list(problems)
    status = "503 Service Unavailable" if lines else "200 OK"
    start(status, [("Content-Type", "text/plain; charset=utf-8"), ("Cache-Control", "no-store")])
    return ["".join(f"{line}\n" for line in lines or ["ok"]).encode()]


@contextlib.contextmanager
def serve(
    operations: OperationsConfig, metrics: CollectorRegistry, health: Health
) -> Iterator[None]:
    """Serve, in threads of its own, while the block runs; do nothing if the port is 0.

    Raises:
        ConfigError: The port is taken, or the address is not one of this machine.
    """
    if not operations.metrics_port:
        yield
        return
    bind, port = operations.bind, operations.metrics_port
    try:
        server = _Server((bind, port), _Handler)
    except OSError as error:  # including socket.gaierror
        raise ConfigError(
            f"cannot serve metrics on {bind}:{port}: {error.strerror or error}",
            "choose another --metrics-port or operations.bind; 0 serves none",
        ) from None
    literal = f"[{bind}]" if ":" in bind else bind
    names = (*LOOPBACK_NAMES, literal.lower()) if is_loopback(bind) else ()
    server.set_app(application(metrics, health, names))
    with server, server.running("metrics"):
        yield


class _Server(ThreadedHTTPServer, WSGIServer):
    def __init__(self, address: tuple[str, int], handler: type[WSGIRequestHandler]) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, handler)

    def server_bind(self) -> None:
        super().server_bind()
        self.setup_environ()


class _Handler(WSGIRequestHandler):
    timeout = ThreadedHTTPServer.request_s  # a client that sends nothing is disconnected

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: probes come every few seconds."""
