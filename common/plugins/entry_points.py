"""Finding plug-ins and making them with the options of their table in `federation.toml`.

A plug-in is a class that another package (or fccl itself) names in an entry point of a group, such
as `fccl.trackers`. Its options are the keyword parameters of its constructor, with their types.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from common.errors import ConfigError
from common.protocol.wire import explain


@dataclass(frozen=True)
class PluginGroup:
    """A group of entry points, and the table whose keys are names of plug-ins."""

    entry_points: str
    table: str

    def find(self) -> dict[str, EntryPoint]:
        """Return the plug-ins that are installed, by name."""
        return {each.name: each for each in entry_points(group=self.entry_points)}

    def create(self, name: str, options: Mapping[str, Any]) -> Any:
        """Return a plug-in with its options.

        Raises:
            ConfigError: It is not installed, or lacks a package; an option is unknown or wrong.
        """
        where = f"{self.table}.{name}"
        installed = self.find()
        if name not in installed:
            names = ", ".join(sorted(installed)) or "none"
            raise ConfigError(
                f"[{where}]: no such plug-in is installed (installed: {names})",
                f"install the package that has it, under the entry point {self.entry_points}",
            )
        plugin = _load(where, installed[name])
        values = _check_options(where, plugin, options)
        try:
            return plugin(**values)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"[{where}]: {error}", "see docs/extending.md") from None


TRACKERS = PluginGroup("fccl.trackers", "trackers")
EVALUATORS = PluginGroup("fccl.evaluators", "evaluators")
OBJECTIVES = PluginGroup("fccl.objectives", "objectives")
AGGREGATORS = PluginGroup("fccl.aggregators", "aggregators")


def _load(where: str, found: EntryPoint) -> Any:
    package = found.dist.name if found.dist is not None else ""
    try:
        return found.load()
    except ModuleNotFoundError as error:
        remedy = f"pip install 'fccl[{found.name}]'"
        if package != "fccl":
            remedy = f"reinstall {package} with everything that it needs"
        raise ConfigError(f"[{where}] needs the package {error.name}", remedy) from None
    except Exception as error:
        raise ConfigError(
            f"[{where}]: {found.value} cannot be loaded ({type(error).__name__}: {error})",
            f"repair or upgrade {package}",
        ) from None


def _check_options(where: str, plugin: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options with the types of the constructor's parameters."""
    parameters = inspect.signature(plugin).parameters
    hints = get_type_hints(plugin.__init__ if inspect.isclass(plugin) else plugin)
    known = ", ".join(parameters) or "it has none"
    for name, parameter in parameters.items():
        if parameter.default is inspect.Parameter.empty and name not in options:
            raise ConfigError(f"{where}.{name} is missing", f"options: {known}")
    values = {}
    for name, value in options.items():
        if name not in parameters:
            raise ConfigError(f"unknown key {where}.{name}", f"options: {known}")
        try:
            values[name] = TypeAdapter(hints.get(name, Any)).validate_python(value)
        except ValidationError as error:
            raise ConfigError(f"{where}.{name}: {explain(error)}", f"options: {known}") from None
    return values
