"""Configuration of a run directory: the keys that it keeps, and those that a resume may change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from common.config import toml_writer
from common.config.config import FederationConfig, SamplesConfig
from common.config.loader import apply_offline
from common.errors import ConfigError
from common.files import write_durable
from common.run_directory.recorded_run import CONFIG_FILE, read_config

_PER_START = (
    "broker",
    "store",
    "operations",
    "trackers",
    "evaluators",
    "offline",
)  # sections that belong to one start
_MAY_CHANGE = {"run.dir", "run.keep_versions", "run.keep_updates", "run.contact", "data.dir"} | {
    f"samples.{key}" for key in SamplesConfig.model_fields
}


def save_config(config: FederationConfig, directory: Path) -> None:
    """Write the configuration into a run directory.

    Addresses are left out, because they may contain passwords and may change between starts. So are
    the plug-ins that watch a run, and [offline], which is decided when the run begins.
    """
    kept = config.model_copy(update={name: type(getattr(config, name))() for name in _PER_START})
    write_durable(directory / CONFIG_FILE, toml_writer.dump(kept).encode())


def with_recorded_offline_choice(config: FederationConfig, directory: Path) -> FederationConfig:
    """Return the configuration with [offline] applied if the run began with it.

    The run directory keeps only the outcome: if it has every value of [offline] that differs from
    the configuration's own, the run began without the hub and stays without it.
    """
    if not config.offline:
        return config
    offline = apply_offline(config)
    online_keys, offline_keys = _fixed_keys(config), _fixed_keys(offline)
    saved = _fixed_keys(read_config(directory))
    decisive = [key for key, value in offline_keys.items() if online_keys.get(key) != value]
    began_offline = decisive and all(saved.get(key) == offline_keys[key] for key in decisive)
    return offline if began_offline else config


def check_unchanged(config: FederationConfig, directory: Path) -> None:
    """Raise `ConfigError` if a key that is fixed for the run has changed since it began."""
    saved, current = _fixed_keys(read_config(directory)), _fixed_keys(config)
    for key in current | saved:  # a phase may be missing on either side
        if saved.get(key) != current.get(key):
            raise ConfigError(
                f"{key} is {current.get(key)!r}, but {directory} began with {saved.get(key)!r}",
                "set it back to resume, or start over with --new",
            )


def _fixed_keys(config: FederationConfig) -> dict[str, Any]:
    flat = _flatten(config.model_dump(mode="json", exclude=set(_PER_START)))
    return {key: value for key, value in flat.items() if key not in _MAY_CHANGE}


def _flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, dict):
        items = [(f"{prefix}{key}", inner) for key, inner in value.items()]
    elif isinstance(value, list):
        items = [(f"{prefix}{index}", inner) for index, inner in enumerate(value)]
    else:
        return {prefix.rstrip("."): value}
    return {k: v for key, inner in items for k, v in _flatten(inner, f"{key}.").items()}
