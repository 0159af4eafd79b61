"""Check of the aggregation rules `ffa` and `product`, and of ranks, against the other settings."""

from __future__ import annotations

from collections.abc import Iterator

from common.config.config import FederationConfig
from common.protocol.adapter_form import lora_of_rank
from common.protocol.fields import FEEDBACK_CODECS

_RULE = "aggregation.rule"
_ONE_RANK = {
    "factor": "averages the factors of LoRA one by one, which needs the same rank everywhere",
    "ffa": "has one factor A for all clients, and so one rank",
}


def of_rule(config: FederationConfig) -> Iterator[tuple[str, str]]:
    """Yield what contradicts the rule, each with a remedy."""
    rule = config.aggregation.rule
    if rule in ("ffa", "product") and config.model.lora is None:
        yield (
            f'{_RULE} = "{rule}" is about the factors of LoRA, but model.lora = false trains all'
            " parameters",
            f'set {_RULE} = "factor", or give model.lora',
        )
    elif config.model.ranks:
        yield from _of_ranks(config)
    if rule == "product":
        yield from _of_product(config)


def _of_ranks(config: FederationConfig) -> Iterator[tuple[str, str]]:
    rule, lora = config.aggregation.rule, config.model.lora
    if lora is None:
        yield "model.ranks has no effect: model.lora = false trains all parameters", "leave it out"
        return
    if rule in _ONE_RANK:
        yield (
            f'model.ranks contradicts {_RULE} = "{rule}", which {_ONE_RANK[rule]}',
            f'set {_RULE} = "product", or leave the ranks out',
        )
    for client, rank in config.model.ranks.items():
        if rank > lora.r:
            yield (
                f"model.ranks gives {client} the rank {rank}, above that of the versions,"
                f" model.lora.r = {lora.r}",
                f"set model.lora.r to {rank} or more, with model.lora.alpha in proportion",
            )
            continue
        try:
            lora_of_rank(lora, rank)
        except ValueError:
            yield (
                f"model.ranks gives {client} the rank {rank}, whose alpha would be"
                f" {lora.alpha * rank / lora.r:g}: the factor alpha / r is the same for all"
                " clients, and alpha is a whole number",
                f"set model.lora.alpha to a multiple of model.lora.r = {lora.r}",
            )


def _of_product(config: FederationConfig) -> Iterator[tuple[str, str]]:
    aggregation, update = config.aggregation, config.codec.update
    why = f'with {_RULE} = "product": each version has factors of its own'
    if aggregation.optimizer.name != "none":
        yield (
            f'aggregation.optimizer.name = "{aggregation.optimizer.name}" adds moments of'
            f" earlier factors, which mean nothing {why}",
            f'set it to "none", or {_RULE} to "ffa"',
        )
    if aggregation.robust.rule != "none":
        yield (
            f'aggregation.robust.rule = "{aggregation.robust.rule}" compares changes of factors,'
            f" which mean nothing {why}",
            f'set it to "none", or {_RULE} to "ffa"',
        )
    if aggregation.cache_updates:
        yield (
            f"aggregation.cache_updates adds earlier changes of factors, which mean nothing {why}",
            f'set it to false, or {_RULE} to "ffa"',
        )
    if aggregation.contribution_source == "cosine":
        yield (
            'aggregation.contribution_source = "cosine" compares changes of factors, which mean'
            f" nothing {why}",
            f'choose another source, or set {_RULE} = "ffa"',
        )
    if update in FEEDBACK_CODECS:
        yield (
            f'codec.update = "{update}" adds what was lost of earlier changes of factors, which'
            f" means nothing {why}",
            'set codec.update = "int8", "bf16" or "fp32"',
        )
