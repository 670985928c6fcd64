"""A study file composed for a user who names a model and data: commented, ready to run or to edit."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from objectives.agreement import AGREEMENT
from objectives.objective import ENGINE_MIB, LATENCY_MS, MAP_50_95, WEIGHT_MIB
from objectives.runtimes import DEFAULT_RUNTIME
from objectives.runtimes.engine_builder import EngineBuilder
from objectives.runtimes.registry import RUNTIMES, open_runtime, parse_settings
from objectives.runtimes.runtime import Runtime
from objectives.runtimes.support import SupportKind
from objectives.tasks.detection.data.data_yaml import YAML_SUFFIXES, DataYaml, data_yaml_in, read_data_yaml
from objectives.tasks.detection.data.dataset import has_labels
from objectives.tasks.detection.data.image_files import images_in
from search_spaces.errors import InputError
from search_spaces.formats import FORMATS, UNQUANTIZED
from search_spaces.reading import is_file, is_folder
from tuner.study.config import SearchSection, StudyConfig
from tuner.study.model_file import CHECKPOINT_SUFFIX
from tuner.study.study_file import read_study, study_of

MODEL_SUFFIXES = (".onnx", CHECKPOINT_SUFFIX)
#: Of so many images trials are scored on a part, of the size below; their front is scored on all in any case.
_MANY, _PART = 1000, 500
_KINDS = ("a study file (.yaml)", "an ONNX file (.onnx)", f"an Ultralytics checkpoint ({CHECKPOINT_SUFFIX})")


@dataclass(frozen=True)
class Given:
    """What a user says of a study that has no file.

    Attributes:
        data: Data yaml, or a folder that holds one: scored on its ``val`` split, calibrated on images of ``train``.
        images: Folder of the evaluation images, in place of `data`.
        annotations: Their COCO json; without labels the agreement with the unquantized model is searched by.
        calibration: List, folder or data yaml of calibration images; None: found in `data`, or held out.
        runtime: Its name; None for the default one.
        max_drop: Points of the accuracy that a scheme may lose.
        trials: How many schemes are tried.
    """

    data: Path | None = None
    images: Path | None = None
    annotations: Path | None = None
    calibration: Path | None = None
    runtime: str | None = None
    max_drop: float | None = None
    trials: int | None = None

    def refuse(self, names: Sequence[str], reason: str) -> None:
        """Refuses what was given and does not fit.

        Raises:
            InputError: One of `names` was given.
        """
        for name in names:
            if getattr(self, name) is not None:
                raise InputError(f"--{name.replace('_', '-')} {getattr(self, name)}: {reason}")


@dataclass(frozen=True)
class Composed:
    """A composed study.

    Attributes:
        text: Of its file.
        notes: What a person should know of the choices, a line each.
    """

    text: str
    notes: tuple[str, ...] = ()


def open_study(target: Path, given: Given, overrides: Sequence[str] = ()) -> tuple[StudyConfig, tuple[str, ...]]:
    """The study that a user names by its file, or by a model and what else was given.

    Args:
        target: Study file, ONNX file or checkpoint.
        given: Of a study file only what is no matter of data may be given.
        overrides: ``section.key=VALUE``, over all else.

    Returns:
        The study with absolute paths, and notes for a person.

    Raises:
        InputError: `target` is neither, or what was given is wrong or does not fit it.
    """
    if is_folder(target) and is_file(target / "study.yaml"):
        raise InputError(f"{target}: is a run; `tuner resume {target}` goes on with it")
    if target.suffix.lower() in YAML_SUFFIXES:
        names = ("data", "images", "annotations", "calibration")
        given.refuse(names, f"{target} is a study file and names its own; change it there, or by --set data.KEY=VALUE")
        keys = {"runtime": "runtime.name", "max_drop": "constraints.max_drop", "trials": "search.trials"}
        changes = [f"{key}={value}" for name, key in keys.items() if (value := getattr(given, name)) is not None]
        return read_study(target, [*changes, *overrides]), ()
    found = compose(target, given, Path.cwd())
    return study_of(yaml.safe_load(found.text), str(target), Path.cwd(), overrides), found.notes


def compose(model: Path, given: Given, root: Path) -> Composed:
    """Writes the study of a model.

    Args:
        model: ONNX file or checkpoint.
        given: Data and wishes.
        root: Folder of the study file, which paths in it are relative to.

    Raises:
        InputError: The model or something that was given is missing or wrong.
        RuntimeUnavailable: This machine lacks what the runtime needs.
    """
    if model.suffix.lower() not in MODEL_SUFFIXES:
        raise InputError(f"{model}: is neither {', '.join(_KINDS[:-1])} nor {_KINDS[-1]}")
    if not is_file(model):
        raise InputError(f"{model}: no such file")
    if given.trials is not None and given.trials < 1:
        raise InputError(f"--trials {given.trials}: must be at least 1")
    runtime = open_runtime(parse_settings({"name": RUNTIMES.check(given.runtime or DEFAULT_RUNTIME)}))
    if not runtime.artifacts:
        raise InputError(f"--runtime {runtime.name}: runs no model, so it needs a study file")
    runtime.check()
    data, notes = _data(given)
    labelled = data.pop("labelled")
    objectives, formats, left_out = _formats(runtime, labelled)
    if not labelled:
        notes.append("no labels: the search goes by agreement with the unquantized model's detections, not by mAP")
    if LATENCY_MS.name not in objectives:
        notes.append(f"{runtime.name} is not timed here: the search goes by {objectives[-1]}")
    many = data.pop("count") > _MANY
    trials = SearchSection().trials if given.trials is None else given.trials
    lines = [
        f"# A study of {_value(model.name)}, composed by tuner. `tuner run THIS_FILE` starts it.",
        f"name: {_value(_name(model))}",
        "model:",
        f"  path: {_path(model, root)}",
        "  # head, image_size and classes are read from the model",
        "data:",
        *(f"  {key}: {_path(value, root) if isinstance(value, Path) else value}" for key, value in data.items()),
        *([] if "calibration" in data else ["  # calibration: none; some of the images calibrate, and are not scored"]),
        *([f"  search_images: {_PART}  # trials are scored on so many, the front on all"] if many else []),
        "runtime:",
        f"  name: {runtime.name}  # others: `tuner doctor`",
        "space:",
        f"  formats: [{', '.join(formats)}]",
        *(f"  # left out: {', '.join(names)}: {why}" for why, names in left_out.items()),
        "  granularity: layer  # or module, stage: fewer choices",
        f"objectives: [{', '.join(objectives)}]",
        "constraints:",
        f"  max_drop: {_value(given.max_drop)}  # points of the accuracy that a scheme may lose; null: any",
        "search:",
        f"  trials: {trials}  # `tuner resume RUN --trials N` adds more",
        "  # hours: 1.0  # ends the search earlier",
        "",
    ]
    return Composed("\n".join(lines), tuple(notes))


def _formats(runtime: Runtime, labelled: bool) -> tuple[list[str], list[str], dict[str, list[str]]]:
    """Objectives, the formats that gain something in them on this machine, and the others by the reason."""
    accuracy = MAP_50_95.name if labelled else AGREEMENT.name
    found = {name: runtime.support(fmt) for name, fmt in FORMATS.items()}
    faster = any(found[name].kind is SupportKind.COMPUTES for name in FORMATS if name != UNQUANTIZED)
    if faster and not runtime.emulated:
        objectives, good = [accuracy, LATENCY_MS.name], {SupportKind.COMPUTES}
    else:
        size = ENGINE_MIB if isinstance(runtime, EngineBuilder) else WEIGHT_MIB
        objectives, good = [accuracy, size.name], {SupportKind.COMPUTES, SupportKind.STORES}
    formats = [name for name in FORMATS if name == UNQUANTIZED or found[name].kind in good]
    left_out: dict[str, list[str]] = {}
    for name in FORMATS:
        if name not in formats:
            left_out.setdefault(found[name].text, []).append(name)
    return objectives, formats, left_out


def _data(given: Given) -> tuple[dict[str, Any], list[str]]:
    """The section `data`, whether it has labels, and the number of images; and notes."""
    path = given.data
    if path is None and given.images is not None and given.images.suffix.lower() in YAML_SUFFIXES:
        path = given.images
        given.refuse(("annotations",), f"{path} is a data yaml and names its labels itself; leave it out")
    elif path is not None:
        given.refuse(("images", "annotations"), "--data names the images and their labels already; give one or other")
    if path is not None:
        return _of_yaml(read_data_yaml(data_yaml_in(path)), given.calibration)
    if given.images is None:
        raise InputError("no images: give --data DATA.yaml, or --images DIR with --annotations FILE")
    if not is_folder(given.images):
        raise InputError(f"--images {str(given.images)!r}: no such folder; give the folder of the evaluation images")
    data: dict[str, Any] = {"images": given.images}
    for name in ("annotations", "calibration"):
        value = getattr(given, name)
        if value is not None:
            if not (is_file(value) or is_folder(value)):
                raise InputError(f"--{name} {str(value)!r}: no such file")
            data[name] = value
    data["labelled"] = given.annotations is not None or has_labels(given.images)
    data["count"] = len(images_in(given.images))
    return data, []


def _of_yaml(found: DataYaml, calibration: Path | None) -> tuple[dict[str, Any], list[str]]:
    split = "test" if not found.entries.get("val") and found.entries.get("test") else "val"
    images = found.images(split)
    data: dict[str, Any] = {"images": found.path, "split": split, "labelled": True, "count": len(images)}
    if calibration is not None:
        if not (is_file(calibration) or is_folder(calibration)):
            raise InputError(f"--calibration {str(calibration)!r}: no such list, folder or data yaml")
        return {**data, "calibration": calibration}, []
    why = _no_calibration(found, set(images), split)
    if not why:
        return {**data, "calibration": found.path}, []
    return data, [f"{found.path}: {why}, so some of its {split} images calibrate, and are not scored; or --calibration"]


def _no_calibration(found: DataYaml, scored: set[Path], split: str) -> str:
    """Why the ``train`` split gives no calibration images; empty where it does."""
    if not found.entries.get("train"):
        return "names no train images"
    try:
        return f"its train images are those of {split}" if set(found.images("train")) <= scored else ""
    except InputError:
        return "its train images are not there"


def _name(model: Path) -> str:
    """A study's name, which is also a folder's."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", model.stem).strip("-._")[:100] or "model"


def _path(path: Path, root: Path) -> str:
    try:
        text = os.path.relpath(path, root)
    except ValueError:  # on another drive
        text = str(path.absolute())
    return _value(text)


def _value(value: Any) -> str:
    """One value as YAML, on one line."""
    style = '"' if isinstance(value, str) and value.splitlines() != [value] else None  # others keep breaks
    text: str = yaml.safe_dump(value, default_style=style, default_flow_style=True, allow_unicode=True, width=10**6)
    return text.strip().removesuffix("...").strip()
