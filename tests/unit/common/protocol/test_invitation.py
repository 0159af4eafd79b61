from __future__ import annotations

import base64
import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import JoinError
from common.protocol.invitation import (
    Invitation,
    broker_hash,
    decode,
    encode,
    new_secret,
    short_labels,
    store_hash,
)

INVITATION = Invitation(
    token_id="0123456789abcdef",
    site="hospital-a",
    name="federation",
    broker="amqps://broker.example.org:5671/",
    store="rediss://broker.example.org:6380/",
    ca="-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
    secret=new_secret(),
    expires_at=1000.0,
)
TOKEN = encode(INVITATION)


def test_a_token_decodes_to_its_invitation() -> None:
    assert decode(TOKEN, 999.0) == INVITATION


def test_white_space_in_a_token_is_ignored() -> None:
    lines = "\r\n  ".join(TOKEN[i : i + 40] for i in range(0, len(TOKEN), 40))
    assert decode(f"\n{lines}\n", 999.0) == INVITATION


def test_a_token_needs_no_quotation_marks_in_a_shell() -> None:
    assert set(TOKEN) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.")


def test_an_expired_token_is_refused() -> None:
    with pytest.raises(JoinError, match="of site hospital-a expired on 1970-01-01 00:16 UTC"):
        decode(TOKEN, 1000.0)


@given(st.integers(1, len(TOKEN) - 1))
def test_a_token_that_is_cut_short_is_refused(length: int) -> None:
    with pytest.raises(JoinError, match=r"cut short|not a join token"):
        decode(TOKEN[:length], 0.0)


@given(st.integers(0, len(TOKEN) - 1), st.sampled_from("Aa0-_.x"))
def test_a_changed_token_is_refused(at: int, char: str) -> None:
    changed = TOKEN[:at] + char + TOKEN[at + 1 :]
    if changed == TOKEN:
        assert decode(changed, 0.0) == INVITATION
        return
    with pytest.raises(JoinError):
        decode(changed, 0.0)


@given(st.text(max_size=200))
def test_other_text_than_a_token_is_a_join_error(text: str) -> None:
    with pytest.raises(JoinError) as caught:
        decode(text, 0.0)
    assert "\n" not in str(caught.value)


def test_a_later_format_is_refused_by_its_number() -> None:
    with pytest.raises(JoinError, match="has format 3, this fccl reads formats 1 to 2"):
        decode(TOKEN.replace("fccl1", "fccl3", 1), 0.0)


def test_a_token_tells_what_the_run_learns_from() -> None:
    told = INVITATION.model_copy(update={"kinds": ("cls",), "labels": ("a", "b")})
    assert encode(told).startswith("fccl2.")
    assert decode(encode(told), 999.0) == told


def test_a_token_without_new_fields_is_one_of_the_previous_release() -> None:
    body = TOKEN.split(".")[1]
    fields = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    assert TOKEN.startswith("fccl1.")
    assert fields.keys() == Invitation.model_fields.keys() - {"kinds", "labels"}


def test_labels_that_would_make_a_token_too_long_are_left_out() -> None:
    assert short_labels(("a", "b")) == ("a", "b")
    assert short_labels(tuple(f"label {i}" for i in range(1000))) is None
    assert short_labels(()) is None


@pytest.mark.parametrize("body", ["", "e30", "bm90IGpzb24", "****"])
def test_a_valid_checksum_alone_is_not_enough(body: str) -> None:
    checksum = hashlib.sha256(body.encode()).hexdigest()[:8]
    with pytest.raises(JoinError, match="cannot be read"):
        decode(f"fccl1.{body}.{checksum}", 0.0)


def test_hashes_are_those_of_rabbitmq_and_redis() -> None:
    raw = base64.b64decode(broker_hash("sesame"))
    assert raw[4:] == hashlib.sha256(raw[:4] + b"sesame").digest()
    assert broker_hash("sesame") != broker_hash("sesame")  # salted
    assert store_hash("sesame") == hashlib.sha256(b"sesame").hexdigest()
