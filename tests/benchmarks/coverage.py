"""Which exports are read, quantized and built: one row for each of some fifty, made by their own tools.

    python tests/benchmarks/coverage.py FOLDER --exporter PYTHON [--only TEXT] [--jobs 2]

`FOLDER` keeps the exports: all families and tasks of Ultralytics at two settings, torchvision's, the DETR family of
transformers, a YOLOX; untrained, 320 pixels. They are made by `coverage_exports.py` in the environment of `PYTHON`,
which has torch, torchvision, ultralytics and transformers; without --exporter those that are there are scored. Each row
is scored by `coverage_row.py` in a process of its own. Prints a Markdown table and what is behind its short cells (on
stderr at once as well); ends with 1 where a row shows a fault.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
CELLS = ("ORT int8", "ORT w4a16", "TensorRT int8", "TensorRT fp8", "RTX int8", "RTX fp8")
LIMIT = 900  # seconds of a row


def scored(path: Path) -> dict[str, Any]:
    """What `coverage_row.py` says of an export; a process that dies is a fault of the row."""
    if path.suffix == ".txt":
        return {"name": path.stem, "head": f"not exported by its own tool: {path.read_text(encoding='utf-8').strip()}"}
    try:
        done = subprocess.run(
            [sys.executable, str(HERE / "coverage_row.py"), str(path)],
            capture_output=True, text=True, timeout=LIMIT, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return {"name": path.stem, "head": f"FAULT took more than {LIMIT} s"}
    try:
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        last = (done.stderr.strip().splitlines() or [""])[-1]
        return {"name": path.stem, "head": f"FAULT process ended with {done.returncode}: {last[:200]}"}
    return found


def short(text: str, row: str, column: str, notes: list[str]) -> str:
    """A cell; what is too long for it goes below the table."""
    for word in ("unsupported", "refused", "FAULT", "not exported"):
        if text.startswith(word):
            notes.append(f"{row}, {column}: {text}")
            print(notes[-1], file=sys.stderr, flush=True)
            return word
    return text


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--exporter", type=Path)
    parser.add_argument("--only", default="")
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args()
    if options.exporter is not None:
        command = [options.exporter, HERE / "coverage_exports.py", options.folder, "--only", options.only]
        subprocess.run([str(word) for word in command], stdout=sys.stderr, check=True)
    files = [
        p for p in sorted(options.folder.glob("[!.]*")) if p.suffix in (".onnx", ".txt") and options.only in p.stem
    ]
    print("| export | head | layers | not quantizable |", " | ".join(CELLS), "|")
    print("| --- | --- | ---: | --- |" + " ---: |" * len(CELLS))
    notes: list[str] = []
    heads: list[str] = []
    with ThreadPoolExecutor(options.jobs) as pool:
        for row in pool.map(scored, files):
            name = row["name"]
            heads.append(short(row["head"], name, "head", notes))
            if row.get("warning"):
                notes.append(f"{name}: {row['warning']}")
            refused = row.get("refused", {})
            notes += [f"{name}: {count} not quantizable: {why}" for why, count in refused.items()]
            cells = [short(row.get(cell, ""), name, cell, notes) for cell in CELLS]
            few = str(sum(refused.values()) or "")
            print(f"| {' | '.join([name, heads[-1], str(row.get('layers', '')), few, *cells])} |", flush=True)
    counts = {word: heads.count(word) for word in ("unsupported", "not exported", "FAULT")}
    print(f"\n{len(heads)} exports: {', '.join(f'{count} {word}' for word, count in counts.items())}\n")
    print("\n".join(f"- {note}" for note in notes))
    return int(any("FAULT" in note for note in notes))


if __name__ == "__main__":
    sys.exit(main())
