"""The command line; each command imports what it needs when it runs, so that `--help` is quick."""

from __future__ import annotations

import sys

import typer

from search_spaces.errors import InputError
from tuner.cli.commands import build, checkpoint, diagnosis, model, rivals, running, scheme, study
from tuner.cli.options import ATTACHED
from tuner.terminal.console import BAD_INPUT, guarded
from tuner.terminal.guard import watched
from tuner.version import __version__

app = typer.Typer(
    name="tuner",
    help="Finds the Pareto front of per-layer bit-widths for detectors: COCO mAP against measured latency.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
for commands in (running, study, model, scheme, checkpoint, build, rivals, diagnosis):
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


_USAGE_ERROR: type[Exception] = typer.BadParameter.__bases__[0]  # Click's, or that of Typer's own copy of it


def _command() -> None:
    """Runs the command that was asked for; one that was asked wrongly is one line, which no frame breaks."""
    try:
        code = app(standalone_mode=False)
    except _USAGE_ERROR as error:
        text, context = error.format_message().rstrip("."), error.ctx  # type: ignore[attr-defined]
        if not text:  # no command was named, and help was shown
            sys.exit(BAD_INPUT)
        raise InputError(f"{text} (see `{context.command_path if context else 'tuner'} -h`)") from None
    if code:
        sys.exit(code)


def main() -> None:
    """Entry point of the console script ``tuner``."""
    if ATTACHED in sys.argv:  # a worker, over which the one that started it watches: its death is no one's bad input
        sys.exit(guarded(_command))
    sys.exit(watched(lambda: guarded(_command)))
