"""Unusable rows, models and plans: an error in one line, and no half-made run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from transformers import GPT2LMHeadModel

from common.config import loader
from coordinator.storage.journal import Journal
from learning.models.base import resolve
from learning.models.objective_model import family_for_objective
from tests.support.federations import phase, plan
from tests.support.paths import ROOT
from tests.support.processes import Command, Commands, commands, one_line
from tests.support.tiny_encoder import encoder, saved

CONFIGS = sorted(ROOT.glob("configs/*.toml"))
STEP = "local_steps = 1"
SFT, DPO, CLS = (phase(name, 1, STEP) for name in ("sft", "dpo", "classification"))


@pytest.fixture
def place(tmp_path: Path, model_cache: Path) -> Iterator[Commands]:
    """Return a starter of commands in an empty directory."""
    with commands(tmp_path, {"FCCL_CACHE": str(model_cache), "HF_HUB_OFFLINE": "1"}) as place:
        yield place


def demo(place: Commands, path: Path, text: str, **variables: str) -> Command:
    """Start the demo with this configuration, in runs/x."""
    (path / "f.toml").write_text(text)
    return place.fork("demo", "--plain", "--config", "f.toml", "--out", "runs/x", **variables)


def prepare(place: Commands, path: Path, text: str, *flags: str) -> Command:
    (path / "f.toml").write_text(text)
    return place.fork("prepare", "--plain", "--config", "f.toml", *flags)


def bert(*phases: str) -> str:
    """Return a plan with an encoder."""
    return plan(*phases, model="offline:bert-micro", length=64)


def jsonl(*records: dict[str, Any]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def instructions(count: int, prompt: str = "Say {}.") -> list[dict[str, Any]]:
    return [{"instruction": prompt.format(i), "output": f"It is {i}."} for i in range(count)]


def pairs(count: int) -> list[dict[str, Any]]:
    return [
        {"prompt": f"Say {i}.", "chosen": f"It is {i}.", "rejected": f"No {i}!"}
        for i in range(count)
    ]


def labelled(count: int, *names: str) -> list[dict[str, Any]]:
    return [{"text": f"Film {i}.", "label": names[i % len(names)]} for i in range(count)]


LONG = "again and " * 200
EQUAL = {"prompt": "Why?", "chosen": "So.", "rejected": "So. "}
EMPTY = {"prompt": "Why?", "chosen": "", "rejected": "So."}


def data(text: str, *lines: str) -> str:
    """Return a plan with more keys under [data]."""
    return text.replace("[data]\n", "\n".join(["[data]", *lines, ""]))


# Refused: one line, the exit code, and no run directory


@dataclass(frozen=True)
class Mistake:
    """A configuration, its files, the exit code, and the words of the line."""

    text: str
    code: int
    says: tuple[str, ...]
    files: dict[str, str] = field(default_factory=dict)


MISTAKES = {
    "pairs of equal answers only": Mistake(
        data(plan(DPO), 'va = "p.jsonl"'), 3,
        ("p.jsonl has no usable row", "row 1: chosen and rejected are equal", "prompt, chosen"),
        {"p.jsonl": jsonl(*[EQUAL] * 9)},
    ),
    "pairs with empty answers only": Mistake(
        data(plan(DPO), 'va = "p.jsonl"'), 3,
        ("p.jsonl has no usable row", "row 1: chosen is empty"),
        {"p.jsonl": jsonl(*[EMPTY] * 9)},
    ),
    "pairs that all exceed the model's length": Mistake(
        data(plan(DPO, length=128), 'va = "p.jsonl"'), 3,
        ("no row of p.jsonl can be used at 128 tokens", "does not fit", "raise model.max_length"),
        {"p.jsonl": jsonl(*({**pair, "chosen": LONG} for pair in pairs(9)))},
    ),
    "prompts that leave no room": Mistake(
        data(plan(SFT, length=128), 'sft = "i.jsonl"'), 3,
        ("no row of i.jsonl can be used at 128 tokens", "no room", "raise model.max_length"),
        {"i.jsonl": jsonl(*instructions(9, LONG + "{}"))},
    ),
    "labels that are all outside the declared ones": Mistake(
        data(bert(CLS), 'cls = "c.jsonl"', 'labels = ["good", "bad"]'), 3,
        ("c.jsonl has no usable row", "row 1: label is 'fine', which is none of the declared"),
        {"c.jsonl": jsonl(*labelled(40, "fine", "dull"))},
    ),
    "a class that is alone": Mistake(
        data(bert(CLS), 'cls = "c.jsonl"'), 3,
        ("the rows have 1 class", "needs two or more", "data.columns", "data.labels"),
        {"c.jsonl": jsonl(*labelled(40, "good"))},
    ),
    "a class that is alone though two are declared": Mistake(
        data(bert(CLS), 'cls = "c.jsonl"', 'labels = ["good", "bad"]'), 3,
        ("the rows have 1 class",), {"c.jsonl": jsonl(*labelled(40, "good"))},
    ),
    "a class that is declared twice": Mistake(
        data(bert(CLS), 'labels = ["good", "good"]', 'cls = "c.jsonl"'), 2,
        ("data.labels names 'good' twice",), {"c.jsonl": jsonl(*labelled(40, "good", "bad"))},
    ),
    "numbers where classes should be": Mistake(
        data(bert(CLS), 'cls = "c.jsonl"'), 3,
        ("1200 classes are too many", "check the label column"),
        {"c.jsonl": jsonl(*({"text": f"Film {i}", "label": i} for i in range(1200)))},
    ),
    "an encoder that is to follow instructions": Mistake(
        bert(SFT), 4,
        ("offline:bert-micro is not a causal language model", "BertFor", "such as gpt2"),
    ),
    "a causal model that is to classify": Mistake(
        plan(CLS), 4, ("offline:gpt2-micro is not an encoder", "GPT2LMHeadModel", "such as bert")
    ),
    "preferences that are missing while instructions are there": Mistake(
        data(plan(SFT, DPO), 'va = "nowhere.jsonl"'), 3,
        ("nowhere.jsonl does not exist", "check data.va"),
    ),
    "a column that is missing": Mistake(
        data(plan(SFT), 'sft = "i.jsonl"', 'columns = {output = "reply"}'), 2,
        ("i.jsonl has no column 'reply'", "output", "its columns are instruction, output"),
        {"i.jsonl": jsonl(*instructions(40))},
    ),
    "a column for a field that the plan's rows do not have": Mistake(
        data(plan(SFT), 'columns = {text = "instruction"}'), 2,
        ("data.columns names 'text'", "instruction, input, output"),
    ),
    "phases that need two models": Mistake(
        plan(SFT, CLS), 2, ("f.toml", "different models", "start two runs")
    ),
    "too few rows of one kind": Mistake(
        data(plan(SFT, DPO), 'va = "p.jsonl"'), 3,
        ("3 rows of preferences are too few for 2 clients", "lower data.clients"),
        {"p.jsonl": jsonl(*pairs(3))},
    ),
    "more tokens than positions": Mistake(
        plan(SFT, length=1024), 2, ("model.max_length is 1024", "512 positions", "set it to 512")
    ),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES.keys())
def test_unusable_input_is_an_error_in_one_line_and_leaves_no_run(
    place: Commands, tmp_path: Path, mistake: Mistake
) -> None:
    for name, text in mistake.files.items():
        (tmp_path / name).write_text(text)
    one_line(demo(place, tmp_path, mistake.text), mistake.code, *mistake.says)
    check_no_run(tmp_path)


def check_no_run(path: Path) -> None:
    """Check that there is neither a run nor a half-made one."""
    assert [str(each) for each in (path / "runs").rglob("*")] == []


# Skipped and counted


def test_unusable_rows_are_counted_on_a_line_and_in_the_run(
    place: Commands, tmp_path: Path
) -> None:
    rows = [
        *instructions(40),
        *instructions(3, LONG + "{}"),
        {"instruction": "Why?", "output": " "},
    ]
    (tmp_path / "i.jsonl").write_text(jsonl(*rows) + "{torn\n")
    chosen = [{"q": p["prompt"], **p, "prompt": "unread"} for p in pairs(40)]
    for pair in chosen:
        del pair["prompt"]
    (tmp_path / "p.jsonl").write_text(
        jsonl(*chosen, *({"q": "Why?", **each, "prompt": ""} for each in (EQUAL, EQUAL, EMPTY)))
    )
    # A renamed column of one source is not required in the other.
    names = ('sft = "i.jsonl"', 'va = "p.jsonl"', 'columns = {chosen = "chosen", prompt = "q"}')
    command = demo(place, tmp_path, data(plan(SFT, DPO, length=128), *names))
    assert command.end() == 0, command.err
    assert (
        "i.jsonl: 40 of 45 rows can be used; 3: prompt leaves no room for a response;"
        " 1: output is empty; 1: not valid JSON" in command.out
    )
    assert (
        "p.jsonl: 40 of 43 rows can be used; 2: chosen and rejected are equal; 1: chosen is empty"
    ) in command.out
    assert "skipped p.jsonl:41: chosen and rejected are equal" in command.out
    journal = Journal.open(tmp_path / "runs" / "x" / "run.db")
    kept = json.loads(journal.meta()["sources"])
    journal.close()
    assert (kept["sft"]["read"], kept["sft"]["used"]) == (45, 40)
    assert kept["sft"]["skipped"]["prompt leaves no room for a response"] == 3
    assert kept["va"]["skipped"] == {"chosen and rejected are equal": 2, "chosen is empty": 1}


def test_labels_outside_the_declared_ones_are_counted_without_their_names(
    place: Commands, tmp_path: Path
) -> None:
    rows = [*labelled(40, "good", "bad"), *labelled(3, "so so", "neither"), {"text": "x"}]
    (tmp_path / "c.jsonl").write_text(jsonl(*rows))
    text = data(bert(CLS), 'cls = "c.jsonl"', 'labels = ["bad", "good"]')
    command = prepare(place, tmp_path, text, "--out", "rows")
    assert command.end() == 0, command.err
    assert "skipped c.jsonl:41: label is 'so so'" in command.out  # shown to the owner of the rows
    assert (
        "c.jsonl: 40 of 44 rows can be used; 3: label is …, which is none of the declared labels;"
        " 1: label is missing" in command.out
    )
    found = (tmp_path / "rows" / "data.json").read_text()
    assert json.loads(found)["labels"] == ["bad", "good"]
    assert "so so" not in found and "neither" not in found


# Prepared rows


@pytest.mark.slow
def test_rows_are_prepared_once_and_a_second_time_leaves_them_as_they_are(
    place: Commands, tmp_path: Path
) -> None:
    text = plan(SFT, DPO)
    first = prepare(place, tmp_path, text, "--out", "rows")
    assert first.end() == 0, first.err
    before = contents(tmp_path / "rows")
    assert {"client_0_sft.jsonl", "client_1_va.jsonl", "heldout_va.jsonl"} <= before.keys()
    second = prepare(place, tmp_path, text, "--out", "rows")
    assert second.end() == 0, second.err
    assert contents(tmp_path / "rows") == before
    assert "can be used" in first.out and "can be used" not in second.out
    # A run begins with the same rows.
    run = demo(place, tmp_path, data(plan(SFT, DPO), 'dir = "rows"'))
    assert run.end() == 0, run.err
    assert contents(tmp_path / "runs" / "x" / "clients") == before
    assert contents(tmp_path / "rows") == before


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, model_cache: Path) -> Path:
    """Return rows for sft, partitioned among two clients."""
    path = tmp_path_factory.mktemp("prepared")
    with commands(path, {"FCCL_CACHE": str(model_cache)}) as place:
        assert prepare(place, path, plan(SFT), "--out", "rows").end() == 0
    return path / "rows"


OTHER_SETTINGS = {
    "alpha": ("alpha = 0.1", {}, "with data.alpha = 0.5, not 0.1"),
    "length": ("", {"FCCL_MODEL__MAX_LENGTH": "128"}, "with model.max_length = 256, not 128"),
    "seed": ("", {"FCCL_RUN__SEED": "7"}, "with run.seed = 0, not 7"),
    "source": ('sft = "i.jsonl"', {}, "from {'sft': 'synthetic'}, not from {'sft': 'i.jsonl'}"),
    "model": ("", {"FCCL_MODEL__NAME": "other"}, "for another base model (model.name)"),
}


@pytest.mark.parametrize(
    ("line", "variables", "says"), OTHER_SETTINGS.values(), ids=OTHER_SETTINGS.keys()
)
def test_rows_prepared_with_other_settings_are_refused(
    place: Commands,
    tmp_path: Path,
    model_cache: Path,
    prepared: Path,
    line: str,
    variables: dict[str, str],
    says: str,
) -> None:
    (tmp_path / "i.jsonl").write_text(jsonl(*instructions(60)))
    known = resolve("offline:gpt2-micro", None, model_cache, lambda *_: None).path
    shutil.copytree(known, tmp_path / "other")
    weights = GPT2LMHeadModel.from_pretrained(known, dtype=torch.float16, local_files_only=True)
    weights.save_pretrained(tmp_path / "other")
    before = contents(prepared)
    text = data(plan(SFT), f'dir = "{prepared}"', line)
    command = demo(place, tmp_path, text, **variables)
    one_line(command, 3, str(prepared), f"was prepared {says}", "in another folder")
    check_no_run(tmp_path)
    assert contents(prepared) == before


@pytest.mark.parametrize("text", ["", "{", "[]", '{"made_for": [], "labels": [], "sources": {}}'])
def test_a_damaged_description_of_prepared_rows_is_refused(
    place: Commands, tmp_path: Path, prepared: Path, text: str
) -> None:
    shutil.copytree(prepared, tmp_path / "rows")
    (tmp_path / "rows" / "data.json").write_text(text)
    command = demo(place, tmp_path, data(plan(SFT), 'dir = "rows"'))
    one_line(command, 3, "rows/data.json is damaged", "remove the folder")
    check_no_run(tmp_path)


def test_preparing_rows_needs_a_folder(place: Commands, tmp_path: Path) -> None:
    command = prepare(place, tmp_path, plan(SFT))
    one_line(command, 2, "no folder", "set data.dir, or give --out")


def test_nothing_is_prepared_if_one_of_two_kinds_is_unusable(
    place: Commands, tmp_path: Path
) -> None:
    (tmp_path / "p.jsonl").write_text(jsonl(*[EQUAL] * 9))
    text = data(plan(SFT, DPO), 'va = "p.jsonl"')
    one_line(prepare(place, tmp_path, text, "--out", "rows"), 3, "p.jsonl has no usable row")
    assert not (tmp_path / "rows").exists()


# Tokenizers that cannot pad


@pytest.mark.slow
def test_a_causal_model_whose_tokenizer_cannot_pad_is_trained(
    place: Commands, tmp_path: Path, model_cache: Path
) -> None:
    known = resolve("offline:gpt2-micro", None, model_cache, lambda *_: None).path
    shutil.copytree(known, tmp_path / "model")
    remove_token(tmp_path / "model", "pad_token")
    command = demo(place, tmp_path, plan(SFT, DPO, model="./model"))
    assert command.end() == 0, command.err


@pytest.mark.slow
def test_an_encoder_whose_tokenizer_names_no_padding_token_is_trained(
    place: Commands, tmp_path: Path
) -> None:
    saved(encoder(layers=1), tmp_path / "model", pad=None)
    command = demo(place, tmp_path, plan(CLS, model="./model", length=32))
    assert command.end() == 0, command.err


def test_an_encoder_without_a_padding_token_is_refused(place: Commands, tmp_path: Path) -> None:
    path = saved(encoder(layers=1), tmp_path / "model", pad=None)
    described = json.loads((path / "tokenizer.json").read_text())
    words = described["model"]["vocab"]
    words["film0"] = words.pop("[PAD]")
    Tokenizer.from_str(json.dumps(described)).save(str(path / "tokenizer.json"))
    command = demo(place, tmp_path, plan(CLS, model="./model", length=32))
    one_line(command, 4, "no padding token", "add [PAD] to its vocabulary")
    check_no_run(tmp_path)


def remove_token(path: Path, token: str) -> None:
    """Remove a special token from a saved tokenizer's settings."""
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        file = path / name
        if file.exists():
            fields = json.loads(file.read_text())
            fields.pop(token, None)
            file.write_text(json.dumps(fields))
    assert f'"{token}"' not in (path / "tokenizer_config.json").read_text()


# The configurations in configs/


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_each_configuration_is_valid_and_names_a_model_of_the_right_family(path: Path) -> None:
    config = loader.load(path, {})
    families = {family_for_objective(each.objective) for each in config.phase}
    assert families == {"encoder" if "bert" in config.model.name else "causal"}
    assert config.run.name == path.stem
    assert config.schedule.buffer <= config.data.clients * sum(p.versions for p in config.phase)


def test_there_are_configurations_of_every_objective() -> None:
    plans = [loader.load(path, {}) for path in CONFIGS]
    assert {each.objective for plan in plans for each in plan.phase} == {
        "sft", "dpo", "classification"
    }  # fmt: skip
    assert {plan.model.lora is None for plan in plans} == {True, False}
