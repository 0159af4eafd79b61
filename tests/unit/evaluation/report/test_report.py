"""Reports: what they contain, and that no text in them is interpreted as markup."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from common.config.config import PhaseConfig
from common.document.blocks import Block, BulletList, Heading, Paragraph, Picture, Table
from common.document.html_page import to_html
from common.document.markdown import to_markdown
from common.errors import RunError
from common.evaluation.metric_info import METRICS
from common.protocol.updates import ContributionStats, TaskSeconds
from common.protocol.versions import UpdateSummary, VersionSummary
from evaluation.assessed import AnsweredRow, Assessment, EvaluatedVersion, KindAssessment
from evaluation.comparison import ComparedVersion, Comparison, KindComparison
from evaluation.report import figure_tables, files, history_tables, plots
from evaluation.report.report import Report, federated_accuracy, split_by_phase
from learning.evaluation.metrics import EvalMetrics
from tests.support.metrics import class_metrics, preference_metrics, text_metrics

SFT, DPO = PhaseConfig(versions=2), PhaseConfig(objective="dpo", versions=2)
CLS = PhaseConfig(objective="classification", versions=4)
HOSTILE = "<script>alert(1)</script> | [x](javascript:y) ![i](http://z) `c` **b** &lt; \x1b[31m"


def update(base: int, samples: int = 1, accuracy: float | None = None) -> UpdateSummary:
    return UpdateSummary(
        task_id="t1", client_id="client_0", worker_id="w", base_version=base, staleness=0,
        score=1.0, weight=1.0, staleness_factor=1.0, participation_factor=1.0, clip=1.0,
        coefficient=1.0, nbytes=1000,
        stats=ContributionStats(
            num_samples=samples, num_tokens=1, steps=1, avg_loss=1.5, loss_before=2.0,
            loss_after=1.0, delta_norm=1.0, train_seconds=1.0, accuracy_before=accuracy,
            accuracy_after=accuracy,
        ),
    )  # fmt: skip


def version(number: int, phase: int, *updates: UpdateSummary) -> VersionSummary:
    judged = [u.stats.accuracy_before for u in updates if u.stats.accuracy_before is not None]
    return VersionSummary(
        version=number, phase=phase, at=0.0, sha256="0" * 64, nbytes=1,
        train_loss=1.5 if updates else None, holdout_before=2.0 if updates else None,
        holdout_after=1.0 if updates else None, accuracy_before=judged[0] if judged else None,
        accuracy_after=judged[0] if judged else None, updates=updates,
    )  # fmt: skip


HISTORY = (
    version(0, 0),
    version(1, 0, update(0)),
    version(2, 0, update(1)),
    version(3, 1, update(2, 3, 0.5), update(2, 1, 0.9)),
    version(4, 1, update(3, 1, 0.7)),
)
TEXTS = KindAssessment(
    kind="sft",
    heldout=(text_metrics([8.0], [4], [4]), text_metrics([4.0], [4], [4])),
    pooled=(text_metrics([9.0], [4], [4]), text_metrics([5.0], [4], [4])),
    clients={
        "client_0": (text_metrics([9.0], [4], [4]), text_metrics([5.0], [4], [4])),
        "client_1": (EvalMetrics(0),) * 2,
    },
    unigram=3.0,
)
PAIRS = KindAssessment(
    kind="va",
    heldout=(preference_metrics([(-1.0, -2.0)] * 4, [(-1.0, -2.0)] * 4, [(1, 1)] * 4, 0.1),) * 2,
    pooled=(EvalMetrics(0),) * 2,
    clients={"client_0": (EvalMetrics(0),) * 2},
    reference=2,
    beta=0.1,
)
LABELS = KindAssessment(
    kind="cls",
    heldout=(
        class_metrics([0.7, 0.7], [0, 0], [0, 1], 2),
        class_metrics([0.1, 0.1], [0, 1], [0, 1], 2),
    ),
    pooled=(class_metrics([0.7], [0], [1], 2), class_metrics([0.1], [1], [1], 2)),
    clients={"client_0": (class_metrics([0.7], [0], [1], 2), class_metrics([0.1], [1], [1], 2))},
)  # fmt: skip


def report(
    *kinds: KindAssessment,
    phases: tuple[PhaseConfig, ...] = (SFT, DPO),
    labels: tuple[str, ...] = (),
) -> Report:
    return Report(
        name="r",
        base_name="base",
        adapter=Path("runs/r/versions/000004"),
        phases=phases,
        assessment=Assessment(
            version=4,
            subjects=(EvaluatedVersion(0, "base"), EvaluatedVersion(4, "version 4")),
            kinds=kinds,
            samples=(AnsweredRow(HOSTILE, "a", (HOSTILE, "")),),
            labels=labels,
        ),
        versions=HISTORY,
        sources={
            "sft": {
                "source": "x.json",
                "read": 9,
                "skipped": {"too long": 2},
                "truncated": 1,
                "used": 7,
            }
        },
    )


BOTH = report(TEXTS, PAIRS)
ONE = report(LABELS, phases=(CLS,), labels=("no", HOSTILE))


# The document


class Tags(HTMLParser):
    """The tags and attributes of a page, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


def read(page: str) -> Tags:
    tags = Tags()
    tags.feed(page)
    return tags


@given(st.text())
def test_no_text_is_interpreted_as_markup(found: str) -> None:
    blocks = [
        Heading(f"h{found}"),
        Paragraph(f"p{found}"),
        BulletList(f"i{found}", (f"a: {found}",)),
        Table(("header", f"c{found}"), (("row", f"d{found}"),)),
    ]
    tags = read(to_html(blocks, found, {}).partition("<body>")[2])
    expected = "h2 p p strong ul li table thead tr th th tbody tr td td"
    assert tags.tags == expected.split()
    assert {name for name, _ in tags.attributes} <= {"style"}


def test_text_is_shown_as_it_was_written() -> None:
    shown = read(to_html([Paragraph(HOSTILE)], "t", {})).text
    assert HOSTILE.replace("\x1b", "").replace("  ", " ") in shown.replace("  ", " ")


def test_names_with_underscores_stay_readable_in_markdown() -> None:
    assert to_markdown([Paragraph("client_0 and _this_")]) == "client_0 and \\_this\\_\n"


def test_a_page_loads_nothing_from_anywhere() -> None:
    page = to_html([Picture("a.png", "A"), Paragraph('src="a.png"')], "t", {"a.png": b"PNG"})
    sources = [value for name, value in read(page).attributes if name in ("src", "href")]
    assert sources == ["data:image/png;base64,UE5H"]
    assert "default-src 'none'" in page


# What it says


def cells(blocks: list[Block], first: str) -> list[tuple[str, ...]]:
    """Return the rows of the table whose header begins with these words."""
    found = [block for block in blocks if isinstance(block, Table)]
    return list(next(table.rows for table in found if table.header[0].startswith(first)))


def words(blocks: list[Block]) -> str:
    return " ".join(block.text for block in blocks if isinstance(block, Paragraph))


def test_metrics_have_a_column_for_each_version_and_the_number_of_rows() -> None:
    blocks = figure_tables.build_metrics(BOTH.assessment, "")
    rows = cells(blocks, "1 held-out rows")
    assert rows[0] == ("nats per token", "2.000", "1.000")
    assert rows[1] == ("perplexity", "7.4", "2.7")
    assert "lowers the base's nats per token by 50.0%" in words(blocks)
    assert "is 3.000 nats per token" in words(blocks)


def test_shares_have_an_interval_and_possible_noise_is_named() -> None:
    blocks = figure_tables.build_metrics(BOTH.assessment, "")
    assert cells(blocks, "4 held-out rows")[0][1] == "1.000 (0.51 to 1.00)"
    assert "the intervals overlap: it may be noise" in words(blocks)


def test_a_client_without_rows_has_a_dash_and_is_never_the_worst_client() -> None:
    rows = cells(figure_tables.build_metrics(BOTH.assessment, ""), "nats per token, validation")
    assert rows[1] == ("client_1", "0", "–", "–")
    assert ("worst client", "–", "2.250 (client_0)", "1.250 (client_0)") in rows
    assert "No client has validation rows" in words(
        figure_tables.build_metrics(BOTH.assessment, "")
    )


@pytest.mark.parametrize(
    ("of", "figures"),
    [
        (TEXTS, ["nats per token", "perplexity"]),
        (replace(PAIRS, pooled=PAIRS.heldout), ["preference accuracy", "reward margin"]),
        (LABELS, ["accuracy", "macro-F1"]),
    ],
)
def test_the_metrics_of_each_client_have_a_heading_of_their_own(
    of: KindAssessment, figures: list[str]
) -> None:
    blocks = figure_tables.build_metrics(report(of, labels=("no", "yes")).assessment, "")
    own = blocks[blocks.index(Heading("Each client's own rows", 3)) + 1 :]
    found = [block.header[0] for block in own if isinstance(block, Table)]
    assert found == [f"{title}, validation" for title in figures]


def test_of_many_clients_the_worst_are_shown() -> None:
    many = {f"c{i}": (text_metrics([float(i + 1)], [1], [1]),) * 2 for i in range(40)}
    found = replace(BOTH.assessment, kinds=(replace(TEXTS, clients=many),))
    rows = cells(figure_tables.build_metrics(found, ""), "nats per token, validation")
    assert [row[0] for row in rows[:2]] == ["c39", "c38"]
    assert rows[30][0] == "all clients"


def test_the_confusion_matrix_is_that_of_the_assessed_version() -> None:
    rows = cells(figure_tables.build_metrics(ONE.assessment, ""), "true class")
    assert rows == [("no", "1", "0"), (HOSTILE, "0", "1")]


def test_skipped_rows_are_counted_by_reason() -> None:
    blocks = history_tables.build_data(BOTH)
    assert cells(blocks, "kind") == [("sft", "x.json", "9", "7", "2", "1")]
    assert isinstance(blocks[-1], BulletList) and blocks[-1].points == ("sft: 2 × too long",)


def test_rows_that_are_used_in_part_are_counted_by_what_is_left_out() -> None:
    source = {**BOTH.sources["sft"], "omitted": {"reasoning left out": 3}}
    blocks = history_tables.build_data(replace(BOTH, sources={"sft": source}))
    assert blocks[-1] == BulletList("Used in part", ("sft: 3 × reasoning left out",))


def test_versions_and_updates_have_accuracies_where_their_phase_has_them() -> None:
    found = [block for block in history_tables.build_versions(BOTH) if isinstance(block, Table)]
    judged = ["accuracy before" in table.header for table in found]
    assert judged == [False, True, False, True]
    units = words(history_tables.build_versions(BOTH))
    assert "nats per response token" in units and "nats per preference pair" in units


def test_the_time_of_tasks_has_medians_by_phase_and_the_share_that_was_not_training() -> None:
    def timed(phase: int, number: int, training: float, **seconds: float) -> VersionSummary:
        made = update(number - 1)
        spent = {"train_seconds": training, "seconds": TaskSeconds(**seconds)}
        stats = made.stats.model_copy(update=spent)
        return version(number, phase, made.model_copy(update={"stats": stats}))

    versions = (timed(0, 1, 4.0, load=3.0), timed(0, 2, 8.0, measure=1.0), HISTORY[3])
    blocks = history_tables.build_times(replace(BOTH, versions=versions))
    # Of 7 + 9 seconds 4 were not training; the second phase has updates of an earlier release.
    row = ("1, sft", "6.0", "0.0", "1.5", "0.0", "0.5", "0.0", "25 %")
    assert cells(blocks, "phase") == [row]
    assert history_tables.build_times(BOTH) == []


def test_a_comparison_has_differences_and_says_when_only_bytes_can_be_compared() -> None:
    sides = (ComparedVersion("a", "x", "1" * 64, 3), ComparedVersion("b", "y", "2" * 64, 5))
    pair = (text_metrics([8.0], [4], [4]), text_metrics([6.0], [4], [4]))
    blocks = figure_tables.build_comparison(Comparison(sides, (KindComparison("sft", pair, 2),)))
    assert cells(blocks, "1 rows")[0] == ("nats per token", "2.000", "1.500", "-0.500")
    assert "only bits per byte can be compared" in words(blocks)
    assert "2 rows are left out because they do not fit into both models" in words(blocks)
    assert "own reference" not in words(blocks)
    pairs = Comparison(sides, (KindComparison("va", (PAIRS.heldout[0], PAIRS.heldout[1]), 0),))
    assert "own reference" in words(figure_tables.build_comparison(pairs))
    empty = Comparison(sides, (KindComparison("cls", (EvalMetrics(0), EvalMetrics(0)), 0),))
    assert {row[1:] for row in cells(figure_tables.build_comparison(empty), "0 rows")} == {
        ("–", "–", "–")
    }


# History


def test_each_phase_has_a_curve_that_starts_at_its_first_base_version() -> None:
    sft, dpo = split_by_phase((SFT, DPO), HISTORY)
    assert (sft.begin, dpo.begin) == (0, 2)
    assert sft.holdout == ((0, 2.0), (1, 2.0))
    assert dpo.train == ((3, 1.5), (4, 1.5))
    assert (sft.accuracy, dpo.accuracy) == ((), ((2, 0.6), (3, 0.7)))
    assert len(split_by_phase((SFT, DPO), HISTORY[:2])) == 1


def test_the_federated_accuracy_is_weighted_by_samples() -> None:
    assert federated_accuracy(HISTORY) == {2: pytest.approx(0.6), 3: 0.7}


# On the disk


@pytest.mark.parametrize("found", [BOTH, ONE], ids=["texts and pairs", "classes"])
def test_all_files_are_written_and_the_page_holds_every_picture(
    found: Report, tmp_path: Path
) -> None:
    path = files.write_report(found, tmp_path / "report")
    names = {file.name for file in path.parent.iterdir()}
    assert {"report.md", "report.json", "report.html", "loss.png"} <= names
    page = (path.parent / "report.html").read_text()
    pictures = [name for name in names if name.endswith(".png")]
    assert page.count("data:image/png;base64,") == len(pictures)
    assert "<script" not in page
    assert all(f"]({name})" in path.read_text() for name in pictures)
    for name in pictures:
        assert (path.parent / name).read_bytes().startswith(b"\x89PNG")


def test_an_evaluation_leaves_the_report_of_the_run_alone(tmp_path: Path) -> None:
    files.write_report(BOTH, tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    files.write_evaluation(replace(BOTH, versions=HISTORY[:1]), tmp_path)
    assert all(path.read_bytes() == content for path, content in before.items())
    assert (tmp_path / "evaluation.html").exists()


def test_json_has_null_for_numbers_that_are_not_finite() -> None:
    worst = text_metrics([1e6], [1], [1])
    found = report(replace(TEXTS, heldout=(worst, worst)))
    values = json.loads(json.dumps(files.build_fields(found, history=True), allow_nan=False))
    assert values["federated"]["perplexity"] is None
    assert values["federated"]["nats_per_token"] == 1e6
    assert [v["version"] for v in values["versions"]] == [0, 1, 2, 3, 4]
    assert "versions" not in files.build_fields(found, history=False)


def test_json_has_rows_intervals_and_spread() -> None:
    values = files.build_fields(ONE, history=False)["kinds"]["cls"]
    assert values["heldout"][1]["rows"] == 2
    assert values["heldout"][1]["confusion"] == [[1, 0], [0, 1]]
    assert values["heldout"][1]["intervals"]["accuracy"][0] == pytest.approx(0.342, abs=1e-3)
    assert set(values["spread"]) == {metric.key for metric in METRICS["cls"]}
    assert values["spread"]["accuracy"]["worst"] == "client_0"


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"cannot be written: .*--out"):
        files.write_report(BOTH, tmp_path / "file" / "report")


@pytest.mark.parametrize(("count", "chance"), [(2, 0.5), (4, 0.25)])
def test_the_line_of_chance_depends_on_the_number_of_classes(count: int, chance: float) -> None:
    found = class_metrics([0.7], [0], [1], count)
    judged = replace(LABELS, pooled=(found, found), clients={"client_0": (found, found)})
    (axes,) = plots.draw_client_figure(judged, ONE.assessment.subjects).axes
    assert [line.get_ydata() for line in axes.lines] == [[chance, chance]]


def test_a_run_that_has_made_no_version_has_no_curve() -> None:
    young = replace(BOTH, versions=HISTORY[:1])
    assert "loss.png" not in plots.draw_pictures(young, "")
    assert history_tables.build_history(young, "") == []


def test_markdown_tables_are_parsed_by_a_commonmark_parser() -> None:
    whole = to_markdown(files.build_blocks(BOTH, ""))
    page = str(MarkdownIt("commonmark").enable("table").render(whole))
    assert page.count("<table>") == len(re.findall(r"^\| ---", whole, re.MULTILINE))
