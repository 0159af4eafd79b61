"""Secrets occur nowhere but in their own files: not in output, logs, events, processes or errors.

Passwords of both servers, tokens and keys are planted in a federation over TLS with an invited
site. All output of all commands, every command line and the environments of child processes, what
Redis keeps, the metrics and every file are searched for them, and for the text of private rows.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
import redis

from common.protocol.invitation import decode
from tests.integration.test_privacy import redis_content
from tests.support.federations import phase, plan, planned
from tests.support.inviting_federation import TLS_SECTIONS, InvitingFederation
from tests.support.processes import Commands, commands, eventually
from tests.support.servers import free_port
from tests.support.tls_servers import TlsServers

pytestmark = [pytest.mark.servers, pytest.mark.slow, pytest.mark.timeout(900)]

BROKER_PASSWORD = "Wacholderbrand/7@x#1"
STORE_PASSWORD = "Quarzlampen?9@y#2"
HUB_TOKEN = "hf_MoosbeerenkonfituereAB"
TRACKER_KEY = "Nebelhornblaeser0123456789"
PATIENCE_S = 300.0
ROW = "Frau Xyloprax lagert Kesselhausquitten."


def percent(text: str) -> str:
    return "".join(
        f"%{byte:02X}" if not chr(byte).isalnum() else chr(byte) for byte in text.encode()
    )


def pieces(name: str, secret: str) -> dict[str, bytes]:
    """Return a secret as it is, as in a URL, and its first part, which a bad parser splits off."""
    part = next(word for word in secret.replace("/", "?").split("?") if len(word) > 8)
    forms = {secret, percent(secret), part}
    return {f"{name} ({form[:4]}…)": form.encode() for form in forms}


@dataclass
class Watched:
    """Command lines of all processes, and environments of the coordinator's children, so far."""

    lines: set[bytes] = field(default_factory=set)
    child_environments: set[bytes] = field(default_factory=set)
    _end: threading.Event = field(default_factory=threading.Event)

    def start(self) -> None:
        threading.Thread(target=self._watch, daemon=True).start()

    def close(self) -> None:
        self._end.set()

    def _watch(self) -> None:
        while not self._end.wait(0.2):
            for process in Path("/proc").glob("[0-9]*"):
                try:
                    line = (process / "cmdline").read_bytes()
                    self.lines.add(line)
                    if b"cli.run.child_main" in line:
                        self.child_environments.add((process / "environ").read_bytes())
                except OSError:  # it has ended
                    continue


@dataclass
class Planted:
    """Everything that a federation left, by place, and the secrets that must not be in it."""

    secrets: dict[str, bytes]
    places: dict[str, bytes]
    joins: bytes  # of the whole output of `fccl invite`, where the token belongs


def owner_urls(servers: TlsServers) -> tuple[str, str]:
    """Create the owner of the federation on both servers; return its URLs."""
    with httpx.Client(auth=("guest", "guest"), base_url=servers.management) as http:
        user = {"password": BROKER_PASSWORD, "tags": "administrator"}
        http.put("/api/users/keeper", json=user).raise_for_status()
        rights = {"configure": ".*", "write": ".*", "read": ".*"}
        http.put("/api/permissions/%2F/keeper", json=rights).raise_for_status()
    with redis.Redis.from_url(servers.store) as client:
        client.execute_command(
            "ACL", "SETUSER", "keeper", "on", f">{STORE_PASSWORD}", "~*", "&*", "+@all"
        )
    login = f"keeper:{percent(BROKER_PASSWORD)}@"
    broker = servers.amqps.replace("guest:guest@", login)
    return broker, servers.rediss.replace("//", f"//keeper:{percent(STORE_PASSWORD)}@")


@pytest.fixture(scope="module")
def planted(
    tmp_path_factory: pytest.TempPathFactory, tls_servers: TlsServers, model_cache: Path
) -> Iterator[Planted]:
    place = tmp_path_factory.mktemp("planted")
    head, clinic = place / "headquarters", place / "clinic"
    for folder in (head, clinic):
        folder.mkdir()
    broker, store = owner_urls(tls_servers)
    text = plan(phase("sft", 4000, "local_steps = 1"), clients=2)
    text += TLS_SECTIONS.format(ca=tls_servers.ca, management=tls_servers.management)
    keys = {"HF_TOKEN": HUB_TOKEN, "WANDB_API_KEY": TRACKER_KEY}
    watched = Watched()
    watched.start()
    site_environment = {"FCCL_STATE": str(clinic / "state"), "FCCL_CACHE": str(clinic / "cache")}
    with (
        planned(head, model_cache, broker, store, text, tls_servers.store) as federation,
        commands(clinic, site_environment | keys) as site,
    ):
        hq = InvitingFederation(head, federation.place, tls_servers.store)
        found = run_federation(
            hq, site, clinic, keys, {"FCCL_BROKER__URL": broker, "FCCL_STORE__URL": store}
        )
        watched.close()
        places = found.places | {
            "command lines": b"\n".join(watched.lines),
            "environments of children": b"\n".join(watched.child_environments),
            "Redis": redis_content(tls_servers.store, hq.run_id)
            + redis_content(tls_servers.store, ":join:"),
        }
        assert watched.child_environments
        yield Planted(found.secrets, places, found.joins)


def run_federation(
    hq: InvitingFederation,
    site: Commands,
    clinic: Path,
    keys: dict[str, str],
    urls: dict[str, str],
) -> Planted:
    """Run coordinator, local worker, invited site and the commands of people, to their ends."""
    metrics, head = free_port(), clinic.parent / "headquarters"
    coordinator = hq.script(
        *("coordinator", "--plain", "--metrics-port", str(metrics)),
        FCCL_OPERATIONS__LOG="json",
        **keys,
    )
    local = hq.worker("--inbox-port", "0", **keys)
    eventually("version 1", lambda: hq.version() >= 1, PATIENCE_S)
    invited = hq.command("invite", "clinic")
    assert invited.end() == 0, invited.err
    token = invited.out.strip()
    (clinic / "token.txt").write_text(token)
    rows = [{"instruction": f"Was ist {i}?", "output": f"{ROW} {i}"} for i in range(40)]
    (clinic / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    worker = site.fork("worker", "--join", "@token.txt", "--data", "mine.jsonl")
    eventually("an update of it", lambda: hq.accepted_from("clinic"), PATIENCE_S)
    for words in (("status",), ("status", "--json"), ("invite", "--list"), ("doctor",)):
        hq.place.fork(*words, **keys).end()
    site.fork("doctor", "--side", "worker", "--site", "clinic").end()
    again = site.fork("worker", "--join", "@token.txt", "--data", "mine.jsonl", FCCL_STATE="other")
    assert again.end() == 9
    figures = b"\n".join(
        httpx.get(f"http://127.0.0.1:{metrics}/{path}").content
        for path in ("metrics", "healthz", "readyz")
    )
    inbox_token = (hq.run.parent / ".workers" / "inbox" / "token").read_text().strip()
    worker.signal(signal.SIGTERM)
    worker.end()
    (identity,) = (clinic / "state").rglob("identity.json")
    password = json.loads(identity.read_text())["password"]
    assert hq.command("revoke", "clinic").end() == 0
    for process in (coordinator, local):
        process.signal(signal.SIGTERM)
        process.end()
    hq.place.fork("export", "runs/small", "exported").end()
    fail(hq.place, urls)
    places = {
        "what people see at the coordinator": printed(head, "invite"),
        "what people see at the site": printed(clinic),
        "metrics": figures,
        "the run directory": tree(hq.run),
        "workers' state": tree(hq.run.parent / ".workers", "token"),
        "the export": tree(head / "exported"),
        "the site's state": tree(clinic / "state", "identity.json", "data"),
    }
    secrets = {
        **pieces("broker", BROKER_PASSWORD),
        **pieces("store", STORE_PASSWORD),
        "join token": token.encode(),
        "secret of the token": decode(token, 0.0).secret.encode(),
        "site's password": password.encode(),
        "inbox token": inbox_token.encode(),
        "hub token": HUB_TOKEN.encode(),
        "tracker key": TRACKER_KEY.encode(),
        "a row": ROW.encode(),
        "a row as JSON": json.dumps(ROW)[1:-1].encode(),
    }
    return Planted(secrets, places, printed(head, only="invite"))


def fail(place: Commands, real: dict[str, str]) -> None:
    """Run commands whose logins are refused, whose servers are gone, or whose URLs are bad.

    Args:
        real: Variables that name the servers.
    """
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        closed = unused.getsockname()[1]
        encoded = percent(BROKER_PASSWORD), percent(STORE_PASSWORD)
        brokers = (
            f"amqp://keeper:{BROKER_PASSWORD}@127.0.0.1:{closed}/",  # not percent-encoded
            f"amqp://keeper:{encoded[0]}@127.0.0.1:{closed}/?heartbeat={encoded[0]}&x=1",
            f"amqq://keeper:{encoded[0]}@127.0.0.1:{closed}/",
        )
        stores = (
            f"redis://keeper:{STORE_PASSWORD}@127.0.0.1:{closed}/0",
            f"redis://keeper:{encoded[1]}@127.0.0.1:{closed}/0?x={encoded[1]}",
            f"redis://keeper:{encoded[1]}@127.0.0.1:{closed}/{encoded[1]}",
        )
        silent = {
            "FCCL_BROKER__URL": f"amqp://keeper:{encoded[0]}@127.0.0.1:{closed}/",
            "FCCL_STORE__URL": f"redis://keeper:{encoded[1]}@127.0.0.1:{closed}/0",
        }
    urls = [{"FCCL_BROKER__URL": url} for url in brokers]
    urls += [{"FCCL_STORE__URL": url} for url in stores]
    failing = [(("status",), each) for each in urls]
    resume = ("coordinator", "--resume", "--plain")
    failing += [(words, silent) for words in (("status",), ("doctor",), ("pause",), resume)]
    for variable, url in real.items():  # there, but not with this user
        refused = {variable: url.replace("//keeper", "//nobody")}
        failing += [(words, refused) for words in (("status",), ("doctor",), resume)]
    started = [place.fork(*words, **variables) for words, variables in failing]
    codes = [command.end(PATIENCE_S) for command in started]
    # `fccl status` asks Redis only.
    assert [i for i, code in enumerate(codes) if code == 0] == [len(urls) + 4]


def printed(directory: Path, without: str = "", only: str = "") -> bytes:
    """Return all output of the commands of a directory."""
    files = [path for end in ("*.out", "*.err") for path in directory.glob(end)]
    if without:
        files = [path for path in files if not (without in path.name and path.suffix == ".out")]
    if only:
        files = [path for path in files if only in path.name]
    assert files
    return b"\n".join(path.read_bytes() for path in files)


def tree(folder: Path, secret: str = "", rows: str = "") -> bytes:
    """Return all files below a folder, without those that hold a secret or rows on purpose."""
    found = [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != secret and rows not in path.parts
    ]
    assert found
    return b"\n".join(os.fsencode(path) + b"\n" + path.read_bytes() for path in found)


PLACES = (
    "what people see at the coordinator", "what people see at the site", "metrics",
    "the run directory", "workers' state", "the export", "the site's state", "command lines",
    "environments of children", "Redis",
)  # fmt: skip
NEEDED = {"hub token", "tracker key"}
"""Children load base models and run trackers, so their environments keep these."""


@pytest.mark.parametrize("place", PLACES)
def test_no_secret_occurs_in(planted: Planted, place: str) -> None:
    text = planted.places[place]
    found = [name for name, secret in planted.secrets.items() if secret in text]
    assert text
    assert set(found) <= (NEEDED if place == "environments of children" else set())


def test_the_search_finds_secrets_where_they_belong(planted: Planted) -> None:
    assert planted.secrets["join token"] in planted.joins
    assert all(planted.places[place] for place in PLACES)
    assert b"clinic" in planted.places["Redis"]
    assert b"HF_TOKEN" in planted.places["environments of children"]
