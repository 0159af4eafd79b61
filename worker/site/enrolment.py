"""Asks for the clients of an invited site to take part, and notices when the site is shown out."""

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

ASK_S = 10.0  # until the coordinator answers
DOUBT_S = 5.0  # refused by the store for so long: then the broker is asked, too


class EnrolmentRequests:
    """The clients of one worker in one run; `attend` is called between tasks."""

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
        refused: Callable[[], bool],
        told: EventCallback,
    ) -> None:
        """Nothing is asked yet.

        Args:
            broker: Connected as the site's user.
            store: Where the answers appear.
            topology: Of the run.
            site: That was invited.
            rows: Training rows of each client, by kind.
            worker_id: Of this worker.
            software: What this is.
            refused: Whether the broker refuses this site's credentials.
            told: Called with the kind and text of what happens.
        """
        self._broker, self._store, self._topology, self._site = broker, store, topology, site
        self._rows, self._refused, self._told = rows, refused, told
        self._common = {"worker_id": worker_id, "software": software}
        self._nonce = secrets.randbelow(2**52) + 1
        self._open = dict.fromkeys(rows, -ASK_S)  # client → when it was last asked for
        self._doubted = 0.0

    def attend(self) -> None:
        """Ask for who has no answer yet.

        Raises:
            JoinError: A client is refused, or the site was revoked.
        """
        try:
            for client in self._rows:
                self._look(client)
            self._doubted = 0.0
        except StoreAccessError:
            self._doubt()
        except StoreError:
            pass  # shown by whoever else asks it; the broker will carry the question
        now = time.monotonic()
        for client, asked in self._open.items():
            if now - asked >= ASK_S:
                self._ask(client)
                self._open[client] = now

    def _look(self, client: str) -> None:
        found = self._store.get_membership(self._topology.run, self._site.name, client)
        if found is None or found.nonce not in (self._nonce, 0):
            return  # it was about another time
        if found.state == "member" and client in self._open:
            del self._open[client]
            counts = ", ".join(f"{n} {kind}" for kind, n in self._rows[client].items() if n)
            self._told(WorkerEventKind.JOINED, f"{client} takes part with {counts} rows")
        if found.state == "refused":
            raise JoinError(f"the coordinator refuses: {found.reason}", "see `fccl invite --help`")
        if found.state == "left":
            raise JoinError(found.reason or f"{client} was removed", _REMEDY)

    def _ask(self, client: str) -> None:
        enrolment = Enrolment(
            client_id=client, rows=dict(self._rows[client]), nonce=self._nonce, **self._common
        )
        message = Message(pack(enrolment), message_id=f"enrol.{client}")
        try:
            self._broker.publish_update(self._topology, self._site, message)
        except BrokerError as error:
            self._told(WorkerEventKind.WAITING, error.what)

    def _doubt(self) -> None:
        """A store that restarted empty refuses, too, until the coordinator fills it again.

        The broker keeps its users: only what both refuse is over.
        """
        now = time.monotonic()
        self._doubted = self._doubted or now
        if now - self._doubted < DOUBT_S:
            return
        self._doubted = now
        if self._refused():
            raise revoked_error(self._site.name)
        self._told(
            WorkerEventKind.WAITING,
            "the store does not know this site; the coordinator fills it again",
        )


_REMEDY = "ask its operator for a new token (`fccl invite SITE --again`)"


def revoked_error(site: str) -> JoinError:
    """What a site is told that neither server lets in."""
    return JoinError(
        f"both servers refuse the credentials of site {site}: it was revoked, or it has joined"
        " again from another machine",
        _REMEDY,
    )
