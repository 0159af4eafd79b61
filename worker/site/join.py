"""Joining of a federation: how a site's machine turns an invitation token into an identity.

The token is used once, to send a request. The password from then on is made here, and only its
hashes are sent (`coordinator/sites/credentials.py` answers). Whoever finds the token later cannot
join with it.
"""

from __future__ import annotations

import hashlib
import socket
import ssl
import time
from dataclasses import replace
from pathlib import Path
from threading import Event as Flag

from pydantic import ValidationError

from broker.rabbit.errors import connect_error
from broker.rabbit.pika_setup import verifying_context
from common.clock import Clock
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
from common.protocol.naming import join_user
from common.start_lock import only_start
from common.store.store import Store, connect
from common.urls import SITE_BROKER, SITE_STORE, parse_url
from worker.events import EventCallback, WorkerEventKind
from worker.site import identity
from worker.site.identity import CA_FILE, Identity

POLL_S = 0.5
CONNECT_S = 5.0
MAX_SKEW_S = 300.0  # with a larger error, certificates and tokens seem expired or not yet valid
PENDING_FILE = "pending.json"


def join(
    invitation: Invitation,
    directory: Path,
    *,
    host: str,
    software: str,
    stop: Flag,
    on_event: EventCallback,
    clock: Clock = time.time,
) -> Identity | None:
    """Become the site that a token invites; None if `stop` was set while waiting for the answer.

    A second call with the same token on the same machine returns the identity in `directory`.
    `host` and `software` are for people.

    Raises:
        JoinError: The token was used elsewhere, revoked, or is of another federation; or this
            machine's clock is far off.
        BrokerError: The broker is out of reach, or its certificate is refused.
        StoreError: Likewise for the store.
        RunError: Another process joins with this directory.
    """
    known = identity.load(directory)
    if known is not None and known.admitted and known.token_id == invitation.token_id:
        return known
    with only_start(directory):
        return _join(invitation, directory, host, software, stop, on_event, clock)


def _join(
    invitation: Invitation,
    directory: Path,
    host: str,
    software: str,
    stop: Flag,
    on_event: EventCallback,
    clock: Clock,
) -> Identity | None:
    pending = _pending_identity(invitation, directory, host, software)
    store = _connect_store(invitation, directory)
    _check_clock(store, clock)
    _check_broker(invitation.broker, str(directory / CA_FILE) if invitation.ca else None)
    answer = _request(store, pending, stop, on_event)
    if answer is None:
        return None
    own_request = hashlib.sha256(pending.request.encode()).hexdigest()
    if answer.state != "admitted" or answer.request != own_request:
        (directory / PENDING_FILE).unlink(missing_ok=True)
        raise JoinError(
            answer.reason or f"the coordinator answered {answer.state}", _remedy(pending)
        )
    admitted = replace(pending, admitted=True)
    identity.save(directory / identity.FILE, admitted)
    (directory / PENDING_FILE).unlink(missing_ok=True)
    return admitted


def _pending_identity(
    invitation: Invitation, directory: Path, host: str, software: str
) -> Identity:
    """Return the identity to request; it is on the disk before the request is sent."""
    path = directory / PENDING_FILE
    if path.exists():
        try:
            earlier = identity.read(path)
        except (OSError, ValueError, TypeError):
            earlier = None
        if earlier is not None and earlier.token_id == invitation.token_id:
            return earlier
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
        kinds=invitation.kinds or (),
        labels=invitation.labels or (),
    )
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        directory.chmod(0o700)
        if invitation.ca:
            write_durable(directory / CA_FILE, invitation.ca.encode("ascii"))
        identity.save(path, pending)
    except OSError as error:
        raise JoinError(
            f"{directory} cannot be written ({error.strerror})", "name another with FCCL_STATE"
        ) from None
    return pending


def _connect_store(invitation: Invitation, directory: Path) -> Store:
    """Connect to the store as the user of the token, who may only ask to join."""
    server = parse_url(invitation.store, SITE_STORE)
    url = server.with_login(join_user(invitation.token_id), invitation.secret)
    ca = str(directory / CA_FILE) if invitation.ca else None
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


def _check_broker(url: str, ca: str | None) -> None:
    """Check that the broker's port answers and that its certificate is trusted.

    There is no user to log in with yet, and RabbitMQ sends nothing before the client does.
    """
    server = parse_url(url, SITE_BROKER)
    try:
        with socket.create_connection((server.host, server.port), timeout=CONNECT_S) as plain:
            if server.scheme == "amqps":
                with verifying_context(ca).wrap_socket(plain, server_hostname=server.host):
                    pass
    except (OSError, ssl.SSLError) as error:
        raise connect_error(error, server.address) from None


def _request(
    store: Store, pending: Identity, stop: Flag, on_event: EventCallback
) -> JoinAnswer | None:
    """Send the request to join and wait for the answer; None if `stop` was set first."""
    reported = ""
    sent = False
    old_refusal = _read_answer(store, pending.token_id)
    while True:
        try:
            answer = _read_answer(store, pending.token_id)
            if answer is not None and (answer.state != "refused" or answer != old_refusal):
                return answer
            if not sent:  # even if an earlier process did: the server may have lost it
                store.put_join_request(pending.token_id, pending.request.encode())
                sent = True
            text = f"asked to join as site {pending.site}; waiting for the coordinator"
        except StoreAccessError as error:
            # Once answered, a token may only read: the answer came between the two.
            answer = _read_answer(store, pending.token_id)
            if answer is not None:
                return answer
            raise JoinError(error.what, _remedy(pending)) from None
        except StoreError as error:
            text, sent = f"waiting: {error.what}", False
        if text != reported:
            on_event(WorkerEventKind.WAITING, text)
            reported = text
        if stop.wait(POLL_S):
            return None


def _read_answer(store: Store, token_id: str) -> JoinAnswer | None:
    raw = store.get_join_answer(token_id)
    try:
        return None if raw is None else JoinAnswer.model_validate_json(raw)
    except ValidationError:
        raise JoinError(
            "the coordinator's answer cannot be read", "install the fccl that it runs"
        ) from None


def _remedy(pending: Identity) -> str:
    return f"ask for a new token (`fccl invite {pending.site} --again`)"
