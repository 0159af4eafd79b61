"""Repeated messages: updates of any age published again, with their chunks out of order."""

from __future__ import annotations

import contextlib
import random

from broker.chunks import split_update
from broker.protocol import LOCAL, Message, Topology
from broker.rabbit import broker as rabbit
from common.errors import BrokerError
from tests.chaos import process, witness
from tests.chaos.federation import Federation

MOST = 4


def repeat_updates(federation: Federation, source: random.Random) -> None:
    """Publish some updates again, old ones and new ones, as their site would.

    Chunks of all of them are shuffled together, some twice; now and then one is left out.
    """
    run = federation.progress.run_id
    files = witness.updates(federation.witness)
    if not files or not run:
        return
    chosen = [files[-1], *source.choices(files, k=source.randrange(MOST))]
    messages: list[Message] = []
    for file in chosen:
        update_id = file.name.rpartition(".")[0]
        messages += split_update(update_id, file.read_bytes(), process.CHUNK_BYTES)
    messages += source.choices(messages, k=len(messages) // 3)
    source.shuffle(messages)
    if source.random() < 0.3:
        messages.pop()
    with contextlib.suppress(BrokerError):  # the broker fails as well, or the run has ended
        broker = rabbit.connect(federation.servers.rabbitmq.url)
        try:
            for message in messages:
                broker.publish_update(Topology(run), LOCAL, message)
        finally:
            broker.close()
