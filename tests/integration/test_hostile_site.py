"""A site that has joined and then attacks: each attempt is refused, and the run goes on.

One federation serves all of these tests: a coordinator, a local worker, and two invited sites whose
credentials the tests hold. `hospital-b` attacks; `hospital-a` would be harmed.
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
from common.evaluation.sums import EvaluationSums
from common.protocol import codec
from common.protocol.evaluations import EvalResult
from common.protocol.heartbeat import Heartbeat
from common.protocol.invitation import decode
from common.protocol.membership import Enrolment
from common.protocol.tasks import TaskRefusal
from common.protocol.updates import Update
from common.protocol.wire import pack
from common.store.store import connect
from tests.support.federations import check_applied_once, phase, plan, planned
from tests.support.inviting_federation import TLS_SECTIONS, InvitingFederation
from tests.support.processes import eventually
from tests.support.tls_servers import TlsServers
from tests.support.virtual_federation import make_stats
from worker.site import identity
from worker.site import join as joining

pytestmark = [pytest.mark.servers, pytest.mark.slow]

A, B = "hospital-a", "hospital-b"


@dataclass
class AttackedFederation:
    """Federation under attack, with the credentials of the attacker."""

    headquarters: InvitingFederation
    run: str
    servers: TlsServers
    amqps: str
    rediss: str
    place: Path
    owner: redis.Redis  # may read everything, to see the effect of an attempt

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
        """Return why messages were dead-lettered, from the journal's events."""
        rows = self.headquarters.rows("SELECT text FROM event WHERE kind = 'dead-letter'")
        return [text for (text,) in rows]

    def wait_for_dead_letter(self, reason: str) -> None:
        eventually(reason, lambda: [text for text in self.dead_reasons() if reason in text])

    def send(self, message: Message) -> None:
        """Publish on the attacker's own exchange, as a worker of its site does."""
        broker = self.broker()
        try:
            broker.publish_update(self.topology, Site(B), message)
        finally:
            broker.close()


@pytest.fixture(scope="module")
def attacked(
    tmp_path_factory: pytest.TempPathFactory, tls_servers: TlsServers, model_cache: Path
) -> Iterator[AttackedFederation]:
    place = tmp_path_factory.mktemp("attacked")
    found = tls_servers
    text = plan(phase("sft", 5000, "local_steps = 1"), clients=2)
    text += TLS_SECTIONS.format(ca=found.ca, management=found.management)
    text = text.replace("[broker]", "[broker]\nsite_mib = 1")
    with planned(place, model_cache, found.amqps, found.rediss, text, found.store) as federation:
        headquarters = InvitingFederation(place, federation.place, found.store)
        coordinator, worker = headquarters.coordinator(), headquarters.worker()
        headquarters.reaches(1)
        joined = {}
        for site in (A, B):
            invitation = decode(headquarters.invite(site), 0.0)
            folder = place / site
            mine = joining.join(
                invitation,
                folder,
                host="h",
                software="s",
                stop=threading.Event(),
                on_event=lambda kind, text: None,
            )
            assert mine is not None
            joined[site] = identity.worker_config(mine, folder)
        attacker = joined[B]
        attacked = AttackedFederation(
            headquarters,
            headquarters.run_id,
            found,
            attacker.broker.url,
            attacker.store.url,
            place,
            redis.Redis.from_url(found.store),
        )
        # The queues of a site are served once a message on them has an effect.
        enrolment = Enrolment(client_id=B, worker_id="w", rows={"sft": 9}, nonce=1)
        attacked.send(Message(pack(enrolment)))
        eventually("it takes part", lambda: headquarters.joined() == [B])
        yield attacked
        # After all attempts, the run goes on, and every accepted update counts once.
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
    "delete its own exchange": lambda c, t, a, b: c.exchange_delete(t.update_exchange(b)),
    "publish to an exchange of the server": lambda c, t, a, b: publish(c, "amq.topic", "x"),
    "bind its own queue elsewhere": lambda c, t, a, b: c.queue_bind(
        t.task_queue(b), "amq.rabbitmq.log", "#"
    ),
    "bind exchanges": lambda c, t, a, b: c.exchange_bind(
        t.update_exchange(a), t.update_exchange(b)
    ),
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
def test_the_broker_denies(attacked: AttackedFederation, attempt: Attempt) -> None:
    connection = attacked.connection()
    channel = connection.channel()
    channel.confirm_delivery()
    try:
        with pytest.raises(amqp.ChannelClosedByBroker) as caught:
            attempt(channel, attacked.topology, Site(A), Site(B))
        assert caught.value.reply_code == 403, caught.value
    finally:
        connection.close()


def test_the_broker_denies_another_sites_name_on_a_message(attacked: AttackedFederation) -> None:
    connection = attacked.connection()
    channel = connection.channel()
    channel.confirm_delivery()
    as_a = pika.BasicProperties(user_id=f"small.{A}")
    with pytest.raises(amqp.ChannelClosedByBroker) as caught:
        channel.basic_publish(attacked.updates, "", b"x", as_a, mandatory=True)
    assert caught.value.reply_code == 406
    connection.close()


def test_a_message_without_a_name_is_dead_lettered(attacked: AttackedFederation) -> None:
    connection = attacked.connection()
    connection.channel().basic_publish(attacked.updates, "", b"nameless")
    attacked.wait_for_dead_letter("does not carry the broker-validated user")
    connection.close()


@pytest.mark.parametrize("header", ["CC", "BCC"])
def test_a_copy_header_reaches_nobody_else(attacked: AttackedFederation, header: str) -> None:
    topology, connection = attacked.topology, attacked.connection()
    channel = connection.channel()
    channel.confirm_delivery()
    elsewhere = [topology.task_queue(Site(A)), topology.update_queue(Site(A))]
    properties = pika.BasicProperties(user_id=f"small.{B}", headers={header: elsewhere})
    seen = len(attacked.dead_reasons())
    channel.basic_publish(attacked.updates, "", b"copied", properties, mandatory=True)
    eventually("its own copy is dead-lettered", lambda: len(attacked.dead_reasons()) > seen)
    depths = rabbit.connect(attacked.servers.broker).depths(topology)
    assert [depths[queue].messages for queue in elsewhere] == [0, 0]
    assert not [text for text in attacked.dead_reasons() if f"site {A}" in text]
    connection.close()


def test_an_update_for_another_sites_client_is_discarded(attacked: AttackedFederation) -> None:
    task = attacked.headquarters.rows("SELECT task_id FROM task WHERE open LIMIT 1")[0][0]
    update = Update(
        task_id=task,
        attempt=1,
        client_id="client_0",
        worker_id="w",
        phase=0,
        base_version=0,
        stats=make_stats(),
        codec="fp32",
        layout=codec.digest(b""),
        sha256=codec.digest(b""),
    )
    for message in split_update(f"{task}.1", pack(update, b"")):
        attacked.send(message)
    broker = rabbit.connect(attacked.servers.broker)
    eventually(
        "it was read",
        lambda: (
            broker.depths(attacked.topology)[attacked.topology.update_queue(Site(B))].messages == 0
        ),
    )
    broker.close()
    query = f"SELECT worker_id FROM accepted WHERE task_id = '{task}'"
    assert [worker for (worker,) in attacked.headquarters.rows(query)] != ["w"]


def test_a_refusal_of_another_sites_task_closes_nothing(attacked: AttackedFederation) -> None:
    task, client = attacked.headquarters.rows("SELECT task_id, client_id FROM task WHERE open")[0]
    refusal = TaskRefusal(task_id=task, attempt=1, client_id=client, worker_id="w", reason="no")
    for _ in range(3):
        attacked.send(Message(pack(refusal)))
    query = f"SELECT state FROM receipt WHERE task_id = '{task}'"
    eventually("it is settled by its own site", lambda: attacked.headquarters.rows(query))
    assert attacked.headquarters.rows(query) == [("accepted",)]


@pytest.mark.parametrize("client", [A, f"{A}.ward", "client_0", "client_9", f"{B}x"])
def test_a_site_cannot_enrol_another_sites_client(
    attacked: AttackedFederation, client: str
) -> None:
    enrolment = Enrolment(client_id=client, worker_id="w", rows={"sft": 9}, nonce=2)
    attacked.send(Message(pack(enrolment)))
    store = connect(attacked.servers.store)
    found = eventually("an answer", lambda: store.get_membership(attacked.run, B, client))
    assert found.state == "refused" and "may not speak for" in found.reason
    assert attacked.headquarters.joined() == [B]


def test_a_site_cannot_enrol_more_clients_than_its_invitation_allows(
    attacked: AttackedFederation,
) -> None:
    enrolment = Enrolment(client_id=f"{B}.more", worker_id="w", rows={"sft": 9}, nonce=3)
    attacked.send(Message(pack(enrolment)))
    store = connect(attacked.servers.store)
    found = eventually("an answer", lambda: store.get_membership(attacked.run, B, f"{B}.more"))
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
    ("SUBSCRIBE", "x"),
    ("PSUBSCRIBE", "__keyspace*"),
    ("ACL", "GETUSER", "default"),
    ("ACL", "SETUSER", "small.hospital-b", "~*"),
    ("CLIENT", "KILL", "TYPE", "normal"),
    ("SCRIPT", "LOAD", "return 1"),
    ("FUNCTION", "LIST"),
    ("SAVE",),
    ("REPLICAOF", "example.org", "6379"),
    ("XADD", "fccl:{run}:commands", "*", "action", "stop"),
    ("SET", "fccl:{run}:answer:x", "x"),
    ("SET", "fccl:{run}:member:hospital-b:hospital-b", "x"),
    ("GET", "fccl:{run}:samples"),
    ("GET", "fccl:{run}:evaluations"),
    ("COPY", "fccl:{run}:heartbeat:local:host-0", "fccl:{run}:heartbeat:hospital-b:x"),
    ("RENAME", "fccl:{run}:version", "fccl:{run}:heartbeat:hospital-b:x"),
    ("SORT", "fccl:{run}:heartbeat:hospital-b:x", "BY", "nosort", "GET", "fccl:{run}:clients"),
    ("DUMP", "fccl:{run}:receipt:local:t000001"),
    ("EXPIRE", "fccl:{run}:version", "1"),
)


@pytest.mark.parametrize("words", KEYS, ids=lambda words: " ".join(words)[:50])
def test_the_store_denies(attacked: AttackedFederation, words: tuple[str, ...]) -> None:
    client = attacked.redis()
    with pytest.raises(redis.exceptions.NoPermissionError):
        client.execute_command(*(word.format(run=attacked.run) for word in words))


def test_the_store_allows_what_a_site_needs(attacked: AttackedFederation) -> None:
    client = attacked.redis()
    assert client.get("fccl:run:small") == attacked.run.encode()
    assert client.get(f"fccl:{attacked.run}:version") is not None
    assert client.get(f"fccl:{attacked.run}:info") is not None
    assert client.get(f"fccl:{attacked.run}:receipt:{B}:t1") is None
    client.set(f"fccl:{attacked.run}:heartbeat:{B}:mine", b"x", ex=1)


def test_a_heartbeat_counts_for_its_own_site_only(attacked: AttackedFederation) -> None:
    forged = Heartbeat(worker_id="w9", site=A, state="training", task_id="t000001")
    attacked.redis().set(f"fccl:{attacked.run}:heartbeat:{B}:w9", pack(forged), ex=15)
    attacked.redis().set(f"fccl:{attacked.run}:heartbeat:{B}:big", b"x" * (1 << 20), ex=15)
    store = connect(attacked.servers.store)
    assert "w9" not in {beat.worker_id for beat in store.heartbeats(attacked.run)}


def test_a_site_can_learn_the_length_of_a_queue_and_nothing_else(
    attacked: AttackedFederation,
) -> None:
    """RabbitMQ asks for no permission to a passive declaration: docs/security.md says so."""
    connection = attacked.connection()
    queue = attacked.topology.task_queue(Site(A))
    answer = connection.channel().queue_declare(queue, passive=True)
    assert answer.method.queue == queue
    connection.close()


@pytest.mark.parametrize("path", ["overview", "whoami", "users", "queues", "definitions"])
def test_a_sites_user_cannot_use_the_management_api(
    attacked: AttackedFederation, path: str
) -> None:
    parts = make_parameters(attacked.amqps, attacked.servers.ca).credentials
    answer = httpx.get(
        f"{attacked.servers.management}/api/{path}", auth=(parts.username, parts.password)
    )
    assert answer.status_code == 401


def test_a_sites_user_may_write_one_exchange_and_read_one_queue(
    attacked: AttackedFederation,
) -> None:
    with httpx.Client(auth=("guest", "guest")) as http:
        url = f"{attacked.servers.management}/api/users/small.{B}/permissions"
        granted = http.get(url).json()
        limits = http.get(f"{attacked.servers.management}/api/user-limits/small.{B}").json()
    wanted = permission("small", B)
    assert [(g["configure"], g["write"], g["read"]) for g in granted] == [
        (wanted.configure, wanted.write, wanted.read)
    ]
    assert limits[0]["value"]["max-connections"] == 64
    ManagementApi(attacked.servers.broker, attacked.servers.management).close()


def test_the_queue_of_a_flooding_site_is_not_read_and_the_run_goes_on(
    attacked: AttackedFederation,
) -> None:
    # Near the end: afterwards the queue of the attacker is not read.
    hq, queue = attacked.headquarters, attacked.topology.update_queue(Site(B))
    owner, flooding = rabbit.connect(attacked.servers.broker), attacked.broker()
    for i in range(120):
        flooding.publish_update(attacked.topology, Site(B), Message(b"flood" * 100, {"n": i}))
    eventually("it is noticed", lambda: hq.rows("SELECT 1 FROM event WHERE kind = 'flood'"))
    eventually("it is not read", lambda: owner.depths(attacked.topology)[queue].consumers == 0)
    with pytest.raises(QueueFull):  # its quota is 1 MiB here
        for _ in range(30):
            flooding.publish_update(attacked.topology, Site(B), Message(b"f" * (100 << 10)))
    assert owner.depths(attacked.topology)[attacked.topology.dead_queue].messages < 200
    for broker in (owner, flooding):
        broker.close()
    hq.reaches(hq.version() + 2)


def test_an_evaluation_of_another_client_is_not_answered_by_a_site(
    attacked: AttackedFederation,
) -> None:
    journal = attacked.headquarters
    before = journal.rows("SELECT COUNT(*) FROM evaluation WHERE state <> 'open'")
    for task in ("e000001", "t000001"):
        forged = EvalResult(
            task_id=task, attempt=1, client_id="client_0", worker_id="w", version=0,
            sums=EvaluationSums(rows=1, tokens=1, bytes=1, loss=1.0), seconds=0.1,
        )  # fmt: skip
        attacked.send(Message(pack(forged)))
    assert journal.rows("SELECT COUNT(*) FROM evaluation WHERE state <> 'open'") == before
    assert journal.accepted_from(B) == 0


def test_open_connections_of_a_revoked_site_end(attacked: AttackedFederation) -> None:
    connection, client = attacked.connection(), attacked.redis()
    channel = connection.channel()
    assert client.get("fccl:run:small")
    assert attacked.headquarters.command("revoke", B).end() == 0
    with pytest.raises((amqp.ConnectionClosed, amqp.ChannelClosed, amqp.StreamLostError)):
        for _ in range(100):
            connection.process_data_events(0.1)
            channel.queue_declare(attacked.topology.task_queue(Site(B)), passive=True)
    with pytest.raises((redis.exceptions.ConnectionError, redis.exceptions.AuthenticationError)):
        client.get("fccl:run:small")
    with pytest.raises((amqp.ProbableAuthenticationError, amqp.AuthenticationError)):
        attacked.connection()
    hq = attacked.headquarters
    hq.reaches(hq.version() + 2)
