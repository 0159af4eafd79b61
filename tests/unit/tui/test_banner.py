"""Level and text of the banner, and when it is empty."""

from __future__ import annotations

from dataclasses import replace

import pytest

from common.store.view import FederationView, RunInfo, RunStatus
from tui.banner import COORDINATOR_SILENT_S, STORE_SILENT_S, banner
from tui.data.reader import Snapshot

NOW = 1000.0


def view(status: RunStatus = "running") -> FederationView:
    info = RunInfo(
        run="r", name="r", status=status, detail="why", version=0, total_versions=1, phase=0,
        phases=("sft",), clients=1, buffered=0, buffer_size=1, open_tasks=0, accepted=0,
        rejected=0, started_at=0.0, updated_at=0.0, max_staleness=1,
    )  # fmt: skip
    return FederationView(info, (), (), (), (), ())


LIVE = Snapshot("live", view(), read_at=NOW, changed_at=NOW)


def test_the_banner_of_a_healthy_run_is_empty() -> None:
    assert banner(LIVE, "r", NOW + STORE_SILENT_S) == ("", "")


@pytest.mark.parametrize(
    ("snapshot", "level", "text"),
    [
        (Snapshot(), "note", "connecting"),
        (Snapshot("waiting"), "note", "waiting for run r"),
        (replace(LIVE, state="waiting"), "warning", "lost run r; this view is 5 s old"),
        (Snapshot("lost", detail="no Redis"), "error", "no Redis; trying again"),
        (
            replace(LIVE, state="lost", detail="no Redis"),
            "error",
            "no Redis; trying again; this view is 5 s old",
        ),
        (LIVE, "warning", "the store has not answered for 5 s"),
        (replace(LIVE, view=view("finished")), "note", "finished: why"),
        (replace(LIVE, view=view("failed")), "error", "failed: why"),
        (replace(LIVE, view=view("stopped"), read_at=NOW + 5), "note", "stopped: why"),
        (replace(LIVE, view=view("finished"), state="lost"), "note", "finished: why"),
        (replace(LIVE, view=view("stopped"), state="lost"), "error", "trying again"),
    ],
)
def test_problems_and_the_end_of_the_run_have_a_level_and_a_text(
    snapshot: Snapshot, level: str, text: str
) -> None:
    shown_level, shown = banner(snapshot, "r", NOW + 5)
    assert shown_level == level
    assert text in shown


def test_the_silence_of_a_coordinator_is_measured_by_the_clock_of_this_machine() -> None:
    later = replace(LIVE, read_at=NOW + COORDINATOR_SILENT_S + 1)
    level, text = banner(later, "r", NOW + COORDINATOR_SILENT_S + 1)
    assert level == "warning"
    assert "silent for 11 s" in text and "--resume" in text


def test_a_frozen_view_is_announced_even_when_the_store_is_lost() -> None:
    assert banner(replace(LIVE, state="lost"), "r", NOW + 5, frozen=True)[1].startswith("frozen")
