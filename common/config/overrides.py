"""Overrides of single keys: by environment variables, and by the dotted keys of [offline].

An environment variable joins the levels of a key with two underscores:
`FCCL_SCHEDULE__CONCURRENCY=8`, `FCCL_PHASE__0__LR=1e-3`. Those of `FCCL_WORKER__…` belong to the
settings of a site (`worker/settings/loader.py`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from common.config.toml_file import MAX_DEPTH, check_values, parse_value
from common.errors import ConfigError
from common.text import is_plain

WORKER_PREFIX = "FCCL_WORKER__"
"""Beginning of the variables that set keys of `worker.toml`."""
_NOT_OFFLINE = {"run", "broker", "store", "operations", "trackers", "evaluators", "offline"}
"""Sections that do not depend on whether the model hub can be reached."""


def set_from_environment(table: dict[str, Any], environ: Mapping[str, str]) -> dict[str, str]:
    """Set the keys of `table` that environment variables override.

    Returns:
        The name of the variable that set a key, by dotted key.

    Raises:
        ConfigError: A variable names a place that the table cannot have.
    """
    variables: dict[str, str] = {}
    for variable in sorted(environ):
        if not variable.startswith("FCCL_") or "__" not in variable:
            continue
        if variable.startswith(WORKER_PREFIX):
            continue
        if not variable.isascii() or not is_plain(environ[variable]):
            shown = ascii(variable)[1:81]
            raise ConfigError(f"{shown} has a character that is not allowed", "check its name")
        *parents, leaf = variable.removeprefix("FCCL_").lower().split("__")
        if len(parents) > MAX_DEPTH:
            raise ConfigError(f"{variable[:80]}… has too many levels", "check its name")
        node: Any = table
        for depth, key in enumerate(parents, 1):
            if isinstance(node, dict) and key not in node:  # a table that the file does not have
                variables[".".join(parents[:depth])] = variable
            node = _child(node, key, variable)
        _assign(node, leaf, environ[variable], variable)
        variables[".".join([*parents, leaf])] = variable
    return variables


def set_dotted(table: dict[str, Any], dotted: str, value: Any, where: str) -> None:
    """Set one key of a whole configuration; `phase.0.lr` is a key of the first phase.

    Raises:
        ConfigError: The key is in a section that has nothing to do with the hub, or names no
            place in the table.
    """
    *parents, leaf = dotted.split(".")
    if (parents or [leaf])[0] in _NOT_OFFLINE:
        raise ConfigError(f"{where} does not depend on the hub", "set it in its own table")
    set_key(table, dotted, value, where)


def set_key(table: dict[str, Any], dotted: str, value: Any, where: str) -> None:
    """Set any key of a whole configuration.

    Raises:
        ConfigError: It names no place in the table.
    """
    *parents, leaf = dotted.split(".")
    node: Any = table
    for key in parents:
        node = _child(node, key, where)
    if not isinstance(node, dict):
        raise ConfigError(f"{where}: the number of the entry is missing", 'e.g. "phase.0.lr"')
    node[leaf] = value


def _child(node: Any, key: str, where: str) -> Any:
    if isinstance(node, list):
        if not re.fullmatch(r"[0-9]{1,4}", key) or int(key) >= len(node):
            raise ConfigError(
                f"{where[:80]}: the file has no entry {key[:20]} there", "check the number"
            )
        return node[int(key)]
    if not isinstance(node, dict):
        raise ConfigError(f"{where}: there is no table above {key}", "check the file")
    child = node.setdefault(key, [{}] if key == "phase" else {})
    if not isinstance(child, dict | list):
        raise ConfigError(f"{where}: {key} is not a table", "check the name")
    return child


def _assign(node: Any, leaf: str, text: str, variable: str) -> None:
    if not isinstance(node, dict):
        raise ConfigError(
            f"{variable}: the number of the entry is missing", "e.g. FCCL_PHASE__0__LR"
        )
    value = parse_value(text)
    check_values({leaf: value}, lambda key: variable)
    node[leaf] = value
