"""Tests of pruning: kept parts, equality with a masked model, and hostile records."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import (
    AutoModel,
    BertForPreTraining,
    BertForSequenceClassification,
    GPT2Config,
    PreTrainedModel,
)

from common.errors import ConfigError, ModelError
from common.protocol import codec
from common.protocol.manifest import ModelFile, is_model_file, make_manifest
from learning.models import base
from learning.models.encoders import load_encoder, load_whole
from learning.models.loader import LoadedModel
from learning.pruning.importance import (
    Moments,
    compensate,
    importance,
    input_moments,
    select_layers,
    tokenise_batches,
)
from learning.pruning.layout import layers_of, layout_of, linear
from learning.pruning.prune import (
    KeptParts,
    PruningPlan,
    check_plan,
    cut_layer,
    ffn_width,
    make_record,
    prune,
    save_pruned,
)
from learning.pruning.record import Pruning, read_pruning
from tests.support.tiny_encoder import WORDS, encoder, encoder_config, encoder_tokenizer, saved

CPU = torch.device("cpu")
KINDS = ("bert", "roberta", "distilbert")
HALF = PruningPlan(layers=(0, 2), heads=0.5, ffn=0.5)
ZERO = "0" * 64


def texts(n: int = 48) -> list[str]:
    return [" ".join(WORDS[(i * 5 + j * (i % 4 + 1)) % len(WORDS)] for j in range(2 + i % 9))
            for i in range(n)]  # fmt: skip


def tokenised(model: PreTrainedModel) -> list[dict[str, Tensor]]:
    return tokenise_batches(LoadedModel(model, encoder_tokenizer()), texts(), 16)  # type: ignore[return-value]


@torch.no_grad()
def states(model: PreTrainedModel) -> Tensor:
    """Return the last hidden states of every real token of the texts."""
    return torch.cat(
        [model.base_model(**each)[0][each["attention_mask"].bool()] for each in tokenised(model)]
    )


@pytest.fixture(params=KINDS)
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    return encoder(request.param)


def save_pruned_model(folder: Path, plan: PruningPlan = HALF, kind: str = "bert") -> Path:
    """Make a source and a pruned model under a folder; return the latter's directory."""
    source = saved(encoder(kind), folder / "source")
    loaded = load_whole(source, CPU)
    config = deepcopy(loaded.model.config)
    kept = prune(loaded.model, plan, tokenised(loaded.model))
    digest = codec.digest(make_manifest(source))
    save_pruned(loaded.model, make_record(kept, source, digest, config), source, folder / "pruned")
    return folder / "pruned"


# Results of a pruned layer


def test_a_cut_model_equals_the_whole_one_with_the_other_heads_and_units_masked(
    model: PreTrainedModel,
) -> None:
    layout, smaller = layout_of(model.config), deepcopy(model)
    heads, units = torch.tensor([0, 3]), torch.arange(5, 37)
    for layer in layers_of(smaller):
        cut_layer(layer, layout, heads, units, size=8)
    for layer in layers_of(model):
        linear(layer, layout.joined).weight.data[:, 8:24] = 0  # heads 1 and 2
        linear(layer, layout.down).weight.data[:, :5] = 0
        linear(layer, layout.down).weight.data[:, 37:] = 0
    torch.testing.assert_close(states(smaller), states(model), atol=1e-5, rtol=0)
    assert smaller.num_parameters() < model.num_parameters()


def test_cutting_after_compensation_equals_masking(model: PreTrainedModel) -> None:
    layout, smaller = layout_of(model.config), deepcopy(model)
    first, data = layers_of(model)[0], tokenised(model)
    kept = torch.arange(0, 64, 2)
    found = input_moments(model, [linear(first, layout.down)], data)[0]
    compensate(linear(first, layout.down), found, kept)
    assert linear(first, layout.down).weight[:, 1::2].abs().max() == 0
    compensate(linear(layers_of(smaller)[0], layout.down), found, kept)
    cut_layer(layers_of(smaller)[0], layout, torch.arange(4), kept, size=8)
    torch.testing.assert_close(states(smaller), states(model), atol=1e-5, rtol=0)


def test_pruning_narrows_every_layer_and_returns_the_kept_parts(model: PreTrainedModel) -> None:
    kept = prune(model, HALF, tokenised(model))
    layout = layout_of(model.config)
    assert (kept.layers, kept.ffn, [len(each) for each in kept.heads]) == ((0, 2), 32, [2, 2])
    for layer in layers_of(model):
        assert linear(layer, layout.query).weight.shape == (16, 32)
        assert linear(layer, layout.joined).weight.shape == (32, 16)
        assert linear(layer, layout.up).weight.shape == (32, 32)
        assert linear(layer, layout.down).weight.shape == (32, 32)


def test_keeping_everything_changes_nothing(model: PreTrainedModel) -> None:
    before = states(model)
    kept = prune(model, PruningPlan(), tokenised(model))
    assert kept == KeptParts((0, 1, 2, 3), ((0, 1, 2, 3),) * 4, 64)
    assert torch.equal(states(model), before)


# Kept parts


def test_moments_leave_padding_out(model: PreTrainedModel) -> None:
    layout = layout_of(model.config)
    part = linear(layers_of(model)[0], layout.down)
    inputs: list[Tensor] = []
    hook = part.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    states(model)
    hook.remove()
    data = tokenised(model)
    real = torch.cat([x[b["attention_mask"].bool()] for x, b in zip(inputs, data, strict=True)])
    found = input_moments(model, [part], data)[0]
    torch.testing.assert_close(found.mean, real.double().mean(0), atol=1e-5, rtol=0)
    expected = real.double().T.cov(correction=0)
    torch.testing.assert_close(found.covariance, expected, atol=1e-4, rtol=1e-4)


def two_inputs() -> nn.Linear:
    part = nn.Linear(2, 1)
    part.weight.data, part.bias.data = torch.tensor([[2.0, 1.0]]), torch.tensor([0.5])
    return part


def test_importance_is_variance_times_squared_weight() -> None:
    found = Moments(torch.tensor([9.0, 9.0]).double(), torch.tensor([[1.0, 0], [0, 3]]).double())
    assert importance(two_inputs(), found, 1).tolist() == [4.0, 3.0]


def test_the_importance_of_a_group_includes_covariances() -> None:
    together = Moments(torch.zeros(2).double(), torch.tensor([[1.0, -1], [-1, 1]]).double())
    # 2x + y with y = -x is x: variance 1, though the parts alone have 4 and 1.
    assert importance(two_inputs(), together, 2).tolist() == [1.0]


def test_a_kept_input_replaces_a_correlated_one() -> None:
    # y = 3x + 1 exactly, with x of mean 1 and variance 1: 2x + y + 0.5 is 5x + 1.5.
    part = two_inputs()
    found = Moments(torch.tensor([1.0, 4.0]).double(), torch.tensor([[1.0, 3], [3, 9]]).double())
    compensate(part, found, torch.tensor([0]))
    torch.testing.assert_close(part.weight, torch.tensor([[5.0, 0.0]]), atol=0.05, rtol=0)
    torch.testing.assert_close(part.bias, torch.tensor([1.5]), atol=0.05, rtol=0)


def test_a_constant_input_is_replaced_by_the_bias() -> None:
    part = two_inputs()
    still = Moments(torch.tensor([0.0, 4.0]).double(), torch.tensor([[1.0, 0], [0, 0]]).double())
    assert importance(part, still, 1).tolist() == [4.0, 0.0]
    compensate(part, still, torch.tensor([0]))
    assert part.weight.tolist() == [[2.0, 0.0]]
    assert part.bias.tolist() == [4.5]


def test_heads_and_units_without_effect_are_removed_first(model: PreTrainedModel) -> None:
    layout = layout_of(model.config)
    for layer in layers_of(model):
        linear(layer, layout.joined).weight.data[:, 8:24] = 0  # heads 1 and 2
        linear(layer, layout.down).weight.data[:, 16:48] = 0
    before = states(model)
    kept = prune(model, PruningPlan(heads=0.5, ffn=0.5), tokenised(model))
    assert kept.heads == ((0, 3),) * 4
    torch.testing.assert_close(states(model), before, atol=1e-5, rtol=0)


def test_compensation_keeps_the_states_closer_than_masking_alone() -> None:
    whole = encoder(layers=1)
    masked, repaired, layout = deepcopy(whole), deepcopy(whole), layout_of(whole.config)
    kept = prune(repaired, PruningPlan(heads=0.5, ffn=0.5), tokenised(whole))
    down = linear(layers_of(whole)[0], layout.down)
    units = importance(down, input_moments(whole, [down], tokenised(whole))[0], 1).topk(32).indices
    cut_layer(
        layers_of(masked)[0], layout, torch.tensor(kept.heads[0]), units.sort().values, size=8
    )
    far = [(states(each) - states(whole)).square().mean() for each in (repaired, masked)]
    assert far[0] < 0.9 * far[1]


def test_the_least_important_layer_is_removed_first(model: PreTrainedModel) -> None:
    layout = layout_of(model.config)
    for part in (layout.joined, layout.down):  # layer 1 adds nothing to the residual stream
        nn.init.zeros_(linear(layers_of(model)[1], part).weight)
        nn.init.zeros_(linear(layers_of(model)[1], part).bias)
    before, done = states(model), []
    assert select_layers(model, 3, tokenised(model), done.append) == (0, 2, 3)
    assert done == [0.25, 0.5, 0.75, 1.0]
    assert torch.equal(states(model), before)


@pytest.mark.parametrize(
    ("have", "share", "width"),
    [(1536, 0.5, 768), (64, 0.01, 16), (100, 0.9, 96), (100, 1.0, 100), (8, 0.5, 8)],
)
def test_widths_are_multiples_of_sixteen(have: int, share: float, width: int) -> None:
    assert ffn_width(have, share) == width


def test_at_least_one_head_stays() -> None:
    model = encoder()
    assert [
        len(each) for each in prune(model, PruningPlan(heads=0.01), tokenised(model)).heads
    ] == [1] * 4


@pytest.mark.parametrize(
    ("plan", "says"),
    [
        (PruningPlan(heads=0), "--heads 0 is not a share"),
        (PruningPlan(ffn=1.5), "--ffn 1.5 is not a share"),
        (PruningPlan(ffn=float("nan")), "--ffn nan is not a share"),
        (PruningPlan(layers=5), "5 layers cannot be kept; the model has 4"),
        (PruningPlan(layers=0), "0 layers cannot be kept"),
        (PruningPlan(layers=(1, 4)), "layer 4 cannot be kept"),
        (PruningPlan(layers=(-1, 2)), "layer -1 cannot be kept"),
        (PruningPlan(layers=(2, 1)), "not in ascending order"),
        (PruningPlan(layers=(1, 1)), "not in ascending order"),
        (PruningPlan(layers=()), "not in ascending order"),
    ],
)
def test_an_impossible_plan_is_refused(plan: PruningPlan, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        check_plan(plan, encoder_config())


def test_an_unsupported_architecture_is_refused_by_name() -> None:
    with pytest.raises(ModelError, match="type gpt2 cannot be pruned"):
        check_plan(PruningPlan(), GPT2Config())


# Written models


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_pruned_model_loads_unchanged(tmp_path: Path, kind: str) -> None:
    first = load_whole(save_pruned_model(tmp_path, kind=kind), CPU).model
    model = encoder(kind)
    prune(model, HALF, tokenised(model))
    assert type(first) is type(model)
    torch.testing.assert_close(states(first), states(model), atol=0, rtol=0)


def test_the_digest_of_a_pruned_model_covers_its_record_and_is_stable(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first, second = save_pruned_model(tmp_path / "a"), save_pruned_model(tmp_path / "b")
    assert make_manifest(first) == make_manifest(second)
    assert b" pruning.json\n" in make_manifest(first)
    assert all(is_model_file(file.name) for file in first.iterdir())
    assert str(tmp_path).encode() not in b"".join(each.read_bytes() for each in first.iterdir())


def test_a_worker_installs_a_pruned_model_by_its_digest(tmp_path: Path) -> None:
    path = save_pruned_model(tmp_path)
    stated = make_manifest(path)

    def fetch(file: ModelFile, start: int) -> Iterator[bytes]:
        yield (path / file.name).read_bytes()[start:]

    installed = base.install(stated, codec.digest(stated), fetch, tmp_path)
    assert torch.equal(states(load_whole(installed, CPU).model),
                       states(load_whole(path, CPU).model))  # fmt: skip


def test_transformers_alone_can_load_a_model_without_pruned_heads(tmp_path: Path) -> None:
    path = save_pruned_model(tmp_path, PruningPlan(layers=(1, 3), ffn=0.5))
    plain = AutoModel.from_pretrained(path).eval()
    torch.testing.assert_close(states(plain), states(load_whole(path, CPU).model))


def test_pruning_keeps_a_trained_classification_head(tmp_path: Path) -> None:
    source = saved(BertForSequenceClassification(encoder_config()), tmp_path / "source")
    loaded = load_whole(source, CPU)
    config, head = deepcopy(loaded.model.config), loaded.model.classifier.weight.clone()
    kept = prune(loaded.model, HALF, tokenised(loaded.model))
    save_pruned(loaded.model, make_record(kept, source, ZERO, config), source, tmp_path / "out")
    again = load_encoder(tmp_path / "out", ("a", "b"), CPU, seed=3).model
    assert torch.equal(again.classifier.weight, head)


def test_pruning_keeps_the_pooler_of_a_masked_lm_checkpoint(tmp_path: Path) -> None:
    whole = BertForPreTraining(encoder_config())
    source = saved(whole, tmp_path / "source")
    fields = json.loads((source / "config.json").read_text())
    config = fields | {"architectures": ["BertForMaskedLM"]}  # as that of bert-base-uncased says
    (source / "config.json").write_text(json.dumps(config))
    loaded = load_whole(source, CPU)
    before = deepcopy(loaded.model.config)
    kept = prune(loaded.model, HALF, tokenised(loaded.model))
    save_pruned(loaded.model, make_record(kept, source, ZERO, before), source, tmp_path / "out")
    again = load_encoder(tmp_path / "out", ("a", "b"), CPU, seed=3).model
    assert torch.equal(again.bert.pooler.dense.weight, whole.bert.pooler.dense.weight)


def test_a_pruned_model_can_be_pruned_again_and_the_record_refers_to_the_first_source(
    tmp_path: Path,
) -> None:
    once = save_pruned_model(tmp_path, PruningPlan(layers=(1, 3), heads=0.5))
    loaded, before = load_whole(once, CPU), read_pruning(once)
    config = deepcopy(loaded.model.config)
    kept = prune(loaded.model, PruningPlan(layers=(1,), heads=0.5), tokenised(loaded.model))
    after = make_record(kept, once, ZERO, config)
    save_pruned(loaded.model, after, once, tmp_path / "twice")
    assert before is not None
    assert (after.source, after.layers, after.source_layers) == (before.source, (3,), 4)
    assert after.heads == ((before.heads[1][kept.heads[0][0]],),)
    assert torch.equal(states(load_whole(tmp_path / "twice", CPU).model), states(loaded.model))


def test_an_adapter_attaches_to_a_pruned_model_and_trains(tmp_path: Path) -> None:
    loaded = load_encoder(save_pruned_model(tmp_path), ("a", "b"), CPU, seed=0)
    adapted = get_peft_model(
        loaded.model, LoraConfig(r=2, target_modules=["query", "value"], task_type="SEQ_CLS")
    )
    batch = loaded.tokenizer(texts(4), padding=True, return_tensors="pt")
    adapted(**batch, labels=torch.tensor([0, 1, 0, 1])).loss.backward()
    grown = [p.grad for name, p in adapted.named_parameters() if "lora_B" in name]
    assert len(grown) == 4
    assert all(each is not None and each.shape == (16, 2) and each.any() for each in grown)


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    path = save_pruned_model(tmp_path)
    found = read_pruning(path)
    assert found is not None
    with pytest.raises(ConfigError, match="exists and is not empty"):
        save_pruned(encoder(), found, tmp_path / "source", path)
    (tmp_path / "empty").mkdir()
    save_pruned(encoder(), found, tmp_path / "source", tmp_path / "empty")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["empty", "pruned", "source"]


# Records from elsewhere

Change = Callable[[dict[str, Any]], object]


@pytest.mark.parametrize(
    "change",
    [
        lambda r: r.clear(),
        lambda r: r.update(format=2),
        lambda r: r.update(source="../../etc"),
        lambda r: r.update(layers=[0, -1]),
        lambda r: r.update(layers=[2, 0]),
        lambda r: r.update(layers=[0, 0]),
        lambda r: r.update(layers=[0, 4]),
        lambda r: r.update(layers=[0]),
        lambda r: r.update(layers=[]),
        lambda r: r.update(heads=[]),
        lambda r: r.update(heads=[[0, 1], []]),
        lambda r: r.update(heads=[[0, 1], [1, 4]]),
        lambda r: r.update(heads=[[0, 1], [1.0, 2.0]]),
        lambda r: r.update(heads=[[0], [1]]),
        lambda r: r.update(heads=[[0, 1, 2], [0, 1, 2]]),
        lambda r: r.update(ffn=-16),
        lambda r: r.update(ffn=48),
        lambda r: r.update(ffn=10**12, source_ffn=10**12),
        lambda r: r.update(source_heads=200, heads=[list(range(200)), list(range(200))]),
        lambda r: r.update(source_layers=10**9),
        lambda r: r.update(more=1),
    ],
)
def test_a_record_that_does_not_fit_is_refused(tmp_path: Path, change: Change) -> None:
    path = save_pruned_model(tmp_path)
    fields = json.loads((path / "pruning.json").read_text())
    change(fields)
    (path / "pruning.json").write_text(json.dumps(fields))
    with pytest.raises(ModelError):
        load_whole(path, CPU)


def test_a_record_beside_an_architecture_without_pruning_is_refused(tmp_path: Path) -> None:
    path = save_pruned_model(tmp_path)
    config = json.loads((path / "config.json").read_text()) | {"model_type": "albert"}
    (path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="type albert cannot be pruned"):
        load_whole(path, CPU)


def test_a_record_of_megabytes_is_not_parsed(tmp_path: Path) -> None:
    (tmp_path / "pruning.json").write_bytes(b"[" * (1 << 20))
    with pytest.raises(ModelError, match="more than 262144 bytes"):
        read_pruning(tmp_path)


@given(st.binary(max_size=60) | st.text(alphabet='{}[]",:0123456789elays', max_size=60))
def test_arbitrary_bytes_as_a_record_are_a_model_error(data: bytes | str) -> None:
    with TemporaryDirectory() as folder:
        (Path(folder) / "pruning.json").write_bytes(
            data.encode() if isinstance(data, str) else data
        )
        with pytest.raises(ModelError):
            read_pruning(Path(folder))


def test_a_record_is_canonical_and_reads_back(tmp_path: Path) -> None:
    made = Pruning(source=ZERO, layers=(0, 2), heads=((1,), (0, 3)), ffn=32,
                   source_layers=4, source_heads=4, source_ffn=64)  # fmt: skip
    assert made.encoded() == (
        b'{"ffn":32,"format":1,"heads":[[1],[0,3]],"layers":[0,2],"source":"' + b"0" * 64 +
        b'","source_ffn":64,"source_heads":4,"source_layers":4}\n'
    )  # fmt: skip
    (tmp_path / "pruning.json").write_bytes(made.encoded())
    assert read_pruning(tmp_path) == made
    assert read_pruning(tmp_path / "elsewhere") is None
