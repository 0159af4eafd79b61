"""An application sends items over HTTP to a real worker while it trains."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.support.federations import Federation, federation
from tests.support.processes import eventually
from tests.support.prometheus import read_metrics
from tests.support.servers import Server, free_port

pytestmark = pytest.mark.servers
WORD = "Quittenmus"


@pytest.fixture
def run(
    tmp_path: Path, model_cache: Path, rabbitmq: Server, redis_server: Server
) -> Iterator[Federation]:
    sizes = {"versions": 500, "clients": 1}
    with federation(tmp_path, model_cache, rabbitmq.url, redis_server.url, **sizes) as made:
        yield made


def ask(port: int, token: str, method: str, path: str, body: str | None = None) -> Any:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        connection.request(method, path, body, {"Authorization": f"Bearer {token}"})
        return json.loads(connection.getresponse().read())


@pytest.mark.slow
def test_posted_items_are_learned_while_training_continues(
    run: Federation, redis_server: Server
) -> None:
    metrics = free_port()
    run.coordinator()
    eventually("the coordinator serves", lambda: run.epoch() == 1)
    worker = run.worker("--inbox-port", "0", "--metrics-port", str(metrics))
    worker.says("with the token in ")
    found = re.search(r"127\.0\.0\.1:(\d+)/learn, .*token in (.*)\n", worker.out)
    assert found is not None
    port, token = int(found[1]), (run.run.parents[1] / found[2]).read_text().strip()
    run.reaches(2)
    rows = [{"instruction": f"Say {WORD} {n}.", "response": f"{WORD} {n}!"} for n in range(6)]
    answer = ask(port, token, "POST", "/learn", json.dumps(rows))
    assert (answer["client"], answer["accepted"], answer["refused"]) == ("client_0", 6, 0)

    def decided() -> bool:
        counts = ask(port, token, "GET", "/inbox")["client_0"]
        return counts["waiting"] == 0 and sum(counts.values()) == 6

    eventually("the worker has processed the items", decided)
    shown = read_metrics(metrics)
    assert shown["fccl_worker_inbox_requests_total200"] >= 2
    states = ("learned", "settled", "rejected")

    def counted() -> bool:  # from the heartbeat
        return (
            sum(read_metrics(metrics)[f"fccl_worker_inbox_items{state}"] for state in states) == 6
        )

    eventually("the metrics of the worker show them", counted)
    run.reaches(run.version() + 1)
    assert worker.code is None
    assert WORD not in worker.out + worker.err and token not in worker.out + worker.err
    with closing(redis.Redis.from_url(redis_server.url)) as store:
        for key in store.scan_iter():
            assert WORD.encode() not in store.dump(key)
