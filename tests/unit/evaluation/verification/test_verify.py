"""`fccl verify` recomputes the versions of a run, and says which one is wrong, and why."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from safetensors.numpy import load_file, save_file

from cli.control.verify import command
from common.errors import FcclError
from common.run_directory.update_journal import read_update_journal
from evaluation.verification.verify import Verification, verify
from tests.support.polled_federation import PolledFederation
from tests.support.witnessed_runs import WitnessedRun, small_chunks, witnessed_run


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> WitnessedRun:
    return witnessed_run(tmp_path_factory.mktemp("verified"), versions=(2, 3), buffer_size=1)


@pytest.fixture
def run(finished: WitnessedRun, tmp_path: Path) -> WitnessedRun:
    shutil.copytree(finished.run, tmp_path / "r")
    return WitnessedRun(tmp_path / "r", finished.witness)


def call(directory: Path, *words: str) -> Result:
    return CliRunner().invoke(command, [str(directory), *words], catch_exceptions=False)


def wrong(found: Verification) -> dict[int, tuple[str, ...]]:
    """Return what is wrong with versions, and with the run, as version −1."""
    problems = {each.version: each.problems for each in found.versions if each.problems}
    return problems | ({-1: found.problems} if found.problems else {})


def test_every_version_is_recomputed_also_those_that_were_removed(finished: WitnessedRun) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.run.rglob("*")}
    result = call(finished.run)
    assert result.exit_code == 0
    assert result.output.splitlines()[1:] == [
        "recomputed, equal to the bit: 1 to 5",
        "on the disk, with the digest of the journal: 0, 2, 4, 5",
        "everything is right",
    ]
    found = json.loads(call(finished.run, "--json").output)
    assert (found["right"], found["complete"], found["updates"]) == (True, True, 5)
    assert found["versions"][1] | {"file": "absent", "recomputed": True} == found["versions"][1]
    assert {path: path.stat().st_mtime_ns for path in finished.run.rglob("*")} == before


def test_without_kept_updates_digests_and_weights_are_checked(tmp_path: Path) -> None:
    run = witnessed_run(tmp_path, keep_updates=False)
    result = call(run.run)
    assert result.exit_code == 12
    assert "not recomputed: 1 to 3 (its updates were not kept)" in result.output
    assert "on the disk, with the digest of the journal: 0, 2, 3" in result.output
    run.execute("DROP TABLE kept_update")  # as in a run that an older release began
    assert call(run.run).output == result.output
    change_factor(run)
    assert call(run.run).exit_code == 1


def test_a_missing_update_breaks_the_chain_up_to_the_next_version_on_the_disk(
    run: WitnessedRun,
) -> None:
    (run.run / "updates" / "t000003.1").unlink()
    found = verify(run.run)
    assert found.right and not found.complete
    assert [each.recomputed for each in found.versions] == [None, True, True, None, None, True]
    assert [each.reason for each in found.versions[3:5]] == [
        "updates/t000003.1 is missing",
        "the version before it is neither on the disk nor recomputed",
    ]


def test_an_update_that_is_still_in_the_spool_is_found_there(run: WitnessedRun) -> None:
    kept = run.run / "updates" / "t000003.1"
    found = verify(run.run)
    uploads = {each.task_id: each.upload for each in read_update_journal(run.run).updates}
    kept.rename(run.run / "spool" / uploads["t000003"])
    assert verify(run.run) == found


def test_a_run_is_verified_while_its_coordinator_writes(tmp_path: Path) -> None:
    federation = PolledFederation(tmp_path, keep_updates=True, buffer_size=1, versions=(3,))
    seen = list[Verification]()

    def look() -> None:
        if federation.turns % 2:
            seen.append(verify(federation.directory))

    federation.on_turn = look
    with small_chunks():
        assert federation.serve().complete
    assert all(found.right and found.complete for found in seen)
    assert {len(found.versions) for found in seen} >= {1, 2, 3}


def change_factor(run: WitnessedRun) -> None:
    def change(summary: dict[str, Any]) -> None:
        summary["updates"][0]["participation_factor"] *= 1.5

    run.change_summary(2, change)


def change_loss(run: WitnessedRun) -> None:
    run.change_summary(2, lambda summary: summary["updates"][0].update(avg_loss=0.5))


def change_clip(run: WitnessedRun) -> None:
    run.execute("UPDATE accepted SET clip = 0.5 WHERE task_id = 't000002'")


def change_staleness(run: WitnessedRun) -> None:
    run.change_summary(2, lambda summary: summary["updates"][0].update(staleness=7))


def change_coefficient_and_digest(run: WitnessedRun) -> None:
    """Change a version that is not on the disk any more, with all that follows from it."""
    run.change_summary(3, lambda summary: summary.update(sha256="0" * 64))


def change_tensor(run: WitnessedRun) -> None:
    path = run.run / "versions" / "000002" / "adapter_model.safetensors"
    tensors = load_file(path)
    tensors["a"][7] = np.nextafter(tensors["a"][7], np.float32(9))
    save_file(tensors, path)


def cut_file(run: WitnessedRun) -> None:
    path = run.run / "versions" / "000002" / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:100])


def change_update(run: WitnessedRun) -> None:
    path = run.run / "updates" / "t000002.1"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def exchange_updates(run: WitnessedRun) -> None:
    frame = (run.run / "updates" / "t000001.1").read_bytes()
    (run.run / "updates" / "t000002.1").write_bytes(frame)


def apply_twice(run: WitnessedRun) -> None:
    def add(summary: dict[str, Any]) -> None:
        summary["updates"].append({**summary["updates"][0], "task_id": "t000001"})

    run.change_summary(2, add)


def lose_update(run: WitnessedRun) -> None:
    run.change_summary(2, lambda summary: summary["updates"].clear())


def lose_row(run: WitnessedRun) -> None:
    run.execute("DELETE FROM accepted WHERE task_id = 't000002'")


def lose_receipt(run: WitnessedRun) -> None:
    run.execute("DELETE FROM receipt WHERE task_id = 't000002'")


def lose_version(run: WitnessedRun) -> None:
    run.execute("DELETE FROM version WHERE version = 2")


def add_file(run: WitnessedRun) -> None:
    (run.run / "updates" / "t000099.1").write_bytes(b"")


CORRUPTIONS: dict[Callable[[WitnessedRun], None], tuple[int, str]] = {
    change_factor: (2, "participation_factor of t000002 is "),
    change_loss: (2, "stats of t000002 differs from its row"),
    change_clip: (2, "clip of t000002 is 0.5 instead of 1.0"),
    change_staleness: (2, "staleness of t000002 is 7, not"),
    change_coefficient_and_digest: (3, "the sum of its updates has the digest"),
    change_tensor: (2, "adapter_model.safetensors has the digest"),
    cut_file: (2, "adapter_model.safetensors: "),
    change_update: (2, "the update of t000002 was changed on the disk"),
    exchange_updates: (2, "the update of t000002 was changed on the disk"),
    apply_twice: (2, "the update of t000001 is applied twice"),
    lose_update: (2, "the update of t000002 is lost"),
    lose_row: (2, "the update of t000002 is not marked as applied here"),
    lose_receipt: (-1, "the accepted update t000002.1 has no receipt that says so"),
    lose_version: (-1, "the journal has no version 2"),
    add_file: (-1, "updates/t000099.1 is in no row of the journal"),
}


@pytest.mark.parametrize("corrupt", CORRUPTIONS, ids=lambda corrupt: corrupt.__name__)
def test_each_kind_of_corruption_is_named_with_its_version(
    run: WitnessedRun, corrupt: Callable[[WitnessedRun], None]
) -> None:
    corrupt(run)
    version, text = CORRUPTIONS[corrupt]
    problems = wrong(verify(run.run))
    assert any(text in problem for problem in problems.get(version, ())), problems
    result = call(run.run)
    assert result.exit_code == 1
    mark = "! " if version < 0 else f"! version {version}: "
    assert any(line.startswith(mark) and text in line for line in result.output.splitlines())


def test_a_damaged_file_does_not_hide_that_the_updates_are_right(run: WitnessedRun) -> None:
    change_tensor(run)
    found = verify(run.run)
    assert found.versions[2].file == "changed" and found.versions[2].recomputed
    assert found.complete and not found.right


def no_directory(path: Path) -> None:
    pass


def other_directory(path: Path) -> None:
    path.mkdir()


def no_database(path: Path) -> None:
    path.mkdir()
    (path / "federation.toml").touch()
    (path / "run.db").write_bytes(b"no database" * 100)


def a_file(path: Path) -> None:
    path.write_text("")


@pytest.mark.parametrize("make", [no_directory, other_directory, no_database, a_file])
def test_what_is_no_run_is_one_line(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "r")
    with pytest.raises(FcclError) as caught:
        verify(tmp_path / "r")
    assert "\n" not in str(caught.value) and str(tmp_path / "r") in str(caught.value)


@pytest.mark.parametrize(
    "query",
    [
        "UPDATE version SET summary = '{'",
        "UPDATE accepted SET stats = '[]'",
        "DELETE FROM meta",
        "UPDATE meta SET value = '[]' WHERE key = 'clients'",
        "UPDATE meta SET value = '3' WHERE key = 'adapter_config'",
        "DROP TABLE accepted",
        "DELETE FROM version",
        "UPDATE accepted SET norm = 'x'",
        "UPDATE accepted SET version = 'x'",
    ],
)
def test_a_damaged_journal_is_one_line(run: WitnessedRun, query: str) -> None:
    run.execute(query)
    with pytest.raises(FcclError) as caught:
        verify(run.run)
    assert "\n" not in str(caught.value) and "run.db" in str(caught.value)
