"""A script of a few lines, run as a file: its evaluating processes must not run it again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tiny_study import write_tiny_study

_SCRIPT = """
import tuner

run = tuner.run("study.yaml", folder="run")
print(sum(trial.state.name == "COMPLETE" for trial in run.study.trials), "trials")
"""


def test_a_script_needs_no_guard(tmp_path: Path) -> None:
    timing = {"warmup_ms": 1, "min_seconds": 0.01, "min_iterations": 3, "attempts": 1}
    write_tiny_study(tmp_path, "few-lines", formats=["fp16", "int8"], timing=timing, search={"trials": 2})
    (tmp_path / "few_lines.py").write_text(_SCRIPT)
    root = str(Path(__file__).resolve().parents[3])
    done = subprocess.run(
        [sys.executable, "few_lines.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": root},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "2 trials"
