"""The base model whose lower layers are computed in advance."""

from pathlib import Path

import torch
from transformers import AutoTokenizer, BertModel

from simulation.experiments.precomputed import precompute
from tests.support.tiny_encoder import encoder_config, encoder_tokenizer

TEXTS = ["a good film", "it was not very bright and slow", "dull"]


def test_the_upper_layers_compute_what_the_whole_encoder_does(tmp_path: Path) -> None:
    torch.manual_seed(0)
    whole = BertModel(encoder_config()).eval()
    for layer in whole.encoder.layer:  # as after training: not the identity
        torch.nn.init.normal_(layer.output.LayerNorm.weight, 1.0, 0.2)
        torch.nn.init.normal_(layer.output.LayerNorm.bias, 0.0, 0.2)
    whole.save_pretrained(tmp_path / "whole")
    encoder_tokenizer().save_pretrained(tmp_path / "whole")

    words = precompute(tmp_path / "whole", TEXTS, 1, 16, tmp_path / "upper")

    upper = BertModel.from_pretrained(tmp_path / "upper").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "upper")
    assert upper.config.num_hidden_layers == 1
    for text, own in zip(TEXTS, words, strict=True):
        ids = encoder_tokenizer()(text, return_tensors="pt").input_ids
        with torch.inference_mode():
            expected = whole(input_ids=ids).pooler_output
            found = upper(input_ids=tokenizer(own, return_tensors="pt").input_ids).pooler_output
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
