"""Tests of the strict parser of URLs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import urls
from common.config import loader
from common.errors import ConfigError
from common.urls import UrlError, UrlKind, parse_url

SECRET = "Sec@ret/12"


@pytest.mark.parametrize(
    ("text", "kind", "address", "user", "password"),
    [
        ("amqp://fed:a%40b@h:1/v", urls.BROKER, "h:1", "fed", "a@b"),
        ("amqps://[::1]/%2F", urls.BROKER, "[::1]:5671", None, None),
        ("amqp://fed:pa:ss@h/", urls.BROKER, "h:5672", "fed", "pa:ss"),
        ("amqp://fed:x@my_host.example:5672?heartbeat=5", urls.BROKER, "my_host.example:5672",
         "fed", "x"),
        ("redis://:x@10.0.0.1:6379/0", urls.STORE, "10.0.0.1:6379", "", "x"),
        ("redis://h?db=3&client_name=a", urls.STORE, "h:6379", None, None),
        ("unix://fed:x@/run/redis.sock?db=1", urls.STORE, "/run/redis.sock", "fed", "x"),
        ("https://bücher.example/x?y=1", urls.HTTP_ANY, "bücher.example:443", None, None),
    ],
)  # fmt: skip
def test_a_url_is_split_into_its_parts(
    text: str, kind: UrlKind, address: str, user: str | None, password: str | None
) -> None:
    url = parse_url(text, kind)
    assert (url.address, url.user, url.password) == (address, user, password)


@pytest.mark.parametrize(
    ("text", "kind", "reason"),
    [
        ("amqp://fed:Sec@ret/12@broker.example.org:5672/", urls.BROKER, "percent-encoded"),
        ("redis://:p@se?cret@127.0.0.1:6379/0", urls.STORE, "percent-encoded"),
        ("redis://:12/34@127.0.0.1/0", urls.STORE, "percent-encoded"),
        ("redis://:12#34@127.0.0.1/0", urls.STORE, "percent-encoded"),
        ("amqp://fed:ab%zz@h/", urls.BROKER, "percent-encoded"),
        ("amqp://fed:a[b@h/", urls.BROKER, "percent-encoded"),
        ("amqp://fed:a\\b@h/", urls.BROKER, "percent-encoded"),
        ("amqp://fed:%ff@h/", urls.BROKER, "not UTF-8"),
        ("amqp://fed@h/", urls.BROKER, "without a password"),
        ("amqp://fed:se cret@h/", urls.BROKER, "a space"),
        ("amqp://fed:se\ncret@h/", urls.BROKER, "a line break"),
        ("amqp://fed:\udcff@h/", urls.BROKER, "another character"),
        ("amqp:///", urls.BROKER, "names no host"),
        ("amqp://h:0/", urls.BROKER, "number from 1 to 65535"),
        ("amqp://h:65536/", urls.BROKER, "number from 1 to 65535"),
        ("amqp://h:" + "9" * 5000 + "/", urls.BROKER, "too long"),
        ("amqp://h:²/", urls.BROKER, "number from 1 to 65535"),
        ("amqp://::1:5672/", urls.BROKER, "names no host"),
        ("amqp://fe80::1/", urls.BROKER, "in brackets"),
        ("amqp://[::z]/", urls.BROKER, "brackets"),
        ("amqp://h..x/", urls.BROKER, "no name or address"),
        ("amqp://h/a/b", urls.BROKER, "%2F"),
        ("http://h/", urls.BROKER, "does not begin with amqp:// or amqps://"),
        ("AMQPS://h/", urls.BROKER, "does not begin with"),
        ("fed:secret@h", urls.BROKER, "does not begin with"),
        ("amqps://h/?ssl_options=None", urls.BROKER, "unknown option ssl_options"),
        ("redis://h/0?foo=1", urls.STORE, "unknown option foo"),
        ("redis://h/0?secret", urls.STORE, "query that cannot be read"),
        ("redis://h/0?db=1&db=2", urls.STORE, "twice"),
        ("redis://h/secret", urls.STORE, "number of a database"),
        ("unix://relative", urls.STORE, "no path"),
        ("http://fed:secret@h:15672", urls.HTTP, "not used here"),
    ],
)
def test_a_url_with_two_readings_or_unknown_parts_is_refused(
    text: str, kind: UrlKind, reason: str
) -> None:
    with pytest.raises(UrlError) as caught:
        parse_url(text, kind)
    assert reason in str(caught.value)
    assert not any(part in str(caught.value) for part in ("ret/", "cret", "p@se", "34", "fed"))


@given(st.text(max_size=20), st.text(min_size=1, max_size=20).filter(lambda text: "?" not in text))
def test_a_login_that_is_encoded_is_read_back(user: str, password: str) -> None:
    url = parse_url("amqp://h:1/", urls.BROKER)
    try:
        user.encode(), password.encode()
    except UnicodeEncodeError:
        return
    read = parse_url(url.with_login(user or "u", password), urls.BROKER)
    assert (read.user, read.password) == (user or "u", password)
    assert read.shown == "amqp://h:1/"


@given(st.text(max_size=40))
def test_any_text_is_a_url_or_refused(text: str) -> None:
    for prefix in ("", "redis://", "redis://a:b@", "amqp://[", "unix://", "https://"):
        for kind in (urls.BROKER, urls.STORE, urls.HTTP_ANY):
            try:
                url = parse_url(prefix + text, kind)
            except UrlError:
                continue
            assert url.shown and 0 <= url.port < 2**16


def test_a_wrong_url_of_the_configuration_names_its_key_and_not_its_password() -> None:
    with pytest.raises(ConfigError) as caught:
        loader.load(None, {"FCCL_BROKER__URL": f"amqp://fed:{SECRET}@broker.example.org:5672/"})
    assert str(caught.value).startswith("FCCL_BROKER__URL: broker.url has a character in its user")
    assert "ret" not in str(caught.value)


@pytest.mark.parametrize("value", [f"http://me:{SECRET}@proxy:8080", "http://proxy:port"])
def test_a_wrong_proxy_is_named_by_its_variable(value: str) -> None:
    with pytest.raises(ConfigError, match=r"^https_proxy has "):
        urls.check_proxies({"https_proxy": value, "no_proxy": "x y"})
    urls.check_proxies({"HTTP_PROXY": "proxy:8080", "ALL_PROXY": "socks5h://a:b@proxy"})
