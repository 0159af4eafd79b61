"""Reading the settings of a site: `worker.toml`, then `FCCL_WORKER__…`, then options."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from common.config.overrides import WORKER_PREFIX
from common.config.toml_file import check_values, parse_value, read_toml
from common.errors import ConfigError, RunError
from common.files import write_durable
from common.protocol.wire import explain
from worker.settings.settings import SiteSettings
from worker.settings.template import TEMPLATE

FILE = "worker.toml"


@dataclass(frozen=True)
class SettingsFile:
    """Settings of a site, and the file that they come from, which need not exist."""

    path: Path
    settings: SiteSettings

    def describe(self) -> str:
        return f"settings of {self.path}: {self.settings.describe()}"


def load(path: Path, environ: Mapping[str, str] | None = None, **options: Any) -> SettingsFile:
    """Return the settings of a file, or the defaults, with all overrides.

    Args:
        options: Values of the command line by key; None leaves a key as it is.

    Raises:
        ConfigError: The file is not valid TOML; a key is unknown or has a wrong value.
    """
    table = _read(path)
    sources = dict.fromkeys(table, str(path))
    for variable, text in sorted((os.environ if environ is None else environ).items()):
        if variable.startswith(WORKER_PREFIX) and text:
            key = variable.removeprefix(WORKER_PREFIX).lower()
            table[key], sources[key] = parse_value(text), variable
            check_values({key: table[key]}, lambda key, variable=variable: variable)
    for key, value in options.items():
        if value is not None:
            table[key], sources[key] = value, f"option --{key}"
    return SettingsFile(path, _parse(table, sources))


def parse(table: Mapping[str, Any], where: str) -> SiteSettings:
    """Validate a table; errors name `where`.

    Raises:
        ConfigError: A key is unknown or has a wrong value.
    """
    return _parse(table, dict.fromkeys(table, where))


def write_template(path: Path) -> None:
    """Write the commented file with the defaults, unless there is one.

    Raises:
        RunError: The directory cannot be written.
    """
    if path.exists():
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_durable(path, TEMPLATE.encode())
    except OSError as error:
        raise RunError(
            f"{path}: {error.strerror}", "name a writable directory with --state"
        ) from None


def _parse(table: Mapping[str, Any], sources: Mapping[str, str]) -> SiteSettings:
    try:
        return SiteSettings.model_validate(dict(table))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        key = str(first["loc"][0]) if first["loc"] else ""  # of a key that is no text
        where = sources.get(key, "the settings of this site")
        keys = ", ".join(SiteSettings.model_fields)
        if first["type"] == "extra_forbidden":
            raise ConfigError(f"{where}: unknown key {key[:200]}", f"the keys are {keys}") from None
        raise ConfigError(
            f"{where}: {explain(error)}",
            f"see the settings of a site in docs/operations.md; the keys are {keys}",
        ) from None


def _read(path: Path) -> dict[str, Any]:
    try:
        return read_toml(path)
    except FileNotFoundError:
        return {}
