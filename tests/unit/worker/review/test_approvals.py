from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from common.errors import RunError
from common.protocol.run_plan import PlannedPrivacy
from tests.support.run_plans import run_plan
from worker.review.approvals import Approval, Approvals

PRIVACY = PlannedPrivacy(clip_norm=0.5, noise_multiplier=4.0, delta=1e-5, max_versions=20)


def test_an_approval_of_an_earlier_release_holds_for_a_plan_without_privacy() -> None:
    later = {"privacy", "frozen_bytes", "lower_ranks", "run"}
    fields = {name: value for name, value in run_plan().fields().items() if name not in later}
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    assert run_plan().digest == hashlib.sha256(text.encode()).hexdigest()


def test_an_approval_holds_for_another_run_with_the_same_plan(tmp_path: Path) -> None:
    Approvals(tmp_path / "new").approve(run_plan(), 7.0)
    digest = run_plan(run="triage-2").digest
    assert Approvals(tmp_path / "new").find(digest) == Approval(7.0, 7.0)


@pytest.mark.parametrize(
    "changed",
    [{"update_codec": "fp32"}, {"contact": "Joe"}, {"evaluation": None}, {"privacy": PRIVACY}],
)
def test_an_approval_does_not_hold_for_a_changed_plan(
    tmp_path: Path, changed: dict[str, object]
) -> None:
    Approvals(tmp_path).approve(run_plan(), 7.0)
    assert Approvals(tmp_path).find(run_plan(**changed).digest) is None


def test_a_plan_that_was_only_shown_is_not_approved(tmp_path: Path) -> None:
    approvals = Approvals(tmp_path)
    approvals.note_shown(run_plan(), 3.0)
    assert approvals.find(run_plan().digest) == Approval(3.0, None)
    approvals.approve(run_plan(), 4.0)
    approvals.note_shown(run_plan(), 5.0)
    assert approvals.find(run_plan().digest) == Approval(3.0, 4.0)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a": 1}', '{"a": {"shown_at": "x"}}'])
def test_a_damaged_file_is_an_error_in_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "approvals.json").write_text(text)
    with pytest.raises(RunError, match=r"approvals\.json is damaged; remove it"):
        Approvals(tmp_path).find("a")
