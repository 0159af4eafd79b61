"""Objectives of other packages: the entry points `fccl.objectives`.

A plug-in changes how one of fccl's objectives is trained: its loss, for instance. Rows, models and
the evaluation of versions stay those of the objective. docs/extending.md has an example.
"""

from __future__ import annotations

from typing import Protocol

from common.errors import ConfigError
from common.plugins.entry_points import OBJECTIVES
from common.protocol.tasks import ObjectivePlugin
from learning.objectives.registry import Objective


class ObjectiveExtension(Protocol):
    """A plug-in objective, in the worker; keyword parameters of its constructor are its options."""

    def extend(self, base: Objective) -> Objective:
        """Return the objective to train with, made from that of the phase.

        Usually `dataclasses.replace(base, loss=…)`. Raise `ValueError` for one that does not suit.
        """


def extend_objective(base: Objective, plugin: ObjectivePlugin) -> Objective:
    """Return the objective of a phase with a plug-in.

    Raises:
        ConfigError: It is not installed, refuses its options, or does not suit the objective.
    """
    extension: ObjectiveExtension = OBJECTIVES.create(plugin.name, plugin.options)
    try:
        return extension.extend(base)
    except Exception as error:
        raise ConfigError(
            f"[objectives.{plugin.name}] ({type(error).__name__}: {error})",
            "see docs/extending.md",
        ) from None
