"""Accepted base models: patterns of names, kinds and digests."""

from __future__ import annotations

import pytest

from common.errors import ModelError
from common.protocol.tasks import BaseRef
from worker.settings.accepted_models import check_accepted, is_accepted, label

DIGEST = "abcdef0123456789" * 4


def ref(name: str, kind: str) -> BaseRef:
    return BaseRef.model_validate({"name": name, "kind": kind, "digest": DIGEST})


QWEN = ref("Qwen/Qwen3-0.6B", "hub")
OFFLINE = ref("offline:gpt2-tiny", "offline")
LOCAL = ref("/models/Qwen/Qwen3-0.6B/", "local")


@pytest.mark.parametrize(
    ("pattern", "accepted"),
    [
        ("Qwen/*", [QWEN]),
        ("*/Qwen3-0.6B", [QWEN]),
        ("hub:*", [QWEN]),
        ("offline:*", [OFFLINE]),
        ("offline:gpt2-tiny", [OFFLINE]),
        ("local:*", [LOCAL]),
        ("local:Qwen3-0.6B", [LOCAL]),
        ("sha256:abcdef01", [QWEN, OFFLINE, LOCAL]),
        ("sha256:abcdef02", []),
        ("gpt2", []),
    ],
)
def test_a_pattern_names_a_model_a_kind_or_a_digest(pattern: str, accepted: list[BaseRef]) -> None:
    assert [each for each in (QWEN, OFFLINE, LOCAL) if is_accepted([pattern], each)] == accepted


def test_a_name_cannot_pass_for_one_of_another_kind() -> None:
    assert not is_accepted(["Qwen/*"], ref("Qwen/Qwen3-0.6B", "local"))
    assert not is_accepted(["Qwen/*"], ref("Qwen/Qwen3-0.6B", "offline"))
    assert not is_accepted(["offline:*"], ref("offline:gpt2-tiny", "local"))
    assert label(LOCAL) == "local:Qwen3-0.6B"


def test_without_patterns_every_model_is_accepted_and_a_refusal_names_the_model() -> None:
    check_accepted([], LOCAL)
    with pytest.raises(ModelError, match=r"Qwen/Qwen3-0.6B \(abcdef012345\); add it to `accept`"):
        check_accepted(["offline:*"], QWEN)
