import pytest
import torch

from common.errors import ConfigError
from learning.device import bf16_speedup, cores, detect


def test_threads_are_the_cores_divided_by_the_workers() -> None:
    before = torch.get_num_threads()
    try:
        assert detect("cpu", workers=1).threads == cores()
        assert detect("cpu", workers=10_000).threads == 1
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_the_speed_of_bfloat16_is_measured() -> None:
    assert 0.001 < bf16_speedup(torch.device("cpu")) < 1000


@pytest.mark.parametrize("name", ["tpu9", "cuda:99"])
def test_a_device_that_is_not_there_is_named(name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        detect(name)
