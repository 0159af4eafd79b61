"""Configuration, a site's files, and data files."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from common.config import loader
from common.config.template import TEMPLATE
from common.protocol.fields import RowKind
from learning.data import rows
from learning.data.prompts_file import read_prompts
from tests.fuzz import mutate
from tests.fuzz.target import Reader, Target
from tests.support.run_plans import run_plan
from worker.review.approvals import Approvals
from worker.settings import loader as settings
from worker.settings.template import TEMPLATE as SETTINGS
from worker.site.sent_log import read_log


def _file(name: str, read: Callable[[Path], object]) -> Callable[[Path], Reader]:
    """Return the maker of a reader of one file."""

    def make(folder: Path) -> Reader:
        path = folder / name

        def read_file(data: bytes) -> None:
            path.write_bytes(data)
            read(path)

        return read_file

    return make


def _environment(_: Path) -> Reader:
    def read_variables(data: bytes) -> None:
        lines = data.decode("utf-8", "surrogateescape").split("\n")
        pairs = [line.partition("=") for line in lines if "=" in line]
        environ = {name: value for name, _, value in pairs}
        loader.load(None, environ)
        settings.load(Path("worker.toml"), environ)

    return read_variables


VARIABLES = b"""FCCL_RUN__NAME=r
FCCL_PHASE__0__LR=0.1
FCCL_SCHEDULE__CONCURRENCY=4
FCCL_BROKER__URL=amqp://a:b@host/
FCCL_WORKER__MICRO_BATCH=4
FCCL_MODEL__LORA__TARGETS=["a", "b"]"""


def _active(text: str) -> bytes:
    """Return a commented template with its defaults as settings."""
    lines = [line.removeprefix("# ") if " = " in line else line for line in text.splitlines()]
    return "\n".join(lines).encode()


def _approvals(path: Path) -> None:
    found = Approvals(path.parent)
    found.find("ab" * 32)
    found.find(run_plan().digest)


def _approved() -> bytes:
    plan = run_plan()
    entry = {"shown_at": 1.0, "approved_at": 2.0, "plan": plan.fields()}
    return json.dumps({plan.digest: entry}, indent=1).encode()


SENT = (
    b'{"at": 1.0, "run": "r-1", "site": "far", "task": "t000001", "attempt": 1, "client": "far",'
    b' "version": 0, "kind": "update", "bytes": 9, "norm": 1.0, "sha256": "' + b"ab" * 32 + b'"}\n'
    b'{"at": 1.0, "run": "r-1", "task": "t000001", "attempt": 1, "receipt": "accepted",'
    b' "reason": ""}\n'
)
ROWS = (
    {"instruction": "Say it.", "input": "now", "output": "It."},
    {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]},
    {"prompt": "Is it?", "chosen": "Yes.", "rejected": "No."},
    {"prompt": "Is it?", "completion": "Yes.", "label": True},
    {"text": "a dull plot", "label": "bad"},
    {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]},
)
KINDS: tuple[RowKind, ...] = ("sft", "va", "kto", "cls")


def _load(path: Path) -> None:
    usable = 0
    for kind in KINDS:
        try:
            usable += len(rows.load(kind, str(path), on_message=lambda text: None).rows)
        except rows.NoUsableRow:
            if kind == KINDS[-1] and not usable:
                raise


def _delimited(mark: str) -> bytes:
    lines = [
        f"prompt{mark}chosen{mark}rejected",
        f'a{mark}"b, ""c"""{mark}"d\ne"',
        f"f{mark}g{mark}h",
    ]
    return "\n".join([*lines, ""]).encode()


def _parquet() -> bytes:
    table = pa.table({"prompt": ["a", "b"], "chosen": ["c", "d"], "rejected": ["e", None]})
    out = io.BytesIO()
    pq.write_table(table, out)
    return out.getvalue()


def _lines() -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in ROWS)


def _prompts(path: Path) -> None:
    read_prompts(path, 3, ())


TOML = (mutate.mutate_lines, mutate.mutate_lines, mutate.mutate_bytes)
JSON = (mutate.mutate_json, mutate.mutate_json, mutate.mutate_bytes)
JSON_LINES = (mutate.mutate_json_lines, mutate.mutate_lines, mutate.mutate_bytes)
BYTES = (mutate.mutate_bytes,)
FILES = (
    Target("federation.toml", _file("f.toml", lambda path: loader.load(path, {})),
           lambda: [_active(TEMPLATE), b"[run]\nname = 'a'\n[[phase]]\nversions = 3\n"], TOML, 8),
    Target("environment", _environment, lambda: [VARIABLES], TOML, 30),
    Target("worker.toml", _file("worker.toml", lambda path: settings.load(path, {})),
           lambda: [_active(SETTINGS), b'micro_batch = 4\nhours = "22:00-06:00"\n'], TOML, 20),
    Target("approvals.json", _file("approvals.json", _approvals), lambda: [_approved()], JSON, 20),
    Target("sent.jsonl", _file("sent.jsonl", read_log), lambda: [SENT], JSON_LINES, 30),
    Target("rows.jsonl", _file("rows.jsonl", _load), lambda: [_lines()], JSON_LINES, 15),
    Target("rows.json", _file("rows.json", _load), lambda: [json.dumps(ROWS).encode()], JSON, 15),
    Target("rows.csv", _file("rows.csv", _load), lambda: [_delimited(","), _delimited(";")],
           TOML, 15),
    Target("rows.tsv", _file("rows.tsv", _load), lambda: [_delimited("\t")], TOML, 10),
    Target("rows.parquet", _file("rows.parquet", _load), lambda: [_parquet()], BYTES, 10),
    Target("rows.jsonl.gz", _file("rows.jsonl.gz", _load), lambda: [gzip.compress(_lines())],
           BYTES, 5),
    Target("prompts", _file("prompts.jsonl", _prompts), lambda: [_lines()], JSON_LINES, 10),
)  # fmt: skip
