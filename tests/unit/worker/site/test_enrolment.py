"""Requests of an invited site to take part."""

from __future__ import annotations

import pytest

from broker.embedded.broker import EmbeddedBroker, EmbeddedServer
from broker.protocol import Site, Topology
from common.protocol.membership import Enrolment
from common.protocol.wire import unpack
from common.store.embedded import EmbeddedStore
from worker.site.enrolment import EnrolmentRequests


@pytest.mark.parametrize("shares", [True, False])
def test_a_site_says_whether_it_shares_its_updates_in_a_frame_that_earlier_releases_read(
    shares: bool,
) -> None:
    site = Site("acme")
    topology, broker, stores = (
        Topology("run-1", (site,)),
        EmbeddedBroker(EmbeddedServer()),
        EmbeddedStore(),
    )
    broker.declare(topology)
    updates = broker.consume_updates(topology, [site], 10)
    requests = EnrolmentRequests(
        broker, stores.connect(), topology, site, {"acme": {"sft": 12}}, "host-0", "test",
        shares_updates=shares, credentials_refused=lambda: False, on_event=lambda kind, text: None,
    )  # fmt: skip
    requests.poll()
    delivery = updates.receive(10)
    assert delivery is not None
    enrolment, _ = unpack(Enrolment, delivery.message.body)
    assert (enrolment.client_id, enrolment.rows) == ("acme", {"sft": 12})
    assert bool(enrolment.shares_updates) is shares
    assert enrolment.schema_version == (2 if shares else 1)
    stores.close()
