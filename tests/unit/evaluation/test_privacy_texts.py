"""What reports and model cards say about differential privacy, and only where it is true."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.document.blocks import Block
from common.document.markdown import to_markdown
from common.privacy import NOT_COVERED, epsilon
from common.run_directory.recorded_run import RecordedRun, read_run
from evaluation.export.card_privacy import build_privacy_section
from evaluation.report.privacy_section import build_privacy, privacy_fields
from evaluation.report.report import recorded_report
from tests.support.site_runs import site_run

PRIVACY = {"clip_norm": 0.5, "noise_multiplier": 4.0, "max_versions": 9}


def recorded(place: Path, **privacy: object) -> RecordedRun:
    uniform = {"contribution_mode": "uniform"}
    return read_run(site_run(place, ("alpha", "beta"), aggregation=uniform, privacy=privacy))


def text_of(blocks: list[Block]) -> str:
    return to_markdown(blocks)


def test_the_report_names_epsilon_of_each_client_and_what_is_not_covered(tmp_path: Path) -> None:
    report = recorded_report(recorded(tmp_path, **PRIVACY), 2)
    text, spent = text_of(build_privacy(report)), epsilon(4.0, 2, 1e-5)
    assert f"ε ≤ {spent:.2f} now" in text and "most exposed client: 2 versions" in text
    assert NOT_COVERED.capitalize() in text
    assert f"| alpha | 2 | {spent:.2f} |" in text
    fields = privacy_fields(report)
    assert fields is not None and fields["clients"] == pytest.approx(
        {"alpha": spent, "beta": spent}
    )


def test_a_report_on_a_run_without_it_does_not_mention_it(tmp_path: Path) -> None:
    report = recorded_report(recorded(tmp_path), 2)
    assert build_privacy(report) == [] and privacy_fields(report) is None


def test_the_card_names_epsilon_of_its_own_version(tmp_path: Path) -> None:
    run = recorded(tmp_path, **PRIVACY)
    text = build_privacy_section(run, 1)
    assert f"ε ≤ {epsilon(4.0, 1, 1e-5):.2f} now" in text
    assert NOT_COVERED.capitalize() in text
    assert "no differential privacy" not in text


@pytest.mark.parametrize(
    ("privacy", "words"),
    [
        ({}, "no differential privacy was used"),
        ({"clip_norm": 0.5, "noise_multiplier": 0.0}, "no noise was added"),
    ],
)
def test_a_card_without_noise_says_that_rows_may_be_remembered(
    tmp_path: Path, privacy: dict[str, object], words: str
) -> None:
    text = build_privacy_section(recorded(tmp_path, **privacy), 2)
    assert words in text and "Do not publish it if its answers could harm a client." in text
