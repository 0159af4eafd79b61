"""The `fccl` command: mistakes of users, interrupts, and the demo."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from click.testing import CliRunner

from cli.main import COMMANDS, GROUPS, fccl
from common.config import loader
from common.config.config import FederationConfig
from learning.data.rows import write
from learning.synthetic.instructions import make_instructions
from tests.support.paths import ROOT
from tests.support.processes import SCRIPT, Command, Commands, commands, eventually, one_line
from tests.support.servers import Server, free_port

SECRET = "sesame"

SMALL = """\
[model]
name = "offline:gpt2-micro"
max_length = 128
[data]
rows = 60
clients = 2
[[phase]]
versions = 2
local_steps = 2
batch_size = 4
[schedule]
concurrency = 2
buffer_size = 2
"""


@pytest.fixture
def place(tmp_path: Path, model_cache: Path) -> Iterator[Commands]:
    """Return a starter of commands in an empty directory."""
    with commands(tmp_path, {"FCCL_CACHE": str(model_cache), "HF_HUB_OFFLINE": "1"}) as place:
        yield place


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """Return a data file with 60 good rows."""
    path = tmp_path / "rows.jsonl"
    write(path, tuple(make_instructions(0, 60)))
    return path


# Bad input


@dataclass(frozen=True)
class Mistake:
    """A mistake, the exit code, and the words of its line: the thing, and the remedy."""

    args: tuple[str, ...]
    code: int
    says: tuple[str, ...]
    files: dict[str, str | None] = field(default_factory=dict)  # None makes a directory
    variables: dict[str, str] = field(default_factory=dict)


def demo(*args: str) -> tuple[str, ...]:
    return ("demo", "--plain", "--out", "runs/x", *args)


FILE = {"f.toml": SMALL}
ROW = '{"instruction": "Say yes.", "output": "Yes."}\n'

MISTAKES = {
    "an unknown key": Mistake(
        demo("--config", "f.toml"), 2, ("f.toml", "unknown key schedule.concurency", "fccl init"),
        {"f.toml": "[schedule]\nconcurency = 3\n"},
    ),
    "an unknown table": Mistake(
        ("coordinator", "--config", "f.toml"), 2, ("f.toml", "unknown key agregation"),
        {"f.toml": "[agregation]\ncap = 3.0\n"},
    ),
    "a wrong type": Mistake(
        ("worker", "--config", "f.toml"), 2, ("f.toml", "schedule.concurrency", "integer"),
        {"f.toml": '[schedule]\nconcurrency = "many"\n'},
    ),
    "a value out of range": Mistake(
        demo("--config", "f.toml"), 2, ("phase.0", "exactly one of local_steps and local_epochs"),
        {"f.toml": "[[phase]]\nlocal_steps = 3\nlocal_epochs = 3\n"},
    ),
    "no TOML": Mistake(demo("--config", "f.toml"), 2, ("f.toml", "line 1"), {"f.toml": "run: x"}),
    "a configuration that is not there": Mistake(
        demo("--config", "nowhere.toml"), 2, ("nowhere.toml", "does not exist", "fccl init")
    ),
    "a configuration that is a directory": Mistake(
        ("status", "--config", "d"), 2, ("d is a directory",), {"d": None}
    ),
    "an unknown variable": Mistake(
        demo(), 2, ("FCCL_SCHEDULE__CONCURENCY: unknown key schedule.concurency",), {},
        {"FCCL_SCHEDULE__CONCURENCY": "3"},
    ),
    "a variable of the wrong type": Mistake(
        demo(), 2, ("FCCL_SCHEDULE__CONCURRENCY: schedule.concurrency",), {},
        {"FCCL_SCHEDULE__CONCURRENCY": "many"},
    ),
    "a variable for a phase that is not there": Mistake(
        demo(), 2, ("FCCL_PHASE__7__LR",), {}, {"FCCL_PHASE__7__LR": "1e-3"}
    ),
    "a bad run name": Mistake(
        demo("--config", "f.toml"), 2, ("run.name",), {"f.toml": '[run]\nname = "../up"\n'}
    ),
    "a bad run directory": Mistake(("demo", "--plain", "--out", "runs/my run"), 2, ("run.name",)),
    "a data file that is not there": Mistake(
        demo("--data", "nowhere.jsonl"), 3, ("nowhere.jsonl", "does not exist", "data.sft")
    ),
    "an empty data file": Mistake(
        demo("--data", "d.jsonl"), 3, ("d.jsonl", "empty", "at least one row"), {"d.jsonl": " \n"}
    ),
    "a data file without a usable row": Mistake(
        demo("--data", "d.jsonl"), 3, ("d.jsonl", "no usable row", "instruction and output"),
        {"d.jsonl": '{"text": "x"}\n{"text": "y"}\n'},
    ),
    "a broken JSON list": Mistake(
        demo("--data", "d.json"), 3, ("d.json", "not a valid JSON list"), {"d.json": f"[{ROW},"}
    ),
    "a data file that is a directory": Mistake(demo("--data", "d"), 3, ("d", "check"), {"d": None}),
    "more clients than rows": Mistake(
        demo("--data", "d.jsonl", "--config", "f.toml"), 3, ("clients", "data.clients"),
        {"d.jsonl": ROW * 3, "f.toml": SMALL.replace("clients = 2", "clients = 4")},
    ),
    "a model directory without a model": Mistake(
        demo("--config", "f.toml"), 4, ("emptydir", "config.json", "save_pretrained"),
        {"f.toml": SMALL.replace("offline:gpt2-micro", "./emptydir"), "emptydir": None},
    ),
    "a model that is not there": Mistake(
        demo("--config", "f.toml"), 4, ("./no/such/model", "model.name"),
        {"f.toml": SMALL.replace("offline:gpt2-micro", "./no/such/model")},
    ),
    "an unknown offline model": Mistake(
        demo("--config", "f.toml"), 4, ("offline:gpt9", "offline:gpt2-tiny"),
        {"f.toml": SMALL.replace("offline:gpt2-micro", "offline:gpt9")},
    ),
    "a run directory that exists": Mistake(
        demo(), 7, ("runs/x", "exists", "--resume", "--new"), {"runs/x": None}
    ),
    "resume without a run": Mistake(
        demo("--resume"), 7, ("runs/x", "no run to resume", "--resume")
    ),
    "resume of something else": Mistake(
        demo("--resume"), 7, ("runs/x/run.db",), {"runs/x/run.db": "this is no database" * 100}
    ),
    "both flags": Mistake(demo("--resume", "--new"), 2, ("--resume and --new exclude", "--help")),
    "a place where nothing can be written": Mistake(
        ("demo", "--plain", "--config", "f.toml", "--out", "f.toml/runs/x"), 7,
        ("f.toml/runs", "Not a directory", "writable"), FILE,
    ),
    "a worker's data directory that is not there": Mistake(
        ("worker", "--data", "nowhere"), 3, ("nowhere is no directory", "--data")
    ),
    "an unknown command": Mistake(("federate",), 2, ("federate", "--help")),
    "an unknown option": Mistake(demo("--quick"), 2, ("--quick", "fccl demo --help")),
    "a bad site name": Mistake(("worker", "--site", "My Site"), 2, ("My Site", "a-z")),
    "init over a file": Mistake(("init", "f.toml"), 2, ("f.toml exists", "another file"), FILE),
    "a live view without a terminal": Mistake(("tui",), 2, ("terminal", "fccl status", "--web")),
    "status of no run": Mistake(("status", "--run", "runs/x"), 6, ("runs/x",), {"runs/x": None}),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_one_line_that_names_it_and_the_remedy(
    place: Commands, tmp_path: Path, mistake: Mistake
) -> None:
    for name, text in mistake.files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if text is None:
            path.mkdir()
        else:
            path.write_text(text)
    one_line(place.fork(*mistake.args, **mistake.variables), mistake.code, *mistake.says)


@pytest.mark.parametrize("name", ["coordinator", "worker", "status"])
def test_an_unreachable_store_is_named_without_its_password(place: Commands, name: str) -> None:
    where = f"127.0.0.1:{free_port()}"
    for url in (f"redis://:{SECRET}@{where}/0", f"redis://{where}/0?password={SECRET}"):
        command = place.fork(name, FCCL_STORE__URL=url)
        assert SECRET not in one_line(command, 6, where, "start Redis there, or set store.url")


@pytest.mark.parametrize(
    "url", [f"http://u:{SECRET}@host/", f"redis://u:{SECRET}@host:port/", f"redis://:{SECRET}/x@h"]
)
def test_an_unreadable_store_url_is_not_repeated(place: Commands, url: str) -> None:
    assert SECRET not in one_line(place.fork("status", FCCL_STORE__URL=url), 2, "store.url")


@pytest.mark.servers
@pytest.mark.parametrize("name", ["coordinator", "worker"])
def test_an_unreachable_broker_is_named_without_its_password(
    place: Commands, redis_server: Server, name: str
) -> None:
    where = f"127.0.0.1:{free_port()}"
    command = place.fork(
        name,
        FCCL_STORE__URL=redis_server.url,
        FCCL_BROKER__URL=f"amqp://guest:{SECRET}@{where}/",
    )
    assert SECRET not in one_line(command, 5, where, "refused", "set broker.url")


@pytest.mark.servers
def test_status_of_an_unknown_run_is_an_error(place: Commands, redis_server: Server) -> None:
    command = place.fork("status", FCCL_STORE__URL=redis_server.url, FCCL_RUN__NAME="nobody")
    one_line(command, 6, "'nobody'", "fccl coordinator")


# Start-up without heavy imports


def imported(code: str) -> set[str]:
    """Return the top-level modules that a fresh interpreter has imported after some code."""
    text = f"import sys, json\n{code}\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", text], check=True, capture_output=True, text=True, timeout=60
    )
    return {name.partition(".")[0] for name in json.loads(done.stdout.splitlines()[-1])}


def test_help_loads_neither_model_nor_queue_nor_store() -> None:
    code = """
from click.testing import CliRunner
from cli.main import fccl
for flag in ("--help", "-h"):
    assert "demo" in CliRunner().invoke(fccl, [flag]).output
"""
    assert not imported(code) & {"torch", "transformers", "redis", "pika", "numpy", "rich"}


def test_the_view_loads_neither_model_nor_queue() -> None:
    assert not imported("import tui.app, cli.control.tui") & {"torch", "transformers", "pika"}


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (demo(), 7),  # the run directory exists
        (demo("--resume"), 7),  # and holds no run
        (demo("--new", "--data", "nowhere.jsonl"), 3),
        (demo("--config", "nowhere.toml"), 2),
        (("coordinator", "--resume"), 7),
        (("worker", "--data", "nowhere"), 3),
        (("worker", "--site", "My Site"), 2),
    ],
)
def test_a_mistake_is_reported_before_any_model_code_is_loaded(
    tmp_path: Path, args: tuple[str, ...], code: int
) -> None:
    (tmp_path / "runs" / "x").mkdir(parents=True)
    loaded = imported(f"""
import os
from cli.main import main
os.chdir({str(tmp_path)!r})
sys.argv = ["fccl", *{args!r}]
try:
    main()
except SystemExit as end:
    assert end.code == {code}, end.code
""")
    assert "click" in loaded
    assert not loaded & {"torch", "transformers", "peft", "sklearn", "scipy", "matplotlib"}


def test_partitioning_loads_no_sklearn() -> None:
    assert "sklearn" not in imported("import learning.data.clusters, learning.data.partition")


def test_the_console_script_prints_its_version() -> None:
    done = subprocess.run(
        [SCRIPT, "--version"], check=True, capture_output=True, text=True, timeout=60
    )
    assert done.stderr == ""
    assert "0.1.0" in done.stdout


# Commands


def test_every_module_that_defines_a_command_is_listed() -> None:
    modules = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in (ROOT / "cli").glob("*/*.py")
        if re.search(r"^@click\.(command|group)\(", path.read_text(), re.MULTILINE)
    }
    assert modules == {entry.module for entry in COMMANDS.values()}


def test_help_lists_every_command_in_its_group() -> None:
    text = CliRunner().invoke(fccl, ["--help"]).output
    titles = [line.rstrip(":") for line in text.splitlines() if re.match(r"\w.*:$", line)]
    assert titles[-len(GROUPS) :] == list(GROUPS)
    assert all(re.search(rf"^  {name} ", text, re.MULTILINE) for name in COMMANDS)


# init


def test_init_writes_a_file_that_parses_to_the_defaults(place: Commands, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for target, path in (("my.toml", "my.toml"), ("sub", "sub/federation.toml")):
        assert place.fork("init", target).end() == 0
        assert loader.load(tmp_path / path, {}) == FederationConfig()


# The demo


def counted(command: Command, kind: str) -> int:
    """Return the number of lines of a kind in the feed: a time, perhaps a mark, the kind."""
    return len(re.findall(rf"^[\d:]{{8}} . {kind} ", command.out, re.MULTILINE))


@pytest.mark.slow
def test_a_malformed_row_is_named_by_file_and_line_and_the_rest_is_learned(
    place: Commands, tmp_path: Path, rows: Path
) -> None:
    lines = rows.read_text().splitlines()
    lines[2:2] = ["{not json", '{"instruction": "no answer"}']
    rows.write_text("\n".join(lines) + "\n")
    (tmp_path / "f.toml").write_text(SMALL)
    command = place.fork(*demo("--config", "f.toml", "--data", "rows.jsonl"))
    assert command.end() == 0, command.err
    assert "rows.jsonl:3: " in command.out
    assert "rows.jsonl:4: " in command.out
    # Rows that are too long depend on the tokenizer, which is built of this machine's texts.
    assert re.search(r"rows\.jsonl: 5\d of 62 rows can be used", command.out)
    assert "report: runs/x/report/report.md" in command.out
    assert counted(command, "version") == 2
    assert "bits per byte" in (tmp_path / "runs/x/report/report.md").read_text()


def test_ctrl_c_commits_what_is_buffered_and_resume_completes_the_run(
    place: Commands, tmp_path: Path
) -> None:
    (tmp_path / "f.toml").write_text(SMALL.replace("local_steps = 2", "local_steps = 30"))
    flags = demo("--config", "f.toml")
    first = place.fork(*flags)
    eventually("an update is buffered", lambda: counted(first, "accepted") % 2 == 1)
    first.signal(signal.SIGINT)
    assert first.end() == 10, first.err
    assert first.err == "stopping: press Ctrl-C again to end at once\n"
    assert "stopped on request" in first.out
    assert "continue with --resume" in first.out
    progress = tmp_path / "runs/x/progress.jsonl"
    done = [json.loads(line) for line in progress.read_text().splitlines()]
    assert sum(len(line["updates"]) for line in done) == counted(first, "accepted")
    assert done[-1]["version"] < 2

    second = place.fork(*flags, "--resume")
    assert second.end() == 0, second.err
    lines = [json.loads(line) for line in progress.read_text().splitlines()]
    assert [line["version"] for line in lines] == [0, 1, 2]
    assert lines[: len(done)] == done


def test_a_second_ctrl_c_ends_the_demo_at_once(place: Commands, tmp_path: Path) -> None:
    (tmp_path / "f.toml").write_text(SMALL.replace("local_steps = 2", "local_steps = 100000"))
    command = place.fork(*demo("--config", "f.toml"))
    command.says("issued")
    # Stopped meanwhile, so that it gets both before it can end after the first.
    for number in (signal.SIGSTOP, signal.SIGINT, signal.SIGTERM, signal.SIGCONT):
        command.signal(number)
    assert command.end() == 130
    assert "Traceback" not in command.err
    assert place.fork(*demo("--config", "f.toml")).end() == 7  # the run exists, and can be resumed


@pytest.mark.slow
def test_new_moves_the_old_run_aside(place: Commands, tmp_path: Path) -> None:
    (tmp_path / "f.toml").write_text(SMALL.replace("versions = 2", "versions = 1"))
    flags = demo("--config", "f.toml")
    assert place.fork(*flags).end() == 0
    marks = {path.name for path in (tmp_path / "runs").iterdir()}
    assert place.fork(*flags, "--new").end() == 0
    names = {path.name for path in (tmp_path / "runs").iterdir()} - marks
    [aside] = [name for name in names if name.startswith("x.old-")]
    assert (tmp_path / "runs" / aside / "run.db").exists()


@pytest.mark.slow
def test_a_run_is_resumed_only_with_the_settings_that_it_began_with(
    place: Commands, tmp_path: Path
) -> None:
    (tmp_path / "f.toml").write_text(SMALL.replace("versions = 2", "versions = 1"))
    assert place.fork(*demo("--config", "f.toml")).end() == 0
    command = place.fork(*demo("--config", "f.toml", "--resume"), FCCL_SCHEDULE__BUFFER_SIZE="1")
    one_line(command, 2, "schedule.buffer_size", "--new")


def test_status_shows_a_demo_that_runs_in_another_terminal(place: Commands, tmp_path: Path) -> None:
    (tmp_path / "f.toml").write_text(SMALL.replace("local_steps = 2", "local_steps = 100000"))
    running = place.fork(*demo("--config", "f.toml"))
    running.says("issued")
    status = place.fork("status", "--json", "--run", "runs/x")
    assert status.end() == 0, status.err
    view = json.loads(status.out)
    assert (view["info"]["name"], view["info"]["clients"]) == ("x", 2)
    running.signal(signal.SIGTERM)
    assert running.end() == 10
