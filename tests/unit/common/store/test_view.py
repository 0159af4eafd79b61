"""The view of a run whose coordinator is of an earlier release."""

from __future__ import annotations

import fakeredis

from common.protocol.wire import pack
from common.store import view
from common.store.store import Store
from tests.support.tui.builders import client, info, update, version

ADDED = {"min_clients", "live_clients", "open_evaluations", "contribution_source", "scores"}
ADDED_TO_CLIENTS = {"seen_at", "live", "declines"}


def test_the_status_of_an_earlier_release_is_readable_and_has_contributions() -> None:
    class OlderInfo(view.RunInfo):
        def fields(self) -> dict[str, object]:
            return {k: v for k, v in super().fields().items() if k not in ADDED}

    class OlderClient(view.ClientRow):
        def fields(self) -> dict[str, object]:
            return {k: v for k, v in super().fields().items() if k not in ADDED_TO_CLIENTS}

    OlderInfo.__name__, OlderClient.__name__ = "RunInfo", "ClientRow"
    store = Store(fakeredis.FakeRedis(), "test")
    store.set_run("r", "r")
    store.set_info("r", pack(OlderInfo.model_validate(dict(info()))))
    row = pack(OlderClient.model_validate(dict(client("client_0"))))
    store.put_table("r", "clients", {"client_0": row})
    store.put_summaries("r", [(1, version(1, update(weight=1.0)).model_dump_json())])
    seen = view.read(store, "r")
    assert (seen.info.min_clients, seen.info.contribution_source) == (None, "train")
    assert seen.clients[0].live is None and seen.evaluations == ()
    assert [(each.client_id, each.contribution) for each in seen.contributions] == [("client_0", 1)]
