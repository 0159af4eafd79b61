from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from common.errors import ModelError
from common.protocol.tasks import LocalTraining, LoraSpec
from common.protocol.tensors import Tensors
from learning.data.row_types import Instruction
from learning.models.lora import AdaptedModel, attach, read_adapter
from learning.objectives.registry import make_objective
from learning.objectives.sft import sft_loss
from learning.objectives.tokens import TokenisedExample, encode
from learning.synthetic.instructions import make_instructions
from learning.training.batches import TokenBatch
from learning.training.loop import StepReport, TrainResult, total_steps, train
from tests.support.tiny_model import tiny_model, tiny_tokenizer

SFT = make_objective("sft")
SEED = 3


def local(batch_size: int = 4, lr: float = 1e-2, **fields: Any) -> LocalTraining:
    fields = fields or {"steps": 6}
    return LocalTraining(batch_size=batch_size, lr=lr, max_length=256, **fields)


@pytest.fixture(scope="module")
def examples() -> tuple[TokenisedExample, ...]:
    rows: list[Instruction] = make_instructions(0, 20)
    return encode(tiny_tokenizer(), rows, 200).examples


def adapted() -> AdaptedModel:
    return attach(tiny_model(), LoraSpec(r=4, alpha=8, dropout=0.1), 0)


def run(
    examples: tuple[TokenisedExample, ...],
    training: LocalTraining,
    seed: int = SEED,
    *,
    autocast: bool = False,
) -> tuple[TrainResult, Tensors]:
    model = adapted()
    result = train(model, SFT, examples, training, seed=seed, autocast=autocast)
    return result, read_adapter(model)


def test_training_lowers_the_loss_and_counts_examples_and_tokens(
    examples: tuple[TokenisedExample, ...],
) -> None:
    losses = []

    def note(report: StepReport) -> bool:
        losses.append(report.loss)
        return True

    result = train(tiny_model(), SFT, examples, local(8, epochs=8), note)
    assert (result.steps, result.samples, result.stopped) == (24, 160, False)
    assert result.tokens == 8 * sum(len(e.input_ids) for e in examples)
    assert min(losses) < result.avg_loss < max(losses)
    assert losses[-1] < losses[0] - 1.0


@pytest.mark.parametrize("autocast", [False, True])
def test_only_parameters_that_require_a_gradient_are_trained(
    autocast: bool, examples: tuple[TokenisedExample, ...]
) -> None:
    model = attach(tiny_model(), LoraSpec(r=4, alpha=8), 0)
    frozen = {n: p.clone() for n, p in model.named_parameters() if not p.requires_grad}
    before = read_adapter(model)
    train(model, SFT, examples, local(), seed=SEED, autocast=autocast)
    assert all(not np.array_equal(before[n], t) for n, t in read_adapter(model).items())
    assert all(torch.equal(frozen[n], p) for n, p in model.named_parameters() if n in frozen)


@pytest.mark.parametrize("autocast", [False, True])
def test_the_same_seed_gives_the_same_bits(
    autocast: bool, examples: tuple[TokenisedExample, ...]
) -> None:
    (one, a), (two, b), (_, c) = (
        run(examples, local(), seed, autocast=autocast) for seed in (3, 3, 4)
    )
    assert one.avg_loss == two.avg_loss
    assert all(np.array_equal(a[n], b[n]) for n in a)
    assert any(not np.array_equal(a[n], c[n]) for n in a)


def test_bfloat16_trains_as_well_as_float32(examples: tuple[TokenisedExample, ...]) -> None:
    training = local(steps=20)
    (exact, _), (half, _) = (run(examples, training, autocast=a) for a in (False, True))
    assert half.avg_loss == pytest.approx(exact.avg_loss, rel=0.01)
    assert half.avg_loss != exact.avg_loss


def test_the_task_is_abandoned_when_on_step_returns_false(
    examples: tuple[TokenisedExample, ...],
) -> None:
    result = train(tiny_model(), SFT, examples, local(), lambda report: report.step < 2)
    assert (result.steps, result.stopped) == (2, True)


def test_a_strong_proximal_term_keeps_the_weights_near_their_start(
    examples: tuple[TokenisedExample, ...],
) -> None:
    start = read_adapter(adapted())

    def drift(mu: float) -> float:
        _, end = run(examples, local(steps=20, prox_mu=mu))
        return sum(float(np.square(end[n] - start[n]).sum()) for n in start) ** 0.5

    assert drift(100.0) < 0.8 * drift(0.0)


def test_the_proximal_term_is_half_mu_times_the_squared_distance() -> None:
    # Loss 3θ from θ = 1; the second gradient is 3 + μ(θ − 1), and SGD-like steps show its sign.
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.ones_(model.weight)
    row = TokenisedExample((1, 1), (-100, 1), 1)
    seen: list[float] = []

    def loss(m: torch.nn.Module, _: TokenBatch) -> tuple[torch.Tensor, dict[str, float]]:
        weight = next(m.parameters())
        seen.append(float(weight.detach()))
        return 3 * weight.sum(), {}

    training = local(1, 0.5, steps=2, max_grad_norm=1e9, prox_mu=12.0)
    train(model, replace(SFT, loss=loss), [row], training)
    assert seen == pytest.approx([1.0, 0.5])  # AdamW's first step is lr · sign(gradient)
    # Second gradient 3 + 12·(0.5 − 1) = −3: m̂ = (0.5·0.5·3 − 0.5·3)/0.75 = −1, v̂ = 9.
    assert float(model.weight.detach()) == pytest.approx(0.5 + 0.5 * 1 / 3, rel=1e-4)


@pytest.mark.parametrize(("decay", "moved"), [(False, 4.0), (True, 1.0 + 0.75 + 0.5 + 0.25)])
def test_a_decaying_learning_rate_ends_at_its_last_fraction(*, decay: bool, moved: float) -> None:
    # Loss θ: the gradient is 1 throughout, and so each step of AdamW is as long as its rate.
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(model.weight)
    row = TokenisedExample((1, 1), (-100, 1), 1)

    def loss(m: torch.nn.Module, _: TokenBatch) -> tuple[torch.Tensor, dict[str, float]]:
        return next(m.parameters()).sum(), {}

    train(model, replace(SFT, loss=loss), [row], local(1, 1.0, steps=4), decay=decay)
    assert float(model.weight.detach()) == pytest.approx(-moved, rel=1e-5)


def test_a_loss_that_is_not_finite_stops_with_the_step_and_a_remedy(
    examples: tuple[TokenisedExample, ...],
) -> None:
    def broken(model: torch.nn.Module, batch: TokenBatch) -> tuple[torch.Tensor, dict[str, float]]:
        loss, metrics = sft_loss(model, batch)
        return loss * float("nan"), metrics

    model = attach(tiny_model(), LoraSpec(r=4, alpha=8), 0)
    before = read_adapter(model)
    with pytest.raises(ModelError, match="local step 1") as error:
        train(model, replace(SFT, loss=broken), examples, local())
    assert "learning rate" in error.value.remedy
    assert all(np.array_equal(before[n], t) for n, t in read_adapter(model).items())


def test_the_length_of_a_task_follows_from_steps_or_epochs() -> None:
    assert total_steps(local(8, epochs=2), 17) == 6
    assert total_steps(local(8, steps=5), 17) == 5


def test_the_callers_random_state_is_left_alone(examples: tuple[TokenisedExample, ...]) -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    run(examples, local())
    # `run` makes models, which fork the generator too.
    assert torch.equal(torch.rand(3), expected)
