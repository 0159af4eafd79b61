"""The `fccl` command: finds the subcommand, and turns errors into one line and an exit code.

A subcommand's module is imported when it is called, so `fccl --help` loads neither torch nor redis.
The exit codes are in `cli.exit_codes`.
"""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import click

from cli import expected_errors, jsonlog, signals, streams
from cli.exit_codes import INTERRUPTED, OUTPUT_LOST
from common.errors import ConfigError, FcclError
from common.text import is_plain, one_line


class _Entry(NamedTuple):
    module: str
    help: str


GROUPS: dict[str, dict[str, _Entry]] = {
    "Run": {
        "demo": _Entry("cli.demo.command", "Run a whole federation here, with a live view."),
        "simulate": _Entry("cli.simulate.command", "Run a federation in virtual time."),
        "init": _Entry("cli.run.init", "Write a commented federation.toml."),
        "prepare": _Entry("cli.run.prepare", "Read or make rows and partition them by client."),
        "coordinator": _Entry("cli.run.coordinator", "Schedule tasks and aggregate updates."),
        "worker": _Entry("cli.run.worker", "Train beside the data, for a coordinator."),
    },
    "Watch and control": {
        "tui": _Entry("cli.control.tui", "Watch a run live, in a terminal or a browser."),
        "status": _Entry("cli.control.status", "Show the state of a run once."),
        "pause": _Entry("cli.control.commands", "Issue no new tasks until `fccl resume`."),
        "resume": _Entry("cli.control.commands", "Continue a paused run."),
        "drain": _Entry("cli.control.commands", "Wait for open tasks, then stop the coordinator."),
        "stop": _Entry("cli.control.commands", "Stop the coordinator now, committing its buffer."),
        "kick": _Entry("cli.control.commands", "Exclude a client, or include it again (--undo)."),
        "reissue": _Entry("cli.control.commands", "Issue an open task again, now."),
        "min-clients": _Entry("cli.control.commands", "Set the minimum of live clients."),
        "verify": _Entry("cli.control.verify", "Recompute the versions of a run and compare them."),
        "health": _Entry("cli.control.health", "Report whether a process is ready, for probes."),
    },
    "Other organisations": {
        "invite": _Entry("cli.sites.invite", "Create a join token for another organisation."),
        "revoke": _Entry("cli.sites.revoke", "End a site's access at once."),
        "audit": _Entry("cli.sites.audit", "Compare a site's log with the coordinator's journal."),
        "certs": _Entry("cli.sites.certs", "Create TLS certificates for RabbitMQ and Redis."),
    },
    "Learn from users": {
        "learn": _Entry("cli.learn.learn", "Give a client's model a text, a file or a stream."),
        "try": _Entry("cli.learn.try_model", "Ask a client's current model, and correct it."),
        "inbox": _Entry("cli.learn.inbox", "List, retry or delete what clients were given."),
    },
    "Models": {
        "evaluate": _Entry("cli.models.evaluate", "Evaluate any version of a run."),
        "export": _Entry("cli.models.export", "Export an adapter or a merged model."),
        "prune": _Entry("cli.models.prune", "Make a smaller encoder to start from."),
    },
    "This machine": {
        "doctor": _Entry("cli.doctor.command", "Check installation, servers and speed."),
        "services": _Entry("cli.services.command", "Run RabbitMQ and Redis without Docker."),
    },
}
"""The commands by the sections of `fccl --help`: their module, and a line of help.

A module defines its command as `command` or, where it has several, by the command's name with
underscores.
"""

COMMANDS = {name: entry for group in GROUPS.values() for name, entry in group.items()}


class CommandGroup(click.Group):
    """The commands of `GROUPS`, each imported when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(COMMANDS[cmd_name].module)
        command: click.Command = getattr(module, "command", None) or getattr(
            module, cmd_name.replace("-", "_")
        )
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the sections of the help, without importing any command."""
        for title, group in GROUPS.items():
            with formatter.section(title):
                formatter.write_dl([(name, entry.help) for name, entry in group.items()])


@click.group(cls=CommandGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="fccl")
def fccl() -> None:
    """Asynchronous federated fine-tuning of language models over a message queue."""


SHARED_FILES = ("export", "init", "prune")
"""Commands whose files are for others, too: their permissions follow the user's umask."""


def main() -> None:
    """Run the command line, and exit with its code; the entry point of the console script."""
    streams.prepare()
    # Deprecation warnings between libraries concern developers, not the users of a command.
    warnings.filterwarnings("ignore", category=FutureWarning)
    jsonlog.install_if_requested()
    before = os.umask(0o077)  # for rows, updates, samples and logs, also those of libraries
    if set(sys.argv[1:2]) & set(SHARED_FILES):
        os.umask(before)
    try:
        code = _run()
    finally:
        os.umask(before)
    sys.exit(OUTPUT_LOST if code == 0 and streams.is_output_lost() else code)


def _run() -> int:
    """Run the command, print its error if there is one, and return the exit code."""
    try:
        signals.interrupt_on_signals()
        check_arguments(sys.argv[1:])
        fccl.main(standalone_mode=False)
    except FcclError as error:
        return _report(f"fccl: {error}", error.exit_code)
    except click.UsageError as error:
        context = error.ctx.command_path if error.ctx else "fccl"
        line = f"{context}: {error.format_message()}; see `{context} --help`"
        return _report(line, ConfigError.exit_code)
    except click.ClickException as error:
        return _report(f"fccl: {error.format_message()}", ConfigError.exit_code)
    except (KeyboardInterrupt, click.Abort):
        return _report("fccl: interrupted", INTERRUPTED)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except Exception as error:
        if (expected := expected_errors.translate(error)) is None:
            raise
        return _report(f"fccl: {expected}", expected.exit_code)
    return 0


def check_arguments(arguments: Sequence[str]) -> None:
    """Check the command line before any part of it is used.

    Raises:
        ConfigError: An argument is not UTF-8, so that it could neither be stored nor shown.
    """
    for number, argument in enumerate(arguments, 1):
        if not is_plain(argument):
            raise ConfigError(
                f"argument {number} of the command line is not UTF-8 text",
                "rename the file that it names, or write it in UTF-8",
            )


def _report(line: str, code: int) -> int:
    line = one_line(line)
    if not jsonlog.write_error(line, code):
        click.echo(line, err=True)
    return code
