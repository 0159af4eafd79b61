"""What the line over the live view says, and when it keeps quiet."""

from __future__ import annotations

from dataclasses import replace

import pytest

from common.store.view import FederationView, RunInfo, RunStatus
from tui.banner import OLD_S, SILENT_S, banner
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


def test_a_run_that_is_well_needs_no_words() -> None:
    assert banner(LIVE, "r", NOW + OLD_S) == ("", "")


@pytest.mark.parametrize(
    ("snapshot", "level", "says"),
    [
        (Snapshot(), "note", "connecting"),
        (Snapshot("waiting"), "note", "waiting for run r"),
        (replace(LIVE, state="waiting"), "warning", "lost run r; what is shown is 5 s old"),
        (Snapshot("lost", detail="no Redis"), "error", "no Redis; trying again"),
        (
            replace(LIVE, state="lost", detail="no Redis"),
            "error",
            "no Redis; trying again; what is shown is 5 s old",
        ),
        (LIVE, "warning", "no answer from the store for 5 s"),
        (replace(LIVE, view=view("finished")), "note", "finished: why"),
        (replace(LIVE, view=view("failed")), "error", "failed: why"),
        (replace(LIVE, view=view("stopped"), read_at=NOW + 5), "note", "stopped: why"),
        (replace(LIVE, view=view("finished"), state="lost"), "note", "finished: why"),
        (replace(LIVE, view=view("stopped"), state="lost"), "error", "trying again"),
    ],
)
def test_what_is_not_as_it_should_be_is_said(snapshot: Snapshot, level: str, says: str) -> None:
    found, text = banner(snapshot, "r", NOW + 5)
    assert found == level
    assert says in text


def test_a_coordinator_that_stopped_writing_is_noticed_by_the_viewers_own_clock() -> None:
    later = replace(LIVE, read_at=NOW + SILENT_S + 1)
    assert banner(later, "r", NOW + SILENT_S + 1) == (
        "warning",
        "the coordinator has said nothing for 11 s; if it has died, `fccl coordinator --resume`"
        " goes on",
    )


def test_a_frozen_view_says_so_whatever_happens() -> None:
    assert banner(replace(LIVE, state="lost"), "r", NOW + 5, frozen=True)[1].startswith("held")
