"""The settings of a site: one file, every key documented, errors that name file and key."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from common.config.loader import load as load_federation
from common.errors import ConfigError, RunError
from learning.training.memory import MemorySettings
from worker.settings import loader
from worker.settings.settings import SiteSettings
from worker.settings.template import TEMPLATE


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "worker.toml"
    path.write_text(text, encoding="utf-8")
    return path


def refused(path: Path, environ: dict[str, str] | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        loader.load(path, environ or {})
    assert "\n" not in str(caught.value) and caught.value.remedy
    return caught.value.what


def test_the_template_parses_to_the_defaults_and_names_every_key() -> None:
    table = tomllib.loads(TEMPLATE)
    assert loader.parse(table, "template") == SiteSettings()
    assert list(table) == list(SiteSettings.model_fields)


def test_without_a_file_the_defaults_apply(tmp_path: Path) -> None:
    own = loader.load(tmp_path / "worker.toml", {})
    assert own.settings == SiteSettings()
    assert own.describe() == f"settings of {tmp_path / 'worker.toml'}: defaults"


def test_the_environment_overrides_the_file_and_an_option_overrides_both(tmp_path: Path) -> None:
    path = write(tmp_path, 'micro_batch = 4\ndevice = "cpu"\nhours = "22:00-06:00"\n')
    environ = {
        "FCCL_WORKER__MICRO_BATCH": "2",
        "FCCL_WORKER__DEVICE": "cuda",
        "FCCL_WORKER__UPLOAD": "10 Mbit/s",
        "FCCL_WORKER__DOWNLOAD": "",  # as an unset variable of docker compose
    }
    own = loader.load(path, environ, device="cuda:1", compile=None).settings
    assert (own.micro_batch, own.device, own.compile) == (2, "cuda:1", False)
    assert own.describe() == ("micro_batch 2, device cuda:1, hours 22:00-06:00, upload 10 Mbit/s")
    assert own.memory == MemorySettings(micro_batch=2)
    assert own.upload_rate == 1_250_000.0
    assert own.download_rate is None


def test_lists_may_be_a_single_text(tmp_path: Path) -> None:
    own = loader.load(write(tmp_path, 'accept = "Qwen/*"\nhours = ["sat,sun"]'), {}).settings
    assert (own.accept, own.hours) == (("Qwen/*",), ("sat,sun",))
    assert loader.load(write(tmp_path, 'hours = "always"'), {}).settings.windows == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("micro_bach = 2", "unknown key micro_bach"),
        ("micro_batch = 0", 'micro_batch: must be "auto" or a whole number from 1 to 4096'),
        ("micro_batch = true", "micro_batch: must be"),
        ('checkpointing = "yes"', 'checkpointing: must be "auto", true or false'),
        ("evaluation = 1", "evaluation: input should be a valid boolean"),
        ('hours = "22-6"', "hours: '22-6' is not a"),
        ('hours = ["06:00-06:00"]', "hours: 06:00-06:00 begins and ends at the same time"),
        ("hours = 22", "hours: input should be a valid tuple"),
        ('upload = "10 Mb"', "upload: '10 Mb' is not a bandwidth"),
        ('download = "100 B/s"', "download: 100 B/s is less than 1 kB/s"),
        ('accept = ["sha256:xyz"]', "accept.0: 'sha256:xyz' is not a digest"),
        ("[worker]\nmicro_batch = 2", "unknown key worker"),
        ("micro_batch = ", "(at "),
    ],
)
def test_a_wrong_key_is_one_line_that_names_the_file(
    tmp_path: Path, text: str, message: str
) -> None:
    path = write(tmp_path, text)
    assert refused(path).startswith(f"{path}: ")
    assert message in refused(path)


def test_a_wrong_variable_is_named(tmp_path: Path) -> None:
    environ = {"FCCL_WORKER__MICRO_BATCH": "many"}
    assert refused(tmp_path / "worker.toml", environ).startswith("FCCL_WORKER__MICRO_BATCH: micro")
    environ = {"FCCL_WORKER__HOUR": "1"}
    assert refused(tmp_path / "worker.toml", environ) == "FCCL_WORKER__HOUR: unknown key hour"


def test_variables_of_a_site_are_no_keys_of_the_federation() -> None:
    assert load_federation(None, {"FCCL_WORKER__MICRO_BATCH": "2"}) == load_federation(None, {})


def test_the_template_is_written_once_and_never_over_a_file(tmp_path: Path) -> None:
    path = tmp_path / "state" / "worker.toml"
    loader.write_template(path)
    assert path.read_text() == TEMPLATE
    path.write_text("micro_batch = 2\n")
    loader.write_template(path)
    assert path.read_text() == "micro_batch = 2\n"


def test_a_directory_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="--state"):
        loader.write_template(tmp_path / "file" / "worker.toml")
