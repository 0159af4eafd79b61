"""Private servers that other machines reach over TLS: their settings, and the file of addresses.

    .services/tls.json    certificates, ports and the password of Redis; mode 0600
    .services/env         environment variables for the commands on this machine; mode 0600

Over the network RabbitMQ accepts the users of sites only: it refuses its user guest there.
"""

from __future__ import annotations

import json
import secrets
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from cli.services.servers import TlsFiles
from common.errors import ConfigError
from common.files import write_durable
from common.tls.certificates import certificate_hosts

SETTINGS, ENVIRONMENT = "tls.json", "env"
ALL_INTERFACES = "0.0.0.0"  # noqa: S104 - what `services up --tls` is for
_THIS_MACHINE = ("localhost", "127.0.0.1", "rabbitmq", "redis")  # in every certificate


@dataclass(frozen=True)
class OpenServers:
    """Settings of servers that were started with `--tls`."""

    certificates: str  # folder of `fccl certs`
    broker_port: int
    store_port: int
    password: str  # of Redis

    def files(self, server: str) -> TlsFiles:
        """Return the files of `rabbitmq` or `redis`."""
        port = self.broker_port if server == "rabbitmq" else self.store_port
        return TlsFiles(port, self.ca, *_pair(Path(self.certificates), server), ALL_INTERFACES)

    @property
    def ca(self) -> Path:
        return Path(self.certificates) / "ca.pem"

    @property
    def host(self) -> str:
        """The name of this machine for others: the first one that `fccl certs --host` added."""
        certificate = _pair(Path(self.certificates), "rabbitmq")[0].read_bytes()
        names = (name for name in certificate_hosts(certificate) if name not in _THIS_MACHINE)
        return next(names, "localhost")

    def environment(self, store: str, management: str | None) -> dict[str, str]:
        """Return the variables with which coordinator and `fccl invite` find the servers."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        found = {
            "FCCL_BROKER__URL": f"amqps://guest:guest@localhost:{self.broker_port}/",
            "FCCL_BROKER__PUBLIC_URL": f"amqps://{host}:{self.broker_port}/",
            "FCCL_BROKER__CA": str(self.ca),
            "FCCL_STORE__URL": store,
            "FCCL_STORE__PUBLIC_URL": f"rediss://{host}:{self.store_port}/0",
            "FCCL_STORE__CA": str(self.ca),
        }
        return found if management is None else found | {"FCCL_BROKER__MANAGEMENT": management}


def load_settings(folder: Path) -> OpenServers | None:
    """Return the settings in a folder of `fccl services`; None for servers on loopback only."""
    path = folder / SETTINGS
    try:
        return OpenServers(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError):
        raise ConfigError(f"{path} cannot be read", f"remove {path}") from None


def make_settings(
    folder: Path, certificates: Path, broker_port: int, store_port: int
) -> OpenServers:
    """Keep the settings of `--tls` in the folder, with the password of an earlier start.

    Raises:
        ConfigError: A certificate is missing.
    """
    certificates = certificates.absolute()
    files = [certificates / "ca.pem", *_pair(certificates, "rabbitmq")]
    for path in (*files, *_pair(certificates, "redis")):
        if not path.is_file():
            raise ConfigError(f"{path} is missing", "run `fccl certs` first, or name its folder")
    known = load_settings(folder)
    password = secrets.token_urlsafe(24) if known is None else known.password
    settings = OpenServers(str(certificates), broker_port, store_port, password)
    write_durable(folder / SETTINGS, json.dumps(asdict(settings)).encode(), mode=0o600)
    return settings


def write_environment(folder: Path, variables: Mapping[str, str]) -> Path:
    """Write variables as a file for `source`; only its owner can read the passwords in it."""
    lines = (f"export {name}={shlex.quote(value)}\n" for name, value in variables.items())
    write_durable(folder / ENVIRONMENT, "".join(lines).encode(), mode=0o600)
    return folder / ENVIRONMENT


def _pair(folder: Path, server: str) -> tuple[Path, Path]:
    return folder / f"{server}.pem", folder / f"{server}.key"
