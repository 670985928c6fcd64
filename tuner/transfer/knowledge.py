"""What studies taught, as files in the user's cache: one per device and runtime, one per model, one per both.

They only steer: a search begins from them, and every figure that it reports is measured anew. A file that is
damaged is left out and written again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import Field, FiniteFloat

from objectives.runtimes.engine_cache import cache_home
from search_spaces.durable import write_durably
from search_spaces.errors import InputError
from search_spaces.reading import parse_json, record_of
from search_spaces.regular import read_regular
from tuner.study.inputs import Inputs

T = TypeVar("T")
_REMEDY = "delete it: the next study writes it again"
Cost = Annotated[FiniteFloat, Field(ge=0)]


@dataclass(frozen=True)
class DeviceCosts:
    """Latencies on one device, in one version of a runtime.

    Attributes:
        study: Name of the study that taught it.
        trials: That it rests on.
        choices: ``{shapes of a group: {format: ms}}``, see `tuner.transfer.keys`.
        kinds: ``{kind of a group: {format: logarithm of the learned speed-up over the runtime's own estimate}}``.
        edges: ``{edge between two groups: (ms of a reformat, ms of a broken fusion)}``.
        reformat_ms: Of a reformat on an edge of mean size.
        break_ms: Of a broken fusion on such an edge.
    """

    study: str
    trials: int
    choices: Mapping[str, Mapping[str, Cost]]
    kinds: Mapping[str, Mapping[str, FiniteFloat]]
    edges: Mapping[str, tuple[Cost, Cost]]
    reformat_ms: Cost
    break_ms: Cost


@dataclass(frozen=True)
class ModelEffects:
    """What quantizing the layers of one model costs in accuracy, whatever device it was measured on.

    Attributes:
        study: Name of the study that taught it.
        trials: That it rests on.
        groups: ``{names of a group's layers: {format: loss}}``, a loss being ``-ln(accuracy / reference)``.
    """

    study: str
    trials: int
    groups: Mapping[str, Mapping[str, Cost]]


@dataclass(frozen=True)
class KnownScheme:
    """One scheme.

    Attributes:
        formats: ``{names of a group's layers: format}``.
        shares: ``{objective: its value over the unquantized model's}``.
    """

    formats: Mapping[str, str]
    shares: Mapping[str, Cost]


@dataclass(frozen=True)
class KnownFront:
    """The front that a study of one model found on one device.

    Attributes:
        study: Name of that study.
        trials: That it rests on.
        schemes: Its members.
    """

    study: str
    trials: int
    schemes: tuple[KnownScheme, ...]


@dataclass(frozen=True)
class Knowledge:
    """What a study begins with; None where nothing is known.

    Attributes:
        costs: Of its device.
        effects: Of its model.
        front: Of its model on its device.
    """

    costs: DeviceCosts | None = None
    effects: ModelEffects | None = None
    front: KnownFront | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """A line for each part."""
        said = "search.transfer: false leaves it out"
        parts = (
            ("costs on this device", self.costs),
            ("effects on this model's accuracy", self.effects),
            ("front of this model on this device", self.front),
        )
        return tuple(
            f"prior: {what} from study {known.study!r}, {known.trials} trials ({said})"
            for what, known in parts
            if known is not None
        )

    def to_json(self) -> str:
        """As JSON."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str, name: str) -> Knowledge:
        """Reads what `to_json` wrote; raises InputError where it is something else."""
        return record_of(Knowledge, parse_json(text, name, _REMEDY), name, _REMEDY)


class KnowledgeFiles:
    """Where the knowledge of a study's device and model lies.

    Args:
        inputs: The study.
        home: In place of the user's cache.
    """

    def __init__(self, inputs: Inputs, home: Path | None = None) -> None:
        config, runtime = inputs.config, inputs.runtime
        settings = {"runtime": runtime.name, "threads": config.runtime.threads, "batch": config.runtime.batch}
        device = {**settings, **runtime.build_facts(), **runtime.device(), **runtime.versions()}
        model = {"model": inputs.graph.digest, "accuracy": config.objective_set.maximised.name}
        both = {**device, **model, "objectives": [objective.name for objective in config.objective_set.objectives]}
        self.folder = (home or cache_home()) / "transfer"
        self._costs = self.folder / f"costs-{_key(device)}.json"
        self._effects = self.folder / f"effects-{_key(model)}.json"
        self._front = self.folder / f"front-{_key(both)}.json"

    def read(self) -> tuple[Knowledge, list[str]]:
        """What is known, and a line for each file that could not be read."""
        faults: list[str] = []
        found = Knowledge(
            _read(self._costs, DeviceCosts, faults),
            _read(self._effects, ModelEffects, faults),
            _read(self._front, KnownFront, faults),
        )
        return found, faults

    def write(self, taught: Knowledge) -> None:
        """Keeps what rests on no fewer trials than what is there.

        Raises:
            OSError: It cannot be written.
        """
        there, _ = self.read()
        for path, new, old in (
            (self._costs, taught.costs, there.costs),
            (self._effects, taught.effects, there.effects),
            (self._front, taught.front, there.front),
        ):
            if new is not None and (old is None or new.trials >= old.trials):
                write_durably(path, json.dumps(asdict(new), indent=1))


def _key(facts: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _read(path: Path, kind: type[T], faults: list[str]) -> T | None:
    try:
        return record_of(kind, parse_json(read_regular(path), str(path), _REMEDY), str(path), _REMEDY)
    except FileNotFoundError:
        return None
    except (InputError, OSError) as error:
        faults.append(str(error))
        return None
