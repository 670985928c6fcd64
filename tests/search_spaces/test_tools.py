"""Other tools, and the memory that they may take."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from search_spaces.errors import InputError
from search_spaces.limits import MEMORY_VARIABLE
from search_spaces.tools import run_tool, within_memory

HOLD = "x = b'1' * (1 << 30); import time; time.sleep(60)"


def test_another_tool_may_take_no_more_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MEMORY_VARIABLE, "0.5")
    with (tmp_path / "log").open("w+") as log:
        assert run_tool([sys.executable, "-c", "print('fine'); raise SystemExit(3)"], "m.pt: it", tmp_path, log) == 3
        log.seek(0)
        assert log.read() == "fine\n"
        with pytest.raises(InputError, match=r"^m\.pt: it took .* TUNER_MEMORY_GIB"):
            run_tool([sys.executable, "-c", HOLD], "m.pt: it", tmp_path, log)


def test_a_talk_with_a_tool_that_took_too_much_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MEMORY_VARIABLE, "0.5")
    with (
        subprocess.Popen([sys.executable, "-c", HOLD], stdout=subprocess.PIPE, text=True) as process,
        pytest.raises(InputError, match="NNCF took"),
        within_memory(process, "NNCF"),
    ):
        assert process.stdout is not None
        json.loads(process.stdout.read())
    assert process.returncode == -signal.SIGKILL


def test_an_error_ends_the_tool() -> None:
    with (
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as process,
        pytest.raises(KeyboardInterrupt),
        within_memory(process, "NNCF"),
    ):
        raise KeyboardInterrupt
    assert process.returncode == -signal.SIGKILL
