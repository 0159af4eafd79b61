"""States as a symbol, a word and a colour, so that the colour never stands alone."""

from __future__ import annotations

from rich.text import Text

BADGES = {
    "starting": ("…", "cyan"),
    "waiting": ("○", "yellow"),
    "fetching": ("▼", "cyan"),
    "training": ("●", "green"),
    "evaluating": ("◆", "magenta"),
    "publishing": ("▲", "cyan"),
    "resting": ("◑", "blue"),
    "stopping": ("■", "yellow"),
    "running": ("●", "green"),
    "paused": ("‖", "yellow"),
    "draining": ("◐", "yellow"),
    "stopped": ("■", "yellow"),
    "finished": ("✓", "green"),
    "failed": ("✗", "red"),
    "idle": ("○", ""),
    "queued": ("◌", "cyan"),
    "away": ("?", "yellow"),
    "quarantined": ("✗", "red"),
    "accepted": ("✓", "green"),
    "rejected": ("✗", "red"),
}


def badge(state: str) -> Text:
    """Return a state such as `● training`."""
    symbol, style = BADGES.get(state, (" ", ""))
    return Text(f"{symbol} {state}", style=style)
