"""A few inputs of the fuzzer; `python tests/faults/fuzz.py` feeds as many as one likes, checkpoints too."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from fuzz import keep_files

SCRIPT = Path(__file__).with_name("fuzz.py")
KINDS = (
    "study",
    "yolo",
    "annotations",
    "text",
    "image",
    "external",
    "onnx",
    "database",
    "run",
    "planted",
    "url",
    "sparse",
)


def test_mutated_files_end_in_one_line_or_in_success(tmp_path: Path) -> None:
    options = ["--inputs", "54", "--seconds", "150", "--seed", "3", "--keep", str(tmp_path / "keep"), "--kinds", *KINDS]
    command = [sys.executable, str(SCRIPT), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    tally = json.loads(done.stdout)
    assert tally["inputs"] == 54 and set(tally["kinds"]) == set(KINDS) and tally["codes"].keys() >= {"0", "2"}


def test_findings_are_kept_without_what_is_large(tmp_path: Path) -> None:
    """Sparse files of GiBs once filled a disk."""
    given, kept = tmp_path / "given", tmp_path / "kept"
    (given / "run").mkdir(parents=True)
    (given / "run" / "small").write_text("x")
    (given / "link").symlink_to("/dev/zero")
    os.mkfifo(given / "fifo")
    with (given / "run" / "sparse").open("wb") as file:
        file.truncate(5 << 30)
    keep_files(given, kept)
    names = {str(path.relative_to(kept)) for path in kept.rglob("*")}
    assert names == {"run", "run/small", "run/sparse.left-out", "link"}
    assert sum(path.lstat().st_blocks for path in kept.rglob("*")) * 512 < 1 << 20
