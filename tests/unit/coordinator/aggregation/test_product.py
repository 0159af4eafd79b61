"""Rule `product` on the factors of PEFT: the versions compute what the clients' models compute."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch

from common.protocol.adapter_form import AdapterForm
from common.protocol.tasks import LoraSpec
from common.protocol.tensors import Array, Tensors
from coordinator.aggregation.forms import AdapterForms
from coordinator.aggregation.rules.product import ProductRule
from coordinator.aggregation.rules.rule import Step, WeightedUpdate
from learning.models import lora
from tests.support.tiny_model import tiny_model

SPEC = LoraSpec(r=4, alpha=8, dropout=0.0)


def read(tensors: Tensors) -> Iterator[tuple[str, Array]]:
    yield from sorted(tensors.items())


def moved(tensors: Tensors, seed: int) -> Tensors:
    rng = np.random.default_rng(seed)
    return {
        name: rng.normal(size=tensor.shape).astype(np.float32) / 20
        for name, tensor in tensors.items()
    }


def logits(model: lora.AdaptedModel, tensors: Tensors) -> torch.Tensor:
    lora.write_adapter(model, tensors)
    with torch.no_grad():
        found: torch.Tensor = model(torch.arange(40).view(2, 20)).logits
    return found


def test_a_full_step_of_a_client_of_low_rank_makes_its_model_that_of_all() -> None:
    # GPT-2's Conv1D stores transposed weights; its factors have the same orientation as others.
    whole = lora.attach(tiny_model(), SPEC, seed=1)
    start = lora.read_adapter(whole)
    form = AdapterForm(rank=2)
    own = lora.attach(tiny_model(), form.lora(SPEC), seed=1)
    delta = moved(form.of(start), seed=2)
    update = WeightedUpdate("t1", "c", 0, 1.0, partial(read, delta))
    rule = ProductRule(AdapterForms(ranks={"c": 2}, refactored="mixed"))
    made = rule.apply(Step(1, start, {}, [update], lambda number: start)).tensors
    client = {name: tensor + delta[name] for name, tensor in form.of(start).items()}
    expected = logits(own, client)
    assert (expected - logits(whole, start)).abs().max() > 1e-3
    torch.testing.assert_close(logits(whole, made), expected, atol=1e-4, rtol=1e-4)
    # The client gets its own model back, although its factors are others now.
    torch.testing.assert_close(logits(own, form.of(made)), expected, atol=1e-4, rtol=1e-4)


def test_an_update_from_an_older_version_adds_what_it_changed_there() -> None:
    # With k = 1 and version 1 = version 0 in other factors, the result is the client's model.
    model = lora.attach(tiny_model(), SPEC, seed=1)
    first = lora.read_adapter(model)
    first = {name: tensor + moved(first, 3)[name] for name, tensor in first.items()}
    rule = ProductRule(AdapterForms(refactored="equal"))
    second = rule.apply(Step(1, first, {}, [], lambda number: first)).tensors
    delta = moved(first, seed=4)
    update = WeightedUpdate("t1", "c", 0, 1.0, partial(read, delta))
    made = rule.apply(Step(2, second, {}, [update], lambda number: first)).tensors
    expected = logits(model, {name: first[name] + delta[name] for name in first})
    torch.testing.assert_close(logits(model, made), expected, atol=1e-4, rtol=1e-4)
