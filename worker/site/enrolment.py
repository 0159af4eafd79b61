"""Enrolment of an invited site's clients in a run, and the end of it when the site is revoked."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping

from broker.protocol import Broker, Message, Site, Topology
from common.errors import BrokerError, JoinError, StoreAccessError, StoreError
from common.protocol.fields import RowKind
from common.protocol.membership import Enrolment
from common.protocol.wire import pack
from common.store.store import Store
from worker.events import EventCallback, WorkerEventKind

REQUEST_S = 10.0  # a request without an answer is repeated after this time
DOUBT_S = 5.0  # refused by the store for so long: then the login at the broker is tried, too

CredentialsCheck = Callable[[], bool]
"""Logs in to the broker, and returns whether it refuses the site's credentials."""


class EnrolmentRequests:
    """Requests of one worker that its clients take part in a run.

    `rows` has the number of training rows of each client, by kind; it is empty for the local site.
    """

    def __init__(
        self,
        broker: Broker,
        store: Store,
        topology: Topology,
        site: Site,
        rows: Mapping[str, Mapping[RowKind, int]],
        worker_id: str,
        software: str,
        *,
        shares_updates: bool = False,
        credentials_refused: CredentialsCheck,
        on_event: EventCallback,
    ) -> None:
        self._broker, self._store, self._topology, self._site = broker, store, topology, site
        self._rows = rows
        self._credentials_refused, self._on_event = credentials_refused, on_event
        self._worker_id, self._software = worker_id, software
        self._shares_updates = shares_updates
        self._nonce = secrets.randbelow(2**52) + 1
        self._open = dict.fromkeys(rows, -REQUEST_S)  # client → monotonic time of the last request
        self._refused_since = 0.0

    def poll(self) -> None:
        """Read the answers, and send requests for the clients that have none. Call between tasks.

        Raises:
            JoinError: A client is refused, or the site was revoked.
        """
        try:
            for client in self._rows:
                self._read_answer(client)
            self._refused_since = 0.0
        except StoreAccessError:
            self._check_credentials()
            return  # the broker may refuse the site too, and a request would wait for it in vain
        except StoreError:
            pass  # others report it; requests travel through the broker all the same
        now = time.monotonic()
        for client, requested in self._open.items():
            if now - requested >= REQUEST_S:
                self._send_request(client)
                self._open[client] = now

    def _read_answer(self, client: str) -> None:
        answer = self._store.get_membership(self._topology.run, self._site.name, client)
        if answer is None or answer.nonce not in (self._nonce, 0):
            return  # the answer to an earlier worker's request
        if answer.state == "member" and client in self._open:
            del self._open[client]
            counts = ", ".join(f"{n} {kind}" for kind, n in self._rows[client].items() if n)
            self._on_event(WorkerEventKind.JOINED, f"{client} takes part with {counts} rows")
        if answer.state == "refused":
            raise JoinError(f"the coordinator refuses: {answer.reason}", "see `fccl invite --help`")
        if answer.state == "left":
            raise JoinError(answer.reason or f"{client} was removed", _REMEDY)

    def _send_request(self, client: str) -> None:
        enrolment = Enrolment(
            client_id=client,
            worker_id=self._worker_id,
            rows=dict(self._rows[client]),
            nonce=self._nonce,
            software=self._software,
            shares_updates=self._shares_updates or None,  # earlier releases do not know the field
        )
        message = Message(pack(enrolment), message_id=f"enrol.{client}")
        try:
            self._broker.publish_update(self._topology, self._site, message)
        except BrokerError as error:
            self._on_event(WorkerEventKind.WAITING, error.what)

    def _check_credentials(self) -> None:
        """Raise `JoinError` if both servers refuse the site.

        A store that restarted empty refuses it, too, until the coordinator has filled it again. The
        broker keeps its users: a site is revoked only if both refuse it.
        """
        now = time.monotonic()
        self._refused_since = self._refused_since or now
        if now - self._refused_since < DOUBT_S:
            return
        self._refused_since = now
        if self._credentials_refused():
            raise revoked_error(self._site.name)
        self._on_event(WorkerEventKind.WAITING, STORE_FORGOT_SITE)


STORE_FORGOT_SITE = "the store does not know this site; waiting for the coordinator to fill it"
_REMEDY = "ask its operator for a new token (`fccl invite SITE --again`)"


def revoked_error(site: str) -> JoinError:
    return JoinError(
        f"both servers refuse the credentials of site {site}: it was revoked, or it has joined"
        " again from another machine",
        _REMEDY,
    )
