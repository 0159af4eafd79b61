"""Whatever a validator does, what comes of it is a verdict; and no way but its word accepts."""

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
    ask_validator,
    check_spec,
)

CASE = ValidationRequest(
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
    return ask_validator(sh(script), CASE, timeout_s)


def test_a_command_is_told_the_case_and_its_word_counts() -> None:
    program = (
        "import json,sys; c=json.load(sys.stdin); s=c['samples'][0];"
        "print(json.dumps({'accept': c['new_after']['loss'] < c['new_before']['loss'],"
        " 'reason': f\"{c['format']} {c['items']} {c['anchor_after']} {s['before']}\"}))"
    )
    spec = shlex.join([sys.executable, "-I", "-S", "-c", program])
    assert ask_validator(spec, CASE, LONG_S) == ValidatorVerdict(True, "1 6 None bad")
    worse = replace(CASE, new_after=Measurement(2.0))
    assert ask_validator(spec, worse, LONG_S) == ValidatorVerdict(
        False, "the validator says no: 1 6 None bad"
    )


def test_the_documented_program_understands_the_documented_case(tmp_path: Path) -> None:
    whole = (DOCS / "incremental.md").read_text()
    text = whole.partition("\n## Validator\n")[2].partition("\n## ")[0]
    [program] = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    told, _ = (json.loads(block) for block in re.findall(r"```json\n(.*?)```", text, re.DOTALL))
    measured = {
        name: Measurement(**value)
        for name, value in told.items()
        if name.endswith(("_before", "_after"))
    }
    samples = tuple(ValidationSample(**sample) for sample in told["samples"])
    kept = {name: told[name] for name in ("client_id", "kind", "task", "items", "norm")}
    case = ValidationRequest(**kept, **measured, samples=samples)
    assert json.loads(json.dumps(case.fields())) == told
    (tmp_path / "check.py").write_text(program)
    spec = shlex.join([sys.executable, "-I", "-S", str(tmp_path / "check.py")])
    assert ask_validator(spec, case, LONG_S) == ValidatorVerdict(True, "")
    worse = replace(case, anchor_after=Measurement(0.3, 0.81))
    assert ask_validator(spec, worse, LONG_S).reason.endswith("accuracy fell by 10 points")


def test_a_loss_that_is_not_finite_reaches_it_as_null() -> None:
    odd = replace(CASE, new_after=Measurement(float("nan")))
    script = (
        'grep -q \'"new_after": {"loss": null, "accuracy": null}\' && echo \'{"accept": true}\''
    )
    assert ask_validator(sh(script), odd, LONG_S).accepted


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (f"echo '{YES}'; exit 3", "the validator ended with exit code 3"),
        (f"echo '{YES}'; kill -9 $$", "the validator was ended by SIGKILL"),
        ("echo yes", FORM),
        ('echo \'{"accept": "true"}\'', FORM),
        ("echo '[true]'", FORM),
        ("true", FORM),
        ("printf '%070000d' 0", "the validator gave an answer of more than 64 KiB"),
        ("exec cat /dev/zero", "the validator gave an answer of more than 64 KiB"),
        ("echo '{\"accept\": false}'", "the validator says no: it gives no reason"),
        (
            'printf \'{"accept": false, "reason": "a\\\\u001b[2J\\\\n%0400d"}\' 0',
            "the validator says no: a [2J " + "0" * 294,
        ),
    ],
)
def test_anything_but_a_plain_yes_is_no(script: str, reason: str) -> None:
    assert ask(script) == ValidatorVerdict(False, reason)


def test_a_command_need_not_read_a_large_case() -> None:
    large = replace(CASE, samples=(ValidationSample("x" * 2_000_000, "", "", ""),))
    assert ask_validator(sh(f"exec 0<&-; echo '{YES}'"), large, LONG_S).accepted
    assert ask_validator(sh(f"cat >/dev/null; echo '{YES}'"), large, LONG_S).accepted


def test_of_a_command_that_hangs_nothing_is_left(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)  # its end comes when no writer lives
    found = ask(f"(echo begun; exec sleep 1000) > {pipe} & wait", timeout_s=1.0)
    assert found == ValidatorVerdict(False, "the validator gave no answer within 1 s")
    assert os.read(reader, 100) == b"begun\n"
    eventually("the end of what the command had started", lambda: _ended(reader))
    os.close(reader)


def test_what_a_command_leaves_behind_is_not_waited_for_and_ends(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    # The sleeping one has the output open, too.
    assert ask(f"exec 3> {pipe}; sleep 1000 & echo '{YES}'").accepted
    eventually("the end of what the command had started", lambda: _ended(reader))
    os.close(reader)


def test_a_command_does_not_see_fccls_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FCCL_JOIN", "token")
    monkeypatch.setenv("OTHER", "1")
    assert ask(f"test -z \"$FCCL_JOIN\" && test $OTHER = 1 && echo '{YES}'").accepted


def test_a_command_that_has_gone_since_the_worker_started_is_a_no(tmp_path: Path) -> None:
    program = tmp_path / "check_spec"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o700)
    check_spec(str(program))
    program.unlink()
    found = ask_validator(str(program), CASE, LONG_S)
    assert found == ValidatorVerdict(
        False, "the validator cannot be started: No such file or directory"
    )


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("no-such-program-here --now", "no command no-such-program-here"),
        ("'open", "No closing quotation"),
        ("ftp://host/x", "no http or https URL"),
        ("http://", "no http or https URL"),
        ("http://user:word@host:port/", "is no URL"),
    ],
)
def test_a_spec_that_can_be_no_validator_is_found_at_the_start(spec: str, said: str) -> None:
    with pytest.raises(ConfigError, match=r"incremental\.validator") as raised:
        check_spec(spec)
    assert said in raised.value.what
    assert raised.value.remedy
    assert "word" not in str(raised.value)
    assert not ask_validator(spec, CASE, LONG_S).accepted  # and it never raises


def test_what_can_be_one_passes() -> None:
    for spec in ("", "sh -c 'exit 1'", "http://127.0.0.1:1/check", "https://user:word@host/"):
        check_spec(spec)


class Handler(BaseHTTPRequestHandler):
    over = threading.Event()
    asked: dict[str, object]

    def do_POST(self) -> None:
        Handler.asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
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
            case "drip":  # each byte in time, and the whole never
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


def test_a_server_is_told_the_case_past_any_proxy(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert ask_validator(f"http://{server}/yes", CASE, LONG_S) == ValidatorVerdict(True, "fine")
    assert Handler.asked == json.loads(json.dumps(CASE.fields()))
    no = ask_validator(f"http://user:word@{server}/no", CASE, LONG_S)
    assert no == ValidatorVerdict(False, "the validator says no: not these")


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
def test_any_other_answer_of_a_server_is_no(server: str, path: str, reason: str) -> None:
    found = ask_validator(f"http://user:word@{server}/{path}", CASE, LONG_S)
    assert not found.accepted
    assert found.reason.endswith(reason)
    assert "word" not in found.reason


def test_the_time_out_holds_for_the_whole_of_an_answer_that_drips(server: str) -> None:
    found = ask_validator(f"http://{server}/drip", CASE, 0.5)
    assert found == ValidatorVerdict(False, "the validator gave no answer within 0.5 s")


def test_a_server_that_is_not_there_is_a_no_that_names_it_without_its_password() -> None:
    found = ask_validator("http://user:word@127.0.0.1:1/x?key=word", CASE, LONG_S)
    assert found == ValidatorVerdict(
        False, "the validator at 127.0.0.1:1: the connection is refused"
    )
    nowhere = ask_validator("http://host.invalid/", CASE, LONG_S)
    assert not nowhere.accepted
    assert "host.invalid" in nowhere.reason


def _ended(reader: int) -> bool:
    try:
        return os.read(reader, 100) == b""
    except BlockingIOError:
        return False
