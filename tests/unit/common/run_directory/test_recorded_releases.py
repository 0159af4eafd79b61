"""Run directories of earlier releases are read, and those of a newer one are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cli.sites.comparison import compare
from common.config.config import IncrementalConfig
from common.errors import FcclError
from common.run_directory.recorded_run import read_config, read_run
from common.run_directory.site_journal import read_site_journal
from coordinator.sites.registry import SiteRegistry
from coordinator.storage.journal import Journal
from coordinator.storage.run import open_run
from tests.support.recorded_releases import (
    RELEASES,
    SCHEMA1,
    SITE,
    UNSUPPORTED,
    change,
    unpack_release,
)
from tui.data.recorded_views import view_at
from worker.incremental.inbox.inbox import Inbox
from worker.settings import loader as site_settings
from worker.site import identity
from worker.site.sent_log import read_log
from worker.spool import claim_slot


@pytest.mark.parametrize("release", RELEASES)
def test_a_run_of_an_earlier_release_is_read(tmp_path: Path, release: str) -> None:
    run = read_run(unpack_release(release, tmp_path))
    numbers = [summary.version for summary in run.versions]
    assert numbers == list(range(len(numbers))) and len(numbers) > 2
    for version in run.versions_on_disk():
        run.tensors(version)  # raises if the digest is not the journal's
    applied = {update.task_id for summary in run.versions for update in summary.updates}
    assert applied <= {update.task_id for update in run.updates}
    assert (run.layout is None) == (release in SCHEMA1)
    view = view_at(run, run.ended_at)
    assert view.versions[-1].version == numbers[-1] and view.events


def test_a_run_of_the_first_days_is_refused_with_the_remedy(tmp_path: Path) -> None:
    run = unpack_release(UNSUPPORTED, tmp_path)
    with pytest.raises(FcclError, match="lacks labels; read and resume it with that release"):
        read_run(run)
    config = read_config(run)
    place = config.run.model_copy(update={"dir": str(run.parent)})
    with pytest.raises(FcclError, match="lacks labels; read and resume it with that release"):
        open_run(config.model_copy(update={"run": place}), lambda _: tmp_path)


def add_phase_key(run: Path) -> None:
    path = run / "federation.toml"
    path.write_text(path.read_text().replace("[[phase]]", "[[phase]]\nlookahead = 2", 1))


FUTURE: dict[str, Callable[[Path], None]] = {
    "table gossip": lambda run: change(run, "CREATE TABLE gossip (a TEXT)"),
    "column mood of table task": lambda run: change(run, "ALTER TABLE task ADD COLUMN mood TEXT"),
    "property layout3": lambda run: change(run, "INSERT INTO meta VALUES ('layout3', 'x')"),
    "key phase.0.lookahead": add_phase_key,
}


@pytest.mark.parametrize("unknown", FUTURE)
def test_a_run_of_a_newer_release_is_refused_with_the_remedy(tmp_path: Path, unknown: str) -> None:
    run = unpack_release("schema1_early", tmp_path)
    FUTURE[unknown](run)
    with pytest.raises(FcclError, match="upgrade fccl here") as caught:
        read_run(run)
    assert unknown in str(caught.value) and "\n" not in str(caught.value)
    if "key" not in unknown:
        with pytest.raises(FcclError, match=f"newer release.*{unknown}"):
            Journal.open(run / "run.db")


def test_records_of_a_newer_release_are_refused_in_one_line(tmp_path: Path) -> None:
    run = unpack_release("schema1_early", tmp_path)
    change(run, "UPDATE version SET summary = json_set(summary, '$.novelty', 1)")
    with pytest.raises(FcclError, match="release of fccl that made it") as caught:
        read_run(run)
    assert "\n" not in str(caught.value)
    journal = Journal.open(run / "run.db")
    with pytest.raises(FcclError, match="release of fccl") as caught:
        journal.versions()
    assert "\n" not in str(caught.value)
    journal.close()


def test_a_site_of_the_previous_release_keeps_its_identity_log_settings_and_inbox(
    tmp_path: Path,
) -> None:
    run = unpack_release(SITE, tmp_path)
    folder = tmp_path / "state" / "sites" / "old.clinic"
    own = identity.load(folder)
    assert own is not None and (own.site, own.admitted) == ("clinic", True)
    assert site_settings.load(folder / "worker.toml", {})
    known = SiteRegistry(run.with_name("old.sites.db")).find("clinic")
    assert known is not None and known.state == "joined"
    log = read_log(folder / "work" / "sent.jsonl")
    journal = read_site_journal(run, "clinic")
    assert log.sent and all(row.agrees for row in compare(log, journal))
    inbox = Inbox(folder / "work" / "inbox" / "clinic" / "inbox.db", IncrementalConfig())
    assert {item.state for item in inbox.items()} <= {"learned", "settled"}
    inbox.close()
    (slot,) = (folder / "work").glob("*/slots/0")
    claimed = claim_slot(folder / "work", slot.parent.parent.name)
    assert claimed.task() is not None
    claimed.release()


def test_an_identity_of_a_newer_release_is_refused_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "identity.json").write_text('{"site": "a", "device_key": "x"}')
    with pytest.raises(FcclError, match=r"newer release.*device_key; upgrade fccl here"):
        identity.load(tmp_path)
