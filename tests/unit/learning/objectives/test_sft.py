from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM

from learning.objectives.sft import response_nats, sft_loss, token_nats
from learning.objectives.tokens import TokenisedExample, make_example
from learning.training.batches import collate
from tests.support.tiny_model import tiny_model

MODEL = tiny_model()
ids = st.lists(st.integers(1, 599), min_size=1, max_size=20)
examples = st.builds(lambda asked, answer: make_example(asked, answer, 1), ids, ids)


@given(batch=st.lists(examples, min_size=1, max_size=5))
@settings(max_examples=20)
def test_the_loss_of_an_example_does_not_depend_on_its_batch(batch: list[TokenisedExample]) -> None:
    alone = [float(response_nats(MODEL, collate([example]))) for example in batch]
    nats, rows = token_nats(MODEL, collate(batch))
    together = torch.zeros(len(batch)).index_add(0, rows, nats.detach())
    assert together.tolist() == pytest.approx(alone, abs=1e-3)


@given(padding=st.integers(0, 599))
@settings(max_examples=10)
def test_the_padding_token_does_not_change_the_loss(padding: int) -> None:
    batch = collate([make_example([1, 2], [3, 4, 5], 3), make_example([6], [7], 1)])
    ids = batch.input_ids.masked_fill(batch.attention_mask == 0, padding)
    other = replace(batch, input_ids=ids)
    assert sft_loss(MODEL, other)[0].item() == pytest.approx(
        sft_loss(MODEL, batch)[0].item(), abs=1e-5
    )


@pytest.mark.parametrize("tied", [True, False])
def test_projecting_only_learned_positions_equals_cross_entropy_over_all(tied: bool) -> None:
    config = LlamaConfig(
        vocab_size=50,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        tie_word_embeddings=tied,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlamaForCausalLM(config).eval()
    batch = collate([make_example([1, 2], [3, 4, 5], 3), make_example([6], [7], 1)])
    logits = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
    expected = cross_entropy(logits[:, :-1].reshape(-1, 50), batch.labels[:, 1:].reshape(-1))
    loss, metrics = sft_loss(model, batch)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
    assert metrics["nats"] == pytest.approx(4 * expected.item(), abs=1e-4)
    after = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
    assert torch.equal(after, logits)  # the hook is gone
