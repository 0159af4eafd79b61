"""The endpoint of a worker over real HTTP: what it accepts, and everything that it refuses."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broker.protocol import LOCAL
from cli.console import Output
from cli.learn.location import locate_inbox
from cli.main import fccl
from cli.run.inbox_port import open_port, serve_inbox
from cli.run.job import WorkerJob, invited_job
from cli.run.join_site import SiteRequest
from common.config.config import FederationConfig, IncrementalConfig
from common.errors import ConfigError, DataError
from common.operations.http_server import MAX_CONNECTIONS
from learning.data.row_types import RatedAnswer
from tests.support.item_records import FIELD_NAMES, JSON
from worker.incremental.http import endpoint
from worker.incremental.http.endpoint import Endpoint
from worker.incremental.http.listener import Listener
from worker.incremental.http.token import load_or_create_token, token_path
from worker.incremental.inbox import schema
from worker.incremental.inbox.inbox import Inbox, ResultState
from worker.incremental.serving import served_run
from worker.incremental.serving.served_run import ServedRun
from worker.site.identity import Identity

SECRET = "my neighbour's secret"
SERVED = ServedRun(
    run="run-1",
    name="run",
    clients=("client_0", "client_1"),
    kinds=("cls",),
    labels=("negative", "positive"),
)
ONE = {"text": "a dull plot", "label": "negative"}
LEARN = "/learn?client=client_0"


@dataclass
class Site:
    """A worker's endpoint and a client of it."""

    state: Path
    listener: Listener
    statuses: Counter[int] = field(default_factory=Counter)

    def ask(
        self,
        body: bytes | str | None = None,
        path: str = LEARN,
        method: str | None = None,
        headers: Mapping[str, str | None] | None = None,
    ) -> tuple[int, Any, Mapping[str, str]]:
        """Send a request and return status, JSON and headers; a header of None is not sent."""
        data = body.encode() if isinstance(body, str) else body
        defaults: dict[str, str | None] = {
            "Host": f"127.0.0.1:{self.listener.port}",
            "Authorization": f"Bearer {load_or_create_token(self.state)}",
            "Content-Length": None if data is None else str(len(data)),
        }
        connection = http.client.HTTPConnection("127.0.0.1", self.listener.port, timeout=20)
        with closing(connection):
            connection.putrequest(
                method or ("GET" if data is None else "POST"), path, skip_host=True
            )
            for name, text in (defaults | dict(headers or {})).items():
                if text is not None:
                    connection.putheader(name, text)
            connection.endheaders(data)
            response = connection.getresponse()
            content = response.read()
            assert SECRET.encode() not in content
            assert response.getheader("Connection") == "close"
            values = json.loads(content) if content else None
            return response.status, values, dict(response.getheaders())

    def post(self, value: object, path: str = LEARN) -> tuple[int, Any, Mapping[str, str]]:
        return self.ask(json.dumps(value), path)

    def texts(self, client: str = "client_0") -> list[str]:
        with Inbox(schema.inbox_path(self.state, client), IncrementalConfig()) as inbox:
            return [stored.item.fields["text"] for stored in inbox.items()]

    def limit(self, **limits: int) -> None:
        found = IncrementalConfig.model_validate(limits)
        self.listener.endpoint = Endpoint(self.state, found, load_or_create_token(self.state))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    served_run.write(tmp_path, SERVED)
    with Listener(0) as opened:
        found = Site(tmp_path, opened)
        opened.on_response = lambda status: found.statuses.update([int(status)])
        with opened.serving(
            Endpoint(tmp_path, IncrementalConfig(), load_or_create_token(tmp_path))
        ):
            yield found


def test_an_item_is_in_the_inbox_when_the_response_arrives(site: Site) -> None:
    expected = {"client": "client_0", "accepted": 1, "duplicate": 0, "refused": 0}
    assert site.post(ONE)[:2] == (200, {**expected, "items": [{"state": "accepted"}]})
    again = {**expected, "accepted": 0, "duplicate": 1, "items": [{"state": "duplicate"}]}
    assert site.post(ONE)[:2] == (200, again)
    with Inbox(schema.inbox_path(site.state, "client_0"), IncrementalConfig()) as inbox:
        (stored,) = inbox.items()
    assert (dict(stored.item.fields), stored.item.task, stored.source) == (ONE, "feedback", "http")
    counts = dict.fromkeys(("learned", "settled", "rejected", "superseded"), 0)
    assert site.ask(path="/inbox")[:2] == (
        200, {"client_0": {"waiting": 1} | counts, "client_1": {"waiting": 0} | counts},
    )  # fmt: skip
    assert list(site.ask(path="/inbox?client=client_1")[1]) == ["client_1"]


def test_a_thumb_of_an_application_is_an_item(site: Site) -> None:
    served_run.write(site.state, SERVED.model_copy(update={"kinds": ("sft", "va", "kto")}))
    rated = {"prompt": "Greet me.", "response": "What?", "label": False}
    status, answer, _ = site.post([rated, {**rated, "label": "sideways"}])
    assert (status, answer["accepted"]) == (207, 1)
    assert answer["items"][1]["reason"].startswith("label is neither good nor bad")
    with Inbox(schema.inbox_path(site.state, "client_0"), IncrementalConfig()) as inbox:
        assert [stored.item.row for stored in inbox.items()] == [
            RatedAnswer("Greet me.", "What?", False)
        ]


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (json.dumps([ONE, {"text": "b", "label": "positive"}]), "application/json"),
        (json.dumps(ONE) + "\n\n" + json.dumps({"text": "b", "label": "positive"}), "text/plain"),
        (json.dumps(ONE) + "\r\n" + '{"text": "b", "label": "positive"}\n', "application/x-ndjson"),
        ("\ufeff" + json.dumps([ONE, {"text": "b", "label": "positive"}], indent=2), ""),
    ],
)
def test_several_items_can_be_sent_as_an_array_or_as_lines(
    site: Site, body: str, kind: str
) -> None:
    status, answer, _ = site.ask(body, LEARN + "&task=films", headers={"Content-Type": kind})
    assert (status, answer["accepted"]) == (200, 2)
    assert site.texts() == ["a dull plot", "b"]
    with Inbox(schema.inbox_path(site.state, "client_0"), IncrementalConfig()) as inbox:
        assert {stored.item.task for stored in inbox.items()} == {"films"}


def test_each_item_has_its_result_and_valid_ones_are_stored(site: Site) -> None:
    bad = [{"text": SECRET, "label": SECRET}, {"text": " ", "label": "positive"}, 3, [ONE]]
    status, answer, _ = site.post([ONE, *bad, ONE, {**ONE, "text": "b", "task": "films"}])
    assert status == 207
    assert [item["state"] for item in answer["items"]] == (
        ["accepted", *["refused"] * 4, "duplicate", "accepted"]
    )  # fmt: skip
    assert answer["items"][1]["reason"] == (
        "the label is not a class of this run; use one of negative, positive"
    )
    assert (answer["accepted"], answer["duplicate"], answer["refused"]) == (2, 1, 4)
    assert site.texts() == ["a dull plot", "b"]
    status, answer, _ = site.ask(f'{json.dumps({**ONE, "text": "c"})}\n{{"text": "{SECRET}\n')
    assert (status, answer["items"][0]["state"], answer["items"][1]["state"]) == (
        207, "accepted", "refused",
    )  # fmt: skip
    assert site.post(bad)[0] == 400


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("", "not valid JSON"),
        ("nonsense", "not valid JSON"),
        ("3", "send an item"),
        ("[]", "send an item"),
        ('"' + SECRET + '"', "send an item"),
        ("{", "not valid JSON"),
        ("[" * 100_000, "nested too deeply"),
        ('{\n"text":\n' + SECRET, "not valid JSON (Expecting value: line 3, column 1)"),
        (b"\xff\xfe{}", "not UTF-8"),
        ('{"text": ' + "1" * 5000 + "}", "a number is too long"),
    ],
)
def test_an_invalid_body_is_refused(site: Site, body: str | bytes, message: str) -> None:
    status, answer, _ = site.ask(body)
    assert status == 400 and message in answer["error"]
    assert site.texts() == []


REFUSED: list[tuple[dict[str, Any], int, str]] = [
    ({"headers": {"Authorization": None}}, 401, "the token is missing or wrong"),
    ({"headers": {"Authorization": "Bearer " + "x" * 43}}, 401, "the token is missing"),
    ({"headers": {"Authorization": "Bearer \xff\xfe"}}, 401, "the token is missing"),
    ({"headers": {"Authorization": "Basic Og=="}}, 401, "the token is missing"),
    ({"headers": {"Origin": "http://127.0.0.1"}}, 403, "web pages"),
    ({"headers": {"Origin": "null"}}, 403, "web pages"),
    ({"headers": {"Host": "evil.example"}}, 403, "Host must be"),
    ({"headers": {"Host": "127.0.0.1.evil.example:80"}}, 403, "Host must be"),
    ({"headers": {"Host": None}}, 403, "Host must be"),
    ({"path": "/"}, 404, "use /learn or /inbox"),
    ({"path": "http://["}, 400, "the path is not valid"),
    ({"path": "/learn/client_0"}, 404, "use /learn"),
    ({"path": "/learn?client=nobody"}, 404, "it serves client_0, client_1"),
    ({"path": "/learn?client=../x"}, 404, "it serves client_0, client_1"),
    ({"path": "/learn"}, 400, "name one with ?client=: client_0, client_1"),
    ({"path": "/learn?client="}, 404, "does not serve this client"),
    ({"path": "/learn?clent=client_0"}, 400, "the query may have client and task, each once"),
    ({"path": LEARN + "&client=client_1"}, 400, "each once"),
    ({"path": LEARN + "&task=two%20words"}, 400, "the task is not a valid name"),
    ({"path": LEARN + "&x=" * 50}, 400, "too many parts"),
    ({"method": "GET"}, 405, "/learn takes POST"),
    ({"method": "OPTIONS"}, 405, "/learn takes POST"),
    ({"method": "POST", "path": "/inbox"}, 405, "/inbox takes GET"),
    ({"method": "BREW"}, 501, "Not Implemented"),
    ({"headers": {"Content-Length": None}}, 411, "Content-Length is missing"),
    ({"headers": {"Transfer-Encoding": "chunked"}}, 411, "Content-Length is missing"),
    ({"headers": {"Content-Length": "-1"}}, 400, "not a number"),
    ({"headers": {"Content-Length": "9" * 30}}, 413, "send fewer items"),
    ({"headers": {"X": "y" * 70_000}}, 431, "Request Header Fields Too Large"),
]


@pytest.mark.parametrize(("options", "status", "message"), REFUSED)
def test_an_invalid_request_is_refused_before_anything_is_done(
    site: Site, options: dict[str, Any], status: int, message: str
) -> None:
    found, answer, headers = site.ask(json.dumps(ONE), **options)
    assert (found, message in answer["error"]) == (status, True), answer
    assert headers["Content-Type"] == "application/json"
    assert ("WWW-Authenticate" in headers, "Allow" in headers) == (status == 401, status == 405)
    assert not any(site.state.glob("inbox/*/inbox.db"))
    assert site.statuses == {status: 1}


def test_a_body_that_is_too_long_is_refused_and_the_response_arrives(site: Site) -> None:
    limit = Endpoint(site.state, IncrementalConfig(), "x").max_body
    status, answer, _ = site.ask(b"x" * (limit + 1))
    assert status == 413 and f"more than {limit} bytes" in answer["error"]
    assert site.ask(b" " * (limit - 500) + json.dumps(ONE).encode())[0] == 200


def test_a_rate_limit_and_a_full_inbox_say_when_to_retry(site: Site) -> None:
    site.limit(items_per_minute=2)
    rows = [{"text": f"text {n}", "label": "positive"} for n in range(5)]
    assert site.post(rows[:2])[0] == 200
    status, answer, headers = site.post(rows[:3])
    assert (status, "in a minute" in answer["error"]) == (429, True)
    assert 0 < int(headers["Retry-After"]) <= 60
    assert site.post(rows[:2])[1]["duplicate"] == 2, "known items may always be sent again"
    status, answer, _ = site.post(rows[2:])
    assert (status, "3 items at once" in answer["error"]) == (413, True)
    site.limit(max_waiting=3)
    status, answer, headers = site.post(rows)
    assert (status, "5 items would be waiting" in answer["error"]) == (503, True)
    assert headers["Retry-After"] == str(endpoint.FULL_S)
    assert site.texts() == ["text 0", "text 1"], "a request is stored as a whole or not at all"


def test_a_full_disk_and_a_locked_or_damaged_file_are_reported(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = schema.inbox_path(site.state, "client_0")
    assert site.post(ONE)[0] == 200
    connect = schema.connect

    def small(path: Path) -> schema.sqlite3.Connection:
        db = connect(path)
        db.execute("PRAGMA busy_timeout = 1")
        (pages,) = db.execute("PRAGMA page_count").fetchone()
        db.execute(f"PRAGMA max_page_count = {pages}")
        return db

    monkeypatch.setattr(schema, "connect", small)
    status, answer, _ = site.post({"text": "x" * 19_000, "label": "positive"})
    assert (status, "the disk is full" in answer["error"]) == (507, True)
    with closing(connect(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        status, answer, headers = site.post({**ONE, "text": "b"})
        assert (status, headers["Retry-After"]) == (503, "1")
        assert "locked by another process" in answer["error"]
        other.execute("ROLLBACK")
    assert site.texts() == ["a dull plot"]
    path.with_name("inbox.db-wal").unlink(missing_ok=True)
    path.write_bytes(b"no database" * 1000)
    status, answer, _ = site.ask(path="/inbox")
    assert (status, "cannot be used" in answer["error"]) == (503, True)
    (site.state / "inbox" / served_run.FILE).unlink()
    status, answer, _ = site.post(ONE)
    assert (status, "serves no client yet" in answer["error"]) == (503, True)


def test_an_unexpected_error_is_a_response_that_reveals_nothing(
    site: Site, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError(SECRET)

    monkeypatch.setattr(Endpoint, "respond", broken)
    assert site.post(ONE)[:2] == (500, {"error": "unexpected error"})
    monkeypatch.undo()
    assert site.post(ONE)[0] == 200
    assert site.statuses == {500: 1, 200: 1}
    assert capfd.readouterr() == ("", ""), "nothing of a request is logged"


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    value=JSON
    | st.lists(st.dictionaries(st.sampled_from([*FIELD_NAMES, "task"]), JSON, max_size=4))
)
def test_any_json_is_stored_or_refused(site: Site, value: object) -> None:
    status, answer, _ = site.post(value)
    assert status in (200, 207, 400)
    if "items" in answer:
        states = Counter(item["state"] for item in answer["items"])
        assert {state: answer[state] for state in get_args(ResultState) if answer[state]} == states
        assert all("reason" in item for item in answer["items"] if item["state"] == "refused")
    else:
        assert status == 400 and isinstance(answer["error"], str)
    assert not site.statuses.keys() - {200, 207, 400}


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(body=st.binary(max_size=60))
def test_any_bytes_are_answered(site: Site, body: bytes) -> None:
    assert site.ask(body)[0] in (200, 207, 400)


def test_connections_are_limited_and_slow_ones_cut_off(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def connect(stack: ExitStack) -> socket.socket:
        address = ("127.0.0.1", site.listener.port)
        return stack.enter_context(socket.create_connection(address, timeout=20))

    with ExitStack() as stack:
        slow = [connect(stack) for _ in range(MAX_CONNECTIONS)]
        slow[0].sendall(b"POST /learn HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ")
        refused = connect(stack).recv(1000)
        assert refused.startswith(b"HTTP/1.1 503") and b"too many connections" in refused
        monkeypatch.setattr(site.listener, "request_s", 0.0)
        # The half-written one has no token; the silent ones are closed without a word.
        assert slow[0].recv(1000).startswith(b"HTTP/1.1 401")
        assert [one.recv(1000) for one in slow[1:]] == [b""] * (MAX_CONNECTIONS - 1)
    monkeypatch.undo()
    assert site.post(ONE)[0] == 200


def test_an_incomplete_body_is_not_stored(site: Site) -> None:
    with socket.create_connection(("127.0.0.1", site.listener.port), timeout=20) as plain:
        head = f"POST {LEARN} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n"
        plain.sendall(
            f"{head}Authorization: Bearer {load_or_create_token(site.state)}\r\n\r\n".encode()
        )
        plain.sendall(json.dumps(ONE).encode())
        plain.shutdown(socket.SHUT_WR)
        assert plain.recv(1000).startswith(b"HTTP/1.1 408")
    assert not any(site.state.glob("inbox/*/inbox.db"))


def test_concurrent_requests_store_each_item_once(site: Site) -> None:
    texts = [f"text {n}" for n in range(10)]

    def send() -> None:
        for text in texts:
            assert site.post({**ONE, "text": text})[0] == 200

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(site.texts()) == texts and site.statuses == {200: 40}


def test_a_port_that_is_in_use_is_named(site: Site) -> None:
    port = site.listener.port
    with pytest.raises(ConfigError, match=rf"127\.0\.0\.1:{port}: Address already in use; choose"):
        Listener(port)


def test_the_token_is_created_once_and_readable_by_its_owner_only(tmp_path: Path) -> None:
    first = load_or_create_token(tmp_path)
    path = token_path(tmp_path)
    assert (load_or_create_token(tmp_path), path.stat().st_mode & 0o777) == (first, 0o600)
    assert first != load_or_create_token(tmp_path / "other") and len(first) >= 43
    path.chmod(0o644)
    with pytest.raises(DataError, match="accessible to other users") as caught:
        load_or_create_token(tmp_path)
    assert first not in str(caught.value)
    path.chmod(0o600)
    path.write_text("short")
    with pytest.raises(DataError, match="holds no token"):
        load_or_create_token(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="--state"):
        load_or_create_token(tmp_path / "file")


def test_a_worker_reports_a_port_in_use_before_doing_anything_else(
    site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["worker", "--inbox-port", str(site.listener.port)]
    with pytest.raises(ConfigError, match=f"{site.listener.port}: Address already in use"):
        fccl.main(words, standalone_mode=False)
    monkeypatch.setenv("FCCL_INCREMENTAL__ENABLED", "false")
    with pytest.raises(ConfigError, match=r"incremental\.enabled is false"):
        fccl.main(["worker", "--inbox-port", "0"], standalone_mode=False)


def test_a_worker_prints_where_it_listens_but_not_the_token(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    served_run.write(tmp_path, SERVED)
    job = WorkerJob(FederationConfig(), LOCAL, tmp_path, tmp_path)
    with open_port(0, job.config.incremental) as opened:
        assert opened is not None
        with serve_inbox(opened, job, Output(plain=True)):
            site = Site(tmp_path, opened)
            assert site.post(ONE)[0] == 200
        printed = capsys.readouterr().out
        where = f"http://127.0.0.1:{opened.port}/learn"
        assert printed == f"live input: POST to {where}, with the token in {token_path(tmp_path)}\n"
        assert load_or_create_token(tmp_path) not in printed
        port = opened.port
    with Listener(port), open_port(None, job.config.incremental) as opened:
        assert opened is None, "and the port is free again"


def test_an_invited_site_uses_the_incremental_configuration_of_its_own_machine(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    place = tmp_path / "sites" / "run.hospital-a"
    place.mkdir(parents=True)
    mine = Identity(
        "hospital-a", "run", "amqp://b/", "redis://s/0", None, "secret", "t", "{}", admitted=True
    )
    (place / "identity.json").write_text(json.dumps(asdict(mine)))
    (tmp_path / "rows").mkdir()
    mine_rows = [{"instruction": f"Count to {i}.", "output": f"{i}"} for i in range(9)]
    text = "".join(json.dumps(row) + "\n" for row in mine_rows)
    (tmp_path / "rows" / "hospital-a_sft.jsonl").write_text(text)
    request, own = (
        SiteRequest("hospital-a", place),
        IncrementalConfig(validator="true", max_chars=7),
    )
    rows = (tmp_path / "rows",)
    job = invited_job(request, rows, None, own, Output(plain=True), threading.Event())
    assert job is not None
    assert (job.config.incremental, job.state) == (own, place / "work")
    monkeypatch.setenv("FCCL_STATE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    served_run.write(job.state, SERVED)
    Path("federation.toml").write_text('[incremental]\nvalidator = "true"\nmax_chars = 7\n')
    found = locate_inbox(None, None, "hospital-a", None, "client_0")
    assert (found.limits, found.state) == (own, job.state), "the commands read the same"
