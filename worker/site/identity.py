"""Who an invited site is on its own machine, and how a token becomes that.

    ~/.local/share/fccl/sites/NAME.SITE/
        identity.json    addresses and the password that this machine made; readable by its owner
        ca.pem           whom to trust, where the federation has certificates of its own
        data/            the rows of --data in the form that tasks are trained on
        work/            tasks and updates in flight, private state of the clients

The token is needed once. It lets the worker ask; the password that it then uses is made here, and
only its hashes are sent (`coordinator/sites/credentials.py` answers). Whoever finds the token later finds it
used.
"""

from __future__ import annotations

import hashlib
import json
import socket
import ssl
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from threading import Event as Flag
from urllib.parse import quote, urlsplit, urlunsplit

from pydantic import ValidationError

from broker.rabbit.errors import connect_error
from broker.rabbit.pika_setup import verifying_context
from common.clock import Clock
from common.config.config import BrokerConfig, FederationConfig, RunConfig, StoreConfig
from common.errors import JoinError, StoreAccessError, StoreError
from common.files import write_durable
from common.protocol.invitation import (
    PROTOCOL,
    Invitation,
    JoinAnswer,
    JoinRequest,
    broker_hash,
    new_secret,
    store_hash,
)
from common.protocol.naming import join_user, site_user
from common.store.store import Store, connect
from worker.events import EventCallback, WorkerEventKind

POLL_S = 0.5
REACH_S = 5.0
MAX_SKEW_S = 300.0
"""A clock that is off by more makes certificates and tokens mean something else."""


@dataclass(frozen=True)
class Identity:
    """A site's credentials.

    Attributes:
        site: Whose.
        name: Of the runs that it takes part in.
        broker: URL without credentials.
        store: URL without credentials.
        ca: Certificates (PEM) that vouch for both servers; None: those of the system.
        password: For both servers; made on this machine.
        token_id: The token by which it was asked for.
        request: What was asked, as JSON.
        admitted: Whether the coordinator has answered yes.
    """

    site: str
    name: str
    broker: str
    store: str
    ca: str | None
    password: str
    token_id: str
    request: str
    admitted: bool


def identity_dir(state: Path, name: str, site: str) -> Path:
    """Where an identity lies."""
    return state / "sites" / f"{name}.{site}"


def load(place: Path) -> Identity | None:
    """The identity in a folder, if there is one.

    Raises:
        JoinError: The file is damaged.
    """
    path = place / "identity.json"
    try:
        return Identity(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise JoinError(
            f"{path} cannot be read ({type(error).__name__})",
            "restore it, or remove it and join with a new token (`fccl invite SITE --again`)",
        ) from None


def find(state: Path, site: str) -> Path | None:
    """The folder of the one federation that this machine is `site` of; None if there is none.

    Raises:
        JoinError: There are several.
    """
    found = sorted((state / "sites").glob(f"*.{site}/identity.json"))
    if len(found) > 1:
        names = ", ".join(path.parent.name.rpartition(".")[0] for path in found)
        raise JoinError(
            f"this machine is site {site} of several federations: {names}",
            "set run.name, or FCCL_RUN__NAME",
        )
    return found[0].parent if found else None


def worker_config(identity: Identity, place: Path) -> FederationConfig:
    """How an invited worker reaches its federation."""
    ca = str(place / "ca.pem") if identity.ca else None
    user = site_user(identity.name, identity.site)
    return FederationConfig(
        run=RunConfig(name=identity.name, dir=str(place)),
        broker=BrokerConfig(url=_with(identity.broker, user, identity.password), ca=ca),
        store=StoreConfig(url=_with(identity.store, user, identity.password), ca=ca),
    )


def join(
    invitation: Invitation,
    place: Path,
    *,
    host: str,
    software: str,
    stop: Flag,
    told: EventCallback,
    clock: Clock = time.time,
) -> Identity | None:
    """Become the site that a token invites; None if `stop` was set while waiting for the answer.

    Again with the same token on the same machine is harmless: it has its identity already.

    Args:
        invitation: What the token says.
        place: Folder of the identity.
        host: This machine's name; only informs.
        software: What this is; only informs.
        stop: Ends the waiting.
        told: Called with the kind and text of what is waited for.
        clock: Seconds since the epoch.

    Raises:
        JoinError: The token was used elsewhere, revoked, or is of another federation; or this
            machine's clock is far off.
        BrokerError: The broker is out of reach, or its certificate is refused.
        StoreError: The same of the store.
    """
    known = load(place)
    if known is not None and known.admitted and known.token_id == invitation.token_id:
        return known
    pending = _pending(invitation, place, host, software)
    store = _door(invitation, place)
    _check_clock(store, clock)
    _reach(invitation.broker, str(place / "ca.pem") if invitation.ca else None)
    answer = _ask(store, pending, stop, told)
    if answer is None:
        return None
    ours = hashlib.sha256(pending.request.encode()).hexdigest()
    if answer.state != "admitted" or answer.request != ours:
        (place / "pending.json").unlink(missing_ok=True)
        raise JoinError(answer.reason or f"the coordinator says {answer.state}", _remedy(pending))
    admitted = replace(pending, admitted=True)
    _save(place / "identity.json", admitted)
    (place / "pending.json").unlink(missing_ok=True)
    return admitted


def _pending(invitation: Invitation, place: Path, host: str, software: str) -> Identity:
    """What to ask with: on the disk before it is sent, so that a crash in between loses nothing."""
    path = place / "pending.json"
    if path.exists():
        try:
            found = Identity(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            found = None
        if found is not None and found.token_id == invitation.token_id:
            return found
    password = new_secret()
    request = JoinRequest(
        broker_hash=broker_hash(password),
        store_hash=store_hash(password),
        host=host,
        software=software,
        protocol=PROTOCOL,
    )
    pending = Identity(
        site=invitation.site,
        name=invitation.name,
        broker=invitation.broker,
        store=invitation.store,
        ca=invitation.ca,
        password=password,
        token_id=invitation.token_id,
        request=request.model_dump_json(),
        admitted=False,
    )
    try:
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        place.chmod(0o700)
        if invitation.ca:
            write_durable(place / "ca.pem", invitation.ca.encode("ascii"))
        _save(path, pending)
    except OSError as error:
        raise JoinError(
            f"{place} cannot be written ({error.strerror})", "name another with FCCL_STATE"
        ) from None
    return pending


def _save(path: Path, identity: Identity) -> None:
    """Durable, and readable by its owner only from the first byte on."""
    write_durable(path, json.dumps(asdict(identity), indent=1).encode(), mode=0o600)


def _door(invitation: Invitation, place: Path) -> Store:
    """A connection to the store as the one who may ask."""
    url = _with(invitation.store, join_user(invitation.token_id), invitation.secret)
    ca = str(place / "ca.pem") if invitation.ca else None
    try:
        return connect(url, ca=ca)
    except StoreAccessError:
        raise JoinError(
            f"the store of {invitation.name} does not know this token: it was replaced by a newer"
            " one, its site was removed, or it belongs to another federation",
            f"ask for a new one (`fccl invite {invitation.site} --again`)",
        ) from None


def _check_clock(store: Store, clock: Clock) -> None:
    skew = clock() - store.server_time()
    if abs(skew) > MAX_SKEW_S:
        way = "ahead of" if skew > 0 else "behind"
        raise JoinError(
            f"this machine's clock is {abs(skew):.0f} s {way} the store's",
            "set it right (`timedatectl set-ntp true`)",
        )


def _reach(url: str, ca: str | None) -> None:
    """Whether the broker's port answers, and its certificate is one that we trust.

    There is no user to log in with yet. RabbitMQ says nothing until it is greeted.

    Raises:
        BrokerError: It does not, or is not.
    """
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or 5672
    try:
        with socket.create_connection((host, port), timeout=REACH_S) as plain:
            if parts.scheme == "amqps":
                with verifying_context(ca).wrap_socket(plain, server_hostname=host):
                    pass
    except (OSError, ssl.SSLError) as error:
        raise connect_error(error, f"{host}:{port}") from None


def _ask(store: Store, pending: Identity, stop: Flag, told: EventCallback) -> JoinAnswer | None:
    said = ""
    asked = False
    refused = _read(store, pending.token_id)
    while True:
        try:
            answer = _read(store, pending.token_id)
            if answer is not None and (answer.state != "refused" or answer != refused):
                return answer
            if not asked:  # also where it was asked before: a server may have lost it
                store.put_join_request(pending.token_id, pending.request.encode())
                asked = True
            text = f"asked to join as site {pending.site}; waiting for the coordinator"
        except StoreAccessError as error:
            # Once answered, a token may only read: the answer came between the two.
            answer = _read(store, pending.token_id)
            if answer is not None:
                return answer
            raise JoinError(error.what, _remedy(pending)) from None
        except StoreError as error:
            text, asked = f"waiting: {error.what}", False
        if text != said:
            told(WorkerEventKind.WAITING, text)
            said = text
        if stop.wait(POLL_S):
            return None


def _read(store: Store, token_id: str) -> JoinAnswer | None:
    raw = store.get_join_answer(token_id)
    try:
        return None if raw is None else JoinAnswer.model_validate_json(raw)
    except ValidationError:
        raise JoinError(
            "the coordinator's answer cannot be read", "install the fccl that it runs"
        ) from None


def _remedy(pending: Identity) -> str:
    return f"ask for a new token (`fccl invite {pending.site} --again`)"


def _with(url: str, user: str, password: str) -> str:
    """A URL with credentials."""
    parts = urlsplit(url)
    where = parts.netloc.rpartition("@")[2]
    path = parts.path
    if parts.scheme.startswith("redis") and path in {"", "/"}:
        path = "/0"
    login = f"{quote(user, safe='')}:{quote(password, safe='')}"
    return urlunsplit((parts.scheme, f"{login}@{where}", path, "", ""))
