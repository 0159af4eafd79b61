"""RabbitMQ with its management API, and Redis, over TLS, as other organisations reach them."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from click.testing import CliRunner

from cli.services import servers
from cli.services.ports import free_port
from cli.services.rabbitmq_server import PrivateRabbitMQ
from cli.services.redis_server import PrivateRedis
from cli.sites.certs import command
from tests.support.servers import find_binaries


@dataclass(frozen=True)
class TlsServers:
    """URLs of the two servers, and the folder of their certificates.

    `broker` and `store` are plain URLs on loopback, for the owner with all rights.
    """

    folder: Path
    amqps: str
    rediss: str
    management: str
    broker: str
    store: str
    redis: PrivateRedis

    @property
    def ca(self) -> str:
        return str(self.folder / "ca.pem")


def certs(folder: Path, *args: str) -> None:
    """Run `fccl certs` in a folder."""
    result = CliRunner().invoke(command, ["--dir", str(folder), *args], catch_exceptions=False)
    assert result.exit_code == 0, result.output


@contextmanager
def start_tls_servers(place: Path) -> Iterator[TlsServers]:
    """Run both servers while the block runs; raise `ServerMissing` without binaries."""
    find_binaries()
    folder = place / "certs"
    certs(folder)

    def tls(server: str) -> servers.TlsFiles:
        pair = folder / f"{server}.pem", folder / f"{server}.key"
        return servers.TlsFiles(free_port(), folder / "ca.pem", *pair)

    amqps, rediss = tls("rabbitmq"), tls("redis")
    api = free_port()
    rabbitmq = PrivateRabbitMQ(
        place / "rabbitmq", free_port(), management=api, tls=amqps, free_bytes=16 << 20
    )
    redis = PrivateRedis(place / "redis", free_port(), tls=rediss)
    try:
        servers.start(rabbitmq)
        servers.start(redis)
        yield TlsServers(
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
