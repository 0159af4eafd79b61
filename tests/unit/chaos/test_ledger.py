"""The ledger checker finds nothing wrong with a correct run, and every kind of corruption."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from common.protocol import codec
from common.protocol.tasks import TrainTask
from common.protocol.updates import Update
from common.protocol.wire import pack, unpack
from tests.chaos.ledger import LedgerReport, check
from tests.support.coordinator_records import START
from tests.support.polled_federation import delta
from tests.support.virtual_federation import make_stats
from tests.support.witnessed_runs import WitnessedRun, witnessed_run


def report(run: WitnessedRun) -> LedgerReport:
    return check(run.run, witness=run.witness)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> WitnessedRun:
    return witnessed_run(tmp_path_factory.mktemp("ledger"))


@pytest.fixture
def run(finished: WitnessedRun, tmp_path: Path) -> WitnessedRun:
    """Copy of the finished run, to be corrupted."""
    shutil.copytree(finished.run.parent, tmp_path / "all")
    return WitnessedRun(tmp_path / "all" / "r", tmp_path / "all" / "witness")


def test_a_correct_run_has_no_problems_and_is_recomputed_completely(
    finished: WitnessedRun,
) -> None:
    expected = LedgerReport(
        versions=3, recomputed=3, updates=6, buffered=0, receipts=6, problems=()
    )
    assert report(finished) == expected
    assert check(finished.run) == replace(expected, receipts=0)  # from the kept updates


def varied(name: str) -> Callable[[bytes], bytes]:
    """Return a worker whose updates differ in size and loss, with a codec."""

    def answer(frame: bytes) -> bytes:
        task, _ = unpack(TrainTask, frame)
        number = int(task.task_id[1:])
        random = np.random.default_rng(number)
        scale = 0.01 * (1 + 9 * (number % 3))
        tensors = {
            key: (scale * random.standard_normal(tensor.shape)).astype(np.float32)
            for key, tensor in START.items()
        }
        layout, data = codec.encode(name, tensors)  # type: ignore[arg-type]
        stats = make_stats(samples=20 + 30 * (number % 5), loss=0.3 + number % 4)
        update = Update(
            task_id=task.task_id,
            attempt=task.attempt,
            client_id=task.client_id,
            worker_id="w0",
            phase=task.phase,
            base_version=task.base_version,
            stats=stats,
            codec=name,  # type: ignore[arg-type]
            layout=layout.digest,
            sha256=codec.digest(data),
        )
        return pack(update, data)

    return answer


@pytest.mark.parametrize(
    ("name", "versions", "settings"),
    [
        ("fp32", (1, 7), {"buffer_size": 1}),  # clipped, and one client in every buffer
        ("bf16", (1, 2), {"aggregation": {"contribution_mode": "loss", "cap": 1.2, "floor": 0.0}}),
        ("int8", (1, 2), {"buffer_size": 1, "aggregation": {"contribution_source": "holdout"}}),
        ("int4", (1, 1), {"buffer_size": 3, "aggregation": {"contribution_source": "cosine"}}),
        (
            "topk",
            (1, 1),
            {"buffer_size": 3, "aggregation": {"score_scale": "raw", "server_lr": 0.5}},
        ),
    ],
)
def test_weights_and_codecs_agree_with_the_documented_formulas(
    tmp_path: Path, name: str, versions: tuple[int, ...], settings: Mapping[str, Any]
) -> None:
    run = witnessed_run(tmp_path, varied(name), versions=versions, **settings)
    found = report(run)
    assert found.problems == ()
    assert found.recomputed == found.versions == sum(versions)


def test_accepted_updates_of_an_unfinished_run_wait_in_the_buffer(tmp_path: Path) -> None:
    run = witnessed_run(tmp_path, complete=False)
    found = check(run.run, witness=run.witness, finished=False)
    assert found.problems == ()
    assert found.versions == found.recomputed >= 1


def test_output_and_sent_logs_of_workers_are_receipts(run: WitnessedRun) -> None:
    (run.witness / "out").write_text("12:00:00   accepted    update t000099.1 accepted\n")
    (found,) = check(run.run, [run.witness / "out"]).problems[:1]
    assert found == "a worker has a receipt for t000099 (accepted), the journal has none"
    assert check(run.run, [run.witness]).problems == ()  # no log of a site: senders are unknown
    (run.witness / "sent.jsonl").write_text("")
    problems = check(run.run, [run.witness]).problems
    assert len(problems) == 6 and all("no worker has sent" in problem for problem in problems)


def apply_twice(run: WitnessedRun) -> None:
    def add(summary: dict[str, Any]) -> None:
        summary["updates"].append({**summary["updates"][0], "task_id": "t000001"})

    run.change_summary(3, add)


def lose_from_version(run: WitnessedRun) -> None:
    run.change_summary(2, lambda summary: summary["updates"].pop())


def lose_completely(run: WitnessedRun) -> None:
    for table in ("accepted", "receipt", "task", "kept_update"):
        run.execute(f"DELETE FROM {table} WHERE task_id = 't000002'")


def change_weight(run: WitnessedRun) -> None:
    def change(summary: dict[str, Any]) -> None:
        for name in ("weight", "coefficient"):
            summary["updates"][0][name] *= 1.001

    run.change_summary(2, change)


def change_tensor(run: WitnessedRun) -> None:
    path = run.run / "versions" / "000002" / "adapter_model.safetensors"
    tensors = load_file(path)
    tensors["a"][7] = np.nextafter(tensors["a"][7], np.float32(9))
    save_file(tensors, path)


def exchange_update(run: WitnessedRun) -> None:
    """Replace an update consistently, in journal and files: only the witness knows better."""
    (old,) = (run.run / "updates").glob("t000003.*")
    header, _ = unpack(Update, old.read_bytes())
    _, data = codec.encode("fp32", delta("t000009"))
    frame = pack(header.model_copy(update={"sha256": codec.digest(data)}), data)
    old.write_bytes(frame)
    upload = f"local.{codec.digest(frame)}"
    run.execute("UPDATE accepted SET upload = ? WHERE task_id = 't000003'", upload)


def forge_sender(run: WitnessedRun) -> None:
    (frame,) = (run.witness / "updates").glob("t000003.*")
    frame.unlink()


def reject_accepted(run: WitnessedRun) -> None:
    text = (run.witness / "receipts.jsonl").read_text()
    (run.witness / "receipts.jsonl").write_text(text.replace("accepted", "rejected", 1))


def drop_version(run: WitnessedRun) -> None:
    run.execute("DELETE FROM version WHERE version = 2")


def repeat_line(run: WitnessedRun) -> None:
    path = run.run / "progress.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[i] for i in (0, 1, 1, 2, 3)))


def move_metrics(run: WitnessedRun) -> None:
    path = run.run / "client_metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[0]["version"] = 2
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def leave_in_spool(run: WitnessedRun) -> None:
    (run.run / "spool").mkdir(exist_ok=True)
    (run.run / "spool" / f"local.{'0' * 64}").write_bytes(b"")


def leave_staged(run: WitnessedRun) -> None:
    (run.run / "versions" / f".made-{'0' * 64}").mkdir()


def leave_kept(run: WitnessedRun) -> None:
    (run.run / "updates" / "t000099.1").write_bytes(b"")


def lose_kept(run: WitnessedRun) -> None:
    (run.run / "updates" / "t000001.1").unlink()


CORRUPTIONS: dict[Callable[[WitnessedRun], None], str] = {
    apply_twice: "the update of t000001 is in the versions [1, 3]",
    lose_from_version: "is marked as applied in version 2, which lacks it",
    lose_completely: "a worker's accepted update of t000002 is lost",
    change_weight: "weight of t000003 in version 2 is",
    change_tensor: "the files of version 2 do not have its digest",
    exchange_update: "the accepted update t000003.1 is not the one that its worker sent",
    forge_sender: "no worker has sent the accepted update t000003.1",
    reject_accepted: "a worker's receipt for t000001 is 1, rejected; the journal's (1, 'accepted')",
    drop_version: "version 2 is missing in the journal",
    repeat_line: "progress.jsonl differs from the journal in versions [1]",
    move_metrics: "client_metrics.jsonl has 1 lines too many of t000001 in version 2",
    leave_in_spool: f"local.{'0' * 64} was left in the spool",
    leave_staged: f".made-{'0' * 64} in versions/ is no version",
    leave_kept: "t000099.1 in updates/ has no row",
    lose_kept: "updates/ lacks t000001.1",
}


@pytest.mark.parametrize("corrupt", CORRUPTIONS, ids=lambda corrupt: corrupt.__name__)
def test_each_kind_of_corruption_is_found(
    run: WitnessedRun, corrupt: Callable[[WitnessedRun], None]
) -> None:
    corrupt(run)
    problems = report(run).problems
    assert any(CORRUPTIONS[corrupt] in problem for problem in problems), problems
