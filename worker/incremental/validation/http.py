"""Asks a server: one POST of JSON, within a time; neither a proxy nor a redirection in between."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Coroutine
from threading import Event as Flag
from typing import Any
from urllib.parse import urlsplit

import httpx

from common.protocol.fields import one_line
from common.tls.verification import verifying_context
from worker.incremental.validation.errors import (
    MAX_ANSWER,
    NEVER,
    ValidatorError,
    late,
    stopped,
    too_long,
)

_LOOK_S = 0.05  # between two looks whether anybody still waits


def post(url: str, asked: bytes, timeout_s: float, stop: Flag = NEVER) -> bytes:
    """What a server answers.

    In an event loop of its own: only so does the time-out hold for the whole, with the look-up of
    the name and an answer that drips. Closing the loop waits for no look-up.

    Args:
        url: http or https; a user and password in it are sent as such.
        asked: JSON.
        timeout_s: In which all of the answer must be here.
        stop: Wait no longer.

    Raises:
        Unanswered: It cannot be reached, took too long, wrote too much, or refused.
    """
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(_within(_answer(url, asked), timeout_s, stop))
    except TimeoutError:
        raise late(timeout_s) from None
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
        raise ValidatorError(f"at {_host(url)}: {_fault(error)}") from None
    finally:
        loop.close()


async def _within(answer: Coroutine[Any, Any, bytes], timeout_s: float, stop: Flag) -> bytes:
    task = asyncio.ensure_future(answer)
    try:
        async with asyncio.timeout(timeout_s):
            while not task.done():
                if stop.is_set():
                    raise stopped()
                await asyncio.wait([task], timeout=_LOOK_S)
    finally:
        task.cancel()
        await asyncio.wait([task])
    return task.result()


async def _answer(url: str, asked: bytes) -> bytes:
    headers = {"content-type": "application/json", "accept-encoding": "identity"}
    verify: ssl.SSLContext | bool = verifying_context(None) if url.startswith("https:") else True
    client = httpx.AsyncClient(timeout=None, trust_env=False, verify=verify)
    answer = bytearray()
    async with client, client.stream("POST", url, content=asked, headers=headers) as response:
        if response.status_code != httpx.codes.OK:
            raise ValidatorError(f"answered with HTTP status {response.status_code}")
        async for chunk in response.aiter_raw():
            answer += chunk
            if len(answer) > MAX_ANSWER:
                raise too_long()
    return bytes(answer)


def _host(url: str) -> str:
    """Host and port; any other part of a URL may hold a password."""
    try:
        parts = urlsplit(url)
        return one_line(parts.hostname or "?")[:80] + (f":{parts.port}" if parts.port else "")
    except ValueError:
        return "?"


def _fault(error: Exception) -> str:
    inner: BaseException | None = error
    while inner is not None:
        match inner:
            case ConnectionRefusedError():
                return "the connection is refused"
            case socket.gaierror():
                return "there is no such host"
            case ssl.SSLCertVerificationError():
                return "its certificate is not trusted"
        inner = inner.__cause__ or inner.__context__
    return f"no answer ({type(error).__name__})"
