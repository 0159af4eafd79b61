"""`fccl prune`: write a smaller encoder and compare its size, speed and quality."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from cli.console import Output
from cli.options import plain_option
from common.errors import ConfigError
from common.start_lock import only_start


@click.command()
@click.argument("model")
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--layers",
    metavar="COUNT|LIST",
    help="Layers to keep: their number, or a list counted from 0, e.g. 0,2,4 [default: all].",
)
@click.option(
    "--heads", default=1.0, show_default=True, help="Fraction of attention heads to KEEP."
)
@click.option(
    "--ffn", default=1.0, show_default=True, help="Fraction of feed-forward units to KEEP."
)
@click.option(
    "--data",
    help="Labelled texts for pruning and comparison: file or hub id [default: synthetic texts].",
)
@click.option(
    "--rows",
    type=click.IntRange(min=8),
    default=256,
    show_default=True,
    help="Texts that decide what is pruned; up to 1536 others serve for the comparison.",
)
@click.option(
    "--max-length",
    type=click.IntRange(min=4),
    default=128,
    show_default=True,
    help="Tokens per text.",
)
@click.option(
    "--json", "as_json", is_flag=True, help="Print JSON on standard output, and nothing else."
)
@plain_option
def command(
    model: str,
    out: Path,
    layers: str | None,
    heads: float,
    ffn: float,
    data: str | None,
    rows: int,
    max_length: int,
    as_json: bool,
    plain: bool,
) -> None:
    """Write a smaller version of an encoder to OUT, and compare it with MODEL.

    MODEL is a directory, a hub id or offline:bert-tiny; OUT becomes a model directory that a
    federation can start from. The texts of --data decide what is kept: use texts like those to be
    classified.
    """
    kept_layers = parse_layers(layers)
    from cli.models import prune_job

    job = prune_job.PruneJob(model, out, kept_layers, heads, ffn, data, rows, max_length)
    output = Output(plain)
    with only_start(out):
        if as_json:
            figures = prune_job.run(job, lambda text, done: None, lambda line: None)
        else:
            figures = prune_job.run(job, output.progress, output.print)
            output.end_progress()
    if as_json:
        click.echo(json.dumps(figures, indent=2))
    else:
        output.console.print(_table(figures))
        output.print(f"wrote {out}, model digest {figures['pruned']['digest'][:12]}")


def parse_layers(text: str | None) -> int | tuple[int, ...] | None:
    """Parse --layers: `6` is a count, `0,2,4` are layers, and `3,` is a single layer."""
    if text is None:
        return None
    numbers = [each.strip() for each in text.split(",")]
    if len(numbers) > 1 and not numbers[-1]:
        numbers.pop()
    if not all(each.isascii() and each.isdigit() and len(each) < 6 for each in numbers):
        raise ConfigError(f"--layers {text!r} is neither a count nor a list", "write 6, or 0,2,4")
    return tuple(map(int, numbers)) if "," in text else int(text)


def _table(figures: dict[str, Any]) -> Any:
    from rich import box
    from rich.table import Table

    before, after, ratio = figures["source"], figures["pruned"], figures["ratio"]
    table = Table("", "before", "after", "", box=box.SIMPLE_HEAD)
    for column in table.columns[1:]:
        column.justify = "right"

    def row(name: str, key: str, form: str, note: str = "") -> None:
        if before[key] is not None:
            table.add_row(name, form.format(before[key]), form.format(after[key]), note)

    row("parameters", "parameters", "{:,}", f"{ratio['parameters']:.0%}")
    row("weights on disk, MB", "megabytes", "{:.1f}")
    row("layers", "layers", "{}", "kept " + ", ".join(map(str, after["kept_layers"])))
    row("heads per layer", "heads", "{}")
    row("feed-forward units", "ffn", "{}")
    row("ms per batch, 1 thread", "ms_one_thread", "{:.1f}", f"{ratio['one_thread']:.2f} × faster")
    name = f"ms per batch, {figures['threads']} threads"
    if figures["threads"] > 1:
        row(name, "ms_all_threads", "{:.1f}", f"{ratio['all_threads']:.2f} × faster")
    row("accuracy of a linear probe", "probe_accuracy", "{:.3f}")
    row("cosine to the source", "cosine", "{:.3f}")
    table.caption = figures["note"]
    return table
