import pytest
import torch
from torch import nn
from transformers.activations import NewGELUActivation

from common.protocol.tasks import LoraSpec
from learning.models.lora import attach
from learning.training.fast_path import fast_dropout, fast_path
from tests.support.tiny_model import tiny_model

IDS = torch.arange(1, 41).view(2, 20)


def gradients(model: nn.Module, quick: bool) -> dict[str, torch.Tensor]:
    """Return the gradients of a loss under autocast, without dropout."""
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        if quick:
            with fast_path(model, autocast=True):
                loss = model(input_ids=IDS, labels=IDS).loss
        else:
            loss = model(input_ids=IDS, labels=IDS).loss
    loss.backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def adapted() -> nn.Module:
    model: nn.Module = attach(tiny_model(), LoraSpec(r=4, alpha=8, dropout=0.0), 0).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.requires_grad and "lora_B" in name:
                weight.normal_(std=0.05, generator=torch.Generator().manual_seed(1))
    return model


def test_gradients_are_as_close_to_float32_as_under_plain_autocast() -> None:
    model = adapted()
    model.zero_grad()
    model(input_ids=IDS, labels=IDS).loss.backward()
    exact = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}

    def error(found: dict[str, torch.Tensor]) -> float:
        assert found.keys() == exact.keys()
        return sum(float((found[n] - exact[n]).square().sum()) for n in exact) ** 0.5

    plain, quick = gradients(model, False), gradients(model, True)
    size = sum(float(g.square().sum()) for g in exact.values()) ** 0.5
    assert error(quick) < 1.2 * error(plain)
    assert 0 < error(quick) < 0.02 * size


def test_frozen_weights_are_cast_within_the_context_and_restored_afterwards() -> None:
    model = adapted()
    before = {n: (p, p.clone()) for n, p in model.named_parameters()}
    forwards = {m: vars(m).get("forward") for m in model.modules()}
    with pytest.raises(RuntimeError, match="training broke"), fast_path(model, autocast=True):
        head, embedding = model.get_output_embeddings(), model.get_input_embeddings()  # type: ignore[operator]
        assert head.weight.dtype == torch.bfloat16
        assert embedding.weight.dtype == torch.float32  # the same tensor, outside
        trained = [p for p in model.parameters() if p.requires_grad]
        assert {p.dtype for p in trained} == {torch.float32}
        with fast_path(model, autocast=True):
            pass
        assert head.weight.dtype == torch.bfloat16
        raise RuntimeError("training broke")
    after = dict(model.named_parameters())
    assert after.keys() == before.keys()
    assert all(after[n] is p and torch.equal(p, copy) for n, (p, copy) in before.items())
    assert forwards == {m: vars(m).get("forward") for m in model.modules()}


def test_without_autocast_all_weights_stay_in_float32() -> None:
    model = adapted()
    with fast_path(model, autocast=False):
        assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_weights_of_a_fully_trained_model_are_not_cast() -> None:
    model = tiny_model().requires_grad_(True)
    with fast_path(model, autocast=True):
        assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_gelu_computes_the_tanh_approximation() -> None:
    layer, x = NewGELUActivation(), torch.linspace(-4, 4, 33)
    expected = layer(x)
    with fast_path(nn.Sequential(nn.Linear(1, 1), layer), autocast=False):
        assert torch.allclose(layer(x), expected, atol=1e-6)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.999])
def test_dropout_zeroes_its_share_everywhere_and_keeps_the_mean(p: float) -> None:
    torch.manual_seed(0)
    out = fast_dropout(torch.ones(1000, 399), p)
    zeroes = (out == 0).float()
    sigma = (p * (1 - p)) ** 0.5
    assert float(zeroes.mean()) == pytest.approx(p, abs=5 * sigma / 399_000**0.5)
    # Four decisions come from one random number: each of the four is as good as the others.
    for part in zeroes.view(-1)[:398_996].view(-1, 4).T:
        assert float(part.mean()) == pytest.approx(p, abs=5 * sigma / 99_749**0.5)
    pairs = zeroes.view(-1)[:398_996].view(-1, 4)
    both = float((pairs[:, 0] * pairs[:, 1]).mean())
    assert both == pytest.approx(p * p, abs=5 * p * (1 - p * p) ** 0.5 / 99_749**0.5)
    assert out.max() == pytest.approx(1 / (1 - p))


def test_dropout_has_the_gradient_of_its_mask_and_follows_the_seed() -> None:
    x = torch.ones(7, 3, requires_grad=True)
    torch.manual_seed(3)
    out = fast_dropout(x, 0.4)
    out.sum().backward()
    assert torch.equal(x.grad, out.detach())  # type: ignore[arg-type]
    torch.manual_seed(3)
    assert torch.equal(fast_dropout(x, 0.4), out)
    assert not torch.equal(fast_dropout(x, 0.4), out)


def test_dropout_happens_only_in_training_mode() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5))
    x = torch.ones(4, 8)
    with fast_path(model, autocast=False):
        model.eval()
        assert torch.equal(model(x), model[0](x))
        model.train()
        assert (model(x) == 0).any()
