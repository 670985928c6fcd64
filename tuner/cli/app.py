"""The command line; each command imports what it needs when it runs, so that `--help` is quick."""

from __future__ import annotations

import sys

import typer

from tuner import __version__
from tuner.cli.commands import build, checkpoint, diagnosis, model, running, scheme, study
from tuner.terminal.console import guarded

app = typer.Typer(
    name="tuner",
    help="Finds the Pareto front of per-layer bit-widths for detectors: COCO mAP against measured latency.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for commands in (running, study, model, checkpoint, scheme, build, diagnosis):
    commands.register(app)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"tuner {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    """Finds the Pareto front of per-layer bit-widths for object detectors."""


def main() -> None:
    """Entry point of the console script ``tuner``."""
    sys.exit(guarded(app))
