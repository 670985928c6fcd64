"""A few inputs of the fuzzer; `python tests/faults/fuzz.py` feeds as many as one likes, checkpoints too."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).with_name("fuzz.py")
KINDS = ("study", "yolo", "annotations", "text", "image", "external", "onnx", "database", "run", "planted", "url")


def test_mutated_files_end_in_one_line_or_in_success(tmp_path: Path) -> None:
    options = ["--inputs", "48", "--seconds", "150", "--seed", "3", "--keep", str(tmp_path / "keep"), "--kinds", *KINDS]
    command = [sys.executable, str(SCRIPT), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    tally = json.loads(done.stdout)
    assert tally["inputs"] == 48 and set(tally["kinds"]) == set(KINDS) and tally["codes"].keys() >= {"0", "2"}
