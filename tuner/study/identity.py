"""Identity of a run: what must be the same for two of its trials to be comparable."""

from __future__ import annotations

import json
import platform
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from objectives.runtimes.registry import open_runtime
from objectives.runtimes.runtime import Runtime
from objectives.tasks.detection.metrics.registry import DEFAULT_METRICS
from search_spaces.durable import write_durably
from search_spaces.errors import InputError
from search_spaces.formats import get_format
from search_spaces.groups import Group
from search_spaces.reading import record_of
from search_spaces.space import SearchSpace
from tuner.study.config import StudyConfig
from tuner.study.run_folder import RunFolder, read_json
from tuner.study.study_file import read_study
from tuner.version import __version__

MANIFEST_VERSION = 1
_NO_LONGER = ("device.gpu_uuid",)  # what older runs recorded and nothing depends on
_PACKAGES = ("numpy", "onnx", "optuna", "pycocotools")


@dataclass(frozen=True)
class _Space:
    """The space as a manifest holds it."""

    groups: list[tuple[str, list[str]]]
    formats: list[list[str]]
    layers: list[str]


@dataclass(frozen=True)
class _Manifest:
    """What a manifest must hold."""

    id: str
    study: str
    started: str
    trials: Annotated[int, Field(gt=0, lt=2**31)]
    identity: dict[str, Any]
    space: _Space
    patience_from: Annotated[int, Field(ge=0)] = 0


def identity(config: StudyConfig, *, digests: Mapping[str, str]) -> dict[str, Any]:
    """Returns the identity as a flat object of plain values.

    What may change between two sittings of one run (trials, hours, paths) is left out.

    Args:
        config: The study.
        digests: ``{"model": ..., "data": ..., "calibration": ..., "space": ...}`` as far as they apply.
    """
    settings, runtime, metrics = config.runtime, open_runtime(config.runtime), list(config.data.metrics)
    bounds = config.constraints.model_dump()
    for name in ("min_agreement", "max_drop"):  # which runs had no word for before they could be bounded
        if bounds[name] is None:
            del bounds[name]
    return {
        **{f"digest.{name}": value for name, value in digests.items()},
        "runtime.name": settings.name,
        "runtime.threads": settings.threads,
        "runtime.batch": settings.batch,
        **runtime.build_facts(),
        **{f"device.{name}": value for name, value in runtime.device().items()},
        **{f"versions.{name}": value for name, value in versions(runtime).items()},
        **{f"timing.{key}": value for key, value in config.timing.resolved(runtime.timing).model_dump().items()},
        **{f"calibration.{key}": value for key, value in config.calibration.model_dump().items()},
        # Where weights are recovered does not matter: they are kept in the run, and both ways agree within rounding.
        **{f"weights.{key}": value for key, value in config.weights.model_dump(exclude={"device"}).items()},
        **{f"constraints.{key}": value for key, value in bounds.items()},
        "model.head": config.model.head,
        "model.image_size": config.model.image_size,
        "data.search_images": config.data.search_images,
        # Left out where it is the default, which runs had before there was a choice.
        **({"data.metrics": metrics} if metrics != list(DEFAULT_METRICS) else {}),
        "objectives": list(config.objectives),
        "search.sampler": config.search.sampler,
        "search.seed": config.search.seed,
    }


def versions(runtime: Runtime) -> dict[str, str]:
    """Versions of everything that can change a score."""
    found = {"tuner": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        found[name] = metadata.version(name)
    return {**found, **runtime.versions()}


def new_manifest(config: StudyConfig, space: SearchSpace, now: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the manifest of a run that starts now.

    Args:
        config: The study.
        space: Its groups and formats, kept so that a run is readable without its model.
        now: The identity.
    """
    return {
        "version": MANIFEST_VERSION,
        "id": uuid.uuid4().hex,
        "study": config.name,
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
        "identity": dict(now),
        "reference_point": dict(zip(config.objectives, config.objective_set.reference_point, strict=True)),
        "space": {
            "groups": [[group.name, list(group.layers)] for group in space.groups],
            "formats": [list(formats) for formats in space.formats],
            "layers": list(space.layers),
        },
    }


def recorded_space(manifest: Mapping[str, Any]) -> SearchSpace:
    """Returns the space that a manifest recorded."""
    space = record_of(_Space, manifest["space"], "manifest.json: space")
    groups = tuple(Group(name, tuple(layers)) for name, layers in space.groups)
    members = [name for group in groups for name in group.layers]
    if (
        len({group.name for group in groups}) != len(space.formats)
        or sorted(members) != sorted(space.layers)
        or not all(space.formats)
    ):
        raise InputError("manifest.json: space: its groups, formats and layers do not fit together; restore it")
    for name in {name for names in space.formats for name in names}:
        get_format(name)
    return SearchSpace(groups, tuple(map(tuple, space.formats)), tuple(space.layers))


def write_manifest(run: RunFolder, manifest: Mapping[str, Any]) -> None:
    """Writes ``manifest.json`` durably."""
    write_durably(run.manifest, json.dumps(manifest, indent=1) + "\n")


def read_manifest(run: RunFolder) -> dict[str, Any]:
    """Reads ``manifest.json``.

    Raises:
        InputError: It is missing, damaged, or not one.
    """
    if not run.manifest.exists():
        raise InputError(f"run {str(run.path)!r}: not prepared yet; `tuner resume {run.path}` goes on")
    data = read_json(run.manifest, dict[str, Any])
    record_of(_Manifest, data, str(run.manifest), "restore it")
    recorded_space(data)
    return data


def read_run_study(run: RunFolder, overrides: Sequence[str] = (), *, check_paths: bool = True) -> StudyConfig:
    """The study of a run, also where the run was moved since its paths were written; raises as `read_study` does."""
    folder = read_manifest(run).get("folder") if run.manifest.is_file() else None
    moved_from = Path(folder) if isinstance(folder, str) else None
    return read_study(run.study_file, overrides, check_paths=check_paths, moved_from=moved_from)


def check_identity(run: RunFolder, recorded: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Compares the identity of a resumed run with the recorded one.

    Raises:
        InputError: They differ; the message names every differing field, its value now and then.
    """
    fields = [key for key in {**recorded, **now} if recorded.get(key) != now.get(key) and key not in _NO_LONGER]
    if fields:
        said = "; ".join(f"{key} is {short(now.get(key))}, was {short(recorded.get(key))}" for key in fields)
        raise InputError(
            f"run {str(run.path)!r}: cannot be resumed, its trials would not compare: {said}; "
            "restore what differs, or start another run"
        )


def short(value: object) -> str:
    """A value as messages show it: the head of a digest, else all of it."""
    text = str(value)
    return text[:16] if len(text) == 64 else text
