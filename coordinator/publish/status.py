"""What the coordinator shows the world, through the store. After `journal` on an update's way.

All of it can be rebuilt from the journal and the version directories, so a store that comes back
empty is filled again by `restore`. The readers are workers (adapter, receipts, version) and
`common/store/view.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

from broker.protocol import QueueDepth
from common.protocol.feed import Event
from common.protocol.membership import Membership
from common.protocol.tasks import Receipt
from common.protocol.versions import CurrentModel, SampleAnswer, VersionSummary
from common.protocol.wire import pack
from common.store.store import Store
from common.store.view import ClientRow, QueueRow, RunInfo
from coordinator.core.events import AdmitClient, DismissClient
from coordinator.core.state import CoordinatorState, Plan
from coordinator.storage.journal import Journal
from coordinator.storage.versions import Versions

RESTORED_RECEIPTS = 1000
RESTORED_EVENTS = 200


class Status:
    """Publishes one run. Every method raises `StoreError` when the store is out of reach."""

    def __init__(
        self,
        store: Store,
        name: str,
        run: str,
        plan: Plan,
        model: Callable[[VersionSummary], CurrentModel],
    ) -> None:
        self._store = store
        self._model = model
        self._name = name
        self._run = run
        self._plan = plan

    def restore(self, journal: Journal, versions: Versions, in_use: Iterable[int]) -> None:
        """Fill an empty store from the run directory.

        Args:
            journal: The run's.
            versions: Its adapters.
            in_use: Versions that workers may fetch.
        """
        summaries = journal.versions()
        for summary in summaries:
            self._store.put_summary(self._run, summary.version, summary.model_dump_json())
        for version in set(in_use) | {summaries[-1].version}:
            self._store.put_blob(self._run, versions.frame(version))
        for site, receipt in journal.receipts(RESTORED_RECEIPTS):
            self._store.put_receipt(self._run, site, receipt)
        for client in journal.joined_clients():
            self.member(AdmitClient(client))
        if self._store.get_version(self._run) is None:  # else the feed is there already
            self._store.append_events(self._run, journal.events(RESTORED_EVENTS))
        self._store.set_model(self._run, pack(self._model(summaries[-1])))
        self._store.set_version(self._run, summaries[-1].version)
        self._store.set_run(self._name, self._run)

    def version(self, summary: VersionSummary, frame: bytes) -> None:
        """A new version: payload first, then the pointer to it."""
        self._store.put_blob(self._run, frame)
        self._store.set_model(self._run, pack(self._model(summary)))
        self._store.put_summary(self._run, summary.version, summary.model_dump_json())
        self._store.set_version(self._run, summary.version)

    def samples(self, shown: Sequence[SampleAnswer]) -> None:
        """What versions have said of held-out rows, in place of what was shown."""
        rows = {str(number): pack(sample) for number, sample in enumerate(shown)}
        self._store.put_table(self._run, "samples", rows)

    def forget(self, summary: VersionSummary) -> None:
        """No open task starts from this version any more."""
        self._store.drop_blob(self._run, summary.sha256, summary.nbytes)

    def receipt(self, site: str, receipt: Receipt) -> None:
        """Tell the workers of a site."""
        self._store.put_receipt(self._run, site, receipt)

    def member(self, action: AdmitClient) -> None:
        """Tell a client's site that it takes part."""
        client_id, site = action.client.client_id, action.client.site
        told = Membership(client_id=client_id, state="member", nonce=action.nonce)
        self._store.put_membership(self._run, site, told)

    def dismissed(self, action: DismissClient) -> None:
        """Tell a site that its client does not take part."""
        state: Literal["left", "refused"] = "left" if action.left else "refused"
        told = Membership(
            client_id=action.client_id, state=state, nonce=action.nonce, reason=action.reason
        )
        self._store.put_membership(self._run, action.site, told)

    def events(self, events: Iterable[Event]) -> None:
        """Append to the feed."""
        self._store.append_events(self._run, events)

    def live(self, info: RunInfo, state: CoordinatorState, latest: VersionSummary | None) -> None:
        """The tables that change all the time."""
        self._store.set_info(self._run, pack(info))
        self._store.put_table(self._run, "clients", self._clients(state, latest))

    def queues(self, depths: Mapping[str, QueueDepth]) -> None:
        """Depths of the run's queues."""
        rows = {
            name: pack(QueueRow(queue=name, messages=d.messages, consumers=d.consumers))
            for name, d in depths.items()
        }
        self._store.put_table(self._run, "queues", rows)

    def _clients(self, state: CoordinatorState, latest: VersionSummary | None) -> dict[str, bytes]:
        weights = {u.client_id: u.weight for u in latest.updates} if latest else {}
        open_tasks = {task.client_id: task for task in state.tasks.values()}
        phase = min(self._plan.phase_of(state.version), len(self._plan.phases) - 1)
        rows = {}
        for client in state.members(self._plan).values():
            seen, task = state.client(client.client_id), open_tasks.get(client.client_id)
            row = ClientRow(
                client_id=client.client_id,
                site=client.site,
                rows=self._plan.rows(client, phase),
                issued=seen.issued,
                participation=seen.participation,
                task_id=task.task_id if task else None,
                base_version=task.base_version if task else None,
                staleness=state.version - task.base_version if task else None,
                last_loss=seen.last.avg_loss if seen.last else None,
                weight=weights.get(client.client_id),
                quarantined=seen.quarantined,
            )
            rows[client.client_id] = pack(row)
        return rows
