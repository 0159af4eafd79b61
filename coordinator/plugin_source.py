"""Plug-ins that watch a run from processes of their own: evaluators and trackers.

The coordinator's starter passes an implementation (`cli/run/child_plugins.py`); the service
collects what they report at its next tick.
"""

from __future__ import annotations

from threading import Event as Flag
from typing import Literal

from common.protocol.evaluations import EvaluatorFigures
from coordinator.core.events import LogEvent


class PluginSource:
    """No plug-ins. Implementations override the methods that they need.

    The coordinator's main loop calls all methods: except for `finish` they return immediately, and
    none of them raises.
    """

    def start(self) -> None:
        """Start the plug-ins; they read the run directory."""

    def collect(self) -> tuple[list[EvaluatorFigures], list[LogEvent]]:
        """Return the figures since the last call, and events about errors."""
        return [], []

    def finish(self, outcome: Literal["finished", "stopped"], stop: Flag) -> None:
        """Wait a limited time until the plug-ins are done, or until `stop` is set; then close."""

    def close(self) -> None:
        """End the plug-ins immediately. May be repeated."""
