"""A site that joined, and then does what it should not: each attempt is refused, the run goes on.

One federation serves all of these tests: a coordinator, a local worker, and two invited sites whose
credentials the tests hold. `hospital-b` attacks; `hospital-a` is whom it would harm.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pika
import pytest
import redis
from pika import exceptions as amqp
from pika.adapters.blocking_connection import BlockingChannel, BlockingConnection

from broker.chunks import split_update
from broker.protocol import LOCAL, Message, QueueFull, Site, Topology
from broker.rabbit import broker as rabbit
from broker.rabbit.broker import RabbitBroker
from broker.rabbit.management import ManagementApi, permission
from broker.rabbit.pika_setup import make_parameters
from common.protocol import codec
from common.protocol.heartbeat import Heartbeat
from common.protocol.invitation import decode
from common.protocol.membership import Enrolment
from common.protocol.tasks import TaskRefusal
from common.protocol.updates import Update
from common.protocol.wire import pack
from common.store.store import connect
from tests.integration.test_sites import TLS, Headquarters
from tests.support.federations import check_applied_once, phase, plan, planned
from tests.support.processes import eventually
from tests.support.tls_servers import Guarded
from tests.support.virtual_federation import make_stats
from worker.site import identity

pytestmark = pytest.mark.servers

A, B = "hospital-a", "hospital-b"


@dataclass
class Siege:
    """The federation, and what the attacker holds."""

    headquarters: Headquarters
    run: str
    servers: Guarded
    amqps: str
    rediss: str
    place: Path
    owner: redis.Redis  # may read everything, to see what became of an attempt

    @property
    def topology(self) -> Topology:
        return Topology(self.run, (LOCAL, Site(A), Site(B)))

    @property
    def updates(self) -> str:
        return self.topology.update_exchange(Site(B))

    def connection(self) -> BlockingConnection:
        return BlockingConnection(make_parameters(self.amqps, self.servers.ca))

    def redis(self) -> redis.Redis:
        return redis.Redis.from_url(self.rediss, ssl_ca_certs=self.servers.ca)

    def broker(self) -> RabbitBroker:
        return rabbit.connect(self.amqps, ca=self.servers.ca)

    def dead_reasons(self) -> list[str]:
        """Why messages were dead-lettered, from the journal's events."""
        rows = self.headquarters.rows("SELECT text FROM event WHERE kind = 'dead-letter'")
        return [text for (text,) in rows]

    def is_dead_lettered(self, reason: str) -> None:
        eventually(reason, lambda: [text for text in self.dead_reasons() if reason in text])

    def send(self, message: Message) -> None:
        """Publish on its own exchange, as a worker of it would."""
        broker = self.broker()
        try:
            broker.publish_update(self.topology, Site(B), message)
        finally:
            broker.close()


@pytest.fixture(scope="module")
def siege(
    tmp_path_factory: pytest.TempPathFactory, guarded_servers: Guarded, model_cache: Path
) -> Iterator[Siege]:
    place = tmp_path_factory.mktemp("siege")
    found = guarded_servers
    text = plan(phase("sft", 5000, "local_steps = 1"), clients=2)
    text += TLS.format(ca=found.ca, management=found.management)
    text = text.replace("[broker]", "[broker]\nsite_mib = 1")
    with planned(place, model_cache, found.amqps, found.rediss, text, found.store) as federation:
        headquarters = Headquarters(place, federation.place, found.store)
        coordinator, worker = headquarters.coordinator(), headquarters.worker()
        headquarters.reaches(1)
        joined = {}
        for site in (A, B):
            invitation = decode(headquarters.invite(site), 0.0)
            folder = place / site
            mine = identity.join(
                invitation,
                folder,
                host="h",
                software="s",
                stop=threading.Event(),
                told=lambda kind, text: None,
            )
            assert mine is not None
            joined[site] = identity.worker_config(mine, folder)
        attacker = joined[B]
        found_siege = Siege(
            headquarters,
            headquarters.run_id,
            found,
            attacker.broker.url,
            attacker.store.url,
            place,
            redis.Redis.from_url(found.store),
        )
        # The coordinator has declared its queues once a message on them is understood.
        enrolment = Enrolment(client_id=B, worker_id="w", rows={"sft": 9}, nonce=1)
        found_siege.send(Message(pack(enrolment)))
        eventually("it takes part", lambda: headquarters.joined() == [B])
        yield found_siege
        # Whatever was tried: the run went on, and every accepted update counts once.
        headquarters.reaches(headquarters.version() + 2)
        for process in (coordinator, worker):
            process.signal(signal.SIGTERM)
        assert coordinator.end() == 10
        check_applied_once(headquarters)
        assert headquarters.accepted_from(A) == headquarters.accepted_from(B) == 0
        assert headquarters.accepted_from("client_0") > 0


def ignore(*_: object) -> None: ...


Attempt = Callable[[BlockingChannel, Topology, Site, Site], object]
ATTEMPTS: dict[str, Attempt] = {
    "read another site's tasks": lambda c, t, a, b: c.basic_consume(t.task_queue(a), ignore),
    "read the coordinator's tasks": lambda c, t, a, b: c.basic_consume(t.task_queue(LOCAL), ignore),
    "get another site's task": lambda c, t, a, b: c.basic_get(t.task_queue(a)),
    "read another site's updates": lambda c, t, a, b: c.basic_consume(t.update_queue(a), ignore),
    "read its own updates": lambda c, t, a, b: c.basic_consume(t.update_queue(b), ignore),
    "read dead letters": lambda c, t, a, b: c.basic_get(t.dead_queue),
    "publish as another site": lambda c, t, a, b: publish(c, t.update_exchange(a), ""),
    "publish to another site's tasks": lambda c, t, a, b: publish(c, "", t.task_queue(a)),
    "publish past its exchange": lambda c, t, a, b: publish(c, "", t.update_queue(b)),
    "publish dead letters": lambda c, t, a, b: publish(c, "", t.dead_queue),
    "declare a queue": lambda c, t, a, b: c.queue_declare("mine"),
    "declare an exchange": lambda c, t, a, b: c.exchange_declare("mine"),
    "delete another site's queue": lambda c, t, a, b: c.queue_delete(t.task_queue(a)),
    "delete its own queue": lambda c, t, a, b: c.queue_delete(t.update_queue(b)),
    "purge another site's tasks": lambda c, t, a, b: c.queue_purge(t.task_queue(a)),
    "bind another site's queue": lambda c, t, a, b: c.queue_bind(
        t.task_queue(a), t.update_exchange(b)
    ),
    "bind to another site's exchange": lambda c, t, a, b: c.queue_bind(
        t.task_queue(b), t.update_exchange(a)
    ),
}


def publish(channel: BlockingChannel, exchange: str, routing_key: str) -> None:
    channel.basic_publish(exchange, routing_key, b"x", mandatory=True)


@pytest.mark.parametrize("attempt", ATTEMPTS.values(), ids=ATTEMPTS.keys())
def test_the_broker_denies(siege: Siege, attempt: Attempt) -> None:
    connection = siege.connection()
    channel = connection.channel()
    channel.confirm_delivery()
    try:
        with pytest.raises(amqp.ChannelClosedByBroker) as caught:
            attempt(channel, siege.topology, Site(A), Site(B))
        assert caught.value.reply_code == 403, caught.value
    finally:
        connection.close()


def test_the_broker_denies_another_sites_name_on_a_message(siege: Siege) -> None:
    connection = siege.connection()
    channel = connection.channel()
    channel.confirm_delivery()
    as_a = pika.BasicProperties(user_id=f"small.{A}")
    with pytest.raises(amqp.ChannelClosedByBroker) as caught:
        channel.basic_publish(siege.updates, "", b"x", as_a, mandatory=True)
    assert caught.value.reply_code == 406
    connection.close()


def test_a_message_without_a_name_is_dead_lettered(siege: Siege) -> None:
    connection = siege.connection()
    connection.channel().basic_publish(siege.updates, "", b"nameless")
    siege.is_dead_lettered("does not carry the broker-validated user")
    connection.close()


@pytest.mark.parametrize("header", ["CC", "BCC"])
def test_a_copy_header_reaches_nobody_else(siege: Siege, header: str) -> None:
    topology, connection = siege.topology, siege.connection()
    channel = connection.channel()
    channel.confirm_delivery()
    elsewhere = [topology.task_queue(Site(A)), topology.update_queue(Site(A))]
    properties = pika.BasicProperties(user_id=f"small.{B}", headers={header: elsewhere})
    seen = len(siege.dead_reasons())
    channel.basic_publish(siege.updates, "", b"copied", properties, mandatory=True)
    eventually("its own copy is dead-lettered", lambda: len(siege.dead_reasons()) > seen)
    depths = rabbit.connect(siege.servers.broker).depths(topology)
    assert [depths[queue].messages for queue in elsewhere] == [0, 0]
    assert not [text for text in siege.dead_reasons() if f"site {A}" in text]
    connection.close()


def test_an_update_for_another_sites_client_is_discarded(siege: Siege) -> None:
    task = siege.headquarters.rows("SELECT task_id FROM task WHERE open LIMIT 1")[0][0]
    update = Update(
        task_id=task,
        attempt=1,
        client_id="client_0",
        worker_id="w",
        phase=0,
        base_version=0,
        stats=make_stats(),
        codec="fp32",
        tensors=(),
        sha256=codec.digest(b""),
    )
    for message in split_update(f"{task}.1", pack(update, b"")):
        siege.send(message)
    broker = rabbit.connect(siege.servers.broker)
    eventually(
        "it was read",
        lambda: broker.depths(siege.topology)[siege.topology.update_queue(Site(B))].messages == 0,
    )
    broker.close()
    query = f"SELECT worker_id FROM accepted WHERE task_id = '{task}'"
    assert [worker for (worker,) in siege.headquarters.rows(query)] != ["w"]


def test_a_refusal_of_another_sites_task_closes_nothing(siege: Siege) -> None:
    task, client = siege.headquarters.rows("SELECT task_id, client_id FROM task WHERE open")[0]
    refusal = TaskRefusal(task_id=task, attempt=1, client_id=client, worker_id="w", reason="no")
    for _ in range(3):
        siege.send(Message(pack(refusal)))
    query = f"SELECT state FROM receipt WHERE task_id = '{task}'"
    eventually("it is settled by its own site", lambda: siege.headquarters.rows(query))
    assert siege.headquarters.rows(query) == [("accepted",)]


@pytest.mark.parametrize("client", [A, f"{A}.ward", "client_0", "client_9", f"{B}x"])
def test_it_cannot_enrol_another_sites_client(siege: Siege, client: str) -> None:
    enrolment = Enrolment(client_id=client, worker_id="w", rows={"sft": 9}, nonce=2)
    siege.send(Message(pack(enrolment)))
    store = connect(siege.servers.store)
    found = eventually("an answer", lambda: store.get_membership(siege.run, B, client))
    assert found.state == "refused" and "may not speak for" in found.reason
    assert siege.headquarters.joined() == [B]


def test_it_cannot_bring_more_clients_than_it_was_invited_with(siege: Siege) -> None:
    enrolment = Enrolment(client_id=f"{B}.more", worker_id="w", rows={"sft": 9}, nonce=3)
    siege.send(Message(pack(enrolment)))
    store = connect(siege.servers.store)
    found = eventually("an answer", lambda: store.get_membership(siege.run, B, f"{B}.more"))
    assert "allows 1 clients" in found.reason


KEYS = (
    ("GET", "fccl:{run}:heartbeat:local:host-0"),
    ("GET", "fccl:{run}:heartbeat:hospital-a:host-0"),
    ("SET", "fccl:{run}:heartbeat:hospital-a:host-0", "x"),
    ("DEL", "fccl:{run}:heartbeat:hospital-a:host-0"),
    ("GET", "fccl:{run}:receipt:hospital-a:t000001"),
    ("GET", "fccl:{run}:receipt:local:t000001"),
    ("SET", "fccl:{run}:receipt:hospital-b:t000001", "x"),
    ("GET", "fccl:{run}:member:hospital-a:hospital-a"),
    ("SET", "fccl:{run}:version", "9999"),
    ("SET", "fccl:{run}:info", "x"),
    ("SET", "fccl:run:small", "evil"),
    ("GET", "fccl:run:other"),
    ("SET", "fccl:{run}:blob:00:0", "x"),
    ("DEL", "fccl:{run}:version"),
    ("HGETALL", "fccl:{run}:clients"),
    ("XRANGE", "fccl:{run}:events", "-", "+"),
    ("GET", "fccl:join:0000000000000000:answer"),
    ("KEYS", "*"),
    ("SCAN", "0"),
    ("FLUSHALL",),
    ("CONFIG", "GET", "*"),
    ("EVAL", "return 1", "0"),
    ("ACL", "LIST"),
    ("CLIENT", "LIST"),
    ("SHUTDOWN",),
    ("PUBLISH", "x", "y"),
    ("MONITOR",),
)


@pytest.mark.parametrize("words", KEYS, ids=lambda words: " ".join(words)[:50])
def test_the_store_denies(siege: Siege, words: tuple[str, ...]) -> None:
    client = siege.redis()
    with pytest.raises(redis.exceptions.NoPermissionError):
        client.execute_command(*(word.format(run=siege.run) for word in words))


def test_the_store_gives_what_a_site_needs(siege: Siege) -> None:
    client = siege.redis()
    assert client.get("fccl:run:small") == siege.run.encode()
    assert client.get(f"fccl:{siege.run}:version") is not None
    assert client.get(f"fccl:{siege.run}:info") is not None
    assert client.get(f"fccl:{siege.run}:receipt:{B}:t1") is None
    client.set(f"fccl:{siege.run}:heartbeat:{B}:mine", b"x", ex=1)


def test_a_heartbeat_speaks_for_nobody_else(siege: Siege) -> None:
    forged = Heartbeat(worker_id="w9", site=A, state="training", task_id="t000001")
    siege.redis().set(f"fccl:{siege.run}:heartbeat:{B}:w9", pack(forged), ex=15)
    siege.redis().set(f"fccl:{siege.run}:heartbeat:{B}:big", b"x" * (1 << 20), ex=15)
    store = connect(siege.servers.store)
    assert "w9" not in {beat.worker_id for beat in store.heartbeats(siege.run)}


def test_its_user_opens_no_management_api(siege: Siege) -> None:
    parts = make_parameters(siege.amqps, siege.servers.ca).credentials
    answer = httpx.get(
        f"{siege.servers.management}/api/overview", auth=(parts.username, parts.password)
    )
    assert answer.status_code == 401


def test_its_permissions_are_two(siege: Siege) -> None:
    with httpx.Client(auth=("guest", "guest")) as http:
        url = f"{siege.servers.management}/api/users/small.{B}/permissions"
        granted = http.get(url).json()
        limits = http.get(f"{siege.servers.management}/api/user-limits/small.{B}").json()
    wanted = permission("small", B)
    assert [(g["configure"], g["write"], g["read"]) for g in granted] == [
        (wanted.configure, wanted.write, wanted.read)
    ]
    assert limits[0]["value"]["max-connections"] == 64
    ManagementApi(siege.servers.broker, siege.servers.management).close()


def test_a_flood_is_not_read_any_more_and_the_run_goes_on(siege: Siege) -> None:
    # The last one: afterwards its queue is not read.
    hq, queue = siege.headquarters, siege.topology.update_queue(Site(B))
    owner, flooding = rabbit.connect(siege.servers.broker), siege.broker()
    for i in range(120):
        flooding.publish_update(siege.topology, Site(B), Message(b"flood" * 100, {"n": i}))
    eventually("it is noticed", lambda: hq.rows("SELECT 1 FROM event WHERE kind = 'flood'"))
    eventually("it is not read", lambda: owner.depths(siege.topology)[queue].consumers == 0)
    with pytest.raises(QueueFull):  # its quota is 1 MiB here
        for _ in range(30):
            flooding.publish_update(siege.topology, Site(B), Message(b"f" * (100 << 10)))
    assert owner.depths(siege.topology)[siege.topology.dead_queue].messages < 200
    for broker in (owner, flooding):
        broker.close()
    hq.reaches(hq.version() + 2)
