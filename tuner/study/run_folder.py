"""The folder of one run: where each file lies, durable writes, the lock, the event log."""

from __future__ import annotations

import json
import secrets
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
from search_spaces.regular import open_appending, read_regular
from tuner.study.run_entries import check_entries

T = TypeVar("T")
_REMEDY = "restore or delete it"


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
        self.refinements = path / "refined"
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
            InputError: It is not one, or holds a link or anything else that is no file or folder in its place.
        """
        run = RunFolder(path)
        if not path.is_dir():
            raise InputError(f"run {str(path)!r}: no such folder; `tuner run STUDY.yaml` starts one")
        if not run.study_file.is_file():
            raise InputError(f"run {str(path)!r}: not a run: it holds no study.yaml; see `tuner run --help`")
        check_entries(path)
        return run

    @property
    def prepared(self) -> bool:
        """Whether it holds anything that took work: calibration, weights, a sensitivity, engines, scores."""
        made = (self.calibration, self.recovered, self.sensitivity, self.reference, self.probe, self.costs)
        folders = (self.evaluations, self.predictions, self.engines)
        return any(path.exists() for path in made) or any(any(folder.glob("*")) for folder in folders)

    def remove(self) -> None:
        """Removes the folder and everything in it; whoever does holds its lock.

        It loses its name first: nobody who comes meanwhile finds half of it, or works in it.
        """
        gone = self.path.with_name(f".{self.path.name}-{secrets.token_hex(4)}")
        try:
            self.path.rename(gone)
        except OSError:  # somebody's mount point
            gone = self.path
        shutil.rmtree(gone, ignore_errors=True)

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
            if not self.path.is_dir():
                raise InputError(f"run {str(self.path)!r}: was removed by another `tuner`; start it again")
            yield
        finally:
            lock.release()

    def log(self, event: str, **fields: Any) -> None:
        """Appends one event to ``log.jsonl``."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime())
        line = json.dumps({"time": f"{stamp}Z", "event": event, **fields})
        with open_appending(self.log_file) as file:
            file.write(f"{line}\n".encode())

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
        return read_regular(path).decode()
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a text file; {_REMEDY}") from None
    except OSError as error:
        remedy = "check its owner and permissions" if isinstance(error, PermissionError) else _REMEDY
        raise InputError(f"{path}: cannot be read ({error.strerror}); {remedy}") from None


def read_json(path: Path, kind: type[T]) -> T:
    """Reads a JSON file of a run as what it holds: dataclasses, lists or mappings of them.

    Raises:
        InputError: It is missing, damaged, or holds something else.
    """
    return record_of(kind, parse_json(read_text(path), str(path), _REMEDY), str(path), _REMEDY)
