"""A Python in a process of its own, asked by a line of code: a broken library can take an interpreter with it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from objectives.runners.runner import RuntimeUnavailable


def ask(code: str, python: Path | str = sys.executable, seconds: float = 120) -> str:
    """Runs some code, and returns the last line that it printed, empty where it printed none.

    Args:
        code: To run.
        python: The interpreter.
        seconds: As long as it may take.

    Raises:
        RuntimeUnavailable: It cannot be started, takes too long, or fails; says what its last line of errors is.
    """
    try:
        done = subprocess.run([str(python), "-c", code], capture_output=True, text=True, timeout=seconds, check=False)
    except OSError as error:
        raise RuntimeUnavailable(f"cannot be started ({error.strerror})") from None
    except subprocess.TimeoutExpired:
        raise RuntimeUnavailable(f"takes longer than {seconds:g} s") from None
    if done.returncode != 0:
        raise RuntimeUnavailable((done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1])
    return (done.stdout.strip().splitlines() or [""])[-1]


def environment(named: str | None, setting: str, variable: str, code: str, install: str) -> Path:
    """The interpreter of another tool's environment, whose pins exclude ours.

    Args:
        named: Path of it as `setting` has it; else the variable tells.
        setting: Where it is named, for messages.
        variable: Of the process's environment, which names it as well.
        code: Imports that must work there.
        install: The command that makes such an environment.

    Raises:
        RuntimeUnavailable: It is not named, or the tool is not installed there.
    """
    path = named or os.environ.get(variable)
    if not path:
        raise RuntimeUnavailable(
            f"{setting}: missing; make an environment ({install}) and name its python in {variable}"
        )
    try:
        ask(code, path, 180)
    except RuntimeUnavailable as error:
        raise RuntimeUnavailable(f"{setting} {path!r}: {error}; make it by: {install}") from None
    return Path(path)
