"""The `fccl` command: finds the subcommand, and turns errors into one line and an exit code.

A subcommand's module is imported when it is called, so `fccl --help` loads neither torch nor redis.
The exit codes are in `cli.exit_codes`.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from typing import NamedTuple

import click

from cli import jsonlog, out_of_memory, signals
from cli.exit_codes import INTERRUPTED
from common.errors import ConfigError, FcclError


class _Entry(NamedTuple):
    module: str
    help: str


GROUPS: dict[str, dict[str, _Entry]] = {
    "Run": {
        "demo": _Entry("cli.demo.command", "Run a whole federation here, with a live view."),
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


def main() -> None:
    """Run the command line, and exit with its code; the entry point of the console script."""
    # Deprecation warnings between libraries concern developers, not the users of a command.
    warnings.filterwarnings("ignore", category=FutureWarning)
    jsonlog.install_if_requested()
    try:
        signals.interrupt_on_signals()
        fccl.main(standalone_mode=False)
    except FcclError as error:
        _exit(f"fccl: {error}", error.exit_code)
    except click.UsageError as error:
        context = error.ctx.command_path if error.ctx else "fccl"
        _exit(f"{context}: {error.format_message()}; see `{context} --help`", ConfigError.exit_code)
    except click.ClickException as error:
        _exit(f"fccl: {error.format_message()}", ConfigError.exit_code)
    except (KeyboardInterrupt, click.Abort):
        _exit("fccl: interrupted", INTERRUPTED)
    except (MemoryError, RuntimeError) as error:
        if (lack := out_of_memory.translate(error)) is None:
            raise
        _exit(f"fccl: {lack}", lack.exit_code)


def _exit(line: str, code: int) -> None:
    if not jsonlog.write_error(line, code):
        click.echo(line, err=True)
    sys.exit(code)
