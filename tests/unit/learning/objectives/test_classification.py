import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import (
    BertForSequenceClassification,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
)
from transformers.modeling_outputs import SequenceClassifierOutput

from common.protocol.tasks import LocalTraining, LoraSpec
from learning.data.row_types import LabelledText
from learning.models.lora import attach, read_adapter
from learning.objectives.classification import (
    ADAMW_EPS,
    UNDECLARED_LABEL,
    ClassEncoder,
    TokenisedText,
    collate,
    loss,
    predict,
    with_logit_adjustment,
)
from learning.objectives.registry import make_objective
from learning.training.loop import train
from tests.support.tiny_encoder import encoder_config, encoder_tokenizer

ROWS = [
    LabelledText("a good film", "good"),
    LabelledText("the plot was dull and slow", "bad"),
    LabelledText("it was not bad", "fair"),
    LabelledText("very very bright", "good"),
    LabelledText("slow", "bad"),
]
LABELS = ("bad", "fair", "good")
TEXTS = ClassEncoder(LABELS).encode(encoder_tokenizer(), ROWS, 32).examples
OBJECTIVE = make_objective("classification", labels=LABELS)


def training(batch_size: int, steps: int) -> LocalTraining:
    return LocalTraining(batch_size=batch_size, lr=1e-2, steps=steps, max_length=32)


def classifier(dropout: float = 0.0) -> BertForSequenceClassification:
    config = encoder_config()
    config.num_labels = 3
    config.hidden_dropout_prob = config.attention_probs_dropout_prob = dropout
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = BertForSequenceClassification(config).eval()
        for weight in model.parameters():
            weight.data += 0.1 * torch.randn(weight.shape)
    return model


def test_texts_are_encoded_with_special_tokens_and_the_index_of_their_label() -> None:
    assert [text.label for text in TEXTS] == [2, 0, 1, 2, 0]
    tokenizer = encoder_tokenizer()
    assert tokenizer.decode(TEXTS[0].input_ids) == "[CLS] a good film [SEP]"


def test_a_long_text_is_cut_and_one_of_an_undeclared_class_skipped() -> None:
    found = ClassEncoder(("bad", "good")).encode(encoder_tokenizer(), ROWS, 5)
    assert found.kept == (0, 1, 3, 4)
    assert found.skipped == {UNDECLARED_LABEL: 1}
    assert found.truncated_count == 1
    assert max(text.length for text in found.examples) == 5
    nothing = ClassEncoder(("other",)).encode(encoder_tokenizer(), ROWS, 32)
    assert (nothing.examples, nothing.skipped) == ((), {UNDECLARED_LABEL: 5})


def test_the_loss_equals_the_models_own() -> None:
    model = classifier()
    batch = collate(TEXTS)
    own = model(
        input_ids=batch.input_ids, attention_mask=batch.attention_mask, labels=batch.labels
    ).loss
    loss, figures = OBJECTIVE.loss(model, batch)
    assert loss.item() == pytest.approx(own.item(), abs=1e-6)
    right = predict(model, TEXTS).accuracy
    assert figures["accuracy"] == pytest.approx(right)


def test_two_training_steps_equal_those_of_transformers(tmp_path: Path) -> None:
    theirs, tokenizer = classifier(), encoder_tokenizer()
    before = {n: p.clone() for n, p in theirs.named_parameters()}
    rows = [{"input_ids": list(t.input_ids), "labels": t.label} for t in TEXTS]
    arguments = TrainingArguments(
        str(tmp_path),
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        per_device_train_batch_size=len(TEXTS),
        max_steps=2,
        learning_rate=1e-2,
        lr_scheduler_type="constant",
        adam_beta1=0.5,
        adam_beta2=0.99,
        adam_epsilon=ADAMW_EPS,
        max_grad_norm=1.0,
    )
    with torch.random.fork_rng(devices=[]):
        Trainer(
            theirs,
            arguments,
            train_dataset=Dataset.from_list(rows),
            data_collator=DataCollatorWithPadding(tokenizer),
        ).train()
    ours = attach(classifier(), None, 0)
    train(ours, OBJECTIVE, TEXTS, training(len(TEXTS), 2))
    for name, weight in ours.named_parameters():
        # Softmax does not see a key's bias: its gradient is rounding, which AdamW enlarges.
        if not name.endswith("key.bias"):
            assert torch.allclose(weight, theirs.get_parameter(name), atol=1e-4), name
            assert not torch.allclose(weight, before[name], atol=1e-3), name


def test_predictions_depend_neither_on_the_batch_nor_on_dropout() -> None:
    model = classifier(dropout=0.5).train()
    at_once = predict(model, TEXTS)
    assert model.training
    alone = [predict(model, [text]) for text in sorted(TEXTS, key=lambda text: text.length)]
    assert at_once.predicted == tuple(p.predicted[0] for p in alone)
    assert at_once.true == tuple(p.true[0] for p in alone)
    assert at_once.loss == pytest.approx(sum(p.loss for p in alone) / len(TEXTS), abs=1e-5)
    measured = OBJECTIVE.measure(model, TEXTS)
    assert (measured.loss, measured.accuracy) == (at_once.loss, at_once.accuracy)


def test_training_a_head_of_zeros_learns_the_classes() -> None:
    model = classifier()
    model.classifier.weight.data.zero_()
    model.classifier.bias.data.zero_()
    assert OBJECTIVE.measure(model, TEXTS).loss == pytest.approx(math.log(3), abs=1e-6)
    adapted = attach(model, LoraSpec(r=4, alpha=8, dropout=0.0), 0)
    head = "base_model.model.classifier.weight"
    assert not read_adapter(adapted)[head].any()
    train(adapted, OBJECTIVE, TEXTS, training(5, 40))
    after = OBJECTIVE.measure(adapted, TEXTS)
    assert after.accuracy == 1.0
    assert np.abs(read_adapter(adapted)[head]).max() > 0


def test_a_text_is_padded_and_masked_on_the_right() -> None:
    batch = collate([TokenisedText((2, 5, 3), 1), TokenisedText((2, 3), 0)])
    assert batch.input_ids.tolist() == [[2, 5, 3] + [0] * 13, [2, 3] + [0] * 14]
    assert batch.attention_mask.tolist() == [[1] * 3 + [0] * 13, [1] * 2 + [0] * 14]
    assert (batch.labels.tolist(), batch.tokens, batch.target_count) == ([1, 0], 5, 2)


def test_offsets_are_the_logarithm_of_the_clients_own_frequencies() -> None:
    texts = [
        TokenisedText((1,), 0),
        TokenisedText((2,), 0),
        TokenisedText((3,), 0),
    ]  # of three classes
    (offsets,) = {text.offsets for text in with_logit_adjustment(texts, 3, 1.0)}
    assert offsets == pytest.approx([math.log(4 / 6), math.log(1 / 6), math.log(1 / 6)])
    (half,) = {text.offsets for text in with_logit_adjustment(texts, 3, 0.5)}
    assert half == pytest.approx([0.5 * each for each in offsets])
    assert with_logit_adjustment(texts, 3, 0.0) == tuple(texts)


def test_with_logit_adjustment_equal_logits_minimise_the_loss_of_any_skewed_client() -> None:
    class Constant(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.logits = torch.nn.Parameter(torch.zeros(2))

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
            return SimpleNamespace(logits=self.logits.expand(len(input_ids), 2))

    texts = [TokenisedText((1,), 0)] * 97 + [
        TokenisedText((1,), 1)
    ]  # (97 + 1) : (1 + 1) after smoothing
    for strength, even in ((0.0, False), (1.0, True)):
        model = Constant()
        loss(model, collate(with_logit_adjustment(texts, 2, strength)))[0].backward()
        assert model.logits.grad is not None
        assert (abs(float(model.logits.grad[0])) < 0.02) == even


def test_the_smoothed_loss_matches_a_value_computed_by_hand() -> None:
    class Fixed(torch.nn.Module):
        def forward(self, **_: torch.Tensor) -> SequenceClassifierOutput:
            return SequenceClassifierOutput(logits=torch.tensor([[math.log(9.0), 0.0]]))

    batch = collate([TokenisedText((2, 4, 3), 0)])
    assert float(loss(Fixed(), batch)[0]) == pytest.approx(-math.log(0.9))
    # p = (0.9, 0.1), and with ε = 0.2 so is the target: what is left is its entropy.
    entropy = -0.9 * math.log(0.9) - 0.1 * math.log(0.1)
    assert float(loss(Fixed(), batch, 0.2)[0]) == pytest.approx(entropy)
