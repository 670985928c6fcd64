"""What a command lets through to the terminal."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

OVERFLOW = (
    "import sys, numpy as np\nfrom tuner.terminal.console import guarded\n"
    "sys.exit(guarded(lambda: print(np.float32(3e38) * np.ones(1, np.float32) * 9)))"
)


@pytest.mark.parametrize(("asked", "heard"), [("", False), ("default", True)])
def test_arithmetic_on_a_models_numbers_is_warned_of_where_it_is_asked_for(asked: str, heard: bool) -> None:
    environment = {**os.environ, "PYTHONWARNINGS": asked}
    done = subprocess.run([sys.executable, "-c", OVERFLOW], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout == "[inf]\n" and ("RuntimeWarning" in done.stderr) == heard
