from __future__ import annotations

from pathlib import Path

import pytest

from worker.site.local_paths import LocalPaths


@pytest.mark.parametrize(
    ("text", "public"),
    [
        ("/srv/data has no rows of a for sft", "[path] has no rows of a for sft"),
        ("no row of /srv/a b/x_sft.jsonl can be used", "no row of [path] can be used"),
        ("no row of /mnt/x_sft.jsonl: (too long)", "no row of [path]: (too long)"),
        ("[Errno 13] Permission denied: '/etc/fccl/key'", "[Errno 13] Permission denied: '[path]'"),
        (
            "check --data: there must be a file a_sft.jsonl",
            "check --data: there must be a file [path]",
        ),
        ("rows/patients 2.csv is empty", "rows/patients [path] is empty"),
        ("rows/patients.csv:7: text is empty", "[path]:7: text is empty"),
        (r"C:\Users\Jane\rows.csv is empty", "[path] is empty"),
        (r"\\server\share\rows.csv is empty", "[path] is empty"),
        ("~/rows is empty; ./rows and ../rows too", "[path] is empty; [path] and [path] too"),
    ],
)
def test_paths_are_removed_and_reasons_stay(text: str, public: str) -> None:
    assert LocalPaths([Path("/srv/a b")]).strip(text) == public


@pytest.mark.parametrize(
    "text",
    [
        "this site does not train the base model Qwen/Qwen3-0.6B (1a2b3c4d5e6f)",
        "the store at broker.example.org:6380/0 does not answer; a TLS port needs rediss://",
        "amqps://broker.example.org:5671/ refuses the login",
        "set evaluation = true in worker.toml",
        "micro_batch 8 is above the batch size 4 of task t000001",
        "3/4 of the rows, 10 kB/s, and/or 2026-11-28 22:00",
        "t000001 of hospital-a.ward1 from version 3: loss 2.104, 3.2 s",
    ],
)
def test_text_without_paths_stays_as_it_is(text: str) -> None:
    assert LocalPaths([Path("/srv/data"), Path("data"), None]).strip(text) == text


def test_the_longest_known_folder_is_removed_with_what_follows(tmp_path: Path) -> None:
    paths = LocalPaths([tmp_path, tmp_path / "my rows"])
    assert paths.strip(f"{tmp_path}/my rows/x is empty") == "[path] is empty"
    assert paths.strip(f"{tmp_path} is empty") == "[path] is empty"
