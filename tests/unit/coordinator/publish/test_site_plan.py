from __future__ import annotations

from common.protocol.codec import payload_bytes
from common.protocol.layout import TensorLayout
from tests.support.polled_federation import PolledFederation


def test_the_plan_is_published_for_sites_and_again_after_a_loss(
    federation: PolledFederation,
) -> None:
    plans = []

    def flush() -> None:
        if federation.turns in (6, 12):
            plans.append(federation.store.get_plan(federation.topology.run))
        if federation.turns == 6:
            federation.redis.client.flushall()

    federation.on_turn = flush
    federation.serve()
    first, second = plans
    assert first is not None and first == second
    run = federation.open()
    newest = run.journal.versions()[-1].version
    layout = TensorLayout.of(run.versions.read(newest))
    assert first.name == run.name and first.base == run.template.base
    assert [phase.objective for phase in first.phases] == [p.objective for p in run.plan.phases]
    assert first.layout == layout.digest
    assert first.update_bytes == payload_bytes(run.template.update_codec, layout)
    run.journal.close()
