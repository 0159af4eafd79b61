"""Options of the commands that control a run."""

from __future__ import annotations

import pytest

from cli.main import main


@pytest.mark.parametrize("number", ["0", "-1", "two", ""])
def test_a_minimum_that_is_no_positive_number_is_one_line(
    number: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["fccl", "min-clients", "--", number])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
