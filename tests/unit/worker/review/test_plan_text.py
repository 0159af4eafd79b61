from __future__ import annotations

from common.evaluation.sums import EvaluationSums
from common.protocol.heartbeat import Heartbeat
from common.protocol.updates import ContributionStats, TaskSeconds
from tests.support.run_plans import run_plan
from worker.review.plan_text import WIDTH, format_bytes, plan_lines


def test_a_plan_says_who_coordinates_and_what_is_trained() -> None:
    text = "\n".join(plan_lines(run_plan()))
    assert text.startswith("the plan of run triage, coordinated by Jane Doe, jane@example.org:\n")
    for part in ("offline:smollm2-135m", "sft from sft rows", "LoRA of rank 16", "2.5 MB (int8)"):
        assert part in text


def test_every_field_that_leaves_the_machine_is_named() -> None:
    text = " ".join(" ".join(plan_lines(run_plan())).split())
    for kind in (ContributionStats, TaskSeconds, EvaluationSums, Heartbeat):
        assert all(name in text for name in kind.model_fields)


def test_lines_fit_a_terminal() -> None:
    labels = tuple(f"class {i}" for i in range(300))
    assert max(map(len, plan_lines(run_plan(labels=labels)))) <= WIDTH


def test_a_run_that_evaluates_nothing_at_sites_says_nothing_of_sums() -> None:
    assert "evaluations" not in "\n".join(plan_lines(run_plan(evaluation=None)))


def test_federated_scores_say_that_updates_go_to_other_sites() -> None:
    text = " ".join(" ".join(plan_lines(run_plan(contribution_source="federated"))).split())
    assert "its updates go to other sites" in text
    assert "other sites" not in " ".join(plan_lines(run_plan()))


def test_control_characters_of_a_contact_do_not_reach_the_terminal() -> None:
    assert "\x1b" not in "\n".join(plan_lines(run_plan(contact="a\x1b[31m\nb")))


def test_sizes_are_in_decimal_units() -> None:
    sizes = [format_bytes(n) for n in (0, 999, 2_550, 25_500, 2_550_000, 4_000_000_000)]
    assert sizes == ["0 bytes", "999 bytes", "2.5 kB", "26 kB", "2.5 MB", "4.0 GB"]
