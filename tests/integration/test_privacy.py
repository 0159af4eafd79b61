"""The content of a client's rows stays with its worker: not on the wire, a disk or a screen.

A sentence is planted in the private files of workers. Recording proxies stand between every process
and RabbitMQ, and between every process and Redis. Then the sentence is searched for wherever bytes
went: as text in several encodings, word by word, and as the token ids that were trained on.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pika
import pytest
import redis
from transformers import PreTrainedTokenizerBase

from common.errors import DataError
from common.protocol.fields import RowKind
from common.protocol.tasks import TaskRefusal
from learning.data import rows
from learning.data.row_types import Instruction, LabelledText, PreferencePair, Row
from learning.models.base import resolve
from learning.models.loader import load_tokenizer
from learning.objectives import registry
from tests.support.federations import Federation, check_applied_once, phase, plan, planned
from tests.support.processes import Command, eventually
from tests.support.servers import Server
from tests.support.tcp_proxy import Recorder, records
from tests.support.tiny_model import tiny_tokenizer
from tests.support.worker_records import task
from worker.data.shards import ClientData

pytestmark = pytest.mark.slow

SENTENCE = "Die Quittenbäume hinter dem Kesselhaus gehören Frau Xyloprax."
WORDS = ("Quittenbäume", "Kesselhaus", "Xyloprax")
LONG = 2000  # repetitions: longer than any model here takes, below the limit of characters
LENGTH = 256
LABELS = ("negative", "positive")


def good(kind: RowKind) -> list[Row]:
    """Return rows that are learned: enough to fill both training and holdout rows."""
    made: dict[RowKind, Callable[[int], Row]] = {
        "sft": lambda i: Instruction(f"Frage {i}. {SENTENCE}", "", f"{SENTENCE} Antwort {i}."),
        "va": lambda i: PreferencePair(f"{i}? {SENTENCE}", f"Ja. {SENTENCE}", f"{SENTENCE} Nein!"),
        "cls": lambda i: LabelledText(f"{i}: {SENTENCE}", LABELS[i % 2]),
    }
    return [made[kind](i) for i in range(20)]


def unusable(kind: RowKind) -> list[dict[str, str]]:
    """Return records that give no row."""
    return {
        "sft": [{"instruction": SENTENCE, "output": ""}, {"output": SENTENCE}],
        "va": [
            {"prompt": "?", "chosen": SENTENCE, "rejected": SENTENCE},
            {"prompt": SENTENCE, "chosen": "", "rejected": SENTENCE},
        ],
        "cls": [{"text": "", "label": SENTENCE}, {"text": SENTENCE}],
    }[kind]


def too_long(kind: RowKind) -> list[Row]:
    """Return a row that no model here has room for; a text to classify would only be cut."""
    long = " ".join([SENTENCE] * 400)
    made: dict[RowKind, Row] = {
        "sft": Instruction(long, "", SENTENCE),
        "va": PreferencePair(SENTENCE, long, SENTENCE),
        "cls": LabelledText(long, SENTENCE),  # an unknown class
    }
    return [made[kind]]


def plant(kind: RowKind, path: Path) -> None:
    """Add usable and unusable rows with the sentence to a client's file."""
    whole = path.with_name("planted")
    rows.write(whole, [*good(kind), *too_long(kind)])
    odd = [json.dumps(each) for each in unusable(kind)]
    text = "\n".join([*odd, f'{{"text": "{SENTENCE}', ""])  # the last is torn
    path.write_text(path.read_text() + whole.read_text() + text)
    whole.unlink()


# Searching


def encodings(ids: Sequence[Sequence[int]] = ()) -> dict[str, bytes]:
    """Return all encodings of the sentence to search for; `ids` are the token ids of its words."""
    found: dict[str, bytes] = {}
    for text in (SENTENCE, *WORDS):
        found[f"{text} as UTF-8"] = text.encode()
        found[f"{text} as JSON"] = json.dumps(text)[1:-1].encode()
        found[f"{text} as a literal"] = ascii(text)[1:-1].encode()
        found[f"{text} as UTF-16"] = text.encode("utf-16-le")
    for word, own in zip(WORDS, ids, strict=False):
        for kind in ("<i8", "<i4", "<u2", ">i8", ">i4", ">u2"):
            found[f"{word} as {kind}"] = np.array(own, kind).tobytes()
        found[f"{word} as msgpack"] = b"".join(msgpack.packb(each) for each in own)
        found[f"{word} as a list"] = ", ".join(map(str, own)).encode()
        found[f"{word} as JSON ids"] = ",".join(map(str, own)).encode()
    return found


def search(data: bytes, patterns: Mapping[str, bytes]) -> list[str]:
    """Return the names of the patterns that occur in the data."""
    return [name for name, pattern in patterns.items() if pattern in data]


def word_ids(tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """Return the ids of each word as they occur in the sentence."""
    found = []
    for word in WORDS:
        ids = tokenizer(f" {word}", add_special_tokens=False).input_ids
        assert len(ids) > 3, "too few ids: a match could be chance"
        found.append(ids)
    return found


def contains(ids: Sequence[int], part: Sequence[int]) -> bool:
    return any(tuple(ids[i : i + len(part)]) == tuple(part) for i in range(len(ids)))


# The runs

PLANS = {
    "sft then dpo": plan(
        phase("sft", 1, "local_steps = 0", "local_epochs = 1"),
        phase("dpo", 1, "local_steps = 0", "local_epochs = 1"),
        clients=3,
        schedule='reissue = "commit"',
    ),
    "classification": plan(
        phase("classification", 1, "local_steps = 0", "local_epochs = 1"),
        model="offline:bert-micro",
        clients=3,
        schedule='reissue = "commit"',
    ),
}
PLACES = (
    "the broker", "the store", "what the store keeps", "the run directory", "the workers' state",
    "what processes print", "the status",
)  # fmt: skip


@dataclass
class RecordedBytes:
    """Finished run, every byte that it left somewhere, and the patterns that must not occur."""

    run: Federation
    good: Path
    refusing: Command
    serving: Command
    places: dict[str, bytes]
    tokenizer: PreTrainedTokenizerBase
    patterns: dict[str, bytes]
    recorders: tuple[Recorder, Recorder]

    @property
    def kinds(self) -> tuple[RowKind, ...]:
        names = {path.stem.rpartition("_")[2] for path in self.good.glob("client_0_*.jsonl")}
        return tuple(kind for kind in ("sft", "va", "cls") if kind in names)


@pytest.fixture(scope="module", params=list(PLANS))
def spied(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    model_cache: Path,
    rabbitmq: Server,
    redis_server: Server,
) -> Iterator[RecordedBytes]:
    place = tmp_path_factory.mktemp("spied")
    text = PLANS[request.param]
    with ExitStack() as stack:
        broker = stack.enter_context(Recorder(rabbitmq.url))
        store = stack.enter_context(Recorder(redis_server.url))
        run = stack.enter_context(planned(place, model_cache, broker.url, store.url, text))
        coordinator = run.coordinator()
        eventually("the coordinator serves", lambda: run.epoch() == 1 or coordinator.code)
        own, broken = private(run, place)
        # Each task is refused once and issued again; then the worker gives up.
        refusing = run.worker("--data", str(broken))
        assert refusing.end() == 3, refusing.err
        serving = run.worker("--data", str(own))
        assert [coordinator.end(), serving.end()] == [0, 0], coordinator.err + serving.err
        status = run.status()
        model = "offline:bert-micro" if "bert" in text else "offline:gpt2-micro"
        tokenizer, _ = load_tokenizer(resolve(model, None, model_cache, lambda *_: None).path)
        places = {
            "the broker": broker.all(),
            "the store": store.all(),
            "what the store keeps": redis_content(redis_server.url, run.run_id),
            "the run directory": files(run.run),
            "the workers' state": files(run.run.parent / ".workers"),
            "what processes print": b"\n".join(
                path.read_bytes() for end in ("*.out", "*.err") for path in place.glob(end)
            ),
            "the status": json.dumps(status, ensure_ascii=False).encode(),
        }
        patterns = encodings(word_ids(tokenizer))
        yield RecordedBytes(
            run, own, refusing, serving, places, tokenizer, patterns, (broker, store)
        )


def private(run: Federation, place: Path) -> tuple[Path, Path]:
    """Copy the clients' files twice: one copy has planted rows, the other no usable rows."""
    own, broken = place / "own", place / "broken"
    for folder in (own, broken):
        shutil.copytree(run.run / "clients", folder)
    for path in own.glob("client_0_*.jsonl"):
        plant(kind_of(path), path)
    for path in broken.glob("client_*.jsonl"):
        kind = kind_of(path)
        if path.name.startswith("client_0"):
            path.write_text("".join(json.dumps(each) + "\n" for each in unusable(kind)))
        elif path.name.startswith("client_1"):
            rows.write(path, too_long(kind) * 3)
        else:
            path.write_text(f"{SENTENCE}\n" * 3)
    return own, broken


def kind_of(path: Path) -> RowKind:
    kinds: dict[str, RowKind] = {"sft": "sft", "va": "va", "cls": "cls"}
    return kinds[path.stem.rpartition("_")[2]]


def redis_content(url: str, run_id: str) -> bytes:
    """Return all keys of a run in Redis, and their values."""
    with redis.Redis.from_url(url) as client:
        return b"\n".join(
            bytes(key) + b" " + redis_value(client, bytes(key))
            for key in sorted(client.scan_iter(match="fccl:*", count=1000))
            if run_id.encode() in key or b":run:" in key
        )


def redis_value(client: Any, key: bytes) -> bytes:
    match client.type(key):
        case b"string":
            return bytes(client.get(key))
        case b"hash":
            return b"\n".join(part for pair in client.hgetall(key).items() for part in pair)
        case b"stream":
            entries = client.xrange(key)
            return b"\n".join(v for _, fields in entries for pair in fields.items() for v in pair)
        case other:
            raise AssertionError(f"a key of type {other!r}, which this test cannot read")


def files(folder: Path) -> bytes:
    """Return the names and contents of all files under a folder."""
    found = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    assert found
    return b"\n".join(str(path).encode() + b"\n" + path.read_bytes() for path in found)


@pytest.mark.servers
@pytest.mark.parametrize("place", PLACES)
def test_a_clients_rows_occur_nowhere_outside_its_worker(spied: RecordedBytes, place: str) -> None:
    assert spied.places[place]
    assert search(spied.places[place], spied.patterns) == []


@pytest.mark.servers
def test_the_planted_rows_were_used_for_training_and_for_the_holdout(spied: RecordedBytes) -> None:
    data = ClientData(spied.good)
    names = {"sft": "sft", "va": "dpo", "cls": "classification"}
    for kind in spied.kinds:
        objective = registry.make_objective(names[kind], None, LABELS)  # type: ignore[arg-type]
        wanted = task(objective=names[kind], labels=LABELS, max_length=LENGTH)
        shard = data.load_for_task(wanted, objective, spied.tokenizer)
        for side in (shard.train, shard.holdout):
            read = [getattr(each, "chosen", each).input_ids for each in side]
            for part in word_ids(spied.tokenizer):
                assert any(contains(ids, part) for ids in read)
        accepted = spied.run.rows(
            "SELECT stats FROM accepted JOIN task USING (task_id)"
            f" WHERE accepted.client_id = 'client_0' AND phase = {spied.kinds.index(kind)}"
        )
        assert accepted
        # One epoch: every row of the training side.
        assert {json.loads(s)["steps"] for (s,) in accepted} == {-(-len(shard.train) // 8)}
    check_applied_once(spied.run)


@pytest.mark.servers
def test_a_refusal_travels_with_its_reason_and_without_the_rows(spied: RecordedBytes) -> None:
    refusals = list(records(spied.recorders[0].sent(), TaskRefusal))
    assert {refusal.client_id for refusal in refusals} == {"client_0", "client_1", "client_2"}
    for refusal in refusals:
        kind = spied.kinds[0]
        assert f"_{kind}.jsonl" not in refusal.reason and "/" not in refusal.reason
        assert re.search("no usable row|no row of .* can be used at 256 tokens", refusal.reason)
    assert f"client_2_{spied.kinds[0]}.jsonl" in spied.refusing.err
    assert len(spied.refusing.err.splitlines()) == 1


@pytest.mark.servers
def test_the_proxies_have_recorded_what_was_sent(spied: RecordedBytes) -> None:
    for place in PLACES:
        assert b"client_0" in spied.places[place]
    text = b"no usable row"
    assert all(text in spied.places[place] for place in ("the broker", "what processes print"))
    assert text in spied.places["the run directory"]  # the journal's event


@pytest.mark.servers
def test_a_sentence_that_is_sent_on_purpose_is_found_in_every_encoding(
    spied: RecordedBytes,
) -> None:
    broker, store = spied.recorders
    everything = b"\x00".join(spied.patterns.values())
    with pika.BlockingConnection(pika.URLParameters(broker.url)) as connection:
        connection.channel().basic_publish("", "nowhere", everything)
    key = f"fccl:{spied.run.run_id}:blob:planted"
    with redis.Redis.from_url(store.url) as client:
        client.set(key, everything)
        for found in (broker.all(), store.all(), redis_content(store.url, spied.run.run_id)):
            assert search(found, spied.patterns) == list(spied.patterns)
        client.delete(key)


# An error about a private file does not repeat its content

BROKEN = {
    "text": f"{SENTENCE}\n",
    "a torn line": f'{{"instruction": "{SENTENCE}',
    "a list": json.dumps([SENTENCE]) + "\n",
    "a text": json.dumps(SENTENCE) + "\n",
    "a key": json.dumps({SENTENCE: SENTENCE}) + "\n",
    "a number": json.dumps({"instruction": SENTENCE, "output": 3, "chosen": 3, "label": []}),
    "a class": json.dumps({"text": SENTENCE, "label": SENTENCE}) + "\n",
    "conversations": json.dumps(
        {name: [{"role": SENTENCE, "content": SENTENCE}] for name in ("messages", "chosen")}
    ),
    "a lone surrogate": '{"instruction": "\\ud800' + SENTENCE + '", "output": "\\ud800"}\n',
    "twice the answer": json.dumps({"prompt": "?", "chosen": SENTENCE, "rejected": SENTENCE}),
    "too much": json.dumps({"text": SENTENCE * LONG, "label": "positive"}),
    "another encoding": None,
}


@pytest.mark.parametrize("kind", ["sft", "va", "cls"])
@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN.keys())
def test_an_error_about_a_private_file_repeats_nothing_of_it(
    tmp_path: Path, kind: RowKind, text: str | None
) -> None:
    path = tmp_path / f"client_0_{kind}.jsonl"
    path.write_bytes(SENTENCE.encode("utf-16") if text is None else text.encode("utf-8"))
    name: Any = {"sft": "sft", "va": "dpo", "cls": "classification"}[kind]
    wanted = task(objective=name, labels=LABELS, max_length=64)
    objective = registry.make_objective(name, None, LABELS)
    with pytest.raises(DataError) as caught:
        ClientData(tmp_path).load_for_task(wanted, objective, tiny_tokenizer())
    assert path.name in str(caught.value)
    assert search(str(caught.value).encode(), encodings()) == []
    assert len(str(caught.value).splitlines()) == 1
