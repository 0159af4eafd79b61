"""Queues of a run's sites: declare, verify and read them.

A declaration need not last: a RabbitMQ that is killed just after it has confirmed a binding can
come back without it, and an operator can delete a queue. So the topology is verified periodically
and after every reconnect, and missing parts are declared again.

First file of the coordinator on the path of an update; `coordinator/service.py` passes each message
on to `coordinator/ingest/ingest.py`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Set
from dataclasses import dataclass

from broker.protocol import (
    UPDATE_QUEUE_BYTES,
    Broker,
    Consumer,
    Delivery,
    Message,
    QueueDepth,
    QueueType,
    Site,
    Topology,
)

PREFETCH = 4
"""Unacked chunks of each site's queue."""
CHECK_S = 10.0
"""Seconds from one verification of the topology to the next."""
FLOOD_MESSAGES, FLOOD_S = 50, 60.0
"""Refused messages of one site within this many seconds that count as a flood."""
MUTE_S = 600.0
"""Seconds for which the queue of a flooding site is not read."""


@dataclass(frozen=True)
class SiteMessage:
    """Message from the update queue of a site, with the site's broker user."""

    site: str
    user: str
    delivery: Delivery


class SiteQueues:
    """Task and update queues of the run's own sites and of the invited ones.

    Methods raise `BrokerError` if the broker refuses, or is out of reach.
    """

    def __init__(
        self,
        broker: Broker,
        run_id: str,
        users: Mapping[str, str],
        queue_type: QueueType = "classic",
        update_bytes: int = UPDATE_QUEUE_BYTES,
    ) -> None:
        """Store the settings; `open` declares the queues.

        Args:
            broker: Connected broker.
            run_id: Id of the run.
            users: Broker user of each of the run's own sites.
            queue_type: Type of the queues to declare.
            update_bytes: Quota of each site's update queue, in bytes.
        """
        self._broker, self._run_id = broker, run_id
        self._queue_type: QueueType = queue_type
        self._update_bytes = update_bytes
        self._own_users: Mapping[str, str] = dict(users)
        self._invited_users: Mapping[str, str] = {}
        self._refused: dict[str, deque[float]] = {}  # times of the newest ones, by site
        self._muted_until: dict[str, float] = {}
        self._next_check = 0.0
        self._connections = 0
        self._topology = self._topology_of(self._own_users)
        self._consumer: Consumer | None = None

    def open(self) -> None:
        """Declare the queues of the run's own sites, and begin to receive."""
        self._connections = self._broker.connections
        self._broker.declare(self._topology)
        self._consume()

    def close(self) -> None:
        """Stop receiving; unanswered messages go back to their queues."""
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None

    def delete(self) -> None:
        self._broker.delete(self._topology)

    # messages

    def receive(self, timeout: float) -> SiteMessage | None:
        """Return the next message of any site, or None after `timeout` seconds."""
        delivery = self._receiving.receive(timeout)
        if delivery is None:
            return None
        site = self._sites[delivery.queue]
        return SiteMessage(site, self._users[site], delivery)

    def ack(self, message: SiteMessage) -> None:
        """Confirm a message whose effects are durable."""
        self._receiving.ack(message.delivery)

    def reject(self, message: SiteMessage, reason: str) -> None:
        """Move a message to the dead-letter queue.

        Raises:
            BrokerError: The broker does not take it; requeue the message.
        """
        self._receiving.reject(message.delivery, reason)

    def requeue(self, message: SiteMessage) -> None:
        self._receiving.requeue(message.delivery)

    def publish_task(self, site: str, message: Message) -> None:
        """Put a task on a site's queue; return when the broker has confirmed it."""
        self._broker.publish_task(self._topology, Site(site), message)

    def depths(self) -> Mapping[str, QueueDepth]:
        """Return the depths of the run's queues, by name; a missing one is declared again soon."""
        depths = self._broker.depths(self._topology)
        if depths.keys() != set(self._topology.queues):
            self._next_check = 0.0
        return depths

    # server state

    @property
    def blocked(self) -> str:
        """Why the broker takes no tasks at present, with a remedy; empty while it does."""
        return self._broker.blocked

    def check_is_due(self, now: float) -> bool:
        return now >= self._next_check or self._broker.connections != self._connections

    def repair(self, now: float) -> tuple[str, ...]:
        """Declare again what the broker has lost, and return the names of what was missing."""
        self._next_check, self._connections = now + CHECK_S, self._broker.connections
        names = self._broker.repair(self._topology)
        if names:  # a deleted quorum queue does not always cancel its consumer
            self._consume()
        return names

    # invited sites

    def serve(self, users: Mapping[str, str], revoked: Set[str], now: float) -> None:
        """Serve these invited sites from now on, and delete the queues of revoked ones.

        Sites whose mute is over are read again. If the broker fails, nothing has changed.

        Args:
            users: Broker user of each invited site.
            revoked: Sites that no longer take part.
            now: Seconds since the epoch.
        """
        muted = {site: until for site, until in self._muted_until.items() if until > now}
        if users == self._invited_users and muted == self._muted_until and not revoked:
            return
        topology = self._topology_of({**self._own_users, **users})
        if revoked:  # also deletes the dead-letter queue if it is empty: declare it again below
            self._broker.delete(self._topology_of(revoked))
        self._broker.declare(topology)
        self._invited_users, self._topology, self._muted_until = dict(users), topology, muted
        self._consume()

    def count_refused(self, site: str, now: float) -> bool:
        """Count a refused message of a site; mute the site, and return True, if it floods.

        The queue of a muted site fills up to its byte limit, and the broker refuses the rest.
        The run's own sites are never muted.
        """
        if site not in self._invited_users:
            return False
        recent = self._refused.setdefault(site, deque(maxlen=FLOOD_MESSAGES))
        recent.append(now)
        is_flood = len(recent) == FLOOD_MESSAGES and now - recent[0] <= FLOOD_S
        if not is_flood or site in self._muted_until:
            return False
        recent.clear()
        self._muted_until[site] = now + MUTE_S
        self._consume()
        return True

    @property
    def _users(self) -> Mapping[str, str]:
        return {**self._own_users, **self._invited_users}

    @property
    def _receiving(self) -> Consumer:
        if self._consumer is None:
            raise RuntimeError("the queues are not open")
        return self._consumer

    def _topology_of(self, sites: Set[str] | Mapping[str, str]) -> Topology:
        named = tuple(Site(name) for name in sorted(sites))
        return Topology(self._run_id, named, self._update_bytes, self._queue_type)

    def _consume(self) -> None:
        """Receive from all update queues except those of muted sites."""
        self.close()
        self._sites = {
            self._topology.update_queue(site): site.name for site in self._topology.sites
        }
        read = [site for site in self._topology.sites if site.name not in self._muted_until]
        self._consumer = self._broker.consume_updates(self._topology, read, PREFETCH)
