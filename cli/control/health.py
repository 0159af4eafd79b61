"""`fccl health`: the health check of a container. Loads no model code, and needs no curl."""

from __future__ import annotations

import http.client
import sys
from pathlib import Path

import click

from cli.options import config_option, find_config
from common.config import loader
from common.errors import ConfigError
from common.text import one_line

TIMEOUT_S = 5.0
WILDCARD_HOSTS = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 - asked


@click.command()
@config_option
@click.option("--port", type=click.IntRange(1, 65535), help="[default: operations.metrics_port]")
@click.option("--host", help="[default: operations.bind]")
@click.option(
    "--live",
    is_flag=True,
    help="Check only whether the process is alive; if not, it must be restarted.",
)
def command(config_path: Path | None, port: int | None, host: str | None, live: bool) -> None:
    """Check whether a coordinator or worker is ready. Exit code 0 if so, else 1 with reasons."""
    operations = loader.load(find_config(config_path)).operations
    port = port or operations.metrics_port
    if not port:
        raise ConfigError(
            "operations.metrics_port is 0: no health is served", "set it, or name a --port"
        )
    host = host or operations.bind
    healthy, text = request(WILDCARD_HOSTS.get(host, host), port, "/livez" if live else "/readyz")
    click.echo("\n".join(map(one_line, text.splitlines())), err=not healthy)
    sys.exit(0 if healthy else 1)


def request(host: str, port: int, path: str) -> tuple[bool, str]:
    """Return whether the process behind a port is healthy, and its answer."""
    connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        text = answer.read(10_000).decode("utf-8", "replace")
    except (OSError, UnicodeError, http.client.HTTPException) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        return False, f"no answer from {host}:{port}: {reason}\n"
    finally:
        connection.close()
    return answer.status == http.client.OK, text
