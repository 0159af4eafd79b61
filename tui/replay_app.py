"""Screen of a replay: that of a live run, with keys for the speed."""

from __future__ import annotations

from typing import ClassVar

from textual.binding import Binding, BindingType

from tui.app import MonitorApp
from tui.data.replay import Replay
from tui.screens.help import VIEW_KEYS, KeyHelp

REPLAY_KEYS: tuple[KeyHelp, ...] = (
    ("+ -", "double or halve the speed; = works like +"),
    ("space", "pause the replay, or continue"),
)


class ReplayApp(MonitorApp):
    """App that plays a recorded run; space pauses the replay rather than the screen."""

    KEYS = (
        *REPLAY_KEYS,
        *(key for key in VIEW_KEYS if key[0] not in ("space", "q")),
        ("q", "quit, as does ctrl+q"),
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("plus,equals_sign", "speed_up", "faster", key_display="+"),
        Binding("minus", "slow_down", "slower", key_display="-"),
        Binding("space", "freeze", "pause"),
    ]
    FREEZE_HELP = "Pause the replay, or continue"
    QUIT_HELP = "Close this screen"

    def __init__(self, replay: Replay) -> None:
        super().__init__(replay)
        self._replay = replay

    def action_speed_up(self) -> None:
        self._replay.speed_up()

    def action_slow_down(self) -> None:
        self._replay.slow_down()

    def action_freeze(self) -> None:
        self._replay.toggle_pause()
