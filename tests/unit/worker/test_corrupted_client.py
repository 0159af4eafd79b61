"""Test that a client whose answers are nonsense gets less weight than its clean peers.

End to end: rows on the disk, real training, the statistics that it reports, the FCCL weights.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
import torch

from common.config.config import AggregationConfig
from common.protocol.updates import ContributionStats
from coordinator.aggregation.contribution import contribution_weights
from learning.data.row_types import Instruction
from learning.data.rows import write
from learning.models import base, loader, lora
from learning.synthetic.instructions import make_instructions
from learning.training.device import Compute
from tests.support.worker_records import no_reference, task
from worker.data.shards import ClientData
from worker.models.loaded import ModelCache
from worker.trainer import Trainer

ROWS = 60
CLEAN = ("client_0", "client_1", "client_2")
CORRUPTED = "client_3"


def nonsense(rows: list[Instruction]) -> list[Instruction]:
    """Return the rows with answers of the same lengths, made of words drawn from all answers."""
    random = Random(0)
    words = sorted({word for row in rows for word in row.output.split()})
    return [
        replace(row, output=" ".join(random.choices(words, k=len(row.output.split()))))
        for row in rows
    ]


@pytest.fixture(scope="module")
def stats(
    tmp_path_factory: pytest.TempPathFactory, model_cache: Path
) -> dict[str, ContributionStats]:
    """Return the statistics that each client reports after one task from the same version."""
    root = tmp_path_factory.mktemp("corrupted")
    rows = list(make_instructions(3, 4 * ROWS))
    for number, client in enumerate((*CLEAN, CORRUPTED)):
        own = rows[number::4]
        write(root / f"{client}_sft.jsonl", tuple(nonsense(own) if client == CORRUPTED else own))
    path = base.resolve("offline:gpt2-micro", None, model_cache, lambda *_: None).path
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # a tiny model is no faster with more
    compute = Compute(torch.device("cpu"), threads=1, autocast=False)
    adapter = lora.read_adapter(
        lora.attach(loader.load(path, compute.device).model, task().lora, seed=0)
    )
    trainer = Trainer(ClientData(root), ModelCache(compute))
    found = {}
    for client in (*CLEAN, CORRUPTED):
        wanted = task(client_id=client, steps=25, batch_size=8, lr=1e-2)
        trained = trainer.train(wanted, path, adapter, no_reference(), lambda _: True)
        assert trained is not None
        # Splits by hash differ by a row or two: equal sizes, so that only the labels speak.
        found[client] = trained.stats.model_copy(update={"num_samples": ROWS})
    torch.set_num_threads(threads)
    return found


@pytest.mark.parametrize("source", ["train", "holdout"])
@pytest.mark.parametrize("mode", ["loss", "combined"])
def test_a_client_with_corrupted_labels_weighs_less_than_clean_peers_of_equal_size(
    stats: dict[str, ContributionStats], mode: str, source: str
) -> None:
    config = AggregationConfig.model_validate(
        {"contribution_mode": mode, "contribution_source": source}
    )
    found = {client: weight for client, (_, weight) in contribution_weights(stats, config).items()}
    assert sum(found.values()) == pytest.approx(1)
    clean = [found[client] for client in CLEAN]
    assert found[CORRUPTED] < min(clean)
    # The base model learns from texts of the installed packages, so no closer bound holds anywhere.
    assert found[CORRUPTED] < 0.96 * sum(clean) / len(clean)


def test_weights_by_size_alone_do_not_notice_the_corrupted_client(
    stats: dict[str, ContributionStats],
) -> None:
    config = AggregationConfig(contribution_mode="size")
    assert {round(weight, 9) for _, weight in contribution_weights(stats, config).values()} == {
        0.25
    }
