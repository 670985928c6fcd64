"""What a first-time user sees: grouped commands, each on a line, and completion."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from objectives.runtimes.names import BUILT_IN, RUNNING
from objectives.runtimes.registry import RUNTIMES
from search_spaces.formats import FORMATS
from tuner.cli.options import format_names, runtime_names

GROUPS = ("Study", "Model", "Compare", "Tools")


def tuner(*arguments: str, **variables: str) -> str:
    environment = {**os.environ, "COLUMNS": "80", "TERM": "dumb", **variables}
    command = [sys.executable, "-m", "tuner", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False).stdout


def test_commands_are_grouped_and_each_fits_on_a_line() -> None:
    page = tuner("-h")
    assert page == tuner("--help") and max(map(len, page.splitlines())) <= 80
    groups, rows = [], []
    for line in page.splitlines():
        words = line.strip("│╭╰─╮╯ ").split()
        if line.startswith("╭"):
            groups.append(words[0])
        elif line.startswith("│") and groups[-1] != "Options":
            rows.append(line)
    assert tuple(groups) == ("Options", *GROUPS)
    assert all(row[2].isalpha() for row in rows), "a summary that goes on in a second line"
    assert len(rows) > 20


@pytest.mark.parametrize("command", ["run", "eval", "materialize"])
def test_choices_are_shown(command: str) -> None:
    page = "".join(tuner(command, "-h").replace("│", "").split())
    assert all(name in page for name in RUNNING)
    if command == "materialize":
        assert all(name in page for name in (*FORMATS, "auto|rtn|bias|gptq", "onnx|torch"))


def test_the_shell_completes_commands_and_names() -> None:
    asked = {"_TUNER_COMPLETE": "complete_bash", "COMP_CWORD": "1", "COMP_WORDS": "tuner ma"}
    found = subprocess.run(
        [sys.executable, "-c", "from tuner.cli.app import app; app(prog_name='tuner')"],
        env={**os.environ, **asked},
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    assert found.split() == ["match", "materialize"] or found.split() == ["materialize", "match"]
    assert runtime_names() == list(RUNTIMES.names()) and set(BUILT_IN) <= set(runtime_names())
    assert format_names() == list(FORMATS)
