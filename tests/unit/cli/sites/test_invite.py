from __future__ import annotations

import pytest

from cli.sites.invite import public_address
from common.errors import ConfigError


@pytest.mark.parametrize(
    ("part", "url", "address"),
    [
        ("broker", "amqps://fccl:secret@mq.example.org:5671/", "amqps://mq.example.org:5671/"),
        ("broker", "amqps://mq.example.org", "amqps://mq.example.org:5671/"),
        ("broker", "amqp://guest:guest@127.0.0.1:5672/%2F", "amqp://127.0.0.1:5672/%2F"),
        ("store", "rediss://:secret@[2001:db8::1]/0?password=x", "rediss://[2001:db8::1]:6380/0"),
        ("store", "redis://localhost:6379/0", "redis://localhost:6379/0"),
    ],
)
def test_a_sites_address_holds_no_credentials(part: str, url: str, address: str) -> None:
    assert public_address(part, url, insecure=False) == address


@pytest.mark.parametrize("url", ["amqp://mq.example.org/", "amqp://guest:secret@10.0.0.7:5672/"])
def test_an_address_without_tls_is_for_this_machine_only(url: str) -> None:
    with pytest.raises(ConfigError, match=r"is not encrypted; give --broker amqps") as caught:
        public_address("broker", url, insecure=False)
    assert "secret" not in str(caught.value)
    assert public_address("broker", url, insecure=True).startswith("amqp://")


@pytest.mark.parametrize("url", ["", "mq.example.org", "http://x/", "amqps://", "amqps://h:port/"])
def test_a_url_that_cannot_be_read_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="address of the broker for sites "):
        public_address("broker", url, insecure=False)
