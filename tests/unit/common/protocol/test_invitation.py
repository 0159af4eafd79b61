from __future__ import annotations

import base64
import hashlib

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
    with pytest.raises(JoinError, match="has format 2, this fccl reads format 1"):
        decode(TOKEN.replace("fccl1", "fccl2", 1), 0.0)


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
