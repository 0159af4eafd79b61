"""`fccl certs`: creates the TLS certificates and keys of RabbitMQ and Redis.

The folder is closed to other users (0700), and the authority's key in it has mode 0600: anyone who
has that key can impersonate the servers. The servers' keys have mode 0644, because containers mount
these single files and run as other users; on this machine the mode of the folder protects them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from shlex import quote

import click

from common.errors import ConfigError
from common.files import sync_path
from common.tls import certificates
from common.tls.certificates import CertificatePair

SERVERS = ("rabbitmq", "redis")
LOOPBACK = ("localhost", "127.0.0.1")  # in every certificate


@click.command()
@click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path),
    default=Path("certs"),
    help="Folder of the files [certs].",
)
@click.option(
    "--host",
    "hosts",
    multiple=True,
    metavar="NAME_OR_IP",
    help="Name or address by which workers reach this machine; may be repeated [those of the"
    " existing certificates].",
)
@click.option(
    "--days",
    type=click.IntRange(1, certificates.CA_DAYS),
    default=certificates.SERVER_DAYS,
    help=f"Days for which the servers' certificates are valid [{certificates.SERVER_DAYS}].",
)
@click.option(
    "--new-ca", is_flag=True, help="Replace the authority; workers then need the new ca.pem."
)
def command(folder: Path, hosts: tuple[str, ...], days: int, new_ca: bool) -> None:
    """Create a private certificate authority, and certificates for RabbitMQ and Redis.

    A second call keeps the authority and renews the servers' certificates: for other hosts, or
    before they expire. Restart the servers afterwards.
    """
    now = datetime.now(UTC)
    certificates.check_hosts(hosts)
    with _translate_errors(folder):
        _prepare_folder(folder)
        ca, kept = _authority(folder, now, new_ca)
        issued = {
            server: certificates.issue_certificate(
                ca, server, _hosts(folder, server, hosts), now, days
            )
            for server in SERVERS
        }
        if not kept:
            _write(folder / "ca.key", ca.key, 0o600)
            _write(folder / "ca.pem", ca.certificate, 0o644)
        for server, pair in issued.items():
            _write(folder / f"{server}.key", pair.key, 0o644)
            _write(folder / f"{server}.pem", pair.certificate, 0o644)
        sync_path(folder)
    _print_summary(folder, ca, kept, issued)


def _print_summary(
    folder: Path, ca: CertificatePair, kept: bool, issued: dict[str, CertificatePair]
) -> None:
    state = "kept" if kept else "wrote"
    click.echo(f"{state} the authority {folder / 'ca.pem'}, valid until {_day(ca)}")
    click.echo(f"  fingerprint (SHA-256) {certificates.fingerprint(ca.certificate)}")
    for server, pair in issued.items():
        names = ", ".join(certificates.certificate_hosts(pair.certificate))
        click.echo(f"wrote {folder / server}.pem and .key, valid until {_day(pair)}, for {names}")
    click.echo("next:")
    click.echo("  servers  docker compose -f docker-compose.yml -f docker-compose.tls.yml up -d")
    click.echo(f"           or, without Docker: fccl services up --tls {quote(str(folder))}")
    click.echo(f'  config   broker.ca and store.ca = "{folder / "ca.pem"}"')
    click.echo("           broker.url = amqps://…:5671/, store.url = rediss://…")
    click.echo(f"  secret   {folder / 'ca.key'}: never leaves this machine; ca.pem may go anywhere")


def _day(pair: CertificatePair) -> str:
    return f"{certificates.expiry(pair.certificate):%Y-%m-%d}"


def _prepare_folder(folder: Path) -> None:
    """Create the folder, or check that other users cannot read it."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if folder.stat().st_mode & 0o077 and any(folder.iterdir()):
        raise ConfigError(
            f"{folder} will hold private keys, but is open to other users",
            f"name another folder, or `chmod 700 {quote(str(folder))}`",
        )
    folder.chmod(0o700)  # safe for an empty folder, whatever the umask was


def _authority(folder: Path, now: datetime, new: bool) -> tuple[CertificatePair, bool]:
    """Return the authority of the folder and True, or a new one and False."""
    paths = certificate, key = folder / "ca.pem", folder / "ca.key"
    present = [path for path in paths if path.exists()]
    if new or not present:
        return certificates.make_ca(now), False
    if len(present) == 1:
        missing = key if present == [certificate] else certificate
        raise ConfigError(
            f"{present[0]} exists, but {missing.name} does not",
            "restore it from a copy; `fccl certs --new-ca` creates another authority",
        )
    ca = CertificatePair(certificate.read_bytes(), key.read_bytes())
    try:
        certificates.check_ca(ca, now)
    except ConfigError as error:
        raise ConfigError(f"{folder}/ca.*: {error.what}", error.remedy) from None
    return ca, True


def _hosts(folder: Path, server: str, hosts: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names for a certificate: its compose service, this machine, and `hosts`."""
    existing = folder / f"{server}.pem"
    if not hosts and existing.exists():
        try:
            hosts = certificates.certificate_hosts(existing.read_bytes())
        except ConfigError as error:
            raise ConfigError(f"{existing}: {error.what}", "name its hosts with --host") from None
    return (server, *LOOPBACK, *hosts)


def _write(path: Path, data: bytes, mode: int) -> None:
    """Replace a file atomically; its bytes never have a wider mode than `mode`."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.unlink(missing_ok=True)
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
        file.flush()
        os.fchmod(fd, mode)  # whatever the umask
        os.fsync(fd)
    temporary.replace(path)


@contextmanager
def _translate_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except FileExistsError:
        raise ConfigError(f"{folder} is no directory", "name another with --dir") from None
    except OSError as error:
        where = error.filename or folder
        raise ConfigError(
            f"{where}: {error.strerror}", "name a writable folder with --dir"
        ) from None
