"""Tests of the forms in which versions travel to clients."""

from __future__ import annotations

import numpy as np
import pytest

from common.protocol.adapter_form import COMPLETE, AdapterForm, frozen_part, lora_of_rank
from common.protocol.layout import TensorLayout
from common.protocol.tasks import LoraSpec

TENSORS = {
    "q.lora_A.weight": np.arange(12, dtype=np.float32).reshape(4, 3),
    "q.lora_B.weight": np.arange(20, dtype=np.float32).reshape(5, 4),
    "score.weight": np.ones((2, 3), np.float32),
    "wte.lora_embedding_A": np.zeros((4, 7), np.float32),
    "wte.lora_embedding_B": np.ones((3, 4), np.float32),
}


@pytest.mark.parametrize(
    "form", [COMPLETE, AdapterForm(frozen=True), AdapterForm(rank=2), AdapterForm(rank=9)]
)
def test_the_layout_of_a_form_is_that_of_its_tensors(form: AdapterForm) -> None:
    assert form.layout(TensorLayout.of(TENSORS)) == TensorLayout.of(form.of(TENSORS))


def test_only_the_factors_a_of_linear_layers_are_frozen() -> None:
    assert frozen_part(TENSORS).keys() == {"q.lora_A.weight"}
    assert TENSORS.keys() - AdapterForm(frozen=True).of(TENSORS).keys() == {"q.lora_A.weight"}


def test_a_lower_rank_has_the_leading_components_and_all_of_the_head() -> None:
    found = AdapterForm(rank=1).of(TENSORS)
    np.testing.assert_array_equal(found["q.lora_A.weight"], [[0, 1, 2]])
    np.testing.assert_array_equal(found["q.lora_B.weight"], [[0], [4], [8], [12], [16]])
    assert found["wte.lora_embedding_A"].shape == (1, 7)
    assert found["wte.lora_embedding_B"].shape == (3, 1)
    assert found["score.weight"].shape == (2, 3)


def test_another_rank_keeps_the_scale() -> None:
    found = lora_of_rank(LoraSpec(r=16, alpha=32, dropout=0.0), 4)
    assert (found.r, found.alpha, found.dropout) == (4, 8, 0.0)


def test_a_scale_without_a_whole_alpha_is_an_error() -> None:
    with pytest.raises(ValueError, match="9/6"):
        lora_of_rank(LoraSpec(r=6, alpha=9), 3)
