"""Small federations with the aggregation rules `ffa` and `product`, from tasks to `fccl verify`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from common.protocol.adapter_frame import unpack_adapter
from common.run_directory.recorded_run import read_run
from common.run_directory.version_files import read_tensors
from evaluation.verification.verify import verify
from tests.support.lora_federation import BIAS, RANK, A, B, LoraFederation, beginning, loss
from tests.support.polled_federation import PolledFederation
from tests.support.witnessed_runs import small_chunks

MIXED = {"client_0": 4, "client_1": 8}


def run(federation: LoraFederation) -> PolledFederation:
    """Run a federation to its end."""
    polled = federation.make()
    with small_chunks():
        assert polled.serve().complete
    assert polled.dead_letters() == []
    return polled


@pytest.mark.parametrize(("rule", "ranks"), [("ffa", {}), ("product", {}), ("product", MIXED)])
def test_a_federation_learns_and_its_versions_are_recomputed_to_the_bit(
    tmp_path: Path, rule: str, ranks: dict[str, int]
) -> None:
    federation = LoraFederation(tmp_path, rule, ranks, versions=7)
    polled = run(federation)
    recorded = read_run(polled.directory)
    first, last = (loss(recorded.tensors(number), 2.0) for number in (0, 7))
    assert last < 0.5 * first
    assert max(update.staleness for each in recorded.versions for update in each.updates) >= 1
    found = verify(polled.directory)
    assert (found.right, found.complete) == (True, True)
    assert {each.file for each in found.versions} == {"same", "absent"}
    assert sum(each.file == "same" for each in found.versions) < 6


def test_frozen_factors_stay_travel_once_and_are_in_every_version(tmp_path: Path) -> None:
    federation = LoraFederation(tmp_path, "ffa", versions=2)
    polled = run(federation)
    start = beginning(tmp_path).adapter
    opened = polled.open()
    for number in (0, 2):
        tensors = read_tensors(opened.versions.directory(number) / "adapter_model.safetensors")
        assert tensors.keys() == {A, B, BIAS}
        np.testing.assert_array_equal(tensors[A], start[A])
        assert unpack_adapter(opened.versions.frame(number))[1].keys() == {B, BIAS}
        assert unpack_adapter(opened.versions.complete_frame(number))[1].keys() == {A, B, BIAS}
    assert np.abs(tensors[B]).max() > 0
    assert {task.frozen for task in federation.tasks} == {opened.template.frozen}
    assert {task.layout for task in federation.tasks} == {opened.template.layout}
    opened.journal.close()


def test_a_changed_frozen_factor_is_found(tmp_path: Path) -> None:
    polled = run(LoraFederation(tmp_path, "ffa", versions=2))
    path = polled.directory / "versions" / "000002" / "adapter_model.safetensors"
    tensors = read_tensors(path)
    save_file(tensors | {A: tensors[A] + 1}, path)
    found = verify(polled.directory)
    assert [each.version for each in found.versions if each.file == "changed"] == [2]


def test_each_client_gets_and_sends_its_own_rank(tmp_path: Path) -> None:
    federation = LoraFederation(tmp_path, "product", MIXED, versions=2)
    polled = run(federation)
    by_client = {task.client_id: task.lora for task in federation.tasks}
    found = {name: (lora.r, lora.alpha) for name, lora in by_client.items() if lora}
    assert found == {"client_0": (4, 8), "client_1": (8, 16), "client_2": (RANK, 2 * RANK)}
    assert {task.refactored for task in federation.tasks} == {"mixed"}
    opened = polled.open()
    whole = opened.versions.read(2)
    assert {name: tensor.shape for name, tensor in whole.items()} == {
        name: tensor.shape for name, tensor in beginning(tmp_path).adapter.items()
    }
    frames = [unpack_adapter(frame)[1] for frame in opened.versions.frames(2)]
    for rank, tensors in zip((RANK, 4, 8), frames, strict=True):
        np.testing.assert_array_equal(tensors[A], whole[A][:rank])
        np.testing.assert_array_equal(tensors[B], whole[B][:, :rank])
    opened.journal.close()


def test_tensors_without_lora_are_added_as_in_the_sum_of_the_step(tmp_path: Path) -> None:
    polled = run(LoraFederation(tmp_path, "product", MIXED, versions=2))
    recorded = read_run(polled.directory)
    steps = [sum(update.coefficient for update in each.updates) for each in recorded.versions]
    np.testing.assert_allclose(recorded.tensors(2)[BIAS], sum(steps), rtol=1e-5)
