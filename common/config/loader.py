"""Reading a configuration: `federation.toml`, overridden by `FCCL_…` environment variables."""

from __future__ import annotations

import os
from collections.abc import Mapping
from itertools import accumulate
from pathlib import Path
from shlex import quote
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

from common.config.config import FederationConfig
from common.config.overrides import set_dotted, set_from_environment
from common.config.toml_file import read_toml
from common.errors import ConfigError, UnknownKeyError
from common.protocol.wire import explain
from common.urls import UrlError


def load(path: Path | None, environ: Mapping[str, str] | None = None) -> FederationConfig:
    """Return the configuration of a file, or the defaults, with the environment's overrides.

    Raises:
        ConfigError: The file is missing or not valid TOML; a key is unknown or has a wrong value.
    """
    table = _read(path) if path is not None else {}
    variables = set_from_environment(table, os.environ if environ is None else environ)
    where = str(path) if path is not None else "configuration"
    return parse(table, where, variables)


def parse(
    table: Mapping[str, Any], where: str, variables: Mapping[str, str] = MappingProxyType({})
) -> FederationConfig:
    """Validate a table.

    Errors name `where`, or the environment variable in `variables` that set the key.

    Raises:
        ConfigError: A key is unknown or has a wrong value.
    """
    try:
        config = FederationConfig.model_validate(dict(table))
    except ValidationError as error:
        raise _explained(error, where, variables) from None
    apply_offline(config, where)  # report errors now, not on the day when the hub is unreachable
    return config


def apply_offline(config: FederationConfig, where: str = "configuration") -> FederationConfig:
    """Return the configuration with the overrides of [offline] applied.

    Raises:
        ConfigError: One of them names no key, or has a wrong value.
    """
    if not config.offline:
        return config
    where = f"{where}: [offline]"
    table = config.model_dump(mode="json")
    for key, value in config.offline.items():
        set_dotted(table, key, value, f'{where}: "{key}"')
    return parse(table | {"offline": {}}, where)


def _explained(error: ValidationError, where: str, variables: Mapping[str, str]) -> ConfigError:
    first = error.errors(include_url=False, include_input=False)[0]
    keys = list(accumulate((str(part) for part in first["loc"]), "{}.{}".format))
    key = keys[-1] if keys else ""
    where = next((variables[each] for each in reversed(keys) if each in variables), where)
    if first["type"] == "extra_forbidden":
        return UnknownKeyError(
            f"{where}: unknown key {key[:200]}", "`fccl init` writes a file with every key"
        )
    match first.get("ctx", {}).get("error"):
        case UrlError() as fault:
            return ConfigError(f"{where}: {key} {fault.what}", fault.remedy)
    return ConfigError(f"{where}: {explain(error)}", "see the comments of `fccl init`")


def _read(path: Path) -> dict[str, Any]:
    if path.is_dir():
        raise ConfigError(f"{path} is a directory", "name the federation.toml in it")
    try:
        return read_toml(path)
    except FileNotFoundError:
        raise ConfigError(
            f"{path} does not exist", f"`fccl init {quote(str(path))}` writes one"
        ) from None
