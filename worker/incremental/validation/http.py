"""Validator that is a server: one POST of JSON in time, without proxies or redirections."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Coroutine
from threading import Event
from typing import Any

import httpx

from common.tls.verification import verifying_context
from common.urls import HTTP_ANY, UrlError, parse_url
from worker.incremental.validation.errors import (
    MAX_ANSWER,
    ValidatorError,
    answer_too_long,
    cancelled,
    timed_out,
)

_POLL_S = 0.05  # interval of checks whether the request was cancelled


def post(url: str, request: bytes, timeout_s: float, stop: Event) -> bytes:
    """Send a request to a server and return the body of its answer.

    The request has an event loop of its own, so that the time-out covers everything, including the
    name look-up and an answer that arrives byte by byte. Closing the loop waits for no look-up. A
    user and password in the URL are sent as basic authentication.

    Raises:
        ValidatorError: The server cannot be reached, took too long, sent too much, or refused, or
            `stop` was set.
    """
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(_within(_answer(url, request), timeout_s, stop))
    except TimeoutError:
        raise timed_out(timeout_s) from None
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
        raise ValidatorError(f"at {_host(url)}: {_fault(error)}") from None
    finally:
        loop.close()


async def _within(answer: Coroutine[Any, Any, bytes], timeout_s: float, stop: Event) -> bytes:
    task = asyncio.ensure_future(answer)
    try:
        async with asyncio.timeout(timeout_s):
            while not task.done():
                if stop.is_set():
                    raise cancelled()
                await asyncio.wait([task], timeout=_POLL_S)
    finally:
        task.cancel()
        await asyncio.wait([task])
    return task.result()


async def _answer(url: str, request: bytes) -> bytes:
    headers = {"content-type": "application/json", "accept-encoding": "identity"}
    verify: ssl.SSLContext | bool = verifying_context(None) if url.startswith("https:") else True
    # The caller ends the request at its own deadline.
    client = httpx.AsyncClient(timeout=None, trust_env=False, verify=verify)  # noqa: S113
    answer = bytearray()
    async with client, client.stream("POST", url, content=request, headers=headers) as response:
        if response.status_code != httpx.codes.OK:
            raise ValidatorError(f"answered with HTTP status {response.status_code}")
        async for chunk in response.aiter_raw():
            answer += chunk
            if len(answer) > MAX_ANSWER:
                raise answer_too_long()
    return bytes(answer)


def _host(url: str) -> str:
    """Return host and port of a URL, whose other parts may hold a password."""
    try:
        return parse_url(url, HTTP_ANY).address[:80]
    except UrlError:
        return "an unusable URL"


def _fault(error: Exception) -> str:
    inner: BaseException | None = error
    while inner is not None:
        match inner:
            case ConnectionRefusedError():
                return "connection refused"
            case socket.gaierror():
                return "no such host"
            case ssl.SSLCertVerificationError():
                return "its certificate is not trusted"
        inner = inner.__cause__ or inner.__context__
    return f"no answer ({type(error).__name__})"
