"""`fccl prune` from its arguments to the files and figures that it leaves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from cli.models.prune import command, parse_layers
from common.errors import ConfigError, ModelError
from learning.models.encoders import load_encoder
from tests.support.tiny_encoder import WORDS, encoder, saved
from tests.support.tiny_model import tiny_model, tiny_tokenizer


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FCCL_CACHE", str(tmp_path / "cache"))
    return saved(encoder(), tmp_path / "source")


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """Texts whose class is the word that they begin with: a probe can tell them apart."""
    path = tmp_path / "rows.tsv"
    words = [WORDS[i % len(WORDS)] for i in range(200)]
    lines = (f"{'good' if i % 2 else 'bad'} {word} film\t{i % 2}" for i, word in enumerate(words))
    path.write_text("text\tlabel\n" + "\n".join(lines) + "\n")
    return path


def prune(*arguments: object) -> Result:
    arguments = tuple(str(each) for each in arguments)
    return CliRunner().invoke(command, arguments, catch_exceptions=False)


def test_json_tells_size_speed_and_quality_of_both(
    source: Path, labelled: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    sizes = ["--layers", "2", "--heads", 0.5, "--ffn", 0.5, "--rows", 40]
    result = prune(source, out, *sizes, "--data", labelled, "--json")
    found = json.loads(result.stdout)
    before, after = found["source"], found["pruned"]
    assert (before["layers"], before["heads"], before["ffn"]) == (4, 4, 64)
    assert (after["layers"], after["heads"], after["ffn"]) == (2, 2, 32)
    assert len(after["kept_layers"]) == 2
    assert after["parameters"] < before["parameters"]
    assert after["megabytes"] < before["megabytes"]
    assert before["cosine"] == pytest.approx(1)
    assert 0 < after["cosine"] < 1
    assert before["probe_accuracy"] > 0.9
    assert all(side["ms_one_thread"] > 0 for side in (before, after))
    assert json.loads((out / "pruning.json").read_bytes())["source"] == before["digest"]
    assert load_encoder(out, ("0", "1"), torch.device("cpu"), seed=0).model.num_labels == 2


def test_the_table_needs_no_data(source: Path, tmp_path: Path) -> None:
    shown = prune(source, tmp_path / "out", "--layers", "0,2", "--rows", 16).output
    assert "kept 0, 2" in shown
    assert "faster" in shown
    assert "linear probe" not in shown
    assert "pruned by 16 texts" in shown


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--layers", "9"], "9 layers cannot be kept; the model has 4"),
        (["--layers", "3,9"], "layer 9 cannot be kept"),
        (["--layers", "two"], "--layers 'two' is neither"),
        (["--layers", "-1"], "--layers '-1' is neither"),
        (["--heads", "0"], "--heads 0 is not a share to keep"),
        (["--ffn", "2"], "--ffn 2 is not a share to keep"),
    ],
)
def test_nonsense_is_refused_before_anything_is_written(
    source: Path, tmp_path: Path, options: list[str], says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        prune(source, tmp_path / "out", *options)
    assert not (tmp_path / "out").exists()


def test_a_place_that_is_taken_is_refused(source: Path) -> None:
    with pytest.raises(ConfigError, match="exists and is not empty"):
        prune(source, source)


def test_a_causal_model_is_refused(source: Path, tmp_path: Path) -> None:
    tiny_model().save_pretrained(tmp_path / "gpt")
    tiny_tokenizer().save_pretrained(tmp_path / "gpt")
    with pytest.raises(ModelError, match="not an encoder"):
        prune(tmp_path / "gpt", tmp_path / "out")


def test_a_single_layer_is_written_with_a_comma() -> None:
    assert parse_layers("3,") == (3,)
    assert parse_layers("3") == 3
    assert parse_layers("0, 2") == (0, 2)
