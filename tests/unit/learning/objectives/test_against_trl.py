"""Equality of our losses and gradients with trl's trainers: same weights, same batch, float32.

trl tokenises, masks, pads and computes by itself; we compute on the batches that it makes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from peft import PeftModel
from transformers import PreTrainedTokenizerFast
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer, SFTConfig, SFTTrainer

from common.protocol.tasks import DpoSettings, KtoSettings, LoraSpec
from learning.models.lora import attach, read_adapter, write_adapter
from learning.objectives import kto
from learning.objectives.dpo import TokenisedPair, log_probabilities, with_reference
from learning.objectives.dpo import collate as collate_pairs
from learning.objectives.registry import make_objective
from learning.objectives.tokens import IGNORED, TokenisedExample, make_example
from learning.training.batches import collate
from tests.support.tiny_model import tiny_model, tiny_tokenizer

LORA = LoraSpec(r=4, alpha=8, dropout=0.0)
ROWS = [
    ("Add the numbers. 1, 2\n", "The sum is three.", "No."),
    ("Say it.\n", "It.", "A much longer answer that nobody has asked for at all."),
    ("Which is the largest of 3, 8 and 5? Answer with a number.\n", "8", "5 is the largest."),
    ("Name a colour.\n", "Green is a colour.", "Green is a number."),
]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    made = tiny_tokenizer()
    made.pad_token = made.eos_token
    return made


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    """Restore the random state afterwards, since trl seeds the process."""
    with torch.random.fork_rng(devices=[]):
        yield


def adapted(seed: int) -> PeftModel:
    """Return the model of every test, its adapter filled with random numbers of this seed.

    Its output weights are enlarged: a random model's predictions hardly depend on anything.
    """
    base = tiny_model()
    base.transformer.wte.weight.data *= 10
    model = attach(base, LORA, 0)
    rng = np.random.default_rng(seed)
    filled = {n: 0.2 * rng.standard_normal(t.shape) for n, t in read_adapter(model).items()}
    write_adapter(model, {n: t.astype(np.float32) for n, t in filled.items()})
    assert isinstance(model, PeftModel)
    return model.eval()


def gradients(model: torch.nn.Module, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


def assert_equal(
    ours: tuple[torch.nn.Module, torch.Tensor], theirs: tuple[torch.nn.Module, torch.Tensor]
) -> None:
    """Check that loss and gradients agree to 1e-4, where gradients are not tiny."""
    assert ours[1].item() == pytest.approx(theirs[1].item(), abs=1e-4)
    mine, other = gradients(*ours), gradients(*theirs)
    assert mine.keys() == other.keys()
    assert len(mine) == 16
    largest = max(1.0, *(float(g.abs().max()) for g in mine.values()))
    assert max(float((mine[n] - other[n]).abs().max()) for n in mine) < 1e-4 * largest
    assert min(float(g.abs().max()) for g in mine.values()) > 1e-3


def arguments(folder: Path) -> dict[str, Any]:
    return {
        "output_dir": str(folder),
        "use_cpu": True,
        "bf16": False,
        "report_to": "none",
        "per_device_train_batch_size": len(ROWS),
        "gradient_checkpointing": False,
        "max_length": 200,
    }


def rows_of(batch: Mapping[str, torch.Tensor], labels: torch.Tensor) -> list[TokenisedExample]:
    """Return the examples of a padded batch."""
    found = []
    for ids, mask, row in zip(batch["input_ids"], batch["attention_mask"], labels, strict=True):
        length = int(mask.sum())
        asked = int((row[:length] == IGNORED).sum())
        found.append(make_example(ids[:asked].tolist(), ids[asked:length].tolist(), 1))
    return found


def test_the_sft_loss_and_gradients_equal_those_of_trl(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    rows = [{"prompt": asked, "completion": good} for asked, good, _ in ROWS]
    trainer = SFTTrainer(
        model=adapted(1),
        args=SFTConfig(**arguments(tmp_path)),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )
    batch = next(iter(trainer.get_train_dataloader()))
    examples = rows_of(batch, batch["labels"])
    theirs = trainer.model.eval()
    expected = trainer.compute_loss(theirs, dict(batch))

    model = adapted(1)
    loss, _ = make_objective("sft").loss(model, collate(examples))
    assert_equal((model, loss), (theirs, expected))


@pytest.mark.parametrize(
    ("settings", "theirs"),
    [
        (DpoSettings(beta=0.3), {"loss_type": ["sigmoid"]}),
        (DpoSettings(beta=0.3, loss="ipo"), {"loss_type": ["ipo"]}),
        (
            DpoSettings(beta=0.3, sft_weight=0.7),
            {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.7]},
        ),
    ],
    ids=["sigmoid", "ipo", "sigmoid + λ·sft"],
)
@pytest.mark.parametrize("precompute", [False, True])
def test_the_dpo_loss_and_gradients_equal_those_of_trl(
    settings: DpoSettings,
    theirs: dict[str, Any],
    precompute: bool,
    tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
) -> None:
    rows = [{"prompt": a, "chosen": good, "rejected": bad} for a, good, bad in ROWS]
    start, moved = adapted(1), read_adapter(adapted(2))
    trainer = DPOTrainer(
        model=start,  # trl keeps a copy of its adapter as the reference
        args=DPOConfig(
            **arguments(tmp_path), beta=0.3, precompute_ref_log_probs=precompute, **theirs
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )
    batch = next(iter(trainer.get_train_dataloader()))
    policy = trainer.model.eval()
    write_adapter(policy, moved)
    expected = trainer.compute_loss(policy, dict(batch))

    answers = rows_of(batch, batch["input_ids"].masked_fill(batch["completion_mask"] == 0, IGNORED))
    pairs = [
        TokenisedPair(*both)
        for both in zip(answers[: len(ROWS)], answers[len(ROWS) :], strict=True)
    ]
    reference = log_probabilities(adapted(1), pairs)
    assert np.abs(np.subtract(reference, log_probabilities(adapted(2), pairs))).max() > 1
    pairs = list(map(with_reference, pairs, reference))
    model = adapted(2)
    loss, _ = make_objective("dpo", settings).loss(model, collate_pairs(pairs))
    assert_equal((model, loss), (policy, expected))


@pytest.mark.parametrize("order", [(1, 2), (2, 1)], ids=["divergence 0", "divergence above 0"])
def test_the_kto_loss_and_gradients_equal_those_of_trl(
    order: tuple[int, int], tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    rows = [
        {"prompt": asked, "completion": (bad, good)[i % 2], "label": bool(i % 2)}
        for i, (asked, good, bad) in enumerate(ROWS)
    ]
    before, after = order
    trainer = KTOTrainer(
        model=adapted(before),  # trl keeps a copy of its adapter as the reference
        args=KTOConfig(
            **arguments(tmp_path), beta=0.3, desirable_weight=1.5, undesirable_weight=0.7
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )
    batch = next(iter(trainer.get_train_dataloader()))
    policy = trainer.model.eval()
    write_adapter(policy, read_adapter(adapted(after)))
    expected = trainer.compute_loss(policy, dict(batch))

    def texts(prefix: str) -> list[TokenisedExample]:
        own = {name: batch[f"{prefix}{name}"] for name in ("input_ids", "attention_mask")}
        learned = batch[f"{prefix}completion_mask"] == 1
        return rows_of(own, own["input_ids"].masked_fill(~learned, IGNORED))

    labels = [bool(label) for label in batch["label"]]
    ratings: Sequence[kto.TokenisedRating] = [
        kto.TokenisedRating(*each) for each in zip(texts(""), texts("KL_"), labels, strict=True)
    ]
    ratings = tuple(
        map(kto.with_reference, ratings, kto.log_probabilities(adapted(before), ratings))
    )
    objective = make_objective("kto", KtoSettings(beta=0.3, good_weight=1.5, bad_weight=0.7))
    model = adapted(after)
    prepared = objective.prepare_batch(model, ratings, 3)
    assert (prepared[0].divergence > 0) == (order == (2, 1))
    parts = [objective.collate(prepared[i : i + 3], whole=prepared) for i in (0, 3)]
    losses = [objective.loss(model, part)[0] for part in parts]
    assert_equal((model, losses[0] + losses[1]), (policy, expected))
