"""Index of the clients by their turn, and sums over all clients and tasks.

It follows from plan and state alone. The state carries it along, so that a step does not go through
all clients: `coordinator/core/index_update.py` compares the state with the parts that the index was
made of, and updates what has changed. Sums are of integers, so they are exact in any order, also
after a restart. `coordinator/core/schedule.py` issues tasks in the order of the index.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from immutables import Map

from coordinator.persistent.ordered_map import OrderedMap
from coordinator.persistent.sorted_keys import Key, SortedKeys

if TYPE_CHECKING:
    from coordinator.core.state import (
        Client,
        ClientState,
        CoordinatorState,
        OpenEvaluation,
        OpenTask,
        Plan,
    )


@dataclass(frozen=True)
class IndexSources:
    """Parts of a state that an index was made of."""

    plan: Plan
    phase: int
    clients: OrderedMap[str, ClientState]
    tasks: OrderedMap[str, OpenTask]
    joined: OrderedMap[str, Client]
    evaluations: Mapping[str, OpenEvaluation]
    workers: Mapping[str, int]
    wishes: frozenset[str]

    @classmethod
    def of(cls, plan: Plan, state: CoordinatorState) -> IndexSources:
        return cls(
            plan,
            plan.current_phase(state.version),
            state.clients,
            state.tasks,
            state.joined,
            state.evaluations,
            state.workers_by_site,
            state.wishes,
        )

    @classmethod
    def none(cls, plan: Plan, phase: int) -> IndexSources:
        nothing: OrderedMap[str, Client] = OrderedMap()
        return cls(plan, phase, OrderedMap(), OrderedMap(), nothing, {}, {}, frozenset())

    def made_of(self, plan: Plan, state: CoordinatorState) -> bool:
        """Return whether these are the parts of a state."""
        return (
            self.plan is plan
            and self.clients is state.clients
            and self.tasks is state.tasks
            and self.joined is state.joined
            and self.evaluations is state.evaluations
            and self.workers is state.workers_by_site
            and self.wishes is state.wishes
            and self.phase == plan.current_phase(state.version)
        )

    def client(self, name: str) -> Client | None:
        return self.joined.get(name) or self.plan.clients.get(name)

    def site(self, name: str) -> str:
        client = self.client(name)
        return "" if client is None else client.site

    def capacity(self, site: str) -> int:
        """Return how many tasks a site may have at a time.

        In an asynchronous run it is the number of its workers: a task that waits in a queue only
        grows stale, and the gap between two tasks is short (docs/log.md has the cost of one more).
        """
        workers = self.workers.get(site, 0)
        if self.plan.schedule.reissue == "commit":
            return self.plan.schedule.concurrency if workers else 0
        return workers


@dataclass(frozen=True)
class ClientIndex:
    """Clients in the order of their turns, and sums.

    A key is (turn, order, name): the tasks that a client has had, fewer if it wants one; then its
    place in the plan, or among those that joined.

    Attributes:
        queued: Site and key of each client that could get a task: free, with rows, no quarantine.
        queues: Keys of these clients, by site.
        heads: The first key of each site that has room, with the site as its name.
        head_of: The same keys, by site.
        counted: Site and client of each open task, and whether it is parked.
        evaluating: Site of each open evaluation that counts as running.
        load: Tasks and evaluations that count as running, by site. Evaluations do not in a
            synchronous run, where they only come first in a site's queue.
        parked: Parked tasks, by site.
        busy: Open tasks, by client.
        running: Tasks that are not parked.
        participants: Clients with an applied update.
        participation: Applied updates of all clients.
        durations: With `schedule.adaptive_steps`, the time that a task of the phase's usual steps
            takes each client that was measured, with its name.
        attention_at: A time before which no lease or deadline of a task that is not parked ends.
    """

    sources: IndexSources
    queued: Map[str, tuple[str, Key]] = field(default_factory=Map)
    queues: Map[str, SortedKeys] = field(default_factory=Map)
    heads: SortedKeys = field(default_factory=SortedKeys)
    head_of: Map[str, Key] = field(default_factory=Map)
    counted: Map[str, tuple[str, str, bool]] = field(default_factory=Map)
    evaluating: Map[str, str] = field(default_factory=Map)
    load: Map[str, int] = field(default_factory=Map)
    parked: Map[str, int] = field(default_factory=Map)
    busy: Map[str, int] = field(default_factory=Map)
    running: int = 0
    participants: int = 0
    participation: int = 0
    durations: SortedKeys = field(default_factory=SortedKeys)
    attention_at: float = math.inf

    @property
    def target_s(self) -> float | None:
        """Median of the durations, the lower one of two; None if there is none."""
        middle = self.durations.middle
        return None if middle is None else middle[0]

    def room(self, site: str) -> int:
        """Return how many more tasks a site may have."""
        return self.sources.capacity(site) - self.load.get(site, 0)

    def in_turn(self, is_skipped: Callable[[str], bool]) -> Iterator[str]:
        """Yield the clients that may get a task, in order, while their sites have room.

        It merges the queues of the sites, without clients that are skipped.
        """
        following: list[tuple[float, int, str, str]] = []  # a heap; the next client of each site
        queues: dict[str, Iterator[Key]] = {}  # of the sites that were reached
        room: dict[str, int] = {}

        def push(site: str) -> None:
            key = next(queues[site], None)
            if key is not None:
                heapq.heappush(following, (key[0], key[1], site, key[2]))

        heads = iter(self.heads)
        head = next(heads, None)
        while head is not None or following:
            if head is not None and (not following or head[:2] < following[0][:2]):
                site = head[2]
                queues[site], room[site] = iter(self.queues[site]), self.room(site)
                head = next(heads, None)
            else:
                _, _, site, name = heapq.heappop(following)
                if not is_skipped(name):
                    room[site] -= 1
                    yield name
            if room[site] > 0:
                push(site)
