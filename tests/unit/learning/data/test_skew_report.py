"""Tests of the table and the picture of the skew, with labels and client numbers of real data."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from learning.data.skew_report import plot_skew, skew_table


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Axes]:
    """Collect the axes of each picture before it is written."""
    found: list[Axes] = []
    monkeypatch.setattr(Figure, "savefig", lambda self, *_, **__: found.extend(self.axes))
    return found


def names(axes: Axes) -> list[str]:
    legend = axes.get_legend()
    assert legend is not None
    return [text.get_text() for text in legend.get_texts()]


def test_a_label_that_starts_with_an_underscore_is_in_the_legend(drawn: list[Axes]) -> None:
    plot_skew([{"_": 3, "__": 4, "_a": 5, "a": 6}], "texts", Path("x.png"))
    assert [name.strip() for name in names(drawn[0])] == ["_", "__", "_a", "a"]


def test_the_names_of_many_clients_do_not_overlap(drawn: list[Axes]) -> None:
    plot_skew([{"a": 1 + i % 7} for i in range(120)], "texts", Path("x.png"))
    written = [text.get_text() for text in drawn[0].get_yticklabels()]
    assert written[:3] == ["client_0", "client_3", "client_6"]
    assert len(drawn[0].texts) == len(written) == 40


def test_a_label_that_the_font_lacks_causes_no_warning(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plot_skew([{"中文": 3, "b": 2}], "texts", tmp_path / "x.png")
    assert (tmp_path / "x.png").stat().st_size > 0


def test_a_table_of_many_clients_has_a_line_for_each() -> None:
    lines = skew_table([{"a": 1, "b": i} for i in range(30)]).splitlines()
    assert lines[0].split() == ["client", "a", "b", "rows"]
    assert lines[3].split() == ["client_2", "1", "2", "3"]
    assert lines[-1].split() == ["all", "30", "435", "465"]


def test_a_label_cannot_control_the_terminal() -> None:
    assert skew_table([{"a\nb\x1b[31m": 1}]).splitlines()[1].startswith("a b [31m ")


def test_a_table_of_few_clients_has_a_line_for_each_label() -> None:
    assert skew_table([{"a": 1}, {"b": 2}]).splitlines() == [
        "label  client_0  client_1  all",
        "a             1         0    1",
        "b             0         2    2",
        "rows          1         2    3",
    ]
