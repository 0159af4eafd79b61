"""Definition of a grid: axes of settings, and named cases of settings that change together.

A file is TOML:

    [grid]                                 # every combination of these values
    "run.seed" = [0, 1, 2]
    "aggregation.temperature" = [0.5, 1.0]

    [[case]]                               # with each of these
    name = "sync"
    "schedule.reissue" = "commit"

On the command line an axis is `key=v1,v2`; lists are written in brackets, as in TOML.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.config.toml_file import parse_value, read_toml
from common.errors import ConfigError

MAX_CELLS = 10_000
_EXAMPLE = "write KEY=V1,V2, as run.seed=0,1,2, or name a TOML file with [grid]"

Settings = Mapping[str, Any]
"""Values by dotted key."""


@dataclass(frozen=True)
class Case:
    """Settings that change together."""

    name: str
    settings: Settings


@dataclass(frozen=True)
class Grid:
    """Axes by dotted key, and cases; without cases there is one that changes nothing."""

    axes: Mapping[str, Sequence[Any]]
    cases: Sequence[Case] = ()

    @property
    def size(self) -> int:
        size = max(1, len(self.cases))
        for values in self.axes.values():
            size *= len(values)
        return size

    def combinations(self) -> Iterator[tuple[Case, Settings]]:
        """Yield each case with each combination of the axes' values, which come on top of it."""
        for case in self.cases or [Case("", {})]:
            for values in itertools.product(*self.axes.values()):
                yield case, dict(zip(self.axes, values, strict=True))


def read_grid(arguments: Sequence[str]) -> Grid:
    """Return the grid of the arguments: axes, and files with axes and cases.

    Raises:
        ConfigError: An argument or a file is wrong, or the grid is too large.
    """
    axes: dict[str, Sequence[Any]] = {}
    cases: list[Case] = []
    for argument in arguments:
        found, more = _axis(argument) if "=" in argument else _read_file(Path(argument))
        for key in found:
            if key in axes:
                raise ConfigError(f"--grid names {key} twice", "name all its values at once")
        axes |= found
        cases += more
    names = [case.name for case in cases]
    if len(set(names)) < len(names):
        raise ConfigError("two cases of the grid have one name", "give each a name of its own")
    grid = Grid(axes, tuple(cases))
    if grid.size > MAX_CELLS:
        raise ConfigError(f"the grid has {grid.size:,} cells, more than {MAX_CELLS:,}", "split it")
    return grid


def _axis(argument: str) -> tuple[dict[str, Sequence[Any]], list[Case]]:
    key, _, text = argument.partition("=")
    values = [parse_value(part.strip()) for part in split_values(text)]
    if not key.strip() or not all(part.strip() for part in split_values(text)):
        raise ConfigError(f"--grid {argument[:80]!r} has no key or an empty value", _EXAMPLE)
    return {key.strip(): values}, []


def split_values(text: str) -> list[str]:
    """Split a text at its commas, except for those in brackets or quotation marks."""
    parts, depth, quote = [""], 0, ""
    for letter in text:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'":
            quote = letter
        elif letter in "[{":
            depth += 1
        elif letter in "]}":
            depth -= 1
        if letter == "," and not depth and not quote:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def _read_file(path: Path) -> tuple[dict[str, Sequence[Any]], list[Case]]:
    try:
        table = read_toml(path)
    except FileNotFoundError:
        raise ConfigError(f"the grid {path} does not exist", _EXAMPLE) from None
    unknown = table.keys() - {"grid", "case"}
    axes, cases = table.get("grid", {}), table.get("case", [])
    if unknown or not isinstance(axes, dict) or not isinstance(cases, list) or not (axes or cases):
        what = f"has the unknown table {min(unknown)}" if unknown else "has neither axes nor cases"
        raise ConfigError(f"{path} {what}", "give [grid] with lists of values, and [[case]]")
    for key, values in axes.items():
        if not isinstance(values, list) or not values:
            raise ConfigError(
                f"{path}: [grid] {key} is no list of values",
                'quote a dotted key, and list its values: "run.seed" = [0, 1]',
            )
    return axes, [_case(path, each) for each in cases]


def _case(path: Path, table: Any) -> Case:
    name = table.get("name") if isinstance(table, dict) else None
    if not isinstance(name, str) or not name:
        raise ConfigError(f"{path}: a [[case]] has no name", 'give it one: name = "sync"')
    settings = {key: value for key, value in table.items() if key != "name"}
    for key, value in settings.items():
        if isinstance(value, dict):
            raise ConfigError(
                f"{path}: case {name}: {key} is a table", f'quote the dotted key: "{key}.…" = …'
            )
    return Case(name, settings)
