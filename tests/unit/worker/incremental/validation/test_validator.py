"""Whatever a validator does, the result is a verdict, and only its explicit yes accepts."""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from common.errors import ConfigError
from learning.evaluation.measurement import Measurement
from tests.support.paths import DOCS
from tests.support.processes import eventually
from worker.incremental.validation.validator import (
    ValidationRequest,
    ValidationSample,
    ValidatorVerdict,
    VerdictKind,
    ask_validator,
    check_spec,
)

REQUEST = ValidationRequest(
    client_id="client_0",
    kind="cls",
    task="books",
    items=6,
    new_before=Measurement(1.5, 0.25),
    new_after=Measurement(0.5, 0.75),
    anchor_before=None,
    anchor_after=None,
    norm=0.125,
    samples=(ValidationSample("a secret text", "good", "bad", "good"),),
)
LONG_S = 60.0
YES = '{"accept": true}'
FORM = 'the validator did not answer {"accept": true or false, "reason": "…"}'


def sh(script: str) -> str:
    return f"sh -c {shlex.quote(script)}"


def ask(script: str, timeout_s: float = LONG_S) -> ValidatorVerdict:
    return ask_validator(sh(script), REQUEST, timeout_s)


def test_a_command_receives_the_request_and_its_answer_decides() -> None:
    program = (
        "import json,sys; c=json.load(sys.stdin); s=c['samples'][0];"
        "print(json.dumps({'accept': c['new_after']['loss'] < c['new_before']['loss'],"
        " 'reason': f\"{c['format']} {c['items']} {c['anchor_after']} {s['before']}\"}))"
    )
    spec = shlex.join([sys.executable, "-I", "-S", "-c", program])
    assert ask_validator(spec, REQUEST, LONG_S) == ValidatorVerdict(
        VerdictKind.ACCEPTED, "1 6 None bad"
    )
    worse = replace(REQUEST, new_after=Measurement(2.0))
    assert ask_validator(spec, worse, LONG_S) == ValidatorVerdict(
        VerdictKind.REJECTED, "the validator rejected it: 1 6 None bad"
    )


def test_the_documented_program_understands_the_documented_request(tmp_path: Path) -> None:
    whole = (DOCS / "incremental.md").read_text()
    text = whole.partition("\n## Validator\n")[2].partition("\n## ")[0]
    [program] = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    documented, _ = (
        json.loads(block) for block in re.findall(r"```json\n(.*?)```", text, re.DOTALL)
    )
    measured = {
        name: Measurement(**value)
        for name, value in documented.items()
        if name.endswith(("_before", "_after"))
    }
    samples = tuple(ValidationSample(**sample) for sample in documented["samples"])
    kept = {name: documented[name] for name in ("client_id", "kind", "task", "items", "norm")}
    request = ValidationRequest(**kept, **measured, samples=samples)
    assert json.loads(json.dumps(request.fields())) == documented
    (tmp_path / "check.py").write_text(program)
    spec = shlex.join([sys.executable, "-I", "-S", str(tmp_path / "check.py")])
    assert ask_validator(spec, request, LONG_S) == ValidatorVerdict(VerdictKind.ACCEPTED, "")
    worse = replace(request, anchor_after=Measurement(0.3, 0.81))
    assert ask_validator(spec, worse, LONG_S).reason.endswith("accuracy fell by 10 points")


def test_a_loss_that_is_not_finite_is_sent_as_null() -> None:
    odd = replace(REQUEST, new_after=Measurement(float("nan")))
    script = (
        'grep -q \'"new_after": {"loss": null, "accuracy": null}\' && echo \'{"accept": true}\''
    )
    assert ask_validator(sh(script), odd, LONG_S).accepted


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (f"echo '{YES}'; exit 3", "the validator failed with exit code 3"),
        (f"echo '{YES}'; kill -9 $$", "the validator was killed by SIGKILL"),
        ("echo yes", FORM),
        ('echo \'{"accept": "true"}\'', FORM),
        ("echo '[true]'", FORM),
        ("true", FORM),
        ("printf '%070000d' 0", "the validator gave an answer of more than 64 KiB"),
        ("exec cat /dev/zero", "the validator gave an answer of more than 64 KiB"),
        ("echo '{\"accept\": false}'", "the validator rejected it: no reason given"),
        (
            'printf \'{"accept": false, "reason": "a\\\\u001b[2J\\\\n%0400d"}\' 0',
            "the validator rejected it: a [2J " + "0" * 294,
        ),
    ],
)
def test_anything_but_an_explicit_yes_rejects(script: str, reason: str) -> None:
    verdict = ask(script)
    assert verdict.kind is (VerdictKind.REJECTED if "rejected it" in reason else VerdictKind.FAILED)
    assert verdict.reason == reason


def test_a_command_need_not_read_a_large_request() -> None:
    large = replace(REQUEST, samples=(ValidationSample("x" * 2_000_000, "", "", ""),))
    assert ask_validator(sh(f"exec 0<&-; echo '{YES}'"), large, LONG_S).accepted
    assert ask_validator(sh(f"cat >/dev/null; echo '{YES}'"), large, LONG_S).accepted


def test_a_command_may_read_a_large_request_late() -> None:
    large = replace(REQUEST, samples=(ValidationSample("x" * 2_000_000, "", "", ""),))
    script = f"sleep 0.5; cat >/dev/null; echo '{YES}'"
    assert ask_validator(sh(script), large, LONG_S).accepted


def test_a_command_that_hangs_is_killed_with_its_process_group(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)  # reads the end when no writer is left
    found = ask(f"(echo begun; exec sleep 1000) > {pipe} & wait", timeout_s=1.0)
    assert found == ValidatorVerdict(VerdictKind.FAILED, "the validator gave no answer within 1 s")
    assert os.read(reader, 100) == b"begun\n"
    eventually("the end of what the command had started", lambda: _ended(reader))
    os.close(reader)


def test_processes_left_behind_by_a_command_are_killed(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    # The sleeping process keeps the output open, too.
    assert ask(f"exec 3> {pipe}; sleep 1000 & echo '{YES}'").accepted
    eventually("the end of what the command had started", lambda: _ended(reader))
    os.close(reader)


def test_a_command_does_not_see_the_environment_variables_of_fccl(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FCCL_JOIN", "token")
    monkeypatch.setenv("OTHER", "1")
    assert ask(f"test -z \"$FCCL_JOIN\" && test $OTHER = 1 && echo '{YES}'").accepted


def test_a_command_that_was_removed_since_the_start_rejects(tmp_path: Path) -> None:
    program = tmp_path / "check_spec"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o700)
    check_spec(str(program))
    program.unlink()
    found = ask_validator(str(program), REQUEST, LONG_S)
    assert found == ValidatorVerdict(
        VerdictKind.FAILED, "the validator cannot be started: No such file or directory"
    )


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("no-such-program-here --now", "command no-such-program-here not found"),
        ("'open", "No closing quotation"),
        ("ftp://host/x", "does not begin with http:// or https://"),
        ("http://", "names no host"),
        ("http://user:word@host:port/", "has a port that is no number"),
    ],
)
def test_an_invalid_value_is_found_at_the_start(spec: str, message: str) -> None:
    with pytest.raises(ConfigError, match=r"incremental\.validator") as raised:
        check_spec(spec)
    assert message in raised.value.what
    assert raised.value.remedy
    assert "word" not in str(raised.value)
    assert not ask_validator(spec, REQUEST, LONG_S).accepted  # it never raises


def test_a_valid_value_passes_the_check() -> None:
    for spec in ("", "sh -c 'exit 1'", "http://127.0.0.1:1/check", "https://user:word@host/"):
        check_spec(spec)


class Handler(BaseHTTPRequestHandler):
    over = threading.Event()
    received: dict[str, object]

    def do_POST(self) -> None:
        Handler.received = json.loads(self.rfile.read(int(self.headers["content-length"])))
        match self.path.strip("/"):
            case "yes":
                self.answer(200, b'{"accept": true, "reason": "fine"}')
            case "no":
                self.answer(200, b'{"accept": false, "reason": "not\\nthese"}')
            case "garbage":
                self.answer(200, b"\xff\xfe<html>")
            case "huge":
                self.answer(200, b" " * 70_000)
            case "moved":
                self.send_response(307)
                self.send_header("location", "/yes")
                self.end_headers()
            case "error":
                self.answer(503, YES.encode())
            case "cut":
                self.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n" + YES.encode())
            case "drip":  # each byte in time, the whole answer never
                self.wfile.write(b"HTTP/1.1 200 OK\r\nx: ")
                while not Handler.over.wait(0.05):
                    try:
                        self.wfile.write(b"y")
                    except OSError:
                        return

    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as found:
        thread = threading.Thread(target=found.serve_forever, args=(0.05,))
        thread.start()
        yield f"127.0.0.1:{found.server_port}"
        Handler.over.set()
        found.shutdown()
        thread.join()


def test_a_server_is_asked_directly_despite_proxy_variables(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert ask_validator(f"http://{server}/yes", REQUEST, LONG_S) == ValidatorVerdict(
        VerdictKind.ACCEPTED, "fine"
    )
    assert Handler.received == json.loads(json.dumps(REQUEST.fields()))
    no = ask_validator(f"http://user:word@{server}/no", REQUEST, LONG_S)
    assert no == ValidatorVerdict(VerdictKind.REJECTED, "the validator rejected it: not these")


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("garbage", FORM),
        ("huge", "the validator gave an answer of more than 64 KiB"),
        ("moved", "the validator answered with HTTP status 307"),
        ("error", "the validator answered with HTTP status 503"),
        ("cut", "no answer (RemoteProtocolError)"),
    ],
)
def test_any_other_answer_of_a_server_rejects(server: str, path: str, reason: str) -> None:
    found = ask_validator(f"http://user:word@{server}/{path}", REQUEST, LONG_S)
    assert not found.accepted
    assert found.reason.endswith(reason)
    assert "word" not in found.reason


def test_the_time_out_covers_an_answer_that_arrives_byte_by_byte(server: str) -> None:
    found = ask_validator(f"http://{server}/drip", REQUEST, 0.5)
    assert found == ValidatorVerdict(
        VerdictKind.FAILED, "the validator gave no answer within 0.5 s"
    )


def test_an_unreachable_server_rejects_and_is_named_without_its_password() -> None:
    found = ask_validator("http://user:word@127.0.0.1:1/x?key=word", REQUEST, LONG_S)
    assert found == ValidatorVerdict(
        VerdictKind.FAILED, "the validator at 127.0.0.1:1: connection refused"
    )
    nowhere = ask_validator("http://host.invalid/", REQUEST, LONG_S)
    assert not nowhere.accepted
    assert "host.invalid" in nowhere.reason


def _ended(reader: int) -> bool:
    try:
        return os.read(reader, 100) == b""
    except BlockingIOError:
        return False
