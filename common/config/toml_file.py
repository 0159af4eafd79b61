"""Reading of TOML from outside: bounded in size and depth, with errors in one line."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.errors import ConfigError
from common.text import is_plain

MAX_BYTES = 1024 * 1024
MAX_DEPTH = 20


def read_toml(path: Path) -> dict[str, Any]:
    """Return the table of a file.

    Raises:
        FileNotFoundError: There is none.
        ConfigError: The file cannot be read, is too large, or is not valid TOML.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise ConfigError(f"{path} has more than {MAX_BYTES:,} bytes", "check the file")
        text = data.decode("utf-8-sig")
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:  # among them a path with a NUL
        reason = getattr(error, "strerror", None) or f"not UTF-8 text: {error}"
        raise ConfigError(f"{path} cannot be read ({reason})", "check the file") from None
    try:
        table = tomllib.loads(text)
    except RecursionError:
        raise ConfigError(
            f"{path}: values are nested too deeply", "correct the TOML at that place"
        ) from None
    except ValueError as error:  # TOMLDecodeError, or a number of thousands of digits
        raise ConfigError(f"{path}: {error}", "correct the TOML at that place") from None
    check_values(table, lambda key: f"{path}: {key}")
    return table


def parse_value(text: str) -> Any:
    """Return the value of an environment variable, in TOML; a bare word is a string."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text


def check_values(table: Mapping[str, Any], name_key: Any) -> None:
    """Check that every text can be written and every number is of a common size.

    Args:
        name_key: Returns how an error names a dotted key.

    Raises:
        ConfigError: A text has a NUL or is not UTF-8, a number needs more than 64 bits, or values
            are nested more than 20 deep.
    """
    rest: list[tuple[str, Any]] = list(table.items())
    while rest:
        key, value = rest.pop()
        if key.count(".") > MAX_DEPTH:
            raise ConfigError(f"{name_key(key[:80])}…: nested too deeply", "check the key")
        if isinstance(value, Mapping):
            rest.extend((f"{key}.{inner}", each) for inner, each in value.items())
        elif isinstance(value, list):
            rest.extend((f"{key}.{number}", each) for number, each in enumerate(value))
        elif isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise ConfigError(f"{name_key(key)}: the number is too large", "check the number")
        elif isinstance(value, str) and not is_plain(value):
            raise ConfigError(
                f"{name_key(key)}: the text has a NUL or is not UTF-8", "write it as plain text"
            )
