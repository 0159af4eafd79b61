"""Tests of values from outside that no key expects: each is one line with a remedy."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from common.config import loader
from common.config.toml_file import MAX_BYTES
from common.errors import ConfigError, JoinError
from common.protocol.invitation import decode
from worker.settings import loader as site_loader

FILES = {
    "deep": (b"x = " + b"[" * 100_000, "nested too deeply"),
    "deep keys": (b"offline = { " + b"a." * 30 + b"b = 1 }", "nested too deeply"),
    "a number of thousands of digits": (b"run.seed = " + b"9" * 5000, "digits"),
    "a number of 100 digits": (b"run.seed = " + b"9" * 100, "run.seed: the number is too large"),
    "not a number": (b"schedule.lease_s = nan", "schedule.lease_s"),
    "infinite": (b"schedule.lease_s = inf", "schedule.lease_s"),
    "an endless time": (b"schedule.lease_s = 1e300", "schedule.lease_s"),
    "huge": (b"#" * (MAX_BYTES + 1), "more than"),
    "a NUL": (b'run.dir = "a\\u0000b"', "run.dir: the text has a NUL"),
    "UTF-16": ('run.dir = "a"'.encode("utf-16"), "not UTF-8"),
    "a key with line breaks": (b'"a\\nb" = 1', "unknown key"),
}


@pytest.mark.parametrize(("data", "words"), FILES.values(), ids=FILES)
def test_a_hostile_file_is_refused(data: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "federation.toml"
    path.write_bytes(data)
    with pytest.raises(ConfigError, match=words) as caught:
        loader.load(path, {})
    assert caught.value.remedy and len(str(caught.value)) < 500
    with pytest.raises(ConfigError):
        site_loader.load(path, {})


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("FCCL_PHASE__²__LR", "1e-3"),
        ("FCCL_PHASE__" + "9" * 5000 + "__LR", "1e-3"),
        ("FCCL_RUN__SEED", "9" * 5000),
        ("FCCL_RUN__SEED", "9" * 100),
        ("FCCL_RUN__SEED", "[" * 50_000),
        ("FCCL_RUN__DIR", "\udcff"),
        ("FCCL_RUN__\udcff", "1"),
        ("FCCL_" + "A__" * 5000 + "A", "1"),
        ("FCCL_SCHEDULE__LEASE_S", "nan"),
    ],
)
def test_a_hostile_variable_is_named(variable: str, value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loader.load(None, {variable: value})
    assert str(caught.value).startswith(ascii(variable)[1:10])
    assert len(ascii(str(caught.value))) < 500


@pytest.mark.parametrize(
    "token", ["fccl2.\udcff.00000000", "fccl².e30.00000000", "fccl2.é.00000000"]
)
def test_a_token_with_foreign_characters_is_no_token(token: str) -> None:
    with pytest.raises(JoinError, match="not a join token"):
        decode(token, 0.0)


def test_an_argument_that_is_not_utf_8_is_one_line() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "cli", "learn", b"\xff\xfe"], capture_output=True, check=False
    )
    assert ended.returncode == 2
    assert ended.stderr.startswith(b"fccl: argument 2 of the command line is not UTF-8 text; ")
    assert ended.stderr.count(b"\n") == 1
