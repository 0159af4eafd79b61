"""Update of the index of clients: it goes through what has changed since it was made."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from immutables import Map, MapMutation

from coordinator.core.client_index import ClientIndex, IndexSources
from coordinator.core.pace import typical
from coordinator.core.state import CoordinatorState, OpenTask, Plan
from coordinator.persistent.sorted_keys import Key, SortedKeys

AHEAD = 2  # tasks by which a client that wants one may be ahead of its turn
MARGIN_S = 1e-3  # by which `attention_at` is earlier, because sums of times are rounded


def with_index(plan: Plan, state: CoordinatorState) -> CoordinatorState:
    """Return the state with an index that is up to date."""
    if state.index is not None and state.index.sources.made_of(plan, state):
        return state
    return state.with_index(_advance(state.index, IndexSources.of(plan, state)))


def index_of(plan: Plan, state: CoordinatorState) -> ClientIndex:
    """Return an index of the state that is up to date."""
    index = with_index(plan, state).index
    assert index is not None
    return index


def expires_at(plan: Plan, task: OpenTask) -> float:
    """Return a time before which neither lease nor deadline of a task ends."""
    return min(task.lease_until, task.issued_at + plan.schedule.task_deadline_s) - MARGIN_S


def _advance(old: ClientIndex | None, new: IndexSources) -> ClientIndex:
    known = old is not None and old.sources.plan is new.plan and old.sources.phase == new.phase
    if old is not None and known:
        return _Update(old, new).result()
    update = _Update(ClientIndex(IndexSources.none(new.plan, new.phase)), new)
    update.clients |= {*new.plan.clients, *new.joined}
    return update.result()


class _Update:
    """One update of an index.

    Attributes:
        clients: Clients whose key may have changed.
    """

    def __init__(self, old: ClientIndex, new: IndexSources) -> None:
        self._old, self._before, self._new = old, old.sources, new
        self.clients, self._sites = set[str](), set[str]()  # sites: the first key or the room
        self._load, self._parked = old.load.mutate(), old.parked.mutate()
        self._busy, self._counted = old.busy.mutate(), old.counted.mutate()
        self._queued, self._queues = old.queued.mutate(), old.queues.mutate()
        self._head_of = old.head_of.mutate()
        self._running, self._attention_at = old.running, old.attention_at

    def result(self) -> ClientIndex:
        before, new = self._before, self._new
        changed, _ = new.clients.changes_since(before.clients)
        joined, left = new.joined.changes_since(before.joined)
        self.clients.update(changed, joined, left, before.wishes ^ new.wishes)
        if new.workers is not before.workers and new.workers != before.workers:
            sites = new.workers.keys() | before.workers.keys()
            self._sites |= {s for s in sites if new.workers.get(s) != before.workers.get(s)}
        participants, participation = self._sum_participation(changed)
        moved = bool(joined or left)  # a client may have another site now
        self._count_tasks(moved)
        evaluating = self._count_evaluations(moved)
        self._queue_clients()
        heads = self._order_heads()
        return ClientIndex(
            sources=new,
            queued=self._queued.finish(),
            queues=self._queues.finish(),
            heads=heads,
            head_of=self._head_of.finish(),
            counted=self._counted.finish(),
            evaluating=evaluating,
            load=self._load.finish(),
            parked=self._parked.finish(),
            busy=self._busy.finish(),
            running=self._running,
            participants=participants,
            participation=participation,
            durations=self._order_durations(changed),
            attention_at=self._attention_at,
        )

    def _sum_participation(self, changed: Iterable[str]) -> tuple[int, int]:
        participants, total = self._old.participants, self._old.participation
        for name in changed:
            before, now = self._before.clients.get(name), self._new.clients[name].participation
            known = before.participation if before else 0
            total += now - known
            participants += bool(now) - bool(known)
        return participants, total

    def _order_durations(self, changed: Iterable[str]) -> SortedKeys:
        new, removed, added = self._new, list[Key](), list[Key]()
        if new.plan.schedule.adaptive_steps is None:
            return self._old.durations
        steps = new.plan.phases[new.phase].local_steps
        for name in changed:
            known, now = self._before.clients.get(name), new.clients[name]
            if known is not None and known.paces == now.paces:
                continue
            for client, keys in ((known, removed), (now, added)):
                pace = typical(client.paces) if client is not None else None
                if pace is not None:
                    keys.append((pace.seconds(steps), 0, name))
        return self._old.durations.change(removed, added)

    def _count_tasks(self, moved: bool) -> None:
        """Count the tasks that have changed, or all of them."""
        tasks, counted = self._new.tasks, self._counted
        changed, removed = tasks.changes_since(self._before.tasks)
        for task_id in (*removed, *(tasks if moved else changed)):
            known, task = counted.get(task_id), tasks.get(task_id)
            if task is not None and not task.parked:
                end = expires_at(self._new.plan, task)
                self._attention_at = min(self._attention_at, end)
            wanted = self._describe(task) if task is not None else None
            if known == wanted:
                continue
            if known is not None:
                del counted[task_id]
                self._count(*known, -1)
            if wanted is not None:
                counted[task_id] = wanted
                self._count(*wanted, 1)

    def _describe(self, task: OpenTask) -> tuple[str, str, bool]:
        return self._new.site(task.client_id), task.client_id, task.parked

    def _count(self, site: str, client: str, parked: bool, by: int) -> None:
        """Add a task to the sums, or take it away."""
        _add(self._busy, client, by)
        _add(self._parked if parked else self._load, site, by)
        self.clients.add(client)
        self._sites.add(site)
        self._running += 0 if parked else by

    def _count_evaluations(self, moved: bool) -> Map[str, str]:
        before, now = self._before.evaluations, self._new.evaluations
        old, new = self._old.evaluating, self._new
        if new.plan.schedule.reissue == "commit" or (now is before and not moved):
            return old
        evaluating = old.mutate()
        for task_id in {*old, *now}:
            site = new.site(now[task_id].client_id) if task_id in now else None
            known = old.get(task_id)
            if site == known:
                continue
            if known is not None:
                del evaluating[task_id]
                _add(self._load, known, -1)
                self._sites.add(known)
            if site is not None:
                evaluating[task_id] = site
                _add(self._load, site, 1)
                self._sites.add(site)
        return evaluating.finish()

    def _queue_clients(self) -> None:
        removed, added = defaultdict[str, list[Key]](list), defaultdict[str, list[Key]](list)
        queued, queues = self._queued, self._queues
        for name in self.clients:
            known, wanted = queued.get(name), self._entry(name)
            if known == wanted:
                continue
            if known is not None:
                removed[known[0]].append(known[1])
                del queued[name]
            if wanted is not None:
                added[wanted[0]].append(wanted[1])
                queued[name] = wanted
        for site in removed.keys() | added.keys():
            queue = (queues.get(site) or SortedKeys()).change(removed[site], added[site])
            if queue:
                queues[site] = queue
            else:
                queues.pop(site, None)
            self._sites.add(site)

    def _entry(self, name: str) -> tuple[str, Key] | None:
        """Return site and key of a client; None if it can get no task."""
        new = self._new
        client = new.client(name)
        if client is None or name in self._busy or not new.plan.rows(client, new.phase):
            return None
        history = new.clients.get(name)
        if history is not None and history.quarantined:
            return None
        turn = (history.issued if history else 0) - (AHEAD if name in new.wishes else 0)
        place = new.plan.places.get(name)
        if place is None:
            place = len(new.plan.clients) + new.joined.place(name)
        return client.site, (turn, place, name)

    def _order_heads(self) -> SortedKeys:
        removed, added, head_of = list[Key](), list[Key](), self._head_of
        for site in self._sites:
            queue, room = self._queues.get(site), self._new.capacity(site) - self._load.get(site, 0)
            first = queue.first if queue and room > 0 else None
            wanted = None if first is None else (first[0], first[1], site)
            known = head_of.get(site)
            if known == wanted:
                continue
            if known is not None:
                removed.append(known)
                del head_of[site]
            if wanted is not None:
                added.append(wanted)
                head_of[site] = wanted
        return self._old.heads.change(removed, added)


def _add(counter: MapMutation[str, int], key: str, by: int) -> None:
    value = counter.get(key, 0) + by
    if value:
        counter[key] = value
    else:
        counter.pop(key, None)
