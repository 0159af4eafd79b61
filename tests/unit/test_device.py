from collections.abc import Iterator

import pytest
import torch

from common.errors import ConfigError
from learning.device import Compute, bf16_speedup, cores, detect, share


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
def test_a_process_begins_with_all_cores() -> None:
    assert detect("cpu").threads == torch.get_num_threads() == cores()


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize(
    ("cores", "workers", "each"), [(8, 1, 8), (8, 2, 4), (8, 3, 2), (2, 5, 1), (8, 0, 8)]
)
def test_workers_divide_the_cores_and_each_has_one_at_least(
    cores: int, workers: int, each: int
) -> None:
    assert share(Compute(torch.device("cpu"), cores, autocast=False), workers) == each
    assert torch.get_num_threads() == each


def test_the_speed_of_bfloat16_is_measured() -> None:
    assert 0.001 < bf16_speedup(torch.device("cpu")) < 1000


@pytest.mark.parametrize("name", ["tpu9", "cuda:99"])
def test_a_device_that_is_not_there_is_named(name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        detect(name)
