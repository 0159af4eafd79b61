"""A card is true of runs whose rows were dealt, and of those whose rows stayed at the sites."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.run_directory.recorded_run import RecordedRun, read_run
from evaluation.export.card_federated import build_federated_section
from evaluation.export.card_participants import describe_participants, find_participants
from evaluation.export.card_privacy import build_limits_section, build_privacy_section
from tests.support.evaluated_sites import add_members, add_round, text_sums
from tests.support.site_runs import site_run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Return a run of two sites and three clients, with two versions evaluated."""
    directory = site_run(tmp_path, ("alpha.one", "alpha.two", "beta"))
    add_members(directory, "sft", {"alpha.one": 100, "alpha.two": 50, "beta": 30, "late": 9})
    add_round(directory, 0, {"alpha.one": text_sums(10, 3.0), "beta": text_sums(30, 4.0)})
    answers = {"alpha.one": text_sums(10, 2.0), "beta": text_sums(30, 2.5)}
    add_round(directory, 2, answers | {"alpha.two": text_sums(5, 9.0)})
    return directory


def of(directory: Path) -> RecordedRun:
    return read_run(directory)


def test_the_card_counts_sites_and_clients_that_took_part(run: Path) -> None:
    who = find_participants(of(run), 2)
    assert (who.dealt, who.invited, who.sites, who.rows) == (0, 3, 2, {"sft": 180})
    assert describe_participants(who).startswith("3 clients at 2 sites with rows of their own")
    assert describe_participants(find_participants(of(run), 0)) == "No client has taken part yet"


def test_the_card_of_sites_says_what_never_left_them_and_what_did(run: Path) -> None:
    text = build_privacy_section(of(run), 2)
    assert "What never left the invited sites: all of their rows" in text
    assert "The coordinator had no row at all." in text
    assert "changes of the trained weights, as int8;" in text
    assert "sums over evaluated rows" in text
    assert "simulated" not in text and "sent to other clients" not in text
    assert "alpha" not in text and "beta" not in text


def test_the_card_of_dealt_rows_says_what_was_simulated(tmp_path: Path) -> None:
    directory = site_run(tmp_path, ("client_0", "client_1"), dealt=True)
    text = build_privacy_section(of(directory), 2)
    assert text.startswith("The clients were simulated: the coordinator's machine had all of their")
    assert "never left" not in text and "sums over" not in text
    who = find_participants(of(directory), 2)
    assert describe_participants(who) == "2 simulated clients with rows that the coordinator dealt"


def test_the_card_of_both_says_both(tmp_path: Path) -> None:
    directory = site_run(tmp_path, ("client_0", "alpha"), dealt=True)
    add_members(directory, "sft", {"alpha": 100})
    text = build_privacy_section(of(directory), 2)
    assert text.startswith("Some clients were simulated")
    assert "The coordinator had rows of its own, but none of these." in text


@pytest.mark.parametrize(
    ("source", "mode", "words"),
    [
        ("train", "combined", "rest on figures that clients report."),
        ("cosine", "loss", "rest on the agreement of updates with each other."),
        ("federated", "combined", "evaluations by other clients, and on numbers of rows"),
    ],
)
def test_the_card_says_on_what_contribution_weights_rest(
    tmp_path: Path, source: str, mode: str, words: str
) -> None:
    aggregation = {"contribution_source": source, "contribution_mode": mode}
    directory = site_run(tmp_path, ("alpha",), aggregation=aggregation)
    assert words in build_limits_section(of(directory))
    shared = "also sent to other clients whose sites had agreed"
    assert (shared in build_privacy_section(of(directory), 2)) == (source == "federated")


def test_the_clients_figures_are_pooled_over_those_that_answered_for_both_versions(
    run: Path,
) -> None:
    text = build_federated_section(of(run), 2)
    assert "2 clients, 40 rows:" in text
    assert "| nats per token | 3.75 | 2.375 |" in text
    assert "| nats per token, worst client | 4 | 2.5 |" in text
    assert text.endswith("version 2, which is this one.")
    assert "beta" not in text


def test_a_version_without_evaluation_says_which_one_is_best(run: Path) -> None:
    text = build_federated_section(of(run), 1)
    assert "|" not in text and text.endswith("all of them: version 2.")


def test_without_evaluations_there_is_no_such_section(tmp_path: Path) -> None:
    directory = site_run(tmp_path, ("alpha",))
    assert build_federated_section(of(directory), 2) == ""
    assert of(directory).best_version is None
