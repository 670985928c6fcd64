"""Reads and writes study files: safe YAML, dotted overrides, one-line errors."""

from __future__ import annotations

import contextlib
import os
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from objectives.runtimes.registry import parse_settings
from objectives.runtimes.settings import RuntimeSettings
from search_spaces.errors import InputError, nearest
from search_spaces.reading import is_file, is_folder, parse_yaml, read_yaml
from tuner.study.config import PATH_KEYS, StudyConfig


def read_study(
    path: Path, overrides: Sequence[str] = (), *, check_paths: bool = True, moved_from: Path | None = None
) -> StudyConfig:
    """Reads a study file and makes its paths absolute.

    Args:
        path: The YAML file; its folder is the root of relative paths.
        overrides: ``section.key=VALUE``, each VALUE parsed as YAML.
        check_paths: Whether the named files must exist.
        moved_from: Folder that the file was in when its paths were written; tried where one is not found.

    Raises:
        InputError: The file is missing, too large, not YAML, or does not describe a study; a path in it
            does not exist.
    """
    check_name(path)
    data = read_yaml(path, "study file")
    root = Path(os.path.realpath(path)).parent  # loops are told by whoever opens the file
    return study_of(data, str(path), root, overrides, check_paths=check_paths, moved_from=moved_from)


def study_of(
    data: dict[str, Any],
    source: str,
    root: Path,
    overrides: Sequence[str] = (),
    *,
    check_paths: bool = True,
    moved_from: Path | None = None,
) -> StudyConfig:
    """Reads the mapping of a study file; see `read_study`.

    Args:
        data: The mapping; overrides are written into it.
        source: Where it is from, for messages.
        root: What paths are relative to.
        overrides: As there.
        check_paths: As there.
        moved_from: As there.
    """
    for override in overrides:
        _override(data, override)
    try:
        config = StudyConfig.model_validate(data)
    except ValidationError as error:
        raise InputError(f"{source}: {_explain(error)}") from None

    def located(text: str) -> str:
        tried = [os.path.normpath(place / Path(text).expanduser()) for place in (root, moved_from) if place is not None]
        return next((each for each in tried if is_file(Path(each)) or is_folder(Path(each))), tried[0])

    config = _map_paths(config, located)
    for section, key in _path_keys(config):
        value = getattr(getattr(config, section), key)
        if check_paths and value is not None and not (is_file(Path(value)) or is_folder(Path(value))):
            advice = "paths are relative to the study file"
            raise InputError(f"{source}: {section}.{key}: {value!r} does not exist; {advice}")
    return config


def check_name(path: Path) -> None:
    """Refuses a path that no study file, report or data base could name, before hours are spent there.

    Raises:
        InputError: It is not UTF-8.
    """
    whole = path.absolute()
    try:
        str(whole).encode()
    except UnicodeEncodeError:
        raise InputError(f"{str(whole)!r}: its name is not UTF-8; rename it, or choose another place") from None


def runtime_settings(name: str, pairs: Sequence[str]) -> RuntimeSettings:
    """Reads ``KEY=VALUE`` texts as a study's runtime section, for commands that have no study.

    Raises:
        InputError: A key is unknown, or a value is wrong.
    """
    data: dict[str, Any] = {"name": name}
    for pair in pairs:
        _override(data, pair, "--builder")
    try:
        return parse_settings(data)
    except ValidationError as error:
        raise InputError(f"--builder {_explain(error)}") from None


def write_study(config: StudyConfig, folder: Path) -> str:
    """Returns the composed study as YAML text for a file in `folder`, with paths relative to that folder."""
    with contextlib.suppress(ValueError):  # on another drive: absolute paths stay
        config = _map_paths(config, lambda text: os.path.relpath(text, os.path.realpath(folder)))
    return yaml.safe_dump(config.model_dump(), sort_keys=False, allow_unicode=True)


def _path_keys(config: StudyConfig) -> list[tuple[str, str]]:
    return [*PATH_KEYS, *(("runtime", key) for key in type(config.runtime).path_keys)]


def _map_paths(config: StudyConfig, change: typing.Callable[[str], str]) -> StudyConfig:
    data = config.model_dump()
    for section, key in _path_keys(config):
        if data[section][key] is not None:
            data[section][key] = change(data[section][key])
    return StudyConfig.model_validate(data)


def _override(data: dict[str, Any], override: str, option: str = "--set") -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        example = "search.trials=40" if option == "--set" else "optimization_level=1"
        raise InputError(f"{option} {override!r}: must be KEY=VALUE, e.g. {option} {example}")
    value = parse_yaml(text, f"{option} {key}")
    *sections, last = key.split(".")
    for name in sections:
        inner = data.setdefault(name, {})
        if not isinstance(inner, dict):
            raise InputError(f"{option} {override!r}: {name!r} is not a mapping of keys")
        data = inner
    data[last] = value


def _explain(error: ValidationError) -> str:
    """Turns one of pydantic's errors into one line: key, value, remedy. An unknown key explains a missing one."""
    first = min(error.errors(include_url=False), key=lambda entry: entry["type"] != "extra_forbidden")
    known = _known_names()
    parts = [
        part for part in first["loc"] if isinstance(part, int) or str(part) in known or first["loc"][0] == "runtime"
    ]
    unknown = str(first["loc"][-1]) if first["loc"] else ""
    key = ".".join(str(part) for part in (parts if first["type"] != "extra_forbidden" else first["loc"]))
    if first["type"] == "extra_forbidden":
        fields = _fields(first["loc"][:-1])
        return f"{key}: unknown key{nearest(unknown, fields)} (known: {', '.join(fields)})"
    if first["type"] in ("unknown_key", "other_runtime"):
        return f"{key}: {first['msg']}"
    if first["type"] == "missing":
        return f"{key}: missing; it has no default"
    message = first["msg"].removeprefix("Value error, ")
    if not key:
        return message
    value = first["input"]
    hint = ""
    if first["type"] == "literal_error" and isinstance(value, str):
        hint = nearest(value, first["ctx"]["expected"].replace("'", "").replace(" or ", ", ").split(", "))
    return f"{key}: {message[0].lower()}{message[1:]}, found {_short(value)}{hint}"


def _fields(location: Sequence[int | str]) -> list[str]:
    """Valid keys of the section at `location`."""
    section: type[BaseModel] = StudyConfig
    for part in location:
        if isinstance(part, str) and part in section.model_fields:
            section = _model_of(section.model_fields[part].annotation) or section
    return list(section.model_fields)


def _model_of(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((m for argument in typing.get_args(annotation) if (m := _model_of(argument))), None)


def _known_names() -> set[str]:
    """All key names, to tell them from pydantic's names of union members."""
    names: set[str] = set()
    sections: list[type[BaseModel]] = [StudyConfig]
    for section in sections:
        for name, field in section.model_fields.items():
            names.add(name)
            if inner := _model_of(field.annotation):
                sections.append(inner)
    return names


def _short(value: object) -> str:
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, int) and abs(value) >= 2**63:
        return "a huge number"
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number of thousands of digits somewhere in it, or a list in itself
        return f"a {type(value).__name__}"
    return text if len(text) <= 60 else f"{text[:57]}..."
