"""`fccl`: finds the command, and turns errors into one line and an exit code.

Commands are imported when they are called: `fccl --help` loads neither torch nor redis.

Exit codes: 0 done; 1 unexpected, or a check of `doctor` failed, or `services status` found a server
that does not run; 2 configuration or usage; 3 data; 4 model; 5 broker; 6 store; 7 run directory; 8
another coordinator took over; 9 a join token, a site or its credentials; 10 stopped before the plan
was complete, resume with --resume; 11 the run failed; 130 interrupted twice, ended at once.
"""

from __future__ import annotations

import importlib
import sys
import warnings

import click

from cli import jsonlog
from common.errors import FcclError

STOPPED = 10
FAILED = 11
INTERRUPTED = 130

COMMANDS = {
    "demo": "The whole federation on this machine, with a live view; ends with a report.",
    "init": "Write a commented federation.toml.",
    "prepare": "Fetch or make rows, deal them to clients, show the skew.",
    "coordinator": "Own a run: schedule tasks, aggregate updates, commit versions.",
    "worker": "Train beside the data for a coordinator.",
    "invite": "Let another organisation take part: make its join token.",
    "revoke": "End a site's access at once.",
    "status": "Show the state of a run once.",
    "pause": "Issue no tasks until `fccl resume`; updates are taken as ever.",
    "resume": "Let a paused run go on.",
    "drain": "Let open tasks come in, then stop the coordinator.",
    "stop": "Stop the coordinator now, with what it has committed.",
    "kick": "Give a client no more tasks, or (--undo) again.",
    "reissue": "Issue an open task again, now.",
    "learn": "Tell a client's model something: a text, a file or a pipe.",
    "try": "Ask a client's model, as it is now, and correct it.",
    "inbox": "What clients were told, and what became of it; retry it, or forget it.",
    "tui": "Watch a run live, in this terminal or (--web) in a browser.",
    "health": "Ask a coordinator or worker whether it is ready: for container health checks.",
    "evaluate": "Measure any version: perplexity, preferences, accuracy, generations.",
    "export": "A PEFT adapter or a merged model, with a model card.",
    "doctor": "What is reachable, installed and fast; what to mend.",
    "services": "A private RabbitMQ and Redis on this machine, without Docker.",
    "certs": "A private authority, and certificates for RabbitMQ and Redis.",
    "prune": "A smaller encoder: fewer layers, heads and feed-forward units, with its manifest.",
}

MODULES = {
    "demo": "cli.demo.command",
    "init": "cli.run.init",
    "prepare": "cli.run.prepare",
    "coordinator": "cli.run.coordinator",
    "worker": "cli.run.worker",
    "invite": "cli.sites.invite",
    "revoke": "cli.sites.revoke",
    "status": "cli.control.status",
    "pause": "cli.control.commands",
    "resume": "cli.control.commands",
    "drain": "cli.control.commands",
    "stop": "cli.control.commands",
    "kick": "cli.control.commands",
    "reissue": "cli.control.commands",
    "learn": "cli.learn.learn",
    "try": "cli.learn.try_model",
    "inbox": "cli.learn.inbox",
    "tui": "cli.control.tui",
    "health": "cli.control.health",
    "evaluate": "cli.models.evaluate",
    "export": "cli.models.export",
    "doctor": "cli.doctor.command",
    "services": "cli.services.command",
    "certs": "cli.sites.certs",
    "prune": "cli.models.prune",
}
"""The module that defines each command, as `command` or, beside others, by its own name."""


class Commands(click.Group):
    """The table above, with each command in a module of its own."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order of use."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module of a command."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(MODULES[cmd_name])
        command: click.Command = getattr(module, "command", None) or getattr(module, cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List them without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="fccl")
def fccl() -> None:
    """Asynchronous federated fine-tuning of language models over a message queue."""


def main() -> None:
    """The console script."""
    # Deprecation notes between libraries are for us, at test time, not for whoever runs a command.
    warnings.filterwarnings("ignore", category=FutureWarning)
    jsonlog.install_if_requested()
    try:
        fccl.main(standalone_mode=False)
    except FcclError as error:
        _end(f"fccl: {error}", error.exit_code)
    except click.UsageError as error:
        context = error.ctx.command_path if error.ctx else "fccl"
        _end(f"{context}: {error.format_message()}; see `{context} --help`", 2)
    except click.ClickException as error:
        _end(f"fccl: {error.format_message()}", 2)
    except (KeyboardInterrupt, click.Abort):
        _end("fccl: interrupted", INTERRUPTED)


def _end(line: str, code: int) -> None:
    if not jsonlog.write_error(line, code):
        click.echo(line, err=True)
    sys.exit(code)
