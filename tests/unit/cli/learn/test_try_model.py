"""`fccl try` with what a worker leaves on the disk: answers, corrections and their outcome."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from cli.learn import conversation, try_model
from cli.learn.answers import Answers, blocks, choose_label, line
from cli.learn.location import locate_inbox
from cli.main import fccl
from common.config.config import IncrementalConfig
from common.errors import DataError, FcclError, JoinError, ModelError
from common.protocol import codec
from common.protocol.fields import ObjectiveName
from common.protocol.manifest import make_manifest
from common.protocol.tasks import BaseRef, BlobRef, LoraSpec
from common.protocol.tensors import Tensors
from common.protocol.versions import CurrentModel
from learning.models import lora, objective_model
from tests.support import schema1
from tests.support.tiny_encoder import encoder, saved
from tests.support.tiny_model import tiny_model, tiny_tokenizer
from worker.incremental.inbox import schema
from worker.incremental.inbox.inbox import Inbox
from worker.incremental.inbox.learning_store import LearningStore
from worker.incremental.report.history import BatchRecord
from worker.incremental.serving import served_run
from worker.incremental.serving.predictor import Prediction
from worker.incremental.serving.served_run import ServedRun

LABELS = ("negative", "positive")
LORA = LoraSpec(r=2, alpha=4)
CLIENT = "client_0"


@dataclass
class Site:
    """State directory of a worker, and the base model in the cache."""

    state: Path
    model: CurrentModel
    adapter: Tensors

    @property
    def inbox(self) -> Path:
        return schema.inbox_path(self.state, CLIENT)

    def serve(self, *clients: str) -> None:
        served = ServedRun(
            run=self.model.run, name="run", clients=clients, labels=self.model.labels
        )
        served_run.write(self.state, served)

    def alive(self) -> None:
        """Pretend that a worker is running, by the id of this process."""
        slot = self.state / self.model.run / "slots" / "0"
        slot.mkdir(parents=True)
        (slot / "pid").write_text(str(os.getpid()))

    def learned(self, current: Tensors) -> Callable[[float], None]:
        """Return what a worker would do: learn all waiting items and have this model afterwards."""

        def work(_: float) -> None:
            with LearningStore(self.inbox) as store:
                ids = [stored.id for stored in store.items("waiting")]
                store.accept(self._batch("accepted"), ids, [], current, current, {})

        return work

    def rejected(self, reason: str) -> Callable[[float], None]:
        def work(_: float) -> None:
            with LearningStore(self.inbox) as store:
                ids = [stored.id for stored in store.items("waiting")]
                store.reject(self._batch("rejected", reason), ids, reason)

        return work

    def _batch(self, verdict: str, reason: str = "") -> BatchRecord:
        return BatchRecord(
            0, self.model.run, 3, "cls", "feedback", 1.0, 1, 0, 5, 0.1, verdict, reason, {}
        )  # fmt: skip

    def invoke(self, *words: str, typed: str = "") -> Result:
        arguments = ["try", *words, "--state", str(self.state)]
        return CliRunner().invoke(fccl, arguments, input=typed, catch_exceptions=False)

    def items(self) -> list[tuple[str, Mapping[str, str], str, str]]:
        with closing(Inbox(self.inbox, IncrementalConfig())) as inbox:
            return [(s.item.kind, s.item.fields, s.source, s.state) for s in inbox.items()]


def site(
    folder: Path, monkeypatch: pytest.MonkeyPatch, objective: ObjectiveName, files: Path
) -> Site:
    monkeypatch.setenv("FCCL_CACHE", str(folder / "cache"))
    monkeypatch.chdir(folder)
    digest = codec.digest(make_manifest(files))
    (folder / "cache" / "models").mkdir(parents=True)
    files.rename(folder / "cache" / "models" / digest)
    labels = LABELS if objective == "classification" else ()
    model = CurrentModel(
        run="run-1",
        version=3,
        phase=0,
        objective=objective,
        base=BaseRef(name="tiny", kind="local", digest=digest),
        adapter=BlobRef(sha256="0" * 64, nbytes=1),
        lora=LORA,
        max_length=32,
        labels=labels,
    )
    path = folder / "cache" / "models" / digest
    loaded = objective_model.load_for_objective(objective, path, labels, torch.device("cpu"))
    found = Site(folder / "state", model, lora.read_adapter(lora.attach(loaded.model, LORA, 0)))
    (found.state / "run-1").mkdir(parents=True)
    found.serve(CLIENT)
    return found


@pytest.fixture
def classifier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """A classifier that calls any text positive, with probability 1 / (1 + e⁻²)."""
    found = site(tmp_path, monkeypatch, "classification", saved(encoder(layers=1), tmp_path / "b"))
    found.adapter = always(found.adapter, 0.0, 2.0)
    served_run.save_model(found.state, found.model, found.adapter)
    return found


@pytest.fixture
def causal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    tiny_model().save_pretrained(tmp_path / "b")
    tiny_tokenizer().save_pretrained(tmp_path / "b")
    found = site(tmp_path, monkeypatch, "sft", tmp_path / "b")
    served_run.save_model(found.state, found.model, found.adapter)
    return found


def test_a_model_that_a_worker_of_the_older_release_saved_is_read(causal: Site) -> None:
    frame = schema1.frame("CurrentModel", causal.model.fields())
    adapter = schema1.adapter(3, causal.adapter)
    (causal.state / causal.model.run / "model").write_bytes(frame + adapter)
    found = served_run.load_model(causal.state, causal.model.run)
    assert found is not None and found[0] == causal.model
    assert all(np.array_equal(found[1][name], causal.adapter[name]) for name in causal.adapter)


def always(adapter: Tensors, *logits: float) -> Tensors:
    """Weights of a classifier whose head ignores its input."""
    return {
        name: np.array(logits, np.float32)
        if name.endswith("classifier.bias")
        else np.zeros_like(tensor)
        for name, tensor in adapter.items()
    }


def test_a_text_is_answered_with_what_the_client_has_learned(classifier: Site) -> None:
    assert classifier.invoke("a good film").output == "positive 88% (negative 12%)\n"
    with closing(Inbox(classifier.inbox, IncrementalConfig())):
        pass
    classifier.learned(always(classifier.adapter, 3.0, 0.0))(0.0)
    assert classifier.invoke("a good film", "--base").output == (
        "mine (version 3 and what was learned here): negative 95% (positive 5%)\n"
        "global (version 3): positive 88% (negative 12%)\n"
    )


def test_lines_from_a_pipe_are_answered_line_by_line_without_a_prompt(classifier: Site) -> None:
    found = classifier.invoke(typed="good\n\nbad \x1b[2J\n")
    assert found.output == 2 * "positive 88% (negative 12%)\n"
    printed = [
        json.loads(line)
        for line in classifier.invoke("--json", typed="a\nb\n").output.split("\n")[:-1]
    ]
    assert [each["input"] for each in printed] == ["a", "b"]
    assert printed[0]["label"] == "positive"
    assert printed[0]["probabilities"] == pytest.approx(
        {"positive": 0.880797, "negative": 0.119203}
    )
    assert (printed[0]["client"], printed[0]["version"], printed[0]["local"]) == (CLIENT, 3, False)


@pytest.fixture
def interactive(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that standard input and output are a terminal."""
    monkeypatch.setattr(try_model, "is_terminal", lambda: True)


def test_after_a_correction_the_new_model_answers(
    classifier: Site, interactive: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    classifier.alive()
    work = classifier.learned(always(classifier.adapter, 3.0, 0.0))
    monkeypatch.setattr(conversation, "pause", work)
    # A text that is right; one that is not, corrected in the third attempt; and Ctrl-D.
    found = classifier.invoke(typed="good film\n\ndull\nneutral\n3\nNegative\n")
    before, _, after = found.output.partition("learned; now:")
    assert before.count("positive 88% (negative 12%)") == 2
    assert before.count("there is no such class") == 2
    assert after.startswith("\n  negative 95% (positive 5%)\n")
    assert classifier.items() == [("cls", {"text": "dull", "label": "negative"}, "try", "learned")]


def test_a_rejected_correction_is_reported_with_the_reason(
    classifier: Site, interactive: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    classifier.alive()
    monkeypatch.setattr(conversation, "pause", classifier.rejected("forgetting: \x1b[2J"))
    found = classifier.invoke(typed="dull\n1\n")
    assert "not learned: forgetting:  [2J\n" in found.output
    assert "now:" not in found.output


def test_ctrl_c_ends_the_waiting_and_not_the_conversation(
    classifier: Site, interactive: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    classifier.alive()
    monkeypatch.setattr(conversation, "pause", interrupt)
    found = classifier.invoke(typed="dull\n1\ngood\n")
    assert found.exit_code == 0
    assert found.output.partition("no longer waiting")[2].count("positive 88%") == 1
    monkeypatch.setattr(conversation, "pause", classifier.rejected("no"))
    assert "it is in the inbox already" in classifier.invoke(typed="dull\n1\n").output


def test_without_a_worker_a_correction_is_stored_and_not_waited_for(
    classifier: Site, interactive: None
) -> None:
    found = classifier.invoke(typed="dull\n1\n" + "x" * 30_000 + "\n1\n")
    assert "in the inbox: no worker is running here" in found.output
    assert "refused: the item has 30008 characters" in found.output
    assert [state for _, _, _, state in classifier.items()] == ["waiting"]


def test_a_correction_belongs_to_the_stream_that_is_named(
    classifier: Site, interactive: None
) -> None:
    classifier.invoke("--task", "films", typed="dull\n1\n")
    with Inbox(classifier.inbox, IncrementalConfig()) as inbox:
        assert [stored.item.task for stored in inbox.items()] == ["films"]
    with pytest.raises(DataError, match="the task is not a valid name"):
        invoke_raw(classifier, "x", "--task", "two words")


def test_choosing_an_answer_makes_a_preference_pair_and_typing_one_an_instruction(
    causal: Site, interactive: None
) -> None:
    typed = "Add 1 and 2.\n2\nAdd 2.\nIt is 4.\n"
    found = causal.invoke("--compare", "--gen-tokens", "4", typed=typed)
    assert found.output.count("no worker is running here") == 2
    (first, pair, *_), (second, taught, *_) = causal.items()
    assert (first, pair["prompt"]) == ("va", "Add 1 and 2.")
    assert (
        pair["rejected"]
        == json.loads(causal.invoke("Add 1 and 2.", "--gen-tokens", "4", "--json").output)["answer"]
    )
    assert pair["chosen"] != pair["rejected"]
    assert (second, taught) == ("sft", {"instruction": "Add 2.", "input": "", "output": "It is 4."})


def rate(found: Site, *typed: str, answers: tuple[str, ...]) -> None:
    """Hold a conversation in which the model gives these answers."""
    location = locate_inbox(None, None, "local", found.state, CLIENT)
    first, *second = [Prediction(3, local=False, text=text) for text in answers]
    words = iter(typed)

    def read_line(prompt: str) -> str:
        if (word := next(words, None)) is None:
            raise EOFError
        return word

    conversation.Conversation(
        location, lambda text: Answers(text, found.model, first, *second), read_line, "feedback"
    ).run()


def test_a_thumb_rates_the_answer_or_both_of_two(
    causal: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    rate(causal, "Add 1.", "-", answers=("Two.",))
    assert "[Enter] if it is right; + or - to rate it; or type a" in capsys.readouterr().out
    rate(causal, "Add 1.", "+", answers=("Two.", "Three."))
    assert "1 or 2 if that one is better; + or - to rate both; or" in capsys.readouterr().out
    rate(causal, "Add 1.", "-", answers=("",))
    assert "refused: an empty answer cannot be rated" in capsys.readouterr().out
    ratings = [
        (kind, fields["completion"], fields["label"], state)
        for kind, fields, _, state in causal.items()
    ]
    assert ratings == [
        ("kto", "Two.", "bad", "superseded"),
        ("kto", "Two.", "good", "waiting"),
        ("kto", "Three.", "good", "waiting"),
    ]


def test_a_thumb_is_refused_where_ratings_are_not_learned(
    classifier: Site, interactive: None
) -> None:
    found = classifier.invoke(typed="dull\n-\n")
    assert "this model classifies and takes no ratings; give the right class" in found.output
    assert not classifier.inbox.exists()


def test_the_global_answer_leaves_the_clients_model_as_it_was(causal: Site) -> None:
    with closing(Inbox(causal.inbox, IncrementalConfig())):
        pass
    rng = np.random.default_rng(0)
    mine = {name: t + rng.normal(size=t.shape).astype("f4") for name, t in causal.adapter.items()}
    alone = causal.invoke("Add 1.", "--gen-tokens", "8").output
    causal.learned(mine)(0.0)
    own = causal.invoke("Add 1.", "--gen-tokens", "8").output
    assert own != alone
    both = causal.invoke("--base", "--gen-tokens", "8", "--json", typed="Add 1.\nAdd 1.\n").output
    for printed in map(json.loads, both.splitlines()):
        assert " ".join(printed["answer"].split()) == " ".join(own.split())
        assert " ".join(printed["global"]["answer"].split()) == " ".join(alone.split())


@pytest.mark.parametrize(
    ("words", "typed", "message"),
    [
        (("--client", "nobody", "x"), "", "it serves client_0"),
        (("--client", "../x", "x"), "", "it serves client_0"),
        (("",), "", "TEXT is empty"),
        (("--compare", "x"), "", "this one classifies"),
    ],
)
def test_invalid_options_are_refused(
    classifier: Site, words: tuple[str, ...], typed: str, message: str
) -> None:
    with pytest.raises((FcclError, click.UsageError)) as raised:
        invoke_raw(classifier, *words)
    assert message in str(raised.value)


def invoke_raw(found: Site, *words: str) -> None:
    fccl.main(["try", *words, "--state", str(found.state)], standalone_mode=False)


def test_what_is_missing_is_named_with_a_remedy(
    classifier: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    classifier.serve("a", "b")
    with pytest.raises(DataError, match=r"serves a, b; choose one with --client"):
        invoke_raw(classifier, "x")
    monkeypatch.setenv("FCCL_CACHE", str(tmp_path / "elsewhere"))
    with pytest.raises(ModelError, match=r"is not in .*elsewhere.*FCCL_CACHE"):
        invoke_raw(classifier, "x", "--client", "a")
    empty = Site(tmp_path / "nothing", classifier.model, {})
    with pytest.raises(DataError, match=r"fccl worker"):
        invoke_raw(empty, "x")


def test_the_state_directory_is_found_as_the_worker_chooses_it(
    classifier: Site, tmp_path: Path
) -> None:
    run = tmp_path / "runs" / "demo"
    run.mkdir(parents=True)
    (run / "federation.toml").write_text("[incremental]\nmax_chars = 7\n")
    classifier.state.rename(tmp_path / "runs" / ".workers")
    opened = locate_inbox(None, Path("runs/demo"), "local", None, None)
    assert (opened.client, opened.limits.max_chars) == (CLIENT, 7)
    assert opened.path == tmp_path / "runs" / ".workers" / "inbox" / CLIENT / "inbox.db"
    assert locate_inbox(None, None, "local", None, None).state == Path("runs/.workers")
    with pytest.raises(click.UsageError, match="exclude each other"):
        locate_inbox(None, run, "hospital-a", None, None)
    with pytest.raises(DataError, match="not a valid client name"):
        locate_inbox(None, None, "local", tmp_path / "nothing", "../x")


def test_an_invited_sites_state_is_beside_its_identity(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FCCL_STATE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(JoinError, match="has not joined as site hospital-a"):
        locate_inbox(None, None, "hospital-a", None, None)


def test_answers_contain_no_control_characters() -> None:
    reply = Prediction(1, False, "a\x1b[2J\nb\x9bc")
    answers = Answers("x", None, reply, other=Prediction(1, False, "other"))  # type: ignore[arg-type]
    assert blocks(answers) == ["1: a [2J\nb c", "2: other"]
    assert line(answers) == "1: a [2J b c\t2: other"


def test_a_class_is_named_by_its_name_before_its_number() -> None:
    assert choose_label("2", ("2", "1")) == "2"
    assert choose_label(" POSITIVE ", LABELS) == "positive"
    assert choose_label("1", LABELS) == "negative"
    assert choose_label("a", ("A", "a")) == "a"
    assert [choose_label(word, LABELS) for word in ("0", "3", "²", "neutral", "")] == [None] * 5
    assert choose_label("x", ("X", "x ")) == "X"
