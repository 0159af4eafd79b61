"""The screen of a replay: that of a live run, with keys for the time."""

from __future__ import annotations

from typing import ClassVar

from textual.binding import Binding, BindingType

from tui.app import MonitorApp
from tui.data.replay import Replay
from tui.screens.help import VIEW_KEYS, KeyHelp

REPLAY_KEYS: tuple[KeyHelp, ...] = (
    ("+ -", "twice as fast, half as fast; = is +, too"),
    ("space", "hold the time, and let it run on"),
)


class ReplayApp(MonitorApp):
    """`+` and `-` change how fast time runs, space holds it."""

    # Those of the time, before the rest.
    KEYS = (
        *REPLAY_KEYS,
        *(key for key in VIEW_KEYS if key[0] not in ("space", "q")),
        ("q", "quit, as does ctrl+q"),
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("plus,equals_sign", "faster", "faster", key_display="+"),
        Binding("minus", "slower", "slower", key_display="-"),
        Binding("space", "freeze", "hold"),
    ]

    def __init__(self, replay: Replay) -> None:
        """Play a recording from its start."""
        super().__init__(replay)
        self._replay = replay

    def action_faster(self) -> None:
        """Twice as fast."""
        self._replay.faster()

    def action_slower(self) -> None:
        """Half as fast."""
        self._replay.slower()

    def action_freeze(self) -> None:
        """The time stands still, rather than the screen."""
        self._replay.hold()
