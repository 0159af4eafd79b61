"""Tests of the trainer, which turns a task into a delta with statistics."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from common.errors import DataError, ModelError
from common.protocol.tasks import TrainTask
from common.protocol.tensors import Tensors
from learning.data.rows import write
from learning.models import loader, lora
from learning.synthetic.instructions import make_instructions
from learning.training.device import Compute
from learning.training.loop import StepReport
from tests.support.tiny_model import tiny_model, tiny_tokenizer
from tests.support.worker_records import no_reference, task
from worker.data.shards import ClientData
from worker.models.loaded import ModelCache
from worker.trainer import TrainedTask, Trainer, l2_norm

COMPUTE = Compute(torch.device("cpu"), threads=1, autocast=False)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Train with one thread: for a tiny model, more threads cost more than they bring."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@dataclass
class TaskFiles:
    """Base model and rows on the disk, and the adapter of version 0."""

    base: Path
    data: Path
    adapter: Tensors

    def train(self, wanted: TrainTask, stop_after: int = 10**6) -> TrainedTask | None:
        def step(report: StepReport) -> bool:
            return report.step < stop_after

        trainer = Trainer(ClientData(self.data), ModelCache(COMPUTE))
        return trainer.train(wanted, self.base, self.adapter, no_reference(), step)


@pytest.fixture(scope="module")
def task_files(tmp_path_factory: pytest.TempPathFactory) -> TaskFiles:
    root = tmp_path_factory.mktemp("trainer")
    tiny_model().save_pretrained(root / "base")
    tiny_tokenizer().save_pretrained(root / "base")
    (root / "clients").mkdir()
    write(root / "clients" / "client_0_sft.jsonl", tuple(make_instructions(0, 40)))
    loaded = loader.load(root / "base", COMPUTE.device)
    adapter = lora.read_adapter(lora.attach(loaded.model, task().lora, seed=7))
    return TaskFiles(root / "base", root / "clients", adapter)


def trained(task_files: TaskFiles, **changed: Any) -> TrainedTask:
    found = task_files.train(task(**changed))
    assert found is not None
    return found


def test_the_delta_is_the_local_adapter_minus_the_base_versions(task_files: TaskFiles) -> None:
    models = ModelCache(COMPUTE)
    trainer = Trainer(ClientData(task_files.data), models)
    found = trainer.train(
        task(steps=3), task_files.base, task_files.adapter, no_reference(), lambda _: True
    )
    assert found is not None
    loaded = models.current
    assert loaded is not None
    local = lora.read_adapter(loaded.model)
    assert found.delta.keys() == task_files.adapter.keys()
    for name, change in found.delta.items():
        np.testing.assert_allclose(task_files.adapter[name] + change, local[name], atol=1e-7)


def test_every_b_factor_moves_and_nothing_of_the_base_model_travels(task_files: TaskFiles) -> None:
    delta = trained(task_files, steps=2).delta
    assert all("lora_" in name for name in delta)
    assert all(np.abs(change).max() > 0 for name, change in delta.items() if "lora_B" in name)


def test_statistics_describe_the_training(task_files: TaskFiles) -> None:
    stats = trained(task_files, steps=3, batch_size=4).stats
    assert stats.steps == 3
    assert 30 < stats.num_samples < 40  # the rest is the client's holdout
    assert 3 * 4 * 10 < stats.num_tokens < 3 * 4 * 128
    assert 5.0 < stats.avg_loss < 8.0  # untrained, ln 600 = 6.4
    assert 5.0 < stats.loss_before < 8.0
    assert stats.train_seconds > 0


def test_the_reported_norm_is_the_deltas(task_files: TaskFiles) -> None:
    found = trained(task_files)
    squares = sum(float((change.astype(np.float64) ** 2).sum()) for change in found.delta.values())
    assert found.stats.delta_norm == pytest.approx(squares**0.5)
    assert l2_norm({"a": np.array([3.0]), "b": np.array([[4.0]])}) == 5.0


def test_an_update_is_scaled_to_the_norm_of_its_task_over_all_tensors(
    task_files: TaskFiles,
) -> None:
    whole, clipped = trained(task_files), trained(task_files, clip_norm=1e-3)
    assert clipped.stats.delta_norm == pytest.approx(1e-3) == l2_norm(clipped.delta)
    factor = 1e-3 / whole.stats.delta_norm
    for name, change in clipped.delta.items():
        np.testing.assert_allclose(change, factor * whole.delta[name], rtol=1e-5, atol=1e-12)
    assert trained(task_files, clip_norm=1e3).stats.delta_norm == whole.stats.delta_norm


def test_training_lowers_the_loss_on_the_clients_own_holdout(task_files: TaskFiles) -> None:
    stats = trained(task_files, steps=12, lr=2e-2).stats
    assert stats.loss_after < stats.loss_before


def test_epochs_cover_every_row(task_files: TaskFiles) -> None:
    stats = trained(task_files, steps=0, epochs=1, batch_size=8).stats
    assert stats.steps == -(-stats.num_samples // 8)


def test_the_same_task_gives_the_same_delta(task_files: TaskFiles) -> None:
    first, second = trained(task_files).delta, trained(task_files).delta
    assert all((first[name] == second[name]).all() for name in first)


def test_a_model_stays_loaded_and_remembers_nothing_of_the_task_before(
    task_files: TaskFiles,
) -> None:
    trainer = Trainer(ClientData(task_files.data), ModelCache(COMPUTE))
    deltas = []
    for _ in range(2):
        found = trainer.train(
            task(), task_files.base, task_files.adapter, no_reference(), lambda _: True
        )
        assert found is not None
        deltas.append(found.delta)
    assert all((deltas[0][name] == deltas[1][name]).all() for name in deltas[0])


def test_an_abandoned_task_gives_nothing(task_files: TaskFiles) -> None:
    assert task_files.train(task(steps=50), stop_after=2) is None


def test_an_unknown_client_is_a_data_error(task_files: TaskFiles) -> None:
    with pytest.raises(DataError, match="client_7"):
        task_files.train(task(client_id="client_7"))


def test_an_adapter_of_another_rank_is_a_model_error(task_files: TaskFiles) -> None:
    with pytest.raises(ModelError, match="shape"):
        task_files.train(task(lora={"r": 3, "alpha": 4}))


def test_a_task_with_frozen_factors_trains_and_sends_only_the_others(task_files: TaskFiles) -> None:
    models = ModelCache(COMPUTE)
    trainer = Trainer(ClientData(task_files.data), models)
    frozen = task(steps=2, frozen={"sha256": "1" * 64, "nbytes": 1})
    found = trainer.train(
        frozen, task_files.base, task_files.adapter, no_reference(), lambda _: True
    )
    assert found is not None
    assert all(
        "lora_B" in name and np.abs(change).max() > 0 for name, change in found.delta.items()
    )
    loaded = models.current
    assert loaded is not None
    parameters = dict(loaded.model.named_parameters())
    assert all(p.grad is None for name, p in parameters.items() if "lora_A" in name)
    for name, tensor in lora.read_adapter(loaded.model).items():
        assert np.array_equal(tensor, task_files.adapter[name]) == ("lora_A" in name)


def test_a_model_that_trained_frozen_factors_trains_all_of_them_again(
    task_files: TaskFiles,
) -> None:
    trainer = Trainer(ClientData(task_files.data), ModelCache(COMPUTE))
    for wanted in (task(frozen={"sha256": "1" * 64, "nbytes": 1}), task(steps=2)):
        found = trainer.train(
            wanted, task_files.base, task_files.adapter, no_reference(), lambda _: True
        )
    assert found is not None
    assert found.delta.keys() == task_files.adapter.keys()
