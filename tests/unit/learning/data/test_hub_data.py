"""The hub path with data sets built in memory, in the layouts of three well-known ones.

The layouts are those of the data sets' own cards: columns, their types, names of classes, splits.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import MappingProxyType, SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import huggingface_hub
import pytest
from datasets import ClassLabel, Dataset, Features, Image, IterableDataset, Value
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from common.errors import ConfigError, DataError
from common.protocol.fields import RowKind
from learning.data import hub_data
from learning.data.hub_data import HubSource, parse_source
from learning.data.row_types import Conversation, Instruction, LabelledText, PreferencePair
from learning.data.rows import load
from tests.support.conversations import turns
from tests.support.paths import ROOT

TALK = [{"content": Value("string"), "role": Value("string")}]

ALPACA = Dataset.from_list(
    [
        {"instruction": "Add.", "input": "1, 2", "output": "3", "text": "Below is ... 3"},
        {"instruction": "Sing.", "input": "", "output": "La", "text": "Below is ... La"},
        {"instruction": "Be silent.", "input": "", "output": "", "text": "Below is ..."},
    ]
)
"""tatsu-lab/alpaca: one split, train; some outputs are empty."""


def talk(question: str, answer: str) -> list[dict[str, str]]:
    return [
        {"content": question, "role": "user"},
        {"content": answer, "role": "assistant"},
    ]


def feedback(question: str, better: str, worse: str) -> dict[str, object]:
    return {
        "prompt": question,
        "prompt_id": "0f3a",
        "chosen": talk(question, better),
        "rejected": talk(question, worse),
        "messages": talk(question, better),
        "score_chosen": 8.5,
        "score_rejected": 4.0,
    }


ULTRAFEEDBACK = Dataset.from_list(
    [feedback("Greet me.", "Hello!", "What?"), feedback("Wave.", "*waves*", "*waves*")],
    features=Features(
        {
            "prompt": Value("string"), "prompt_id": Value("string"),
            "chosen": TALK, "rejected": TALK, "messages": TALK,
            "score_chosen": Value("float64"), "score_rejected": Value("float64"),
        }
    ),
)  # fmt: skip
"""HuggingFaceH4/ultrafeedback_binarized: splits train_prefs, train_sft, test_prefs and others."""

IMDB = Dataset.from_list(
    [{"text": "dull", "label": 0}, {"text": "fine", "label": 1}, {"text": "unseen", "label": -1}],
    features=Features({"text": Value("string"), "label": ClassLabel(names=["neg", "pos"])}),
)
"""stanfordnlp/imdb: splits train, test, and unsupervised, whose labels are all -1."""


def quiet(_: str) -> None: ...


def make_fetch(data: Any) -> hub_data.FetchDataset:
    def fetch(_: HubSource, splits: Sequence[str], on_message: Callable[[str], None]) -> Any:
        return data

    return fetch


def test_alpaca_gives_instructions() -> None:
    got = load("sft", "tatsu-lab/alpaca", on_message=quiet, fetch=make_fetch(ALPACA))
    assert got.rows == (Instruction("Add.", "1, 2", "3"), Instruction("Sing.", "", "La"))
    assert [(skip.line, skip.reason) for skip in got.skipped] == [(3, "output is empty")]


def test_ultrafeedback_gives_preferences_and_instructions() -> None:
    name, fetch = "HuggingFaceH4/ultrafeedback_binarized", make_fetch(ULTRAFEEDBACK)
    pairs = load("va", name, on_message=quiet, fetch=fetch)
    assert pairs.rows == (PreferencePair(turns("Greet me."), "Hello!", "What?"),)
    assert [skip.reason for skip in pairs.skipped] == ["chosen and rejected are equal"]
    assert load("sft", name, on_message=quiet, fetch=fetch).rows == (
        Conversation(turns("Greet me.", "Hello!")),
        Conversation(turns("Wave.", "*waves*")),
    )


def test_rows_with_pictures_are_refused_without_reading_the_pictures() -> None:
    features = Features(
        {"question": Value("string"), "answer": Value("string"), "image": Image(), "id": Image()}
    )
    seen = Dataset.from_dict(
        {"question": ["What?"], "answer": ["A cat."], "image": [None], "id": [None]}, features
    )
    with pytest.raises(DataError, match="image cannot be used"):
        load("sft", "a/b", on_message=quiet, fetch=make_fetch(seen))


@pytest.mark.parametrize("data", [IMDB, IMDB.to_iterable_dataset()])
def test_imdb_gives_texts_with_the_names_of_their_classes(data: Dataset | IterableDataset) -> None:
    got = load("cls", "stanfordnlp/imdb", on_message=quiet, fetch=make_fetch(data))
    assert got.rows == (LabelledText("dull", "neg"), LabelledText("fine", "pos"))
    assert [(skip.line, skip.reason) for skip in got.skipped] == [(3, "label is missing")]


def test_a_mapping_to_a_missing_column_lists_the_columns() -> None:
    with pytest.raises(ConfigError, match="its columns are text, label"):
        load("cls", "a/b", {"text": "review"}, on_message=quiet, fetch=make_fetch(IMDB))


def test_a_file_takes_precedence_over_a_data_set_and_a_data_suffix_always_means_a_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("acme").mkdir()
    Path("acme/reviews").write_text('{"text": "here", "label": "pos"}', encoding="utf-8")
    fetch = make_fetch(IMDB)
    assert load("cls", "acme/reviews", on_message=quiet, fetch=fetch).rows == (
        LabelledText("here", "pos"),
    )
    assert len(load("cls", "acme/others", on_message=quiet, fetch=fetch).rows) == 2
    with pytest.raises(DataError, match=r"acme/others\.csv does not exist"):
        load("cls", "acme/others.csv", on_message=quiet, fetch=fetch)


@pytest.mark.parametrize(
    ("kind", "data", "splits"),
    [
        ("sft", ALPACA, ("train", "train_sft")),
        ("va", ULTRAFEEDBACK, ("train", "train_prefs")),
        ("cls", IMDB, ("train",)),
    ],
)
def test_each_kind_prefers_the_split_that_its_data_sets_train_on(
    kind: RowKind, data: Dataset, splits: Sequence[str]
) -> None:
    asked: list[Sequence[str]] = []

    def fetch(_: HubSource, preferred: Sequence[str], on_message: Callable[[str], None]) -> Dataset:
        asked.append(preferred)
        return data

    load(kind, "a/b", on_message=quiet, fetch=fetch)
    assert asked == [splits]


def test_unused_columns_are_not_read() -> None:
    def pictures() -> Any:
        yield {"text": "fine", "label": "1", "picture": b"not decoded"}

    data = IterableDataset.from_generator(
        pictures,
        features=Features(
            {"text": Value("string"), "label": Value("string"), "picture": Value("binary")}
        ),
    )
    ((number, record),) = hub_data.as_table(data, "a/b", {"text", "label"}).records
    assert (number, dict(record)) == (1, {"text": "fine", "label": "1"})


def test_a_data_set_that_breaks_off_while_reading_is_a_data_error() -> None:
    def break_off() -> Any:
        yield {"text": "fine", "label": "1"}
        raise OSError("connection\nlost")

    with pytest.raises(DataError, match="the rows after 1 cannot be read") as error:
        load(
            "cls",
            "a/b",
            on_message=quiet,
            fetch=make_fetch(IterableDataset.from_generator(break_off)),
        )
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("a/b", HubSource("a/b")),
        ("a/b:test", HubSource("a/b", split="test")),
        ("a/b:sub.set/test", HubSource("a/b", config="sub.set", split="test")),
        ("a/b@v1.0:c/d", HubSource("a/b", "v1.0", "c", "d")),
        ("ab", None),
        ("a/b/c", None),
        ("../b", None),
        ("a/b..c", None),
        ("https://a/b", None),
        ("a/b:", None),
    ],
)
def test_a_source_is_a_name_with_revision_config_and_split(
    text: str, source: HubSource | None
) -> None:
    assert parse_source(text) == source


class Builder:
    """Stand-in for a builder of `datasets`: a data set with splits, not yet downloaded."""

    def __init__(self, splits: Sequence[str], known: bool = True) -> None:
        self.downloads = 0
        self._splits = dict.fromkeys(splits)
        self.info = SimpleNamespace(splits=self._splits if known else None)
        self.config = SimpleNamespace(data_files=None)

    def download_and_prepare(self) -> None:
        self.downloads += 1
        self.info.splits = self._splits

    def as_dataset(self, split: str) -> str:
        return f"the rows of {split}"


def hub(monkeypatch: pytest.MonkeyPatch, info: object, builder: object = None) -> None:
    """Make the hub answer like this; an exception is raised."""

    def answering(answer: object) -> Callable[..., object]:
        def answered(*_: object, **__: object) -> object:
            if isinstance(answer, Exception):
                raise answer
            return answer

        return answered

    monkeypatch.setattr(huggingface_hub, "dataset_info", answering(info))
    monkeypatch.setattr("datasets.load_dataset_builder", answering(builder))


def info(*files: str, gated: object = False) -> SimpleNamespace:
    siblings = [SimpleNamespace(rfilename=name) for name in files]
    return SimpleNamespace(sha="c0ffee", siblings=siblings, gated=gated)


@pytest.mark.parametrize(
    ("splits", "wanted", "got"),
    [
        (["train", "test"], None, "train"),
        (["test_prefs", "train_prefs", "train_sft"], None, "train_prefs"),
        (["test"], None, "test"),
        (["train", "test"], "test", "test"),
    ],
)
@pytest.mark.parametrize("told", [True, False])
def test_the_named_split_is_read_and_otherwise_the_training_split(
    monkeypatch: pytest.MonkeyPatch, splits: list[str], wanted: str | None, got: str, told: bool
) -> None:
    hub(monkeypatch, info("train.parquet"), Builder(splits, told))
    source = HubSource("a/b", split=wanted)
    assert hub_data.fetch(source, ("train", "train_prefs"), quiet) == f"the rows of {got}"


def test_a_missing_split_is_reported_before_the_download(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    builder = Builder(["dev", "test"])
    hub(monkeypatch, info(), builder)
    with pytest.raises(DataError, match="no split train; write a/b:split with one of dev, test"):
        hub_data.fetch(HubSource("a/b"), ("train",), quiet)
    assert builder.downloads == 0


def refused(kind: type[HfHubHTTPError]) -> Exception:
    answer: Any = SimpleNamespace(headers={}, request=None, status_code=404)
    return kind("told at length\n\nby the hub", response=answer)


@pytest.mark.parametrize(
    ("asked", "loaded", "says"),
    [
        (OSError("no route\nto host"), None, "cannot be reached (OSError); give the path of a"),
        (refused(RepositoryNotFoundError), None, "the hub has no data set of that name"),
        (refused(RevisionNotFoundError), None, "has no revision v9; check the part after @"),
        (refused(GatedRepoError), None, "is gated; accept its terms"),
        (info(gated="auto"), FileNotFoundError("gated\n"), "is gated; accept its terms"),
        (info("b.py"), None, "is defined by a loading script, which is never run; give"),
        (info(), TimeoutError("\n"), "cannot be reached (TimeoutError); give the path"),
        (
            info(),
            ValueError("Config name is missing.\nPick one of: ['x', 'y']\nExample of usage:\n ..."),
            "Config name is missing. Pick one of: ['x', 'y']; write owner/name:config/split",
        ),
    ],
)
def test_a_refusal_of_the_hub_is_reported_in_one_line_with_a_remedy(
    monkeypatch: pytest.MonkeyPatch, asked: object, loaded: object, says: str
) -> None:
    hub(monkeypatch, asked, loaded)
    with pytest.raises(DataError) as error:
        hub_data.fetch(HubSource("a/b", "v9"), ("train",), quiet)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


COMMIT = "c0ffee" + "0" * 34
CARD = b"""---
configs:
- config_name: plain
  data_files:
  - {split: train, path: train.jsonl}
  - {split: test, path: test.jsonl}
---
"""
FILES = {
    "README.md": CARD,
    "train.jsonl": b'{"text": "dull", "label": "neg"}\n{"text": "fine", "label": "pos"}\n',
    "test.jsonl": b'{"text": "so so", "label": "neg"}\n',
}
"""Files of the data set acme/reviews of the hub below."""


class Hub(BaseHTTPRequestHandler):
    """The part of the hub's protocol that `datasets` needs to download a data set."""

    def do_GET(self) -> None:
        place = urlsplit(self.path).path.removeprefix("/api").removeprefix("/datasets/acme/reviews")
        name = place.removeprefix(f"/resolve/{COMMIT}/")
        if place in ("", f"/revision/{COMMIT}"):
            files = [{"rfilename": name} for name in FILES]
            self.answer(200, {"id": "acme/reviews", "sha": COMMIT, "siblings": files})
        elif place == f"/tree/{COMMIT}":
            sizes = {name: len(content) for name, content in FILES.items()}
            entries = [{"type": "file", "path": n, "size": s, "oid": n} for n, s in sizes.items()]
            self.answer(200, entries)
        elif name in FILES:
            self.answer(200, FILES[name], {"ETag": f'"{name}"'})
        else:
            self.answer(404, {}, {"X-Error-Code": "EntryNotFound"})

    do_HEAD = do_GET

    def answer(
        self, status: int, content: object, headers: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        sizes = {"X-Repo-Commit": COMMIT, "Content-Length": str(len(body))}
        for name, value in {**headers, **sizes}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def address() -> Iterator[str]:
    """Yield the address of a hub that has one data set."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


PROGRAM = """
import sys
from learning.data.rows import load
from common.errors import DataError
for source in sys.argv[1:]:
    try:
        rows = load("cls", source, on_message=lambda line: None).rows
        print([(row.text, row.label) for row in rows])
    except DataError as error:
        print(error)
"""


def loaded(address: str, home: Path, *sources: str) -> list[str]:
    """Run a script in a new process, since the hub's address is read on import."""
    environment = {**os.environ, "HF_ENDPOINT": address, "HF_HOME": str(home), "NO_PROXY": "*"}
    command = [sys.executable, "-c", PROGRAM, *sources]
    ran = subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, text=True, check=True, timeout=120
    )
    return ran.stdout.splitlines()


def test_a_downloaded_data_set_is_read_again_when_the_hub_is_gone(
    address: str, tmp_path: Path
) -> None:
    rows = "[('dull', 'neg'), ('fine', 'pos')]"
    sources = ["acme/reviews", "acme/reviews:plain/test", f"acme/reviews@{COMMIT}"]
    answers = [rows, "[('so so', 'neg')]", rows]
    assert loaded(address, tmp_path, *sources) == answers
    gone = loaded("http://127.0.0.1:9", tmp_path, *sources, "acme/reviews@v2", "acme/other")
    assert gone[:3] == answers
    assert "hub cannot be reached" in gone[3]  # another revision does not take its place
    assert "hub cannot be reached" in gone[4]
