"""A RabbitMQ with its management API and a Redis, over TLS, as other organisations reach them."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from click.testing import CliRunner

from cli.services import servers
from cli.services.ports import free_port
from cli.sites.certs import command
from tests.support.servers import find_binaries


@dataclass(frozen=True)
class Guarded:
    """The two servers with TLS, and the folder with their authority.

    `broker` and `store` are plain URLs on loopback for the owner of the servers, with all rights.
    """

    folder: Path
    amqps: str
    rediss: str
    management: str
    broker: str
    store: str
    redis: servers.PrivateRedis

    @property
    def ca(self) -> str:
        return str(self.folder / "ca.pem")


def certs(folder: Path, *args: str) -> None:
    """Run `fccl certs`."""
    result = CliRunner().invoke(command, ["--dir", str(folder), *args], catch_exceptions=False)
    assert result.exit_code == 0, result.output


@contextmanager
def guarded(place: Path) -> Iterator[Guarded]:
    """Run both servers while the block runs.

    Raises:
        ServerMissing: There are no binaries.
    """
    find_binaries()
    folder = place / "certs"
    certs(folder)

    def tls(server: str) -> servers.TlsFiles:
        pair = folder / f"{server}.pem", folder / f"{server}.key"
        return servers.TlsFiles(free_port(), folder / "ca.pem", *pair)

    amqps, rediss = tls("rabbitmq"), tls("redis")
    api = free_port()
    rabbitmq = servers.PrivateRabbitMQ(
        place / "rabbitmq", free_port(), management=api, tls=amqps, free_bytes=16 << 20
    )
    redis = servers.PrivateRedis(place / "redis", free_port(), tls=rediss)
    try:
        servers.start(rabbitmq)
        servers.start(redis)
        yield Guarded(
            folder,
            f"amqps://guest:guest@localhost:{amqps.port}/",
            f"rediss://localhost:{rediss.port}/0",
            f"http://127.0.0.1:{api}",
            rabbitmq.url,
            redis.url,
            redis,
        )
    finally:
        servers.stop(rabbitmq, signal.SIGKILL)
        servers.stop(redis, signal.SIGKILL)
