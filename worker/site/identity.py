"""Identity of an invited site on its own machine: addresses and credentials.

    ~/.local/share/fccl/sites/NAME.SITE/
        identity.json    addresses and the password that this machine made; mode 0600
        ca.pem           the certificates to trust, where the federation has its own
        data/            the rows of --data in the form that tasks are trained on
        work/            tasks and updates in flight, private state of the clients

`worker/site/join.py` makes one from a token.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from common.config.config import BrokerConfig, FederationConfig, RunConfig, StoreConfig
from common.errors import JoinError
from common.files import write_durable
from common.protocol.fields import RowKind
from common.protocol.naming import site_user
from common.urls import SITE_BROKER, SITE_STORE, parse_url

FILE = "identity.json"
CA_FILE = "ca.pem"


@dataclass(frozen=True)
class Identity:
    """Credentials of a site."""

    site: str
    name: str  # of the runs that it takes part in
    broker: str  # URL without credentials
    store: str  # URL without credentials
    ca: str | None  # PEM certificates that vouch for both servers; None: those of the system
    password: str  # for both servers, made on this machine
    token_id: str  # of the token with which the site asked to join
    request: str  # the request to join, as JSON
    admitted: bool  # the coordinator has accepted the request
    kinds: tuple[RowKind, ...] = ()  # of rows that its runs learn from; empty if not known
    labels: tuple[str, ...] = ()  # classes of its runs, where they are known


def identity_dir(state: Path, name: str, site: str) -> Path:
    return state / "sites" / f"{name}.{site}"


def load(directory: Path) -> Identity | None:
    """Return the identity in a folder, if there is one.

    Raises:
        JoinError: The file is damaged.
    """
    path = directory / FILE
    try:
        return read(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise JoinError(
            f"{path} cannot be read ({type(error).__name__})",
            "restore it, or remove it and join with a new token (`fccl invite SITE --again`)",
        ) from None


def read(path: Path) -> Identity:
    """Return the identity in a file.

    Raises:
        JoinError: A newer release wrote it.
        OSError, ValueError, TypeError: The file cannot be read, is not JSON, or lacks fields.
    """
    data = json.loads(path.read_text(encoding="utf-8"))
    if unknown := sorted(set(data) - {field.name for field in dataclasses.fields(Identity)}):
        raise JoinError(
            f"{path} was written by a newer release of fccl: it has the unknown field {unknown[0]}",
            "upgrade fccl here",
        )
    lists = {name: tuple(data.get(name, ())) for name in ("kinds", "labels")}
    identity = Identity(**(data | lists))
    parse_url(identity.broker, SITE_BROKER)
    parse_url(identity.store, SITE_STORE)
    return identity


def save(path: Path, identity: Identity) -> None:
    """Write an identity durably; only its owner can ever read the file."""
    write_durable(path, json.dumps(asdict(identity), indent=1).encode(), mode=0o600)


def find(state: Path, site: str) -> Path | None:
    """Return the folder of the one federation of which this machine is `site`, if there is one.

    Raises:
        JoinError: There are several.
    """
    files = sorted((state / "sites").glob(f"*.{site}/{FILE}"))
    if len(files) > 1:
        names = ", ".join(path.parent.name.rpartition(".")[0] for path in files)
        raise JoinError(
            f"this machine is site {site} of several federations: {names}",
            "set run.name, or FCCL_RUN__NAME",
        )
    return files[0].parent if files else None


def worker_config(identity: Identity, directory: Path) -> FederationConfig:
    """Return the configuration with which an invited worker reaches its federation."""
    ca = str(directory / CA_FILE) if identity.ca else None
    user = site_user(identity.name, identity.site)
    return FederationConfig(
        run=RunConfig(name=identity.name, dir=str(directory)),
        broker=BrokerConfig(
            url=parse_url(identity.broker, SITE_BROKER).with_login(user, identity.password), ca=ca
        ),
        store=StoreConfig(
            url=parse_url(identity.store, SITE_STORE).with_login(user, identity.password), ca=ca
        ),
    )
