"""How many replayed trials per second N workers get through one storage, and whether they ever get in each other's way.

    python tests/benchmarks/worker_throughput.py [--trials 200] [--workers 1 2 4 8] [--postgres URL]

Without a URL a PostgreSQL server is started on loopback, where it is installed. Each study is run by
`tuner resume --workers N`, as a user would; a trial takes `--delay` seconds of waiting and is otherwise nothing but
bookkeeping. The clock runs from the moment when the last worker has its first trial, so that starting N processes does
not count, to the end of the last trial. Counted from the logs and from the storage:

- lock errors: lines of any worker that name a lock, a deadlock or a busy database;
- duplicates: schemes evaluated more than once, or complete in more than one trial.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

# The root before tests/: the folder tests/tuner must never be taken for the package.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "faults"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from audited import prepare
from private_postgres import binaries, private_postgres

from tuner.results.loaded import load_run

_LOCK_ERROR = re.compile(r"locked|deadlock|busy|OperationalError|LockNotAvailable|SerializationFailure", re.IGNORECASE)


@dataclass(frozen=True)
class Row:
    """What one study did.

    Attributes:
        storage: Kind of storage.
        workers: Processes.
        rate: Trials per second while all of them worked; NaN where they never did.
        measured: Trials that the rate is of.
        lock_errors: Lines that tell of one.
        duplicates: Schemes evaluated or completed again.
        code: Exit code of the command.
    """

    storage: str
    workers: int
    rate: float
    measured: int
    lock_errors: int
    duplicates: int
    code: int

    def __str__(self) -> str:
        rate = f"{self.rate:.1f} (of {self.measured})"
        cells = (self.storage, self.workers, rate, self.lock_errors, self.duplicates, self.code)
        return f"| {' | '.join(map(str, cells))} |"


def measure(folder: Path, name: str, trials: int, workers: int, delay: float, storage: str | None) -> Row:
    """Runs one study."""
    run = prepare(folder, name, trials, delay, storage)
    command = [sys.executable, "-m", "tuner", "resume", str(run), "--workers", str(workers)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = [done.stderr, *(log.read_text() for log in (run / "workers").glob("*.log"))]
    lines = [line for text in said for line in text.splitlines() if _LOCK_ERROR.search(line)]
    for line in lines:
        print(line, file=sys.stderr)
    records = load_run(run)
    complete = Counter(record.allocation.digest for record in records.records if record.state == "COMPLETE")
    events = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    begun = [event for event in events if event["event"] == "evaluating"][1:]  # without that of `prepare`
    evaluated = Counter(event["digest"] for event in begun)
    duplicates = sum(count - 1 for count in (*complete.values(), *evaluated.values()))
    frozen = records.trials.study.get_trials(deepcopy=False)
    first: dict[str, int] = {}
    for event in begun:
        first.setdefault(event["worker"], event["trial"])
    starts = [start for number in first.values() if (start := frozen[number].datetime_start)]
    since = max(starts) if len(starts) == workers else datetime.max
    inside = [end for trial in frozen if (end := trial.datetime_complete) and end > since]
    rate = len(inside) / (max(inside) - since).total_seconds() if inside else math.nan
    kind = "SQLite" if storage is None else "PostgreSQL"
    return Row(kind, workers, rate, len(inside), len(lines), duplicates, done.returncode)


@contextmanager
def storages(url: str | None) -> Iterator[list[str | None]]:
    """SQLite, and PostgreSQL where there is a server or one can be started."""
    if url is None and binaries() is None:
        print("PostgreSQL is not installed and no --postgres URL was given: SQLite only", file=sys.stderr)
        yield [None]
        return
    with nullcontext(url) if url else private_postgres() as server:
        yield [None, server]


def main() -> int:
    """Prints one Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--delay", type=float, default=0.02, help="Seconds that an evaluation takes.")
    parser.add_argument("--postgres", metavar="URL")
    options = parser.parse_args()
    print("| storage | workers | trials per second | lock errors | duplicate allocations | exit code |")
    print("| --- | --- | --- | --- | --- | --- |", flush=True)
    rows = []
    with tempfile.TemporaryDirectory(prefix="throughput-") as scratch, storages(options.postgres) as servers:
        for index, server in enumerate(servers):
            for workers in options.workers:
                name = f"{Path(scratch).name}-{index}-{workers}"
                rows.append(measure(Path(scratch) / name, name, options.trials, workers, options.delay, server))
                print(rows[-1], flush=True)
    return int(any(row.lock_errors or row.duplicates or row.code for row in rows))


if __name__ == "__main__":
    sys.exit(main())
