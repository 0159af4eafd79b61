from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from common.errors import ConfigError
from learning.training.device import (
    Compute,
    available_cores,
    bf16_speedup,
    cgroup_cores,
    detect,
    share_threads,
)


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
def test_a_process_starts_with_all_cores() -> None:
    assert detect("cpu").threads == torch.get_num_threads() == available_cores()


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize(
    ("cores", "workers", "each"), [(8, 1, 8), (8, 2, 4), (8, 3, 2), (2, 5, 1), (8, 0, 8)]
)
def test_workers_share_the_cores_and_each_has_at_least_one(
    cores: int, workers: int, each: int
) -> None:
    assert share_threads(Compute(torch.device("cpu"), cores, autocast=False), workers) == each
    assert torch.get_num_threads() == each


def test_the_speed_of_bfloat16_is_measured() -> None:
    assert 0.001 < bf16_speedup(torch.device("cpu")) < 1000


@pytest.mark.parametrize("name", ["tpu9", "cuda:99"])
def test_a_missing_device_is_named_in_the_error(name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        detect(name)


@pytest.mark.parametrize(
    ("files", "whole"),
    [
        ({"cpu.max": "200000 100000\n"}, 2),
        ({"cpu.max": "250000 100000\n"}, 2),
        ({"cpu.max": "50000 100000\n"}, 0),
        ({"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
    ],
)
def test_a_container_limit_is_rounded_down_to_whole_cores(
    tmp_path: Path, files: dict[str, str], whole: int
) -> None:
    write(tmp_path, files)
    assert cgroup_cores(tmp_path) == whole


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"cpu.max": "max 100000\n"},
        {"cpu.max": "?"},
        {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"},
    ],
)
def test_without_a_limit_every_core_is_available(tmp_path: Path, files: dict[str, str]) -> None:
    write(tmp_path, files)
    assert cgroup_cores(tmp_path) > 4096


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text)
