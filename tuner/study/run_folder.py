"""The folder of one run: where each file lies, durable writes, the lock, the event log."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import filelock

from objectives.scores import Failure, Outcome, Scores, Screened, checked
from search_spaces.allocation import Allocation
from search_spaces.durable import durable_folder, write_durably
from search_spaces.errors import InputError
from search_spaces.reading import parse_json, record_of

T = TypeVar("T")
_REMEDY = "restore or delete it"
# Never the end of a name of one of our folders.
_FILES = (".json", ".jsonl", ".yaml", ".md", ".csv", ".html", ".db", ".npz", ".log")


@dataclass(frozen=True)
class _Evaluation:
    """What `RunFolder.save_evaluation` writes."""

    allocation: dict[str, str]
    scores: Scores | None = None
    failure: Failure | None = None
    screened: Screened | None = None


class RunFolder:
    """Names the files of a run and writes them durably.

    Attributes:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.study_file = path / "study.yaml"
        self.manifest = path / "manifest.json"
        self.linked = path / "linked.json"
        self.database = path / "study.db"
        self.calibration = path / "calibration.json"
        self.sensitivity = path / "sensitivity.json"
        self.reference = path / "reference.json"
        self.baselines = path / "baselines.json"
        self.report = path / "report.html"
        self.learned = path / "learned.json"
        self.comparison = path / "comparison.json"
        self.log_file = path / "log.jsonl"
        self.cache = path / "cache"
        self.image_cache = self.cache / "images"
        self.costs = self.cache / "costs.json"
        self.seeds = self.cache / "seeds.json"
        self.transfer = self.cache / "transfer.json"
        self.evaluations = self.cache / "evaluations"
        self.predictions = self.cache / "predictions"
        self.known = self.cache / "known"
        self.engines = self.cache / "engines"
        self.recovered = self.cache / "weights.npz"
        self.rescores = self.cache / "rescores"
        self.retimed = self.cache / "retimed.json"
        self.probe = path / "probe.json"
        self.blocked = path / "blocked.json"
        self.workers = path / "workers"
        self.failures = path / "failures"
        self.artifacts = path / "artifacts"
        self.schemes = path / "schemes"

    @staticmethod
    def create(path: Path, study_text: str, linked: Path | None = None) -> RunFolder:
        """Creates the folder with its study file in one step, so that a crash leaves all or nothing.

        Args:
            path: The folder.
            study_text: Of its study file.
            linked: The run that this one, on a new device, is linked to.

        Raises:
            InputError: The folder exists, or cannot be written.
        """
        refuse_existing(path)
        try:
            with durable_folder(path) as staging:
                write_durably(staging / "study.yaml", study_text)
                if linked is not None:
                    write_durably(staging / "linked.json", json.dumps({"path": str(linked.resolve())}))
        except OSError as error:
            reason = f"cannot be written ({error.strerror})"
            raise InputError(f"run folder {str(path)!r}: {reason}; choose --run DIR") from None
        run = RunFolder(path)
        run.evaluations.mkdir(parents=True)
        return run

    @staticmethod
    def open(path: Path) -> RunFolder:
        """Opens the folder of an existing run.

        Raises:
            InputError: It is not one.
        """
        run = RunFolder(path)
        if not path.is_dir():
            raise InputError(f"run {str(path)!r}: no such folder; `tuner run STUDY.yaml` starts one")
        if not run.study_file.is_file():
            raise InputError(f"run {str(path)!r}: not a run: it holds no study.yaml; see `tuner run --help`")
        for folder in (path, run.cache):
            link = next((entry for entry in folder.glob("*") if entry.is_symlink()), None)
            if link is not None:  # it would have us write somewhere else
                raise InputError(f"run {str(path)!r}: holds a link, {link.name!r}; put the file itself in its place")
            wrong = next((entry for entry in folder.glob("*") if entry.is_dir() and entry.suffix in _FILES), None)
            if wrong is not None:
                raise InputError(f"run {str(path)!r}: {wrong.name!r} is a folder where a file belongs; move it away")
        return run

    @property
    def prepared(self) -> bool:
        """Whether it holds anything that took work: calibration, weights, a sensitivity, engines, scores."""
        made = (self.calibration, self.recovered, self.sensitivity, self.reference, self.probe, self.costs)
        folders = (self.evaluations, self.predictions, self.engines)
        return any(path.exists() for path in made) or any(any(folder.glob("*")) for folder in folders)

    def remove(self) -> None:
        """Removes the folder and everything in it."""
        shutil.rmtree(self.path, ignore_errors=True)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Holds the run exclusively; the lock ends with the process, however it ends.

        Raises:
            InputError: Another process holds it, or the folder cannot be written.
        """
        lock = filelock.FileLock(self.path / ".lock", timeout=0)
        try:
            lock.acquire()
        except filelock.Timeout:
            raise InputError(f"run {str(self.path)!r}: another `tuner` works on it; wait for its end") from None
        except OSError as error:
            reason = f"cannot be written ({error.strerror})"
            raise InputError(f"run {str(self.path)!r}: {reason}; check its owner") from None
        try:
            yield
        finally:
            lock.release()

    def log(self, event: str, **fields: Any) -> None:
        """Appends one event to ``log.jsonl``."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime())
        with self.log_file.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"time": f"{stamp}Z", "event": event, **fields}) + "\n")

    def save_evaluation(self, allocation: Allocation, result: Outcome) -> None:
        """Makes one evaluation durable: it is never repeated afterwards."""
        record = {"allocation": allocation.formats, _kind(result): result.to_json()}
        write_durably(self.evaluations / f"{allocation.digest}.json", json.dumps(record))

    def evaluation(self, allocation: Allocation) -> Outcome | None:
        """Returns the durable evaluation of an allocation, if there is one."""
        path = self.evaluations / f"{allocation.digest}.json"
        if not path.is_file():
            return None
        record = read_json(path, _Evaluation)
        result = record.scores or record.screened or record.failure
        if result is None or checked(result) is not result:
            raise InputError(f"{path}: holds no scores that can be; {_REMEDY}")
        return result


def _kind(result: Outcome) -> str:
    """The field of `_Evaluation` that holds it."""
    return {Scores: "scores", Screened: "screened", Failure: "failure"}[type(result)]


def refuse_existing(path: Path) -> None:
    """Refuses a run folder that holds anything.

    Raises:
        InputError: It does; the message names the way on.
    """
    if path.is_dir() and not any(path.iterdir()):
        return
    if path.exists():
        way = f"`tuner resume {path}` continues it" if (path / "study.yaml").is_file() else "it is not a run"
        raise InputError(f"run folder {str(path)!r} exists: {way}; choose another with --run DIR")


def read_text(path: Path) -> str:
    """Reads a text file of a run.

    Raises:
        InputError: It is missing, not a file, or no text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({type(error).__name__}); {_REMEDY}") from None


def read_json(path: Path, kind: type[T]) -> T:
    """Reads a JSON file of a run as what it holds: dataclasses, lists or mappings of them.

    Raises:
        InputError: It is missing, damaged, or holds something else.
    """
    return record_of(kind, parse_json(read_text(path), str(path), _REMEDY), str(path), _REMEDY)
