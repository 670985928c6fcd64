"""The command `doctor`."""

from __future__ import annotations

import typer

from tuner.cli.options import TOOLS, Json
from tuner.terminal.console import ENVIRONMENT, show


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command(rich_help_panel=TOOLS)(doctor)


def doctor(as_json: Json = False) -> None:
    """Says what this machine can do, and what is missing.

    Example: tuner doctor
    """
    from tuner.cli.doctor import diagnose

    checks = diagnose()
    if as_json:
        show({"checks": [vars(check) for check in checks]})
    else:
        for check in checks:
            print(f"{'ok     ' if check.ok else 'missing'}  {check.name}: {check.detail}")
            if not check.ok and check.remedy:
                print(f"         {check.remedy}")
    if not all(check.ok for check in checks if getattr(check, "required", False)):
        raise typer.Exit(ENVIRONMENT)
