"""JSON schema of the study file, for editors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from objectives.runtimes import DEFAULT_RUNTIME
from objectives.runtimes.registry import RUNTIMES
from objectives.runtimes.settings import RuntimeSettings
from tuner.study.config import StudyConfig
from tuner.study.meanings import MEANINGS

#: A key: its path, and its field.
Key = tuple[str, FieldInfo]


def keys(model: type[BaseModel] = StudyConfig, path: str = "") -> Iterator[Key]:
    """All keys of a model with those of the sections inside it, in order; a section comes before its keys.

    Args:
        model: Of a section.
        path: What their paths begin with, e.g. ``search.``.
    """
    for name, field in model.model_fields.items():
        yield f"{path}{name}", field
        for section in _models(field.annotation):
            if not issubclass(section, RuntimeSettings):
                yield from keys(section, f"{path}{name}.")


def runtime_keys() -> dict[str, list[Key]]:
    """Keys of the runtime section: those of all under an empty name, and under its own what each built-in one adds."""
    common = list(RuntimeSettings.model_fields)
    found = {"": list(keys(RuntimeSettings, "runtime."))}
    for name in RUNTIMES.built_in():
        kind = RUNTIMES.get(name).settings_type
        found[name] = [(f"runtime.{key}", field) for key, field in kind.model_fields.items() if key not in common]
    return found


def meaning(path: str, field: FieldInfo) -> str:
    """What a key means, Markdown; empty where nobody said."""
    return field.description or MEANINGS.get(path, "")


def study_schema() -> dict[str, Any]:
    """Returns the schema: keys, types, defaults, and the meaning of each as its description."""
    schema = StudyConfig.model_json_schema()
    definitions = schema["$defs"]
    definitions.pop("RuntimeSettings", None)
    for model, path in _paths(StudyConfig, ""):
        _describe(schema if model is StudyConfig else definitions[model.__name__], model, path)
    kinds = {}
    for name in RUNTIMES.built_in():
        kind = RUNTIMES.get(name).settings_type
        own = kind.model_json_schema()
        definitions |= own.pop("$defs", {})
        _describe(own, kind, "runtime.")
        own["required"] = [] if name == DEFAULT_RUNTIME else ["name"]
        kinds[name] = own
    schema["properties"]["runtime"] = {"description": MEANINGS["runtime"], "anyOf": list(kinds.values())}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "tuner study"}


def _paths(model: type[BaseModel], path: str) -> Iterator[tuple[type[BaseModel], str]]:
    yield model, path
    for name, field in model.model_fields.items():
        for section in _models(field.annotation):
            if not issubclass(section, RuntimeSettings):
                yield from _paths(section, f"{path}{name}.")


def _describe(schema: dict[str, Any], model: type[BaseModel], path: str) -> None:
    schema.pop("description", None)  # a docstring, for those who read the code
    for name, field in model.model_fields.items():
        entry = schema["properties"][name]
        entry.pop("title", None)
        entry["description"] = meaning(f"{path}{name}", field)


def _models(annotation: Any) -> list[type[BaseModel]]:
    """Sections that a type consists of, whether in a list, a union or alone."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models(part)]
