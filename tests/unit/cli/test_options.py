"""The mode of a run, from the flags of a command."""

from __future__ import annotations

import click
import pytest

from cli.options import mode_from_flags


@pytest.mark.parametrize(
    ("flags", "mode"),
    [
        ((False, False, False), "start"),
        ((True, False, False), "resume"),
        ((False, True, False), "new"),
        ((False, False, True), "continue"),
    ],
)
def test_each_flag_is_a_mode(flags: tuple[bool, bool, bool], mode: str) -> None:
    assert mode_from_flags(*flags) == mode


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ((True, True, False), "--resume and --new exclude each other"),
        ((False, True, True), "--new and --continue exclude each other"),
        ((True, False, True), "--resume and --continue exclude each other"),
    ],
)
def test_two_flags_exclude_each_other(flags: tuple[bool, bool, bool], named: str) -> None:
    with pytest.raises(click.UsageError, match=named):
        mode_from_flags(*flags)
