"""Feeds mutated files of every kind to the commands that read them, and counts what must not happen.

Each input is made from a seed by a random number generator of its own, `--seed`, kind and index, and read in a child
process that lives in a folder for it alone. A finding is:

- traceback: an exception other than those that the command line turns into one line and an exit code;
- code: another exit code than 0, 2 or, for run folders, 4 (repeated failures) and 5 (storage);
- words: an error of more than one line, too long, with control characters, with the password of a storage, or with
  what a file outside the given folder holds;
- accepted: success on an input that must be refused;
- touched: a file read, written or left outside the given folder, a process started, a connection opened;
- crash, hang, slow, memory: a child that died, that took more than 30 s, 10 s of CPU time or 2 GiB.

Findings are kept with their files under `--keep`; `--only KIND:INDEX` runs one again and shows all it says.

    python tests/faults/fuzz.py --inputs 10000 --seed 1
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import math
import multiprocessing
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

# The root before tests/: the folder tests/tuner must never be taken for the package.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import fuzz_planted
from fuzz_guard import CANARY, Place
from fuzz_planted import KINDS as PLANTED
from fuzz_planted import SECRET
from fuzz_targets import KINDS as MUTATED

KINDS = {**MUTATED, **PLANTED}
HANG_SECONDS, CPU_SECONDS, MEMORY = 30.0, 10.0, 2 << 30
LINE = 1200  # characters of an error
_KEPT_BYTES = 8 << 20  # of a file beside a finding
_RECYCLE = 200  # inputs of one child
#: What may stand before the error: announcements of steps, and what libpng and libjpeg print on their own.
_BEFORE = re.compile(
    r"[a-z ]+(: (\d+|.* (so far|left)))?|note: .*|left out of the space: .*|"
    r"libpng (error|warning): .*|Corrupt JPEG data: .*|"
    r"Premature end of JPEG file|Invalid SOS parameters.*|Unsupported marker type .*|Inconsistent progression .*|"
    r"Warning: unknown JFIF revision number .*"
)
_CODES = {kind: {0, 2, 4, 5} for kind in ("database", "run", "planted", "url")}


@dataclass
class Tally:
    """What the inputs did."""

    inputs: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    codes: Counter[str] = field(default_factory=Counter)
    cpu_seconds: Counter[str] = field(default_factory=Counter)
    findings: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    slowest_cpu_seconds: float = 0.0
    largest_mib: int = 0


def run_case(kind: str, index: int, seed: int, seeds: Path, place: Place, output: Path) -> dict[str, Any]:
    """Makes and runs one case in this process; returns exit code, cost and findings."""
    draw = random.Random(f"{seed}:{kind}:{index}")
    place.fresh()
    for _ in range(20):
        try:
            case = KINDS[kind][0](draw, seeds, place.given)
            break
        except (ValueError, TypeError, LookupError, RecursionError):  # what was mutated once may not take it again
            place.fresh()
    else:
        raise RuntimeError(f"{kind}:{index}: no case could be made")
    output.write_bytes(b"")
    base, started = _memory("VmRSS"), time.process_time()
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    found, code = [], -1
    place.begin(watched=not case.own_process, elsewhere=case.elsewhere)
    try:
        code = case.work()
    except BaseException as error:  # whatever leaves the command line's guard is what we look for
        lines = traceback.format_exc().strip().splitlines()
        found.append(f"traceback: {type(error).__name__}: {str(error)[:300]}\n" + "\n".join(lines[-16:]))
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    cpu, peak = time.process_time() - started, _memory("VmHWM") - base
    peak = max(peak, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss << 10)  # the largest of all so far
    found += [f"touched: {offence}" for offence in place.end()]
    if code not in _CODES.get(kind, {0, 2}) and code != -1:
        found.append(f"code: {code}")
    if code == 0 and case.refuse:
        found.append("accepted")
    said = output.read_text(errors="replace")
    found += ["words: what a file outside holds"] * (CANARY in said or "root:x:0" in said)
    if code > 0:
        found += wrong_words(said)
    found += [f"slow: {cpu:.1f} s"] * (cpu > CPU_SECONDS) + [f"memory: {peak >> 20} MiB"] * (peak > MEMORY)
    return {"code": code, "note": case.note, "cpu": cpu, "mib": peak >> 20, "found": found}


def wrong_words(text: str) -> list[str]:
    """What is wrong with the words of a refusal on stderr: it is one line that names thing, value and remedy."""
    lines = [line for line in text.splitlines() if not _BEFORE.fullmatch(line)]
    last = lines[-1] if lines else ""
    if SECRET in text:
        return [f"words: a password: {text[-300:]}"]
    if "Traceback" in text:
        return [f"words: a traceback: {text[-300:]}"]
    if len(lines) != 1 or not last.startswith("tuner: error: ") or len(last) > LINE or not last.isprintable():
        return [f"words: {len(lines)} lines, {len(last)} characters: {text[:400]!r}"]
    return []


def _memory(name: str) -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{name}:")[1].split()[0]) << 10


def _say_to(output: Path) -> None:
    """Sends stderr, and what libraries write to stdout, to a file for the life of this process."""
    handle = os.open(output, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
    for descriptor in (1, 2):
        os.dup2(handle, descriptor)
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115


def _child(pipe: Connection, seed: int, seeds: Path, root: Path) -> None:
    """Runs the cases that come through the pipe."""
    output = root.with_suffix(".output")
    _say_to(output)
    limit = _memory("VmSize") + MEMORY + (3 << 30)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    place = Place(root)
    while True:
        try:
            kind, index = pipe.recv()
        except EOFError:
            return
        pipe.send(run_case(kind, index, seed, seeds, place, output))


class Worker:
    """One child process, replaced after some inputs and whenever it dies."""

    def __init__(self, number: int, seed: int, seeds: Path, scratch: Path, hang: float) -> None:
        self.root = scratch / f"case{number}"
        self._arguments, self._hang = (seed, seeds, self.root), hang
        self.job: tuple[str, int] | None = None
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("fork")
        self.pipe, theirs = context.Pipe()
        self._process = context.Process(target=_child, args=(theirs, *self._arguments), daemon=True)
        self._process.start()
        theirs.close()
        self._done = 0

    def give(self, job: tuple[str, int]) -> None:
        """Starts a case."""
        if self._done >= _RECYCLE:
            self.close()
            self._start()
        self.job, self._begun = job, time.monotonic()
        self._done += 1
        self.pipe.send(job)

    def result(self) -> dict[str, Any] | None:
        """The case's outcome, once there is one; a child that died or hangs is replaced."""
        found = None
        if self.pipe.poll():
            with contextlib.suppress(EOFError, OSError):
                return self.pipe.recv()
            self._process.join()
            code = self._process.exitcode or 0
            name = signal.Signals(-code).name if code < 0 else f"exit {code}"
            said = self.root.with_suffix(".output").read_text(errors="replace")[-300:]
            found = f"crash: {name}: {said}"
        elif time.monotonic() - self._begun > self._hang:
            self._process.kill()
            found = f"hang: {self._hang:.0f} s"
        if found is None:
            return None
        self.close()
        self._start()
        return {"code": -2, "note": "", "cpu": 0.0, "mib": 0, "found": [found]}

    def close(self) -> None:
        """Ends the child."""
        self.pipe.close()
        self._process.join(2)
        self._process.kill()
        self._process.join()


def jobs(inputs: int, kinds: Sequence[str]) -> Iterator[tuple[str, int]]:
    """``(kind, index)`` of so many inputs, each kind as often as its share."""
    total = sum(KINDS[kind][1] for kind in kinds)
    given: Counter[str] = Counter()
    for count in range(1, inputs + 1):
        kind = max(kinds, key=lambda name: KINDS[name][1] / total * count - given[name])
        yield kind, given[kind]
        given[kind] += 1


def fuzz(
    queue: Iterator[tuple[str, int]],
    seed: int,
    seeds: Path,
    scratch: Path,
    keep: Path,
    workers: int,
    seconds: float,
    hang: float = HANG_SECONDS,
) -> Tally:
    """Runs inputs until there are none or the time is up; findings are kept in `keep`."""
    tally, start = Tally(), time.monotonic()
    queue = itertools.takewhile(lambda _: time.monotonic() - start < seconds, queue)
    pool = [Worker(number, seed, seeds, scratch, hang) for number in range(workers)]
    for worker in pool:
        if (job := next(queue, None)) is not None:
            worker.give(job)
    while any(worker.job for worker in pool):
        wait([worker.pipe for worker in pool if worker.job], 0.5)
        for worker in pool:
            if worker.job is None or (result := worker.result()) is None:
                continue
            _count(tally, worker, result, keep)
            worker.job = None
            if (job := next(queue, None)) is not None:
                worker.give(job)
    for worker in pool:
        worker.close()
    tally.seconds = round(time.monotonic() - start, 1)
    return tally


def _count(tally: Tally, worker: Worker, result: dict[str, Any], keep: Path) -> None:
    assert worker.job is not None
    kind, index = worker.job
    tally.inputs += 1
    tally.kinds[kind] += 1
    tally.codes[str(result["code"])] += 1
    tally.cpu_seconds[kind] += result["cpu"]
    tally.slowest_cpu_seconds = max(tally.slowest_cpu_seconds, round(result["cpu"], 1))
    tally.largest_mib = max(tally.largest_mib, result["mib"])
    for text in result["found"]:
        tally.findings[text.partition(":")[0]] += 1
    if result["found"]:
        target = keep / f"{kind}-{index}"
        keep_files(worker.root / "given", target / "given")
        (target / "finding.txt").write_text("\n".join([result["note"], *result["found"]]), errors="backslashreplace")
        print(f"{kind}:{index}: {result['found'][0].splitlines()[0][:300]}", file=sys.stderr, flush=True)


def keep_files(given: Path, target: Path) -> None:
    """Copies what a finding was made of; what has many MiB, as sparse files have, is left out."""

    def copy(source: str, copied: str) -> None:
        if Path(source).lstat().st_size > _KEPT_BYTES:
            Path(f"{copied}.left-out").touch()
        else:
            shutil.copyfile(source, copied, follow_symlinks=False)

    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    with contextlib.suppress(shutil.Error, OSError):  # what is no file, and what the case left unreadable
        shutil.copytree(given, target, symlinks=True, copy_function=copy, dirs_exist_ok=True)


def make_seeds(folder: Path, *, full: bool) -> None:
    """Makes the corpus in another process: threads that it starts would not live through a fork."""
    script = Path(__file__).with_name("fuzz_seeds.py")
    done = subprocess.run(
        [sys.executable, script, folder, *(["--full"] if full else [])], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"the corpus cannot be made: {done.stderr[-2000:]}")


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=math.inf, help="No new input after these.")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--kinds", nargs="*", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--keep", type=Path, default=Path(tempfile.gettempdir()) / "fuzz-findings")
    parser.add_argument("--seeds", type=Path, help="A corpus to use again; made there where it is missing.")
    parser.add_argument("--only", metavar="KIND:INDEX")
    parser.add_argument(
        "--hang", type=float, default=HANG_SECONDS, help="Seconds of one input; more on a busy machine."
    )
    options = parser.parse_args()
    fuzz_planted.SECONDS = options.hang - 2  # a hang of the command is told before one of the child
    with tempfile.TemporaryDirectory(prefix="fuzz-") as scratch:
        os.environ["YOLO_CONFIG_DIR"] = scratch
        seeds = options.seeds or Path(scratch) / "seeds"
        if not seeds.is_dir():
            make_seeds(seeds, full="checkpoint" in options.kinds)
        if "checkpoint" in options.kinds:
            from objectives.torch_models.packages import require_ultralytics

            require_ultralytics("fuzz")  # once, for all children
        if options.only:
            kind, _, index = options.only.partition(":")
            output, shown = Path(scratch) / "output", os.fdopen(os.dup(1), "w")
            _say_to(output)
            result = run_case(kind, int(index), options.seed, seeds.resolve(), Place(Path(scratch) / "case"), output)
            text = json.dumps(result, indent=1).replace("\\n", "\n")
            print(output.read_text(errors="replace"), text, sep="", file=shown, flush=True)
            return int(bool(result["found"]))
        queue = jobs(options.inputs, options.kinds)
        workers, seconds = options.workers, options.seconds
        place = (seeds.resolve(), Path(scratch), options.keep)
        tally = fuzz(queue, options.seed, *place, workers, seconds, options.hang)
    print(json.dumps(vars(tally)))
    return int(sum(tally.findings.values()) > 0)


if __name__ == "__main__":
    sys.exit(main())
