"""A command of the terminal, run in the test's own process from the entry point of the console script on."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NamedTuple

import pytest

from tuner.cli.app import main


class Done(NamedTuple):
    """How a command ended, and what it wrote."""

    returncode: int
    stdout: str
    stderr: str


Tuner = Callable[..., Done]


@pytest.fixture
def tuner(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Tuner:
    """Runs a command: ``tuner("front", run, "--json").stdout``."""

    def call(*arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["tuner", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as caught:
            main()
        captured = capfd.readouterr()
        return Done(int(caught.value.code or 0), captured.out, captured.err)

    return call
