"""What is checked before a run directory is made."""

from __future__ import annotations

import pytest
from transformers import GPT2Config

from common.errors import ConfigError
from coordinator.preparation import check_length


def test_a_length_that_the_model_has_positions_for_is_fine() -> None:
    check_length(512, GPT2Config(n_positions=512))


def test_a_longer_one_is_refused_by_its_key() -> None:
    with pytest.raises(ConfigError, match=r"model.max_length is 513, but the model has 512"):
        check_length(513, GPT2Config(n_positions=512))
