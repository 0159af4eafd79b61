"""A federation over TLS whose rows all stay at its three sites, from the plan to the delivery."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from peft import PeftModel
from transformers import AutoModelForCausalLM

from common.store.store import Store, connect
from tests.support.federations import check_applied_once, planned
from tests.support.inviting_federation import TLS_SECTIONS, InvitingFederation
from tests.support.processes import Command, eventually
from tests.support.sites_over_tls import (
    Site,
    instructions,
    site_machine,
    write_conversations,
    write_csv,
    write_parquet,
)
from tests.support.tls_servers import TlsServers
from worker.delivery.delivered import newest_delivered

pytestmark = [pytest.mark.servers, pytest.mark.slow, pytest.mark.timeout(600)]

NAMES = ("hospital-a", "hospital-b", "hospital-c")
VERSIONS = 12
PLAN = f"""\
[run]
name = "small"
[model]
name = "offline:gpt2-micro"
max_length = 128
[model.lora]
r = 4
alpha = 8
[data]
clients = 0
[[phase]]
objective = "sft"
versions = {VERSIONS}
local_steps = 25
batch_size = 8
[schedule]
concurrency = 3
buffer_size = 2
min_clients = 2
lease_s = 3.0
flush_s = 60.0
[evaluation]
every = 4
max_rows = 4
deadline_s = 20.0
"""


@pytest.fixture
def headquarters(
    tmp_path: Path, tls_servers: TlsServers, model_cache: Path
) -> Iterator[InvitingFederation]:
    directory = tmp_path / "headquarters"
    directory.mkdir()
    found = tls_servers
    text = PLAN + TLS_SECTIONS.format(ca=found.ca, management=found.management)
    with planned(
        directory, model_cache, found.amqps, found.rediss, text, found.store
    ) as federation:
        yield InvitingFederation(directory, federation.place, found.store)


@pytest.fixture
def sites(tmp_path: Path, model_cache: Path) -> Iterator[dict[str, Site]]:
    with ExitStack() as stack:
        machines = (site_machine(tmp_path / name, model_cache) for name in NAMES)
        yield {n: stack.enter_context(m) for n, m in zip(NAMES, machines, strict=True)}


class Marks:
    """Marks in the rows of each site, which must be found on its own machine only."""

    def __init__(self) -> None:
        self.of = {name: f"zq{index}xj" for index, name in enumerate(NAMES)}

    def in_files(self, *folders: Path) -> list[str]:
        """Return the files under folders that hold any mark."""
        files = (path for folder in folders for path in folder.rglob("*") if path.is_file())
        return [str(path) for path in files if self.are_in(path.read_bytes())]

    def in_store(self, store: Store) -> list[str]:
        """Return the keys of the store whose values hold any mark."""
        keys: list[bytes] = store.execute("KEYS", "*")
        return [str(key) for key in keys if self.are_in(store.execute("DUMP", key.decode()))]

    def are_in(self, data: bytes) -> bool:
        return any(mark.encode() in data for mark in self.of.values())


def join(federation: InvitingFederation, site: str, machine: Site, mark: str) -> Command:
    """Let a site join with its own file in its own format."""
    rows, folder = instructions(mark), machine.directory
    token = federation.invite(site)
    if site == "hospital-a":
        return machine.join(token, write_conversations(folder / "talk.jsonl", rows))
    if site == "hospital-b":
        columns = {"instruction": "frage", "output": "antwort"}
        path = write_csv(folder / "fragen.csv", rows, columns)
        return machine.join(token, path, "--columns", "instruction=frage,output=antwort")
    return machine.join(token, write_parquet(folder / "rows.parquet", rows))


def waits(federation: InvitingFederation) -> bool:
    """Return whether the run waits because too few clients are live."""
    status = federation.status()
    return status is not None and status["info"]["status"] == "waiting"


def training(federation: InvitingFederation) -> set[str]:
    """Return the sites with a worker that trains."""
    return {beat.site for beat in federation.beats() if beat.state == "training"}


def test_three_sites_train_evaluate_and_keep_a_model_and_no_row_leaves_them(
    headquarters: InvitingFederation, sites: dict[str, Site], tls_servers: TlsServers
) -> None:
    marks = Marks()
    coordinator = headquarters.coordinator()
    a, b, c = NAMES
    workers = {name: join(headquarters, name, sites[name], marks.of[name]) for name in (a, b)}
    headquarters.reaches(2)

    # One leaves: below the minimum nothing is committed, until it comes back.
    workers[b].signal(signal.SIGTERM)
    assert workers[b].end() == 0
    eventually("the run waits", lambda: waits(headquarters))
    version = headquarters.version()
    workers[b] = sites[b].back(b)
    headquarters.reaches(version + 1)

    # One is killed while it trains. It comes back, and another one joins at a later version.
    eventually("it trains", lambda: a in training(headquarters))
    workers[a].kill()
    headquarters.order("pause")
    workers[a] = sites[a].back(a)
    workers[c] = join(headquarters, c, sites[c], marks.of[c])
    eventually("all take part", lambda: sorted(headquarters.joined()) == sorted(NAMES))
    eventually("and are live", lambda: {beat.site for beat in headquarters.beats()} == set(NAMES))
    headquarters.order("resume")

    assert coordinator.end() == 0, coordinator.err
    for name, worker in workers.items():
        assert worker.end() == 0, f"{name}: {worker.out}\n{worker.err}"
    check_applied_once(headquarters)
    assert all(headquarters.accepted_from(name) for name in NAMES)

    # All sites answered evaluations, and have what they helped to train.
    evaluated = headquarters.rows(
        "SELECT DISTINCT client_id FROM evaluation WHERE state = 'accepted'"
    )
    assert sorted(client for (client,) in evaluated) == sorted(NAMES)
    report = (headquarters.run / "report/report.md").read_text()
    assert all(name in report for name in NAMES)
    for name, worker in workers.items():
        work = sites[name].state / "sites" / f"small.{name}" / "work"
        audit = sites[name].command(
            "audit", str(work / "sent.jsonl"), "--run", str(headquarters.run)
        )
        assert audit.end() == 0, f"{audit.out}\n{audit.err}"
        found = newest_delivered(work)
        assert found is not None, worker.out
        folder, delivered = found
        assert delivered.final == VERSIONS and delivered.best is not None
        assert str(folder / "final") in worker.out
        base = AutoModelForCausalLM.from_pretrained(folder / "best/base")
        PeftModel.from_pretrained(base, folder / "best")
        assert "never left" in (folder / "final/README.md").read_text()

    # Nothing of the sites' rows is anywhere else.
    servers = tls_servers.folder.parent
    assert marks.in_files(headquarters.run.parent.parent, servers) == []
    assert marks.in_store(connect(tls_servers.store)) == []
    assert len(marks.in_files(*(site.directory for site in sites.values()))) >= len(NAMES)
    for command in headquarters.started:
        assert not marks.are_in((command.out + command.err).encode())
